"""About how long a cell takes, and what this machine must skip, as far as it can be known without torch."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from bad_matrices import GOOD
from record_factory import keep, make_cell, make_epochs, make_failed, make_manifest, make_measurement, make_trial

from mnist_bench.cells import expand
from mnist_bench.config import parse
from mnist_bench.machine.forecast import Host, earlier_trials, estimate, skip_reason
from mnist_bench.records import BUILTIN_VARIANTS, Cell, CompileOptions, Matrix, Variant


def host(**changes: object) -> Host:
    plain = Host(platform="linux", torch_version="2.10.0", find_program=lambda name: f"/bin/{name}", environ={})
    return dataclasses.replace(plain, **changes)  # type: ignore[arg-type]


class TestEstimate:
    cell = Cell(model="mlp", device="cpu", batch_size=100, variant="eager")
    matrix = parse(GOOD, source="x", allow_plugins=False)

    @staticmethod
    def seconds(cell: Cell, matrix: Matrix, seeds: int = 1, cores: int = 2) -> float:
        return estimate(cell, matrix, seeds, cores=cores)

    def test_more_work_takes_longer(self) -> None:
        plain = self.seconds(self.cell, self.matrix)
        assert self.seconds(dataclasses.replace(self.cell, model="cnn"), self.matrix) > plain
        assert self.seconds(dataclasses.replace(self.cell, variant="compile"), self.matrix) == plain + 25
        assert self.seconds(dataclasses.replace(self.cell, variant="tutorial"), self.matrix) > plain + 20
        assert self.seconds(self.cell, self.matrix, seeds=3) > 2 * plain - self.matrix.timing.budget_seconds
        assert self.seconds(self.cell, self.matrix, cores=1) > plain
        assert self.seconds(self.cell, dataclasses.replace(self.matrix, recipe="tutorial")) > plain

    def test_earlier_runs_win_and_scale_with_epochs(self) -> None:
        one_epoch = make_epochs((3.75,), (0.9,))  # and a quarter of a second for its evaluation
        past = [make_measurement(epochs=one_epoch, token_s=token_s) for token_s in (10.0, 12.0, 90.0)]
        assert estimate(self.cell, self.matrix, 3, cores=2, past=past) == 3 * (12.0 + 4.0)

    def test_default_matrix_fits_ten_minutes_on_two_cores(self) -> None:
        text = (Path(__file__).parents[2] / "benchmarks.yaml").read_text()
        matrix = parse(text, source="x", allow_plugins=False)
        cells = [cell for cell in expand(matrix) if cell.device == "cpu"]
        assert sum(self.seconds(cell, matrix) for cell in cells) < 600

    def test_reads_earlier_trials_and_leaves_out_a_broken_run(self, tmp_path: Path) -> None:
        good = make_trial(self.cell, outcome=make_measurement(token_s=20.0))
        others = [make_failed(make_cell("cnn")), make_trial(make_cell("lenet5"), recipe="tutorial")]
        keep(tmp_path, make_manifest([good, *others]), [good, *others])
        broken = keep(tmp_path, make_manifest([good], run_id="20261124T101500Z-a1b2c3"))
        (broken.path / "trials.jsonl").write_text("[\n[\n")
        assert earlier_trials(tmp_path, "standard") == {self.cell: [good.outcome]}
        assert earlier_trials(tmp_path / "absent", "standard") == {}


NO_PROGRAM = host(find_program=lambda name: None)
AOT = Variant(name="a", execution="compile", compile=CompileOptions(backend="aot_eager"))


@pytest.mark.parametrize(
    ("device", "variant", "machine", "phrase"),
    [
        ("cpu", "eager", NO_PROGRAM, None),
        ("cuda", "eager", host(), None),
        ("cuda:1", "eager", host(environ={"CUDA_VISIBLE_DEVICES": "0,3"}), None),
        ("cuda:1", "eager", host(environ={"CUDA_VISIBLE_DEVICES": "3"}), "leaves 1 GPU,"),
        ("cuda:1", "eager", host(environ={"CUDA_VISIBLE_DEVICES": "0,-1,2"}), "leaves 1 GPU,"),
        ("cuda", "eager", host(environ={"CUDA_VISIBLE_DEVICES": ""}), "leaves 0 GPUs"),
        ("cuda", "eager", host(torch_version="2.13.0+cpu"), "built without CUDA"),
        ("cuda", "eager", host(platform="darwin"), "macOS has no CUDA"),
        ("cuda", "eager", host(find_program=lambda _: None, torch_version=None), "skipped unless torch sees one"),
        ("mps", "eager", host(), "only on macOS"),
        ("mps", "eager", host(platform="darwin"), None),
        ("cpu", "compile", host(), None),
        ("cpu", "compile", NO_PROGRAM, "torch.compile needs a C++ compiler (g++ not found), will be skipped: apt"),
        ("cpu", "compile", dataclasses.replace(NO_PROGRAM, platform="darwin"), "skipped: xcode-select --install"),
        ("cpu", "compile", dataclasses.replace(NO_PROGRAM, environ={"CXX": "icpx"}), "(icpx not found)"),
        ("cpu", "compile", host(environ={"TMPDIR": "/a b"}), "folder with a space (/a b)"),
        ("cpu", "compile", host(environ={"TMPDIR": "", "TEMP": "/a b", "TMP": "/c"}), "folder with a space (/a b)"),
        ("cpu", "compile", host(environ={"TMPDIR": "/c", "TEMP": "/a b"}), None),
        ("cpu", "aot", NO_PROGRAM, None),
        ("mps", "compile", NO_PROGRAM, "mps: "),  # the device comes first
    ],
)
def test_skips(device: str, variant: str, machine: Host, phrase: str | None) -> None:
    cell = Cell(model="mlp", device=device, batch_size=1, variant=variant)
    reason = skip_reason(cell, BUILTIN_VARIANTS.get(variant, AOT), machine)
    assert reason is None if phrase is None else phrase in str(reason)
