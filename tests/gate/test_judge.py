"""Verdicts: every kind, the joint rule, the words, the exit code."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from record_factory import make_cell
from simulation import process_pairs, seed_pairs, training

from mnist_bench.gate.judge import cells_compared, exit_code, judge
from mnist_bench.gate.records import (
    CHECK_SCHEMA_VERSION,
    Advisory,
    CellEvidence,
    Check,
    Margins,
    SeedPair,
    SideFault,
    SideInfo,
    Solo,
    Verdict,
    VerdictKind,
)
from mnist_bench.records import Failure, Round, Skip

CELL = make_cell("lenet5")
FAILED = Failure(kind="oom", reason="use less")
SKIPPED = Skip(reason="install a C++ compiler")


def logs(ratio: float, pairs: int = 16, sd: float = 0.01) -> list[float]:
    return [float(x) for x in math.log(ratio) + np.random.default_rng(3).permutation(np.linspace(-sd, sd, pairs))]


def equal(seeds: int = 3, accuracy: float = 0.97) -> tuple[SeedPair, ...]:
    return tuple(SeedPair(seed=n, a=training(accuracy, f"s{n}"), b=training(accuracy, f"s{n}")) for n in range(seeds))


def dropped(drop: float, seeds: int) -> tuple[SeedPair, ...]:
    return seed_pairs([0.97] * seeds, [0.97 - drop] * seeds)


def evidence(ratio: float | None = 1.0, seeds: Sequence[SeedPair] = equal(), **changes: Any) -> CellEvidence:
    pairs = () if ratio is None else process_pairs(logs(ratio))
    return replace(CellEvidence(cell=CELL, pairs=pairs, seeds=tuple(seeds)), **changes)


def check(*cells: CellEvidence, **changes: Any) -> Check:
    side = SideInfo(label="main", commit="c0ffee")
    one = Check(
        id="20261123T101500Z-a1b2c3",
        schema_version=CHECK_SCHEMA_VERSION,
        program_version="0.1.0",
        mode="against",
        status="complete",
        a=side,
        b=replace(side, label="working tree"),
        matrix_path="benchmarks.yaml",
        dataset="mnist",
        recipe="standard",
        margins=Margins(),
        cells=cells,
        started_at="2026-11-23T10:15:00Z",
    )
    return replace(one, **changes)


def verdict(one: CellEvidence, **changes: Any) -> Verdict:
    (found,) = judge(check(one, **changes))
    return found


def faults(a: Failure | Skip | None, b: Failure | Skip | None) -> tuple[SideFault, ...]:
    both = (("A", a), ("B", b))
    return tuple(SideFault(side=side, outcome=outcome) for side, outcome in both if outcome)  # type: ignore[arg-type]


class TestMeasured:
    def test_slower(self) -> None:
        found = verdict(evidence(1.12))
        assert found.kind == "regression"
        assert found.text == (
            "lenet5/cpu/b100/eager is 12 % slower (95 % interval 11-13 %, 12 pairs); up to 3 % is tolerated"
        )
        assert found.speed is not None
        assert found.speed.decision == "fail"
        assert found.accuracy is not None
        assert found.accuracy.decision == "pass"

    def test_pass(self) -> None:
        found = verdict(evidence(1.004))
        assert found.kind == "pass"
        assert found.text == (
            "lenet5/cpu/b100/eager passes; speed: a slow-down of 10 % is ruled out: measured 0.4 % slower "
            "(95 % interval 0.1 % faster to 0.9 % slower, 12 pairs); accuracy: equal predictions (3 seeds)"
        )

    def test_improvement(self) -> None:
        found = verdict(evidence(0.8))
        assert found.kind == "improvement"
        assert found.text.startswith("lenet5/cpu/b100/eager is 25 % faster (95 % interval 24-26 %, 12 pairs); accuracy")

    def test_less_accurate(self) -> None:
        found = verdict(evidence(1.0, dropped(0.02, 6)))
        assert found.kind == "regression"
        assert found.text == (
            "lenet5/cpu/b100/eager is 2.00 pp less accurate (95 % interval 1.68-2.32 pp, 4 seeds): 97.00 % before, "
            "95.00 % now; up to 0.05 pp is tolerated"
        )

    def test_less_accurate_beside_seeds_that_are_equal(self) -> None:
        found = verdict(evidence(1.0, [*equal(2), *dropped(0.02, 6)]))
        assert found.text.endswith(
            "pp, over the 4 of 6 seeds whose predictions differ): 97.00 % before, 95.67 % now over all 6; up to 0.05 "
            "pp is tolerated"
        )

    @pytest.mark.parametrize(
        ("ratio", "ending"),
        [
            (1.12, "; it is also 12 % slower (95 % interval 11-13 %, 12 pairs)"),
            (0.8, "; that it is 25 % faster (95 % interval 24-26 %, 12 pairs) does not count"),
            (1.0, "is tolerated"),
            (None, "is tolerated"),
        ],
    )
    def test_speed_counts_only_where_accuracy_has_not_failed(self, ratio: float | None, ending: str) -> None:
        found = verdict(evidence(ratio, dropped(0.02, 6)))
        assert found.kind == "regression"
        assert "less accurate" in found.text
        assert found.text.endswith(ending)

    def test_slower_is_a_regression_while_accuracy_is_undecided(self) -> None:
        assert verdict(evidence(1.12, dropped(0.0, 1))).kind == "regression"
        assert verdict(evidence(1.12, ())).kind == "regression"

    def test_speed_undecided(self) -> None:
        pairs = [replace(pair, noisy=("load",) if pair.number < 5 else ()) for pair in process_pairs(logs(1.0, 9))]
        found = verdict(evidence(pairs=tuple(pairs)))
        assert found.kind == "inconclusive"
        assert found.text == (
            "lenet5/cpu/b100/eager is inconclusive; its speed is not decided: measured as fast (95 % interval 0.6 % "
            "faster to 0.6 % slower, 9 pairs), 3 more pairs to the next look, at 12; 5 of 9 pairs disturbed by other "
            "work on the machine; accuracy passes: equal predictions (3 seeds)"
        )

    def test_speed_undecided_for_good(self) -> None:
        found = verdict(evidence(pairs=process_pairs(logs(1.06, 36, sd=0.5))))
        assert found.kind == "inconclusive"
        assert "after the last look at 36 pairs: too noisy to tell, try a quieter machine" in found.text

    def test_accuracy_undecided(self) -> None:
        found = verdict(evidence(1.0, dropped(0.001, 2)))
        assert found.kind == "inconclusive"
        assert "speed passes: a slow-down of 10 % is ruled out" in found.text
        assert "its accuracy is not decided: measured 0.10 pp less accurate (95 % interval 0.34 pp less" in found.text
        assert found.accuracy is not None
        assert f"about {found.accuracy.more_seeds} more seeds needed" in found.text

    def test_accuracy_undecided_for_good(self) -> None:
        wild = seed_pairs([0.5] * 72, [0.5 + 0.4 * (-1) ** n for n in range(72)])
        assert "72 seeds), no look is left" in verdict(evidence(1.0, wild)).text

    def test_one_seed_of_more_is_said_in_the_singular(self) -> None:
        assert "about 1 more seed needed" in verdict(evidence(1.0, dropped(0.02, 3))).text

    def test_nothing_was_measured(self) -> None:
        found = verdict(evidence(None, ()))
        assert (found.kind, found.speed, found.accuracy, found.advisories) == ("inconclusive", None, None, ())
        assert found.text == (
            "lenet5/cpu/b100/eager is inconclusive; its speed was not measured (12 pairs needed for a first look); its "
            "accuracy was not measured"
        )

    def test_accuracy_passes_by_the_seeds_that_differ(self) -> None:
        assert "a drop of 0.30 pp is ruled out: measured as accurate (" in verdict(evidence(1.0, dropped(0.0, 9))).text
        better = verdict(evidence(1.0, dropped(-0.005, 9)))
        assert better.kind == "pass"
        assert "measured 0.50 pp more accurate (95 % interval 0." in better.text

    def test_number_of_cells_sets_the_levels(self) -> None:
        others = [replace(evidence(), cell=make_cell(f"m{n}")) for n in range(19)]
        found = judge(check(evidence(1.12), *others))
        assert found[0].speed is not None
        assert found[0].speed.alpha == pytest.approx(0.01 / 60)
        assert found[0].speed.pairs == 16
        assert [one.cell for one in found] == [CELL, *(one.cell for one in others)]


class TestFloors:
    def test_accuracy_under_its_floor_fails_at_once(self) -> None:
        found = verdict(evidence(0.8, min_accuracy=0.98))
        assert found.kind == "failed"
        assert found.text == "lenet5/cpu/b100/eager failed: its accuracy 0.9700 is under the floor 0.98 of the matrix"
        assert verdict(evidence(min_accuracy=0.97)).kind == "pass"

    def test_throughput_under_its_floor_fails(self) -> None:
        found = verdict(evidence(min_train_samples_per_s=20_001.0))
        assert found.kind == "failed"
        assert found.text.endswith("its 20,000 training samples/s are under the floor 20001 of the matrix")
        assert verdict(evidence(min_train_samples_per_s=20_000.0)).kind == "pass"

    def test_throughput_is_all_samples_over_all_seconds(self) -> None:
        one, other = equal(2)
        slow = replace(other, b=replace(other.b, train_samples_per_s=5_000.0))
        assert verdict(evidence(seeds=(one, slow), min_train_samples_per_s=8_001.0)).kind == "failed"
        assert verdict(evidence(seeds=(one, slow), min_train_samples_per_s=7_999.0)).kind == "pass"

    def test_throughput_is_that_of_the_pairs_where_there_are_any(self) -> None:
        rounds = (
            Round(order=(0, 1), steps=(10, 30), seconds=(1.0, 1.0)),
            Round(order=(1, 0), steps=(9, 10), seconds=(1.0, 3.0)),
        )
        pairs = tuple(replace(pair, rounds=rounds) for pair in process_pairs(logs(1.0)))
        assert verdict(evidence(pairs=pairs, min_train_samples_per_s=1_000.0)).kind == "pass"  # 40 steps of 100 in 4 s
        found = verdict(evidence(pairs=pairs, min_train_samples_per_s=1_001.0))
        assert found.text.endswith("its 1,000 training samples/s are under the floor 1001 of the matrix")

    def test_floors_without_figures_are_not_missed_yet(self) -> None:
        assert verdict(evidence(1.0, (), min_accuracy=0.9, min_train_samples_per_s=1.0)).kind == "inconclusive"

    def test_an_accuracy_that_is_no_number_fails(self) -> None:
        found = verdict(evidence(1.0, [SeedPair(seed=4, a=training(0.9, "a"), b=training(math.nan, "b"))]))
        assert found.kind == "failed"
        assert found.text.endswith("failed: its accuracy with seed 4 is not a number")
        assert found.accuracy is None  # JSON has no NaN


class TestUnmeasured:
    @pytest.mark.parametrize(
        ("a", "b", "kind", "words"),
        [
            (None, FAILED, "failed", "failed with the change (oom): use less"),
            (FAILED, FAILED, "failed", "use less; the reference failed too"),
            (SKIPPED, FAILED, "failed", "failed with the change (oom): use less"),
            (FAILED, None, "not_comparable", "cannot be compared: the reference failed (oom): use less"),
            (FAILED, SKIPPED, "not_comparable", "cannot be compared: the reference failed (oom): use less"),
            (SKIPPED, None, "not_comparable", "the reference skips it: install a C++ compiler"),
            (SKIPPED, SKIPPED, "not_comparable", "both sides skip it: install a C++ compiler"),
            (None, SKIPPED, "missing", "is no longer executed here: the change skips it, unlike the reference: ins"),
        ],
    )
    def test_faults(self, a: Any, b: Any, kind: VerdictKind, words: str) -> None:
        found = verdict(evidence(faults=faults(a, b)))
        assert found.kind == kind
        assert words in found.text
        assert (found.speed, found.accuracy) == (None, None)

    @pytest.mark.parametrize(
        "alone",
        [{"sides": "only B"}, {"differences": ("lr: 1 in A, 2 in B",)}, {"faults": faults(FAILED, None)}],
        ids=["new", "another", "no reference"],
    )
    def test_floors_hold_for_a_cell_that_is_compared_with_nothing(self, alone: dict[str, Any]) -> None:
        solo = Solo(seed=3, b=training(0.5, "b"))
        made = evidence(None, (), solo=solo, **alone)
        assert verdict(made).kind == ("new" if "sides" in alone else "not_comparable")
        assert verdict(replace(made, min_accuracy=0.5, min_train_samples_per_s=20_000.0)).kind != "failed"
        found = verdict(replace(made, min_accuracy=0.9))
        assert found.kind == "failed"
        assert found.text == "lenet5/cpu/b100/eager failed: its accuracy 0.5000 is under the floor 0.9 of the matrix"
        assert "under the floor 20001" in verdict(replace(made, min_train_samples_per_s=20_001.0)).text
        nothing = verdict(replace(made, solo=Solo(seed=3, b=training(math.nan, "b"))))
        assert nothing.text.endswith("its accuracy with seed 3 is not a number")

    def test_a_new_cell_that_was_not_trained_is_not_known_to_work(self) -> None:
        found = verdict(evidence(None, (), sides="only B"))
        assert (found.kind, exit_code(check(), [found])) == ("inconclusive", 4)
        assert "is new, and was not trained" in found.text

    def test_cells_of_one_side(self) -> None:
        assert verdict(evidence(None, (), sides="only A")).kind == "missing"
        assert "the reference has this cell, the change has not" in verdict(evidence(None, (), sides="only A")).text
        solo = Solo(seed=0, b=training(0.97, "b"))
        assert verdict(evidence(None, (), sides="only B", solo=solo)).kind == "new"
        assert "is new" in verdict(evidence(None, (), sides="only B", solo=solo)).text

    def test_a_new_cell_that_crashes_is_not_silent(self) -> None:
        assert verdict(evidence(None, (), sides="only B", faults=faults(None, FAILED))).kind == "failed"
        assert verdict(evidence(None, (), sides="only B", faults=faults(None, SKIPPED))).kind == "new"

    def test_differences(self) -> None:
        found = verdict(evidence(differences=("epochs: 1 and 2", "torch: 2.10 and 2.13")))
        assert found.kind == "not_comparable"
        assert found.text == "lenet5/cpu/b100/eager cannot be compared: epochs: 1 and 2; torch: 2.10 and 2.13"
        assert verdict(evidence(differences=("epochs",), faults=faults(None, SKIPPED))).kind == "not_comparable"
        assert verdict(evidence(differences=("epochs",), faults=faults(None, FAILED))).kind == "failed"

    def test_a_reference_without_a_number(self) -> None:
        broken = SeedPair(seed=2, a=training(math.nan, "a"), b=training(0.97, "b"))
        found = verdict(evidence(1.12, [broken]))
        assert found.kind == "not_comparable"
        assert "the reference's accuracy with seed 2 is not a number" in found.text

    def test_text_from_outside_is_one_harmless_line(self) -> None:
        hostile = "first\nsecond\x1b[31m\u202e"
        for one in (
            evidence(faults=faults(None, Failure(kind="crashed", reason=hostile))),
            evidence(faults=faults(Failure(kind="crashed", reason=hostile), None)),
            evidence(faults=faults(Skip(reason=hostile), None)),
            evidence(faults=faults(None, Skip(reason=hostile))),
            evidence(differences=(hostile,)),
            evidence(cell=make_cell(hostile)),
        ):
            assert verdict(one).text.isprintable()
            assert "first second" in verdict(one).text


class TestAdvisories:
    def test_are_medians_of_what_both_sides_have(self) -> None:
        times = ((3.0, None, 1.0), (5.0, 7.0, 2.0), (9.0, 8.0, 4.0))
        seeds = [
            SeedPair(
                seed=n,
                a=replace(pair.a, time_to_first_step_s=first, compile_s=compiled),
                b=replace(pair.b, compile_s=other, host_peak_bytes=(n + 1) << 20),
            )
            for n, (pair, (first, compiled, other)) in enumerate(zip(equal(3), times, strict=True))
        ]
        assert verdict(evidence(1.0, seeds)).advisories == (
            Advisory(name="compile time", unit="s", a=7.5, b=3.0),
            Advisory(name="time to first step", unit="s", a=5.0, b=3.0),
            Advisory(name="evaluation throughput", unit="samples/s", a=50_000.0, b=50_000.0),
            Advisory(name="host memory", unit="MiB", a=512.0, b=2.0),
        )

    def test_device_memory_where_there_is_a_device(self) -> None:
        (pair,) = equal(1)
        a, b = replace(pair.a, device_peak_bytes=1 << 20), replace(pair.b, device_peak_bytes=2 << 20)
        found = verdict(evidence(1.0, [SeedPair(seed=0, a=a, b=b)])).advisories[-1]
        assert found == Advisory(name="device memory", unit="MiB", a=1.0, b=2.0)

    def test_decide_nothing(self) -> None:
        slow = [replace(pair, b=replace(pair.b, eval_samples_per_s=1.0, host_peak_bytes=1 << 50)) for pair in equal()]
        assert verdict(evidence(1.0, slow)).kind == "pass"


class TestCellsCompared:
    def test_are_those_of_both_sides_that_do_not_differ(self) -> None:
        cells = [
            evidence(),
            evidence(faults=faults(None, FAILED)),  # found on the way: the levels stay as they were
            evidence(faults=faults(SKIPPED, SKIPPED)),
            evidence(sides="only A"),
            evidence(sides="only B"),
            evidence(differences=("epochs",)),
        ]
        assert cells_compared(cells) == 3
        assert cells_compared(()) == 0


class TestExitCode:
    @pytest.mark.parametrize(
        ("kinds", "code"),
        [
            ([], 5),
            (["not_comparable"], 5),
            (["new"], 5),
            (["new", "not_comparable"], 5),
            (["pass"], 0),
            (["improvement", "new", "not_comparable"], 0),
            (["pass", "inconclusive"], 4),
            (["not_comparable", "inconclusive"], 4),
            (["inconclusive", "regression"], 3),
            (["pass", "missing"], 3),
            (["failed", "not_comparable"], 3),
        ],
    )
    def test_precedence(self, kinds: list[VerdictKind], code: int) -> None:
        verdicts = [Verdict(cell=CELL, kind=kind, text="") for kind in kinds]
        assert exit_code(check(), verdicts) == code
        assert exit_code(check(status="interrupted"), verdicts) == 130

    def test_every_kind_has_one(self) -> None:
        cells = (evidence(1.0), evidence(sides="only B", solo=Solo(seed=0, b=training(0.97, "b"))))
        assert exit_code(check(*cells), judge(check(*cells))) == 0
        assert exit_code(check(), judge(check())) == 5


def test_a_check_is_judged_the_same_again() -> None:
    one = check(evidence(1.12), evidence(1.0, dropped(0.02, 6)), evidence(differences=("epochs",)))
    assert judge(one) == judge(replace(one))
