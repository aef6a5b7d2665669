"""What a person sees of a check while it goes on."""

from __future__ import annotations

import argparse
import io
import math
from dataclasses import replace

import pytest
from check_kit import CRASH, cell, evidence, process_pair, seed_pair
from rich.console import Console

from mnist_bench.checks.events import CheckEvent, CheckStarted, Forecast, OutOfTime, Stage, TaskFinished, TaskStarted
from mnist_bench.cli.check_progress import Display, Lines, watch
from mnist_bench.events import Notice
from mnist_bench.gate.records import SideFault, SideInfo
from mnist_bench.records import Failure

STARTED = CheckStarted(
    check_id="20261123T101500Z-aaaaaa",
    path="results/checks/20261123T101500Z-aaaaaa",
    a=SideInfo(label="main", commit="a" * 40),
    b=SideInfo(label="working tree", commit="b" * 40, changed=tuple(f"f{n}.py\x1b[2J" for n in range(7))),
    cells=(*evidence("mlp", "cnn"), *evidence("new", sides="only B"), *evidence("lr", differences=("lr",))),
    looks=(12, 21, 36),
)
FORECAST = Forecast(
    budget_s=1200.0,
    left_s=1190.0,
    pairs=36,
    first_look=12,
    needs_s=300.0,
    sd=0.03,
    measured=False,
    detectable=0.0712,
    power=0.9,
)
BEGUN = TaskStarted(task="pair", cell=cell(), number=3, target=12, left_s=1100.0)
PAIR = TaskFinished(
    task="pair",
    cell=cell(),
    number=3,
    target=12,
    found=replace(process_pair(3, math.log(1.1)), noisy=("others",)),
    faults=(),
    seconds=10.4,
    left_s=1090.0,
)


def shown(*events: CheckEvent, quiet: bool = False) -> str:
    console = Console(file=io.StringIO(), width=300, highlight=False, markup=False)
    lines = Lines(console=console, quiet=quiet)
    for event in events:
        lines(event)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_the_start_names_sides_cells_and_changed_files() -> None:
    text = shown(STARTED)
    assert "A is main (aaaaaaaaaaaa), B is the working tree (bbbbbbbbbbbb)" in text
    assert "cells: 2 to compare, 1 whose sides differ, 1 only in B" in text
    assert "B differs from its commit in f0.py [2J, f1.py [2J" in text
    assert "and 2 more" in text
    assert "\x1b" not in text


def test_the_forecast_says_what_can_be_seen() -> None:
    assert shown(FORECAST) == (
        "19 min of the budget of 20 min left: about 36 pairs a cell fit, 12 make a first look; the smallest slow-down "
        "that they find in 90 of 100 cases, if they spread by 3.0 %: 7.1 %\n"
    )
    assert "as they spread by 3.0 %" in shown(replace(FORECAST, measured=True))
    assert "no slow-down could be found" in shown(replace(FORECAST, detectable=math.inf))


def test_a_budget_that_reaches_no_look_is_told_with_the_one_that_would() -> None:
    text = shown(replace(FORECAST, pairs=5, left_s=90.0))
    assert "too little: a first look takes 12 pairs a cell, about 5 min; 5 a cell fit" in text
    assert "raise --budget or choose cells with --filter" in text


def test_a_line_for_each_pair_and_seed() -> None:
    assert shown(PAIR) == "pair 3/12  mlp/cpu/b100/eager  B/A 1.100 (1 rounds) noisy  10 s, 18 min left\n"
    seed = replace(PAIR, task="seed", number=0, target=None, found=seed_pair(0))
    assert shown(seed).startswith("seed 0  mlp/cpu/b100/eager  equal predictions, accuracy 0.9500 and 0.9500")
    assert "predictions differ" in shown(replace(seed, found=seed_pair(0, same=False)))
    assert "works" in shown(replace(PAIR, task="solo", target=None, found=None))
    assert "given up: the budget is spent" in shown(replace(PAIR, task="seed", target=None, found=OutOfTime()))


def test_faults_and_warnings_are_told_even_when_quiet_and_obey_nobody() -> None:
    hostile = SideFault(side="A", outcome=Failure(kind="failed", reason="\x1b[2J[red]no\nnews"))
    failed = replace(PAIR, found=None, faults=(hostile, CRASH))
    text = shown(STARTED, FORECAST, PAIR, failed, Notice(level="warning", text="beware"), quiet=True)
    assert text.splitlines() == [
        "pair 3/12  mlp/cpu/b100/eager  A: [2J[red]no news B: it fell over   10 s, 18 min left",
        "warning: beware",
    ]


@pytest.mark.parametrize("width", [40, 80, 120])
def test_the_display_fits_the_terminal(width: int) -> None:
    file = io.StringIO()
    console = Console(file=file, width=width, force_terminal=True, highlight=False, markup=False)
    args = argparse.Namespace(quiet=False, no_progress=False)
    with watch(Console(file=io.StringIO()), args) as plain_lines:
        assert isinstance(plain_lines, Lines)  # no terminal: nothing moves
    from rich.live import Live

    with Live(console=console, auto_refresh=False, transient=True) as live:
        display = Display(live=live, lines=Lines(console=console, quiet=True))
        for event in (STARTED, FORECAST, BEGUN, Stage(text="timing " + "x" * 300), PAIR):
            display(event)
        rendered = console.render_lines(display._render())
    text = ["".join(segment.text for segment in line) for line in rendered]
    assert max(map(len, text)) <= width
    assert text[0].startswith("pair 3 of 12  mlp/cpu/b100/eager"[: width - 1])
    assert len(text) == 3
