"""The documents say what is: commands, flags, files, constants and columns exist; snippets parse; links resolve."""

import argparse
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from mnist_bench import config
from mnist_bench.cli import COMMANDS, build_parser
from mnist_bench.errors import BenchError, ConfigError, Interrupted, UsageError
from mnist_bench.figures import KEYS

ROOT = Path(__file__).resolve().parent.parent
REFERENCE = (ROOT / "docs" / "cli.md").read_text("utf-8")
DECISIONS = sorted((ROOT / "docs" / "decisions").glob("*.md"))
DOCUMENTS = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *sorted(ROOT.glob("docs/*.md")),
    ROOT / "docs" / "example" / "README.md",
]
DOCUMENTS += DECISIONS
HEREDOC = re.compile(r"^cat > (\S+) <<'EOF'\n(.*\n)EOF$", re.DOTALL)
OTHERS = ("git", "ray", "cd", ".", "python3", "pip", ".venv/bin/pip", "ls", "cat", "echo", "sh", "ssh", "sbatch")
FOREIGN_FLAGS = {"--index-url", "--strict", "--version", "--head", "--address"}  # of pip, mypy, the program itself, Ray
FOREIGN_NAMES = {"PDEATHSIG", "RLIMIT_AS", "MATRIX", "ARGS", "TORCH", "NAME"}  # of the kernel, of make, a placeholder
FOREIGN_NAMES |= {"GLIBC_TUNABLES", "PYTHONMALLOC", "PYTHONSAFEPATH"}  # of the C library and of Python
FOREIGN_NAMES |= {"MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_HTTP_REQUEST_MAX_RETRIES"}
READERS_OWN = {"captions.txt", "my_model.py", "my_images.py", "my_matrix.yaml"}
RUN_PARTS = ("samples/", "logs/", "results/", "MNIST/raw/", ".venv")  # folders that come with use
MAKE_TARGETS = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))


class Block(NamedTuple):
    """A fenced block: its language and its text."""

    language: str
    text: str


class Command(NamedTuple):
    """A command of a ``console`` block, a here-document included, and what the document shows of the screen.

    ``interrupted``: a line ``^C`` stands in the screen.
    """

    text: str
    screen: tuple[str, ...]

    @property
    def interrupted(self) -> bool:
        return "^C" in self.screen


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


def blocks(text: str) -> list[Block]:
    found = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert len(re.findall(r"^```", text, re.MULTILINE)) == 2 * len(found), "a fence is not closed"
    return [Block(*each) for each in found]


def commands(text: str) -> list[Command]:
    """The commands of a document in order."""
    return [each for block in blocks(text) if block.language in ("console", "sh") for each in _commands(block.text)]


def _commands(block: str) -> Iterator[Command]:
    lines = block.splitlines()
    starts = [number for number, line in enumerate(lines) if line.startswith("$ ")]
    assert starts[:1] == [0], f"a console block begins with a command: {block!r}"
    for start, stop in zip(starts, [*starts[1:], len(lines)], strict=True):
        end = lines.index("EOF", start) if "<<'EOF'" in lines[start] else start
        yield Command("\n".join(lines[start : end + 1])[2:], tuple(lines[end + 1 : stop]))


def files_written(text: str) -> dict[str, str]:
    """The files that a document has its reader write by here-documents."""
    return dict(match.groups() for each in commands(text) if (match := HEREDOC.match(each.text)))


def prose(text: str) -> str:
    return re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)


def inline_code(path: Path) -> list[str]:
    return [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", prose(path.read_text("utf-8")))]


def slugs(path: Path) -> set[str]:
    """The anchors of a document's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", prose(path.read_text("utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def actions_of(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """What a parser and those below it take."""
    for action in parser._actions:
        yield action
        for each in action.choices.values() if isinstance(action.choices, dict) else ():
            yield from actions_of(each)


SOURCE = "\n".join(file.read_text("utf-8") for file in (ROOT / "mnist_bench").rglob("*.py"))
ACTIONS = [action for name in COMMANDS for action in actions_of(build_parser(name))]
ALL_FLAGS = {flag for action in ACTIONS for flag in action.option_strings}
ALL_COMMANDS = [
    pytest.param(each, id=f"{path.name}: {each.text.splitlines()[0]}")
    for path in DOCUMENTS
    for each in commands(path.read_text("utf-8"))
]
SNIPPETS = [
    pytest.param(block.language, block.text, id=f"{path.name}-{number}")
    for path in DOCUMENTS
    for number, block in enumerate(blocks(path.read_text("utf-8")))
    if block.language == "python" or (block.language == "yaml" and "\njobs:\n" not in block.text)  # test_workflows
] + [
    pytest.param("yaml" if name.endswith(".yaml") else "python", text, id=f"{path.name}-{name}")
    for path in DOCUMENTS
    for name, text in files_written(path.read_text("utf-8")).items()
    if not name.endswith(".sh")  # test_without_a_cluster
]


def understood(words: list[str], *others: str) -> None:
    """A command of the program's that its parser takes, a target of make, or one of ``others``."""
    match words:
        case ["mnist-bench", *arguments]:
            build_parser(next(word for word in arguments if word in COMMANDS)).parse_args(arguments)
        case ["make", *targets]:
            assert {target for target in targets if "=" not in target} <= MAKE_TARGETS
        case [program, *_]:
            assert program in others


@pytest.mark.parametrize("command", ALL_COMMANDS)
def test_command_is_one_that_exists(command):
    if not HEREDOC.match(command.text):
        understood(shlex.split(command.text), *OTHERS)


@pytest.mark.parametrize(("language", "text"), SNIPPETS)
def test_snippet_is_sound(language, text):
    if language == "yaml":
        config.parse(text, source="snippet.yaml", allow_plugins=True)
    else:
        compile(text, "snippet.py", "exec")


def dead_links(path: Path) -> Iterator[str]:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(path.read_text("utf-8"))):
        name, _, anchor = target.partition("#")
        linked = (path.parent / name).resolve() if name else path
        there = linked.exists() and (not anchor or anchor in slugs(linked))
        if not there and not target.startswith(("http://", "https://")):
            yield target


def unknown_flags(path: Path) -> Iterator[str]:
    used = (flag for code in inline_code(path) for flag in re.findall(r"(?<!\S)--[a-z][a-z-]+", code))
    yield from set(used) - FOREIGN_FLAGS - ALL_FLAGS


def unknown_constants(path: Path) -> Iterator[str]:
    named = (word for each in inline_code(path) for word in re.findall(r"^\$?([A-Z][A-Z0-9_]{3,})(?:=.*)?$", each))
    yield from (name for name in set(named) - FOREIGN_NAMES if not re.search(rf"\b{name}\b", SOURCE))


def missing_files(path: Path) -> Iterator[str]:
    for word in inline_code(path):
        if re.fullmatch(r"[\w.-]+(/[\w.-]+)*(\.(py|yaml|toml|txt)|/)", word) and word not in READERS_OWN:
            places = (ROOT / word, ROOT / "mnist_bench" / word, path.parent / word)
            if not (any(place.exists() for place in places) or "NAME" in word or word.startswith(RUN_PARTS)):
                yield word


@pytest.mark.parametrize("path", DOCUMENTS, ids=named)
def test_what_a_document_names_exists(path):
    for missing in (dead_links, unknown_flags, unknown_constants, missing_files):
        assert list(missing(path)) == [], missing.__name__
    for word in inline_code(path):
        if re.fullmatch(r"(data|list) \w+", word):
            understood(["mnist-bench", *word.split()])


def test_readme_has_every_command_and_no_other():
    table = (ROOT / "README.md").read_text("utf-8").partition("## Commands")[2]
    rows = re.findall(r"^\| (`[^|]+) \| .+ \|$", table, re.MULTILINE)
    assert sorted(name for row in rows for name in re.findall(r"`(\w+)`", row)) == sorted(COMMANDS)


def test_columns_that_are_explained_exist():
    table = (ROOT / "docs" / "measurement.md").read_text("utf-8").partition("## Clocks and columns")[2]
    explained = re.findall(r"^\| `(\w+)`", table.partition("\n## ")[0], re.MULTILINE)
    assert len(explained) > 10
    assert set(explained) <= {re.sub(r"_p95$", "", column) for column in KEYS}


def test_every_room_is_in_the_architecture_which_is_short():
    text = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    assert len(text.splitlines()) <= 120
    for room in sorted((ROOT / "mnist_bench").iterdir()):
        if room.is_dir() and (room / "__init__.py").exists():
            assert f"`{room.name}/" in text, f"{room.name}/ has no place in docs/architecture.md"
        elif room.suffix == ".py" and not room.name.startswith("__"):
            assert f"`{room.name}`" in text, f"{room.name} has no place in docs/architecture.md"


def test_decisions_have_their_form_and_numbers_without_a_gap():
    for number, path in enumerate(DECISIONS, start=1):
        text = path.read_text("utf-8")
        assert path.name.startswith(f"{number:04}-")
        assert text.startswith(f"# {number:04}: ")
        assert re.findall(r"^## (\w+)$", text, re.MULTILINE) == ["Context", "Decision", "Consequence"]
        assert len(text.splitlines()) <= 40, f"{path.name}: half a page"


def plain(text: str) -> list[str]:
    """Words alone: from Python 3.13 on argparse writes ``-o, --output DIR`` and breaks lines elsewhere."""
    return re.sub(r"(-\w) (\S+), (--[\w-]+) \2", r"\1, \3 \2", text).split()


def test_reference_of_the_command_line_is_what_the_parsers_say():
    command = [sys.executable, "scripts/cli_reference.py"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert (done.returncode, done.stderr) == (0, "")
    assert plain(REFERENCE) == plain(done.stdout), "docs/cli.md is stale: run `make docs`"


def test_exit_codes_are_those_of_the_program():
    meanings = {int(code): meaning for code, meaning in re.findall(r"^\| (\d+) \| (.+) \|$", REFERENCE, re.MULTILINE)}
    assert sorted(meanings) == [0, 1, 2, 3, 4, 5, 130]
    assert "failed" in meanings[BenchError.exit_code]
    assert meanings[UsageError.exit_code] == meanings[ConfigError.exit_code] == "usage or configuration"
    assert "--resume" in meanings[Interrupted.exit_code]
    table = (ROOT / "docs" / "ci.md").read_text("utf-8").partition("| exit code |")[2].partition("\n\n")[0]
    of_ci = {int(code) for row in re.findall(r"^\| ([\d, ]+) \|", table, re.MULTILINE) for code in row.split(", ")}
    assert of_ci == meanings.keys() - {Interrupted.exit_code}


def test_o_is_the_results_folder_everywhere_and_nothing_else():
    assert {(*one.option_strings, one.dest) for one in ACTIONS if "-o" in one.option_strings} == {
        ("-o", "--output-dir", "output_dir")
    }


HEAVY = ("torch", "pydantic", "numpy", "pandas", "yaml")
LIGHT = [("--help", HEAVY), *((f"{command} --help", HEAVY) for command in COMMANDS)]
LIGHT += [(line, ("torch",)) for line in ("", "plan", "list models", "list devices", "schema")]


@pytest.mark.parametrize(("line", "heavy"), LIGHT)
def test_what_only_tells_loads_nothing_heavy(line, heavy):
    code = (
        f"import sys\nfrom mnist_bench.cli import main\ntry: assert main({line.split()}) == 0\n"
        f"except SystemExit as end: assert not end.code\n"
        f"sys.exit(' '.join(name for name in {heavy} if name in sys.modules) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT)
    assert (done.returncode, done.stderr) == (0, "")
