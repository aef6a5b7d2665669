"""The matrix file: what is read, and that all that is wrong in it is said at once, each with its place."""

import importlib.metadata
import json
import os
import re
import sys
from dataclasses import asdict, replace
from pathlib import Path

import jsonschema
import pytest
import yaml
from bad_matrices import CASES, GOOD, SOURCE, added, changed
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from mnist_bench import config
from mnist_bench.catalogue import ENTRY_POINT_GROUP
from mnist_bench.cells import expand
from mnist_bench.config import positions
from mnist_bench.errors import ConfigError
from mnist_bench.records import CompileOptions, Floor, GateRule, Matrix, ModelEntry, Selector, Variant
from scripts import matrix_schema

ROOT = Path(__file__).parent.parent
SHIPPED = (ROOT / "benchmarks.yaml").read_text()
SCHEMA = matrix_schema.schema()
# The shipped matrix with its examples, and without what is said of them.
FULL = re.sub(r"^# (exclude:|include:|expect:|  - \{|- |  \w+: \w+$)", r"\1", SHIPPED, flags=re.MULTILINE)
FULL = re.sub(r"^(- |  precision)", r"  \1", FULL, flags=re.MULTILINE)  # indented, as a list under a key may be
FULL = re.sub(r" *#.*", "", FULL)
MERGED = """\
x-small: &small {batch_size: 100, model: cnn}
version: 1
models: [mlp, cnn]
devices: [cpu, cuda]
batch_sizes: [100, 1000]
variants:
  - &fast {name: fast, execution: compile, threads: 2}
  - {<<: *fast, name: faster, threads: 4}
exclude: [{<<: *small}, {<<: [*small, {device: cuda, model: mlp}], batch_size: 1000}]
"""
EAGER = "{model: mlp, device: cpu, batch_size: 100, variant: eager}"
ALIKE = ["~", "null", "true", "False", "0", "-12", "+3", "0x1F", "1.", ".5", "1.5e+3", "1.2.3", "tRUE", "0o8", "."]
# Of the line of a problem; the message never breaks the line.
PROBLEM = re.compile(r"^[^:]+:[1-9]\d*:[1-9]\d*: [^\n\r\x00-\x1f\x7f]+$")
SETTINGS = {"name": "a", "pipeline": "tensors", "precision": "bf16", "execution": "compile", "fused_optimizer": False}
SETTINGS |= dict.fromkeys(("channels_last", "fast_layers", "onednn_linear", "flush_denormal", "deterministic"), True)
SETTINGS |= {"workers": 2, "threads": 3, "processes": 1}
SETTINGS |= {"onednn": False}
COMPILED = {"scope": "step", "fullgraph": True, "dynamic": True, "cache": "warm"}
COMPILED |= {"options": {"epilogue_fusion": False, "cpp.threads": 1}}
LEAST = {"mlp": 0.85, "cnn": 0.95, "lenet5": 0.95}
MAX = Variant(name="max", execution="compile", compile=CompileOptions(mode="max-autotune"))
FASTER = tuple(Variant(name=name, execution="compile", threads=n) for name, n in (("fast", 2), ("faster", 4)))
EVERYTHING = Variant(**SETTINGS, compile=CompileOptions(**COMPILED))
FASTEST = Floor(model="mlp", device="cpu", min_train_samples_per_s=5000.0)
SMALL = Selector(model="cnn", batch_size=100)
CNN = ModelEntry(name="cnn", model="cnn")
FAST_CNN = ModelEntry(name="fast", model="cnn", optimizer="adamw", lr=0.01)
PLUGINS = 'models: ["mine:build", {model: "_pkg.mod:make", optimizer: sgd, lr: 0.01}, {model: "_m:b", name: own}]'


def parse(text: str, *, allow_plugins: bool = False) -> Matrix:
    return config.parse(text, source=SOURCE, allow_plugins=allow_plugins)


def problems(text: str, *, allow_plugins: bool = False) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        parse(text, allow_plugins=allow_plugins)
    return caught.value.problems


def validate(text: str) -> None:
    jsonschema.validate(yaml.safe_load(text), SCHEMA, jsonschema.Draft202012Validator)


def sizes(count: int) -> str:
    return changed(4, f"batch_sizes: [{', '.join(map(str, range(1, count + 1)))}]").replace("[cpu, cuda]", "[cpu]")


@pytest.mark.parametrize(
    ("text", "key", "expected"),
    [
        (FULL, "exclude", (Selector(model="cnn", batch_size=100, variant="compile"),)),
        (FULL, "expect", (*(Floor(model=name, min_accuracy=least) for name, least in LEAST.items()), FASTEST)),
        (changed(5, "variants: [{name: max, compile: {mode: max-autotune}, execution: compile}]"), "variants", (MAX,)),
        (changed(5, f"variants: [{json.dumps(SETTINGS | {'compile': COMPILED})}]"), "variants", (EVERYTHING,)),
        (changed(2, f"models: [cnn, {json.dumps(asdict(FAST_CNN))}]"), "models", (CNN, FAST_CNN)),
        *((changed(3, f"devices: [{one}]"), "devices", (one,)) for one in ("cuda", "cuda:1", "cuda:15", "mps", "xpu")),
        (added("seeds: 3"), "seeds", (0, 1, 2)),
        (added("seeds: [7, 0, 4294967295]"), "seeds", (7, 0, 2**32 - 1)),
        (added("exclude: [&one {device: cuda}, *one]"), "exclude", (Selector(device="cuda"),) * 2),
        (MERGED, "exclude", (SMALL, replace(SMALL, device="cuda", batch_size=1000))),
        (MERGED, "variants", FASTER),
        (added("gate: {margin: 0.05}"), "gate", (GateRule(margin=0.05),)),
        (added("gate: {memory: 0.1}"), "gate", (GateRule(memory=0.1),)),
        (added("gate: [{model: mlp, margin: 0.05}, {}]"), "gate", (GateRule(model="mlp", margin=0.05), GateRule())),
        (added("reference: compile"), "reference", "compile"),
        (added('name: "010"'), "name", "010"),
        (changed(5, "variants: [{name: 'on'}]"), "variants", (Variant(name="on"),)),
    ],
)
def test_what_is_written_arrives(text, key, expected):
    assert getattr(parse(text), key) == expected
    validate(text)


@pytest.mark.parametrize(
    "text",
    [
        "\ufeff" + GOOD.replace("\n", "\r\n"),
        "%YAML 1.2\n---\n" + GOOD + "...\n",
        added("exclude: []\ninclude: []\nexpect: []"),
    ],
)
def test_the_same_otherwise_written_and_defaults_are_those_of_the_records(text):
    matrix = parse(GOOD)
    axes = {axis: getattr(matrix, axis) for axis in ("models", "devices", "batch_sizes", "variants")}
    assert parse(text) == matrix == Matrix(**axes)


def test_include_puts_back_and_may_name_built_ins_that_are_on_no_axis():
    other = "{model: lenet5, device: xpu, batch_size: 3, variant: tutorial}"
    text = added(f"exclude: [{{model: mlp}}]\nreference: tutorial\ninclude: [{EAGER}, {other}]")
    assert [cell.id for cell in expand(parse(text))][-2:] == ["mlp/cpu/b100/eager", "lenet5/xpu/b3/tutorial"]


def test_exactly_ten_thousand_cells(monkeypatch):
    text = sizes(10_000).replace("[mlp, cnn]", "[mlp]").replace("[eager, compile]", "[eager]")
    assert len(expand(parse(text))) == 10_000
    monkeypatch.setattr(config, "expand", lambda matrix: pytest.fail("vast axes are never multiplied out"))
    more = text + "include: [{model: cnn, device: cpu, batch_size: 1, variant: eager}]\n"
    assert "more than 10,000" in problems(more)[0]
    assert "20,000 cells" in problems(sizes(5000))[0]


@pytest.mark.parametrize(("name", "text", "prefix", "phrase"), CASES, ids=[case[0] for case in CASES])
def test_one_fault_is_one_problem_with_its_place(name, text, prefix, phrase):
    found = problems(text)
    assert found[0].startswith(prefix)
    assert phrase in found[0]
    assert all(PROBLEM.match(problem) for problem in found)
    assert len(found) == 1 or name.startswith("include-without"), "a model that is missing is unknown, too"


class TestPlugins:
    def test_named_without_being_imported(self, tmp_path, monkeypatch):
        (tmp_path / "mine.py").write_text("raise SystemExit('imported')\n")
        monkeypatch.syspath_prepend(tmp_path)
        assert parse(changed(2, PLUGINS), allow_plugins=True).models == (
            ModelEntry(name="mine.build", model="mine:build"),
            ModelEntry(name="pkg.mod.make", model="_pkg.mod:make", optimizer="sgd", lr=0.01),
            ModelEntry(name="own", model="_m:b"),
        )
        assert "mine" not in sys.modules
        text = changed(2, 'models: ["mine:build", {model: "mine:other", name: mine.build}]')
        assert "duplicate model 'mine.build'" in problems(text, allow_plugins=True)[0]

    def test_entry_points_are_known_by_name(self, monkeypatch):
        point = importlib.metadata.EntryPoint("resnet", "nowhere:at_all", ENTRY_POINT_GROUP)
        monkeypatch.setattr(importlib.metadata, "entry_points", lambda *, group: [point])
        assert parse(changed(2, "models: [resnet]"), allow_plugins=True).models[0].model == "resnet"
        assert "add --allow-plugins" in problems(changed(2, "models: [resnet]"))[0]
        assert "(known: cnn, lenet5, mlp, resnet)" in problems(changed(2, "models: [vgg]"), allow_plugins=True)[0]


@pytest.mark.parametrize("text", [FULL, GOOD, SHIPPED])
def test_what_a_file_resolves_to_is_sound(text):
    assert config.checked(parse(text), source="x", allow_plugins=False) == parse(text)


@pytest.mark.parametrize(
    ("make", "phrase"),
    [
        (lambda path: path.write_bytes(b"name: \xff\n"), "not UTF-8 (byte 6 is 0xff)"),
        (lambda path: path.write_text("#" * (1 << 20) + "#"), "larger than 1,048,576 bytes"),
        (os.mkfifo, "is no regular file"),
    ],
    ids=["latin", "large", "pipe"],
)
def test_files_that_cannot_be_used(tmp_path, make, phrase):
    make(tmp_path / "m.yaml")
    with pytest.raises(ConfigError, match=rf"m\.yaml:1:1: .*{re.escape(phrase)}"):
        config.load(tmp_path / "m.yaml", allow_plugins=False)
    with pytest.raises(ConfigError, match="cannot be read"):
        config.load(Path("a\0b"), allow_plugins=False)


class TestShippedFiles:
    def test_schema_file_is_up_to_date(self):
        jsonschema.Draft202012Validator.check_schema(SCHEMA)
        shipped = json.loads((ROOT / "mnist_bench" / "schema.json").read_text())
        assert shipped == SCHEMA, "run: make docs"
        assert SHIPPED.startswith("# yaml-language-server: $schema=./mnist_bench/schema.json\n")

    @pytest.mark.parametrize("name", ["epochs-51", "device-gpu", "unknown-key", "models-empty", "null-exclude"])
    def test_schema_refuses_the_bad(self, name):
        with pytest.raises(jsonschema.ValidationError):
            validate(next(case[1] for case in CASES if case[0] == name))


def test_both_versions_of_yaml_read_alike_what_passes():
    for text in ALIKE:
        value = yaml.safe_load(text)
        for read in (positions.read_yaml11, positions.read_yaml12):
            assert (read(text), type(read(text))) == (value, type(value))


@given(st.text("0123456789._:-+eExXobBnNyYtTaAfFlL~= ", max_size=8))
def test_what_passes_is_what_pyyaml_reads(text):
    found = positions.Reader(f"a: {text}\n")
    if not found.problems and "a" in (found.values or {}):
        assert yaml.safe_load(f"a: {text}\n") == found.values


SIGNS = "[]{}:-,&*!|>'\"%@#?\n \t01e.~<a"
WORDS = ["mlp", "cpu", "cuda:0", "eager", "on", "010", "{}", "[[]]", "{name: x}", "{model: mlp}", "~", str(2**70)]
WORDS += ["-5", "70000", ".nan", "- ", "\n", ""]
# Words of a sound file: each may be another, anything, gone or there twice.
PIECES = re.findall(r"[\w.-]+|\W", FULL)


def spliced(changes: dict[int, str]) -> str:
    return "".join(changes.get(place, piece) for place, piece in enumerate(PIECES))


OTHERS = st.one_of(st.sampled_from(WORDS + PIECES), st.text(max_size=10), st.text(SIGNS, max_size=10))
TEXTS = st.one_of(
    st.dictionaries(st.integers(0, len(PIECES) - 1), OTHERS, min_size=1, max_size=4).map(spliced),
    st.text(SIGNS, max_size=60),
)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(TEXTS)
@example("\ud800" + FULL)
@example("\x85" + FULL)
@example("&a " + FULL)
@example("%TAG ! tag:x,2000:\n---\n" + FULL)
@example("%YAML " + "1" * 5000 + ".1\n---\n" + FULL)
def test_any_text_is_a_matrix_or_refused_with_every_problem_in_its_place(text):
    found, cells = (), ()
    try:
        cells = expand(parse(text))
    except ConfigError as error:
        found = error.problems
    assert bool(found) != bool(cells)
    assert all(PROBLEM.match(problem) for problem in found)
    assert len(cells) == len(set(cells)) <= 10_000
    if cells:
        validate(text)
