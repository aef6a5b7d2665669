"""``mnist-bench export`` as a user meets it: where the bytes go, what is refused, and the exit codes."""

from __future__ import annotations

import json
import os
import stat
import sys
from pathlib import Path

import pytest
from export_kit import every_kind, from_disk, hostile, nothing_measured, on_disk, records
from record_factory import make_trial

from mnist_bench.cli import export, main
from mnist_bench.exporters import EXPORTERS

ROOT = Path(__file__).resolve().parents[2]
CONTRACT = ("pytest-benchmark", "bmf", "github-action-benchmark", "junit", "csv", "parquet")
ONE_FILE = [name for name, exporter in EXPORTERS.items() if len(exporter.files) == 1]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a run in ``results/``, which is the current one."""
    monkeypatch.chdir(tmp_path)
    on_disk(tmp_path / "results", every_kind())
    return tmp_path


def called(capfdbinary: pytest.CaptureFixture[bytes], *arguments: str) -> tuple[int, bytes, str]:
    code = main(["export", *arguments])
    out, err = capfdbinary.readouterr()
    return code, out, err.decode()


def test_formats_are_those_of_the_contract() -> None:
    assert tuple(EXPORTERS) == CONTRACT


@pytest.mark.parametrize("name", ONE_FILE)
def test_stdout_and_file_are_the_same(name: str, here: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    code, out, _ = called(capfdbinary, "latest", "--format", name)
    assert code == 0
    assert called(capfdbinary, "latest", "--format", name, "--output", "out/file")[:2] == (0, b"")
    assert (here / "out" / "file").read_bytes() == out
    (export_file,) = EXPORTERS[name].files.values()
    assert out == export_file(*from_disk(here / "results").all)
    assert [path.name for path in (here / "out").iterdir()] == ["file"]  # nothing temporary is left


def test_what_is_left_out_is_said(here: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    assert (
        "3 of 5 cells are left out: without a finished timing session"
        in called(capfdbinary, "latest", "--format", "pytest-benchmark")[2]
    )
    assert "2 of 5 cells are left out: without a measured figure" in called(capfdbinary, "latest", "--format", "bmf")[2]
    assert called(capfdbinary, "latest", "--format", "csv")[2] == ""


class TestTwoFiles:
    FORMAT = ("--format", "github-action-benchmark")

    def test_into_a_folder(self, here: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
        assert called(capfdbinary, "latest", *self.FORMAT, "--output", "out")[:2] == (0, b"")
        assert sorted(path.name for path in (here / "out").iterdir()) == [
            "bigger-is-better.json",
            "smaller-is-better.json",
        ]

    @pytest.mark.parametrize("direction", export.DIRECTIONS)
    def test_one_of_them(self, direction: str, here: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
        wanted = (*self.FORMAT, "--direction", direction)
        code, out, _ = called(capfdbinary, "latest", *wanted)
        assert code == 0
        units = {entry["unit"] for entry in json.loads(out)}
        assert ("samples/s" in units) is (direction == "bigger")
        called(capfdbinary, "latest", *wanted, "--output", "one.json")
        assert (here / "one.json").read_bytes() == out

    def test_stdout_needs_a_choice(self, here: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
        code, out, err = called(capfdbinary, "latest", *self.FORMAT)
        assert (code, out) == (2, b"")
        assert "--direction smaller or --direction bigger" in err

    def test_a_file_is_no_folder(self, here: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
        (here / "out").write_text("mine")
        code, _, err = called(capfdbinary, "latest", *self.FORMAT, "--output", "out")
        assert code == 2
        assert "is no folder" in err
        assert (here / "out").read_text() == "mine"

    def test_other_formats_have_no_direction(self, here: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
        code, _, err = called(capfdbinary, "latest", "--format", "csv", "--direction", "bigger")
        assert code == 2
        assert "leave --direction out" in err


class TestPlaces:
    def test_a_folder_gets_the_name_of_the_format(self, here: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
        assert called(capfdbinary, "latest", "--format", "junit", "--output", ".")[0] == 0
        assert (here / "junit.xml").is_file()

    def test_a_link_is_followed(self, here: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
        (here / "link").symlink_to("target.csv")
        assert called(capfdbinary, "latest", "--format", "csv", "--output", "link")[0] == 0
        assert (here / "link").is_symlink()
        assert (here / "target.csv").is_file()

    def test_a_pipe_stays_a_pipe(self, here: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
        os.mkfifo(here / "pipe")
        reader = os.open(here / "pipe", os.O_RDONLY | os.O_NONBLOCK)
        try:
            assert called(capfdbinary, "latest", "--format", "csv", "--output", "pipe")[0] == 0
            assert os.read(reader, 1 << 16).startswith(b"model,device")
        finally:
            os.close(reader)
        assert stat.S_ISFIFO((here / "pipe").stat().st_mode)

    def test_what_cannot_be_written_is_an_error(self, here: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
        (here / "file").write_text("")
        code, _, err = called(capfdbinary, "latest", "--format", "csv", "--output", "file/out.csv")
        assert code == 2
        assert err.startswith("mnist-bench: --output file/out.csv: cannot be written:")

    def test_a_failed_write_leaves_what_was_there(
        self, here: Path, capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (here / "out.csv").write_text("before")

        def full(descriptor: int) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("mnist_bench.files.os.fsync", full)
        code, _, err = called(capfdbinary, "latest", "--format", "csv", "--output", "out.csv")
        assert code == 2
        assert "No space left on device" in err
        assert (here / "out.csv").read_text() == "before"
        assert sorted(path.name for path in here.iterdir()) == ["out.csv", "results"]

    def test_binary_is_not_for_a_terminal(
        self, here: Path, capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
        code, out, err = called(capfdbinary, "latest", "--format", "parquet")
        assert (code, out) == (2, b"")
        assert "--output" in err
        assert called(capfdbinary, "latest", "--format", "csv")[0] == 0


class TestNothingMeasured:
    @pytest.fixture(autouse=True)
    def run(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        on_disk(tmp_path / "results", nothing_measured())

    @pytest.mark.parametrize("name", ["junit", "csv", "parquet"])
    def test_rows_are_written_all_the_same(self, name: str, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
        code, out, err = called(capfdbinary, "latest", "--format", name)
        assert code == 5
        assert out == next(iter(EXPORTERS[name].files.values()))(*nothing_measured().all)
        assert err == "mnist-bench: no cell has a measured figure\n"

    @pytest.mark.parametrize("name", ["pytest-benchmark", "bmf", "github-action-benchmark"])
    def test_a_file_without_an_entry_is_not(
        self, name: str, capfdbinary: pytest.CaptureFixture[bytes], tmp_path: Path
    ) -> None:
        code, _, err = called(capfdbinary, "latest", "--format", name, "--output", "out")
        assert code == 5
        assert "nothing is written" in err
        assert not (tmp_path / "out").exists()


def test_measured_but_never_timed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    monkeypatch.chdir(tmp_path)
    on_disk(tmp_path / "results", records([make_trial()], status="interrupted"))
    code, out, err = called(capfdbinary, "latest", "--format", "pytest-benchmark")
    assert (code, out) == (5, b"")
    assert "the run is interrupted" in err
    assert "no cell has a finished timing session" in err
    assert called(capfdbinary, "latest", "--format", "bmf")[0] == 0


def test_filter(here: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    _, out, _ = called(capfdbinary, "latest", "--format", "bmf", "--filter", "variant=compile")
    assert list(json.loads(out)) == ["mlp/cpu/b100/compile"]
    code, _, err = called(capfdbinary, "latest", "--format", "bmf", "--filter", "model=lenet")
    assert code == 2
    assert "lenet" in err


@pytest.mark.parametrize("arguments", [["nowhere", "--format", "csv"], ["latest", "--format", "xml"], ["latest"]])
def test_usage_errors(arguments: list[str], here: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    try:
        code = main(["export", *arguments])
    except SystemExit as error:  # argparse
        code = error.code
    assert code == 2
    assert b"Traceback" not in capfdbinary.readouterr().err


def test_run_of_a_path_elsewhere(
    here: Path, tmp_path_factory: pytest.TempPathFactory, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    elsewhere = on_disk(tmp_path_factory.mktemp("elsewhere"), nothing_measured())
    assert called(capfdbinary, str(elsewhere.path), "--format", "csv")[0] == 5


@pytest.mark.parametrize("name", CONTRACT)
def test_hostile_run_from_disk(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    monkeypatch.chdir(tmp_path)
    on_disk(tmp_path / "results", hostile())
    code, out, err = called(capfdbinary, "latest", "--format", name, "--output", "out/")
    assert (code, out) == (0, b"")
    assert all(line.isprintable() for line in err.splitlines())


def test_the_document_names_every_format_file_and_measure() -> None:
    from mnist_bench.exporters.measures import MEASURES

    text = (ROOT / "docs" / "exports.md").read_text("utf-8")
    for name, exporter in EXPORTERS.items():
        assert f"## {name}" in text
        assert all(f"`{file}`" in text for file in exporter.files)
    for measure in MEASURES:
        assert f"| {measure.title} | {measure.unit} | {measure.better} | `{measure.slug}` |" in text
