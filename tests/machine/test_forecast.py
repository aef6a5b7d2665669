"""About how long a cell takes, and what this machine must skip, as far as it can be known without torch."""

import dataclasses
from pathlib import Path

import pytest
from bad_matrices import GOOD

from mnist_bench.cells import expand
from mnist_bench.config import parse
from mnist_bench.machine.forecast import Host, skip_reason, trial_s
from mnist_bench.records import BUILTIN_VARIANTS, Cell, CompileOptions, Matrix, Variant


def host(**changes: object) -> Host:
    plain = Host(platform="linux", torch_version="2.10.0", find_program=lambda name: f"/bin/{name}", environ={})
    return dataclasses.replace(plain, **changes)


class TestEstimate:
    cell = Cell(model="mlp", device="cpu", batch_size=100, variant="eager")
    matrix = parse(GOOD, source="x", allow_plugins=False)

    @staticmethod
    def seconds(cell: Cell, matrix: Matrix, cores: int = 2) -> float:
        return trial_s(cell, matrix, matrix.epochs, cores)

    def test_more_work_takes_longer(self):
        plain = self.seconds(self.cell, self.matrix)
        assert self.seconds(dataclasses.replace(self.cell, model="cnn"), self.matrix) > plain
        assert self.seconds(dataclasses.replace(self.cell, variant="compile"), self.matrix) == plain + 25
        assert self.seconds(dataclasses.replace(self.cell, variant="tutorial"), self.matrix) > plain + 20
        assert self.seconds(self.cell, self.matrix, cores=1) > plain
        assert self.seconds(self.cell, dataclasses.replace(self.matrix, recipe="tutorial")) > plain

    def test_default_matrix_fits_ten_minutes_on_two_cores(self):
        text = (Path(__file__).parents[2] / "benchmarks.yaml").read_text()
        matrix = parse(text, source="x", allow_plugins=False)
        cells = [cell for cell in expand(matrix) if cell.device == "cpu"]
        assert sum(self.seconds(cell, matrix) + matrix.timing.budget_seconds for cell in cells) < 600


NO_PROGRAM = host(find_program=lambda name: None)
AOT = Variant(name="a", execution="compile", compile=CompileOptions(backend="aot_eager"))
TWO = Variant(name="two", processes=2)
APART = Variant(name="apart", processes=2, nodes=2)


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
        ("mps", "two", host(platform="darwin"), "two: several processes train on cpu and cuda"),
        ("cpu", "apart", host(), "apart: on 2 machines, will be skipped without --rendezvous HOST:PORT, an address"),
        ("cpu", "compile", host(), None),
        ("cpu", "compile", NO_PROGRAM, "torch.compile needs a C++ compiler (g++ not found), will be skipped: apt"),
        ("cpu", "compile", dataclasses.replace(NO_PROGRAM, platform="darwin"), "skipped: xcode-select --install"),
        ("cpu", "compile", dataclasses.replace(NO_PROGRAM, environ={"CXX": "icpx"}), "(icpx not found)"),
        ("cpu", "compile", host(environ={"TMPDIR": "/a b"}), "folder with a space (/a b)"),
        ("cpu", "compile", host(environ={"TMPDIR": "", "TEMP": "/a b", "TMP": "/c"}), "folder with a space (/a b)"),
        ("cpu", "compile", host(environ={"TMPDIR": "/c", "TEMP": "/a b"}), None),
        ("cpu", "aot", NO_PROGRAM, None),
        (
            "cpu",
            "cuda-graph",
            host(),
            "cuda-graph: execution cuda_graph exists on cuda alone, not on cpu, will be skip",
        ),
        ("mps", "compile-cuda-graph", host(platform="darwin"), "exists on cuda alone, not on mps"),
        ("cuda:1", "cuda-graph", host(), None),
        ("cuda", "compile-cuda-graph", NO_PROGRAM, "no NVIDIA driver"),
        ("mps", "compile", NO_PROGRAM, "mps: "),  # the device comes first
    ],
)
def test_skips(device, variant, machine, phrase):
    cell = Cell(model="mlp", device=device, batch_size=1, variant=variant)
    reason = skip_reason(cell, {**BUILTIN_VARIANTS, "two": TWO, "apart": APART}.get(variant, AOT), machine)
    assert reason is None if phrase is None else phrase in str(reason)
