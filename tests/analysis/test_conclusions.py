"""Sentences from ratios: what is shown, what cannot be told, how many seeds would, and the command that does it."""

import argparse
import math
import shlex

import numpy as np
import pytest
from record_factory import make_cell
from run_factory import matrix_of, records

from mnist_bench.analysis.answers import BatchPoint, BreakEven, Crossover, seeds_to_tell
from mnist_bench.analysis.compare import Comparison, Line
from mnist_bench.analysis.conclusions import conclude, told
from mnist_bench.analysis.ratios import SpeedUp
from mnist_bench.analysis.results import answers
from mnist_bench.analysis.summary import Run
from mnist_bench.cells import select
from mnist_bench.cli import build_parser, options
from mnist_bench.cli import run as command
from mnist_bench.records import Cell
from mnist_bench.stats import NORMAL_QUANTILE, Interval, t_interval

FASTER, SLOWER, UNTOLD = (1.09, 1.05, 1.13), (0.87, 0.83, 0.91), (0.985, 0.95, 1.02)


def line(ratio: tuple[float, ...], this: Cell, other: Cell, paired: str = "within") -> Line:
    return Line(
        cell=this, reference=other, status="ok", reason="", sides=(), speed_up=SpeedUp(Interval(*ratio), paired)
    )


def said(by: str, *lines: Line, **more: object) -> str:
    (answer,) = conclude([Comparison(runs=("r",), by=by, reference="", lines=lines, more_seeds=by != "run", **more)])
    return answer.text


def compiled(*ratios: tuple[float, ...], device: str = "cpu") -> list[Line]:
    cells = [{"device": device, "batch_size": size} for size in (100, 1000, 10_000)]
    pairs = zip(ratios, cells, strict=False)
    return [line(ratio, make_cell(variant="compile", **cell), make_cell(**cell)) for ratio, cell in pairs]


@pytest.mark.parametrize(
    ("ratio", "paired", "expected"),
    [
        (FASTER, "within", "faster"),
        (SLOWER, "unpaired", "slower"),
        (UNTOLD, "within", "untold"),
        ((1.001, 0.98, 1.025), "between", "same"),
        ((1.02, 1.01, 1.025), "between", "faster"),
        ((1.0, 0.97, 1.02), "between", "untold"),  # 1 / 1.03 is 0.971
        ((1.6,), "within", "untold"),
        ((1.6,), "unpaired", "faster"),  # beyond 1.96 standard deviations of 0.2
        ((0.6,), "unpaired", "slower"),
        ((1.4,), "unpaired", "untold"),
    ],
)
def test_three_things_can_be_said(ratio, paired, expected):
    assert told(SpeedUp(Interval(*ratio), paired)) == expected
    assert told(SpeedUp(Interval(*ratio), paired), noisy=True) == (expected if len(ratio) > 1 else "untold")


@pytest.mark.parametrize("sd", [0.015, 0.02, 0.03])
@pytest.mark.parametrize("log", [0.0, 0.01, -0.02, 0.03])
def test_so_many_seeds_mostly_tell(sd, log):
    half = NORMAL_QUANTILE * sd
    seeds = seeds_to_tell(SpeedUp(Interval(log, log - half, log + half).exp(), "within"), 1)
    samples = np.random.default_rng(0).normal(log, sd, (1000, seeds))
    told_of = [told(SpeedUp(t_interval(sample).exp(), "between")) != "untold" for sample in samples]
    assert 0.65 < np.mean(told_of) <= 1, seeds


def test_several_seeds_say_how_far_one_spreads():
    one = SpeedUp(Interval(0.02, 0.02 - 0.04, 0.02 + 0.04).exp(), "within")
    half = 0.04 / NORMAL_QUANTILE * 2.7764 / math.sqrt(5)  # Student's of 5 seeds that spread as much
    five = SpeedUp(Interval(0.02, 0.02 - half, 0.02 + half).exp(), "between")
    assert seeds_to_tell(five, 5) == seeds_to_tell(one, 1) == 11
    assert seeds_to_tell(SpeedUp(Interval(1.6), "within"), 1) == 3
    assert seeds_to_tell(SpeedUp(Interval(1.0, 0.5, 2.0), "within"), 1) is None


def test_a_sentence_says_how_much_where_and_when_it_pays():
    lines = compiled(FASTER, UNTOLD)
    pays = BreakEven(
        cell=lines[0].cell, reference=make_cell(), compile_s=24, verdict="after", epochs=Interval(3.04, 2, 5)
    )
    assert said("variant", *lines, break_evens=(pays,)) == (
        "compile: faster than eager (1.09x [1.05, 1.13]) at batch 100, pays after about 3.0 epochs; "
        "cannot be told from eager (0.98x [0.95, 1.02]) at batch 1,000: about 14 seeds would tell."
    )
    assert said("variant", *compiled(SLOWER, (0.8, 0.7, 0.9))) == (
        "compile: slower than eager (0.80x to 0.87x) at batch 100, 1,000."
    )
    assert said("variant", *compiled((1.001, 0.98, 1.02))) == (
        "compile: within 3 % of eager (1.00x [0.98, 1.02]) at batch 100."
    )
    assert "(1.10x) at batch 100: about 3 seeds would give an interval" in said("variant", *compiled((1.1,)))
    assert "30 seeds would hardly tell" in said("variant", *compiled((1.0, 0.5, 2.0)))
    two = said("variant", *compiled(FASTER), *compiled(SLOWER, device="cuda"))
    assert two == "compile on cpu: faster than eager (1.09x [1.05, 1.13]) at batch 100. " + (
        "compile on cuda: slower than eager (0.87x [0.83, 0.91]) at batch 100."
    )


def test_batch_sizes_devices_and_runs():
    small, large = make_cell(), make_cell(batch_size=1000)
    assert said("batch_size", line((2.4,), large, small, "unpaired")) == (
        "batch 1,000: faster than batch 100 (2.40x, timed apart)."
    )
    gpu = [make_cell(device="cuda"), make_cell(device="cuda", batch_size=1000)]
    slow, fast = line((0.27, 0.25, 0.3), gpu[0], small), line((5.0, 4.8, 5.3), gpu[1], large)
    assert said("device", slow) == "cuda: slower than cpu (0.27x [0.25, 0.30]) at batch 100."
    crossing = Crossover(model="mlp", device="cuda", variant="eager", estimate=BatchPoint("at", 244.4))
    assert said("device", slow, fast, crossovers=(crossing,)) == "cuda: faster than the CPU from batch size 244 on."
    assert said("run", line(UNTOLD, small, small)) == "cannot be told from A (0.98x [0.95, 1.02]) in cpu/b100/eager."


def test_what_to_type_tells_what_cannot_be_told(tmp_path, monkeypatch):
    """The command has the cells in question, so many seeds, and as much time for each."""
    monkeypatch.chdir(tmp_path)
    matrix = matrix_of("mlp", "lenet5", seeds=(0,))
    manifest, trials, sessions = records(matrix)
    found = Run(manifest=manifest, trials=trials, sessions=sessions)
    answer = min((one for one in answers(found) if one.seeds), key=lambda one: command._telling(found, one))
    args = argparse.Namespace(argv=["run", "m.yaml"], resume=None, output_dir=options.RESULTS)
    first, last = command._next(found, args)
    assert first.startswith(f"to tell more of {answer.model}, about ")
    assert last == "next: mnist-bench report latest"
    typed = build_parser("run").parse_args(shlex.split(first.partition(": mnist-bench ")[2]))
    again = options.overrides(matrix, typed)
    assert (len(again.seeds), again.timing.budget_seconds) == (answer.seeds, 20.0 * answer.seeds)
    assert set(answer.untold) <= set(select(list(found.cells), typed.filter))
