"""Trials and sessions to a row per cell."""

from dataclasses import replace
from itertools import combinations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from record_factory import make_cell, make_epochs, make_failed, make_matrix, make_measurement, make_session, make_trial
from run_factory import run_of

from mnist_bench import figures
from mnist_bench.analysis.summary import EPOCH_COLUMNS, epochs, missed_floors
from mnist_bench.figures import Row
from mnist_bench.records import STATUSES, Cell, Extras, Floor, Session, Skip, StepTimes, Trial, Variant
from mnist_bench.table import joined

EAGER, COMPILE, CUDA = make_cell(), make_cell(variant="compile"), make_cell(device="cuda")


def seeds_of(*outcomes: dict[str, Any]) -> list[Trial]:
    """A trial of ``EAGER`` per seed, each with these changes."""
    return [make_trial(EAGER, seed, make_measurement(**changes)) for seed, changes in enumerate(outcomes)]


def only_row(trials: list[Trial], *sessions: Session, **matrix: Any) -> Row:
    (row,) = run_of(trials, sessions, **matrix).rows
    return row


def rows(trials: list[Trial], *sessions: Session, **matrix: Any) -> dict[Cell, Row]:
    return {row.cell: row for row in run_of(trials, sessions, **matrix).rows}


def timed(*ms: tuple[Cell, float], seeds: int = 1, **changes: Any) -> tuple[list[Trial], list[Session]]:
    """A session of all these cells for each seed, 8 rounds of it."""
    cells, rounds = [cell for cell, _ in ms], [[one for _, one in ms]] * 8
    trials = [make_trial(cell, seed, make_measurement(**changes)) for seed in range(seeds) for cell in cells]
    groups = [trials[n : n + len(cells)] for n in range(0, len(trials), len(cells))]
    return trials, [make_session(own, rounds, group=f"{n}") for n, own in enumerate(groups)]


class TestRows:
    def test_order_is_that_of_the_matrix_and_what_is_not_finished_is_pending(self):
        cells = [make_cell(variant="compile"), make_cell("cnn"), make_cell()]
        planned = [make_trial(cell, seed) for cell in cells for seed in (0, 1)]
        done = [make_trial(cell, 1) for cell in reversed(cells[:2])]
        run = replace(run_of(planned), trials=done)
        assert [(row.cell, row.seeds) for row in run.rows] == [(cells[0], 1), (cells[1], 1)]
        assert set(run.pending) == {trial.id for trial in planned} - {trial.id for trial in done}
        assert [row.cell for row in replace(run_of([]), trials=[make_trial()]).rows] == [EAGER]

    @pytest.mark.parametrize(("better", "worse"), [*combinations(STATUSES, 2)])
    def test_status_is_the_worst_of_the_seeds_and_figures_come_from_those_that_are_ok(self, better, worse):
        def trial(seed: int, status: Any) -> Trial:
            if status in ("ok", "skipped"):
                return make_trial(seed=seed, outcome=make_measurement() if status == "ok" else Skip(reason="skipped"))
            return make_failed(seed=seed, kind=status, reason=status)

        trials = [trial(0, better), trial(1, worse), trial(2, better)]
        row, ok = only_row(trials), [trial for trial in trials if trial.status == "ok"]
        assert (row.status, row.reason, row.seeds) == (worse, worse, len(ok))
        assert row.figures == (only_row(ok) if ok else row).figures
        assert (row["epoch_s"] is None) == (not ok)
        assert ok or row.figures.keys() == {"dataset", "recipe", "dataset_sha256"}
        with pytest.raises(KeyError, match="no figure is called 'epochs'"):
            row["epochs"]


class TestFigures:
    @given(st.lists(st.tuples(st.floats(0.01, 1e4), st.floats(0.01, 1e4)), min_size=1, max_size=6))
    def test_an_epoch_is_all_images(self, took):
        row = only_row(seeds_of(*({"epochs": make_epochs(train_s)} for train_s in took)))
        assert row["epoch_s"] * row["train_samples_per_s"] == pytest.approx(60_000, rel=1e-12)
        low, high = row["train_samples_per_s_low"], row["train_samples_per_s_high"]
        assert (low is None) == (high is None) == (len(took) < 3)
        if low is not None:
            assert 0 <= low <= row["train_samples_per_s"] <= high

    @pytest.mark.parametrize("seeds", [1, 2, 3])
    def test_time_to_accuracy_is_unknown_where_a_seed_never_got_there(self, seeds):
        reached = [(0.97, 0.9, 0.9), (0.1, 0.9, 0.98), (0.1, 0.2, 0.9699)][:seeds]
        row = only_row(seeds_of(*({"epochs": make_epochs((2.0, 4.0, 8.0), accuracy)} for accuracy in reached)))
        assert row["time_to_97_s"] == [2.0, (2 + 14) / 2, None][seeds - 1]
        assert row["seeds_to_97"] == [None, None, "2 of 3 seeds"][seeds - 1]
        assert (row["time_to_99_s"], row["seeds_to_99"]) == (None, f"0 of {seeds} seed{'s' * (seeds > 1)}")
        shown = figures.BY_KEY["time_to_97_s"], figures.BY_KEY["time_to_98_s"]
        words = [joined(one.show(row), one.show_beside(row)) for one in shown]
        told = [["2.00", "0 of 1 seed"], ["8.00", "1 of 2 seeds"], ["2 of 3 seeds", "1 of 3 seeds"]]
        assert words == told[seeds - 1]

    def test_drift_is_the_last_epoch_over_the_first_and_one_epoch_has_none(self):
        took = ((2.0, 9.0, 3.0), (2.0, 2.0), (4.0,))
        row = only_row(seeds_of(*({"epochs": make_epochs(each, [0.9] * len(each))} for each in took)))
        assert row["step_drift"] == (1.5 + 1.0) / 2
        assert only_row(seeds_of({"epochs": make_epochs((4.0,), (0.9,))}))["step_drift"] is None

    def test_extras_are_those_of_the_seeds_that_have_them(self):
        """120,000 samples in 6 s, 2.5 MFLOP each: 50 GFLOP/s."""
        latency = StepTimes(p50_ms=0.1, p95_ms=0.2, p99_ms=0.3, count=300)
        some = Extras(sample_flops=2.5e6, latency=latency)
        whole = replace(some, ceiling_flops_s=1e11, graph_breaks=0, kernels=12.5, busy=0.25)
        row = only_row(seeds_of({"extras": whole, "energy_j": 300.0}, {}, {"extras": some}))
        keys = ("sample_mflop", "ceiling_gflops", "utilisation", "graph_breaks", "kernels_per_step", "device_busy")
        assert [row[key] for key in keys] == pytest.approx([2.5, 100.0, 0.5, 0, 12.5, 0.25])
        assert (row["epoch_j"], row["recompilations"]) == (150.0, None)
        shown = figures.BY_KEY["latency_ms_p50"]
        assert (shown.show(row), shown.show_beside(row)) == ("0.100", "p95 0.200 p99 0.300")
        assert [figures.BY_KEY[key].show(row) for key in ("graph_breaks", "kernels_per_step")] == ["0", "12.5"]

    def test_several_processes_are_held_against_one(self):
        """2.0 ms alone, 1.6 ms in two: 1.25 times as fast. A fifth and half of a step are all-reduce."""
        two, other = make_cell(variant="two"), make_cell(variant="other")
        variants = (
            *make_matrix().variants,
            Variant(name="two", processes=2, nodes=2),
            Variant(name="other", processes=2, threads=1),
        )
        trials, sessions = timed((EAGER, 2.0), (two, 1.6), (other, 1.0))
        extras = Extras(rank_step_ms=(1.5, 2.0), rank_alone_ms=(1.2, 1.0))
        trials[1] = make_trial(two, 0, make_measurement(extras=extras))
        found = rows(trials, *sessions, variants=variants)
        assert found[two]["scaling_efficiency"] == pytest.approx(0.625)
        assert found[two]["scaling_efficiency_low"] < 0.625 < found[two]["scaling_efficiency_high"]
        assert (found[two]["all_reduce_share"], found[two]["rank_step_ms"]) == (pytest.approx(0.35), "1.50, 2.00")
        assert {found[cell]["scaling_efficiency"] for cell in (EAGER, other)} == {None}
        assert (
            rows(trials, *(replace(one, paired=False) for one in sessions), variants=variants)[two][
                "scaling_efficiency"
            ]
            is None
        )

    def test_a_cell_on_several_machines_was_measured_on_all_their_processors(self):
        apart = [make_measurement(numerics={"cpus": cpus}) for cpus in ("a + a", "a + b", "a + a")]
        trials = [make_trial(EAGER, seed, found) for seed, found in enumerate(apart)]
        run = run_of([*trials, make_trial(COMPILE, 0)])
        assert run.manifest_of(EAGER).environment.cpu == "a + a + a + b"
        assert run.manifest_of(COMPILE) == run.manifest

    def test_when_compiling_pays_is_a_figure(self):
        """12 s, earned back by 0.4 ms a step, 600 steps an epoch: 50 epochs."""
        trials, sessions = timed((EAGER, 2.0), (COMPILE, 1.6))
        trials[1] = make_trial(COMPILE, 0, make_measurement(compile_s=12.0))
        found = rows(trials, *sessions)
        assert found[COMPILE]["break_even_epochs"] == pytest.approx(50.0)
        assert found[COMPILE]["break_even_epochs_low"] < 50 < found[COMPILE]["break_even_epochs_high"]
        assert found[EAGER]["break_even_epochs"] is None

    def test_no_time_at_all_is_no_rate(self):
        row = only_row(seeds_of({"epochs": make_epochs((0.0, 0.0))}))
        keys = ("train_samples_per_s", "train_samples_per_s_high", "loader_share")
        assert ([row[key] for key in keys], row.seeds) == ([None] * 3, 1)

    def test_step_times_are_medians_over_sessions_less_those_that_a_member_left(self):
        trials = seeds_of({}, {}, {})
        sessions = [make_session([t], [[ms]], paired=False) for t, ms in zip(trials, (3.0, 1.0, 2.0), strict=True)]
        left = {trials[0].id: StepTimes(p50_ms=0, p95_ms=0, p99_ms=0, count=0)}
        beside = [make_session([trials[0]], [[0]], steps=steps) for steps in ({}, left)]
        row = only_row(trials, *sessions, *beside)
        assert (row["step_ms_p50"], row["step_ms_p95"], row["step_ms_p99"]) == (2.0, 3.0, 4.0)
        assert only_row(trials, *beside)["step_ms_p50"] is None


class TestDoubts:
    def test_noise_of_trials_and_sessions_counts_and_marks_are_doubts_alone(self):
        trials = seeds_of({}, {"noisy": ("load",)}, {})
        row = only_row(trials, make_session([trials[2]], [[1.0]], noisy=("steal", "load")))
        assert (row["noisy"], row["noisy_trials"], row["doubts"]) == (True, 2, "load; steal")
        row = only_row(seeds_of({"marks": ("the waterfall lacks 5 %",)}))
        assert (row["noisy"], row["noisy_trials"], row["doubts"]) == (False, 0, "the waterfall lacks 5 %")

    @pytest.mark.parametrize(
        ("epoch_s", "step_ms", "noisy", "says"),
        [
            (1.163, 2.0, "load", "0.86x the reference's samples/s, but 1.00x [0.96, 1.04] by steps timed in turn"),
            (1.163, 1.1, "load", "0.86x the reference's samples/s, but 1.82x [1.75, 1.89] by steps timed in turn"),
            (0.5, 2.2, "load", "2.00x the reference's samples/s, but 0.91x [0.88, 0.94] by steps timed in turn"),
            (0.5, 1.1, "load", ""),  # faster by both
            (0.8, 1.1, "load", ""),  # also
            (1.01, 2.0, "load", ""),  # within the interval
            (1.163, 1.1, "", ""),  # nothing disturbed it
        ],
    )
    def test_a_noisy_row_says_what_to_trust(self, epoch_s, step_ms, noisy, says):
        trials, sessions = timed((EAGER, 2.0), (COMPILE, step_ms), seeds=3)
        own = make_measurement(epochs=make_epochs((3 * epoch_s, 3 * epoch_s)), noisy=(noisy,) if noisy else ())
        trials = [replace(one, outcome=own) if one.cell == COMPILE else one for one in trials]
        doubts = rows(trials, *sessions)[COMPILE]["doubts"] or ""
        assert doubts == "; ".join(filter(None, [noisy, says and f"{says}: trust the latter"]))
        apart = [replace(session, paired=False) for session in sessions]
        assert (rows(trials, *apart)[COMPILE]["doubts"] or "") == noisy, "nothing was timed in turn"


class TestClass:
    @pytest.mark.parametrize(
        ("reference", "trace", "class_"),
        [
            ((2.3, 2.0, 1.5), (2.302, 2.0, 1.499), "A"),
            ((2.3, 2.0, 1.5), (2.3, 2.0, 1.51), "B"),
            ((2.3, 2.0, 1.5), (2.3, 2.0), "B"),
            ((1000.0,), (1001.0,), "A"),
            ((1000.0,), (1001.1,), "B"),
            ((), (), "A"),
        ],
    )
    def test_a_trace_that_differs_is_no_class_a(self, reference, trace, class_):
        traces = {EAGER: reference, COMPILE: trace}
        trials = [make_trial(cell, outcome=make_measurement(loss_trace=own)) for cell, own in traces.items()]
        row = rows(trials)[COMPILE]
        assert (row["class"], row["doubts"] is None) == (class_, class_ == "A")

    def test_by_settings_the_least_alike_of_the_seeds_and_never_raised(self):
        assert only_row(seeds_of({"class_": "A"}, {"class_": "C"}, {"class_": "B"}))["class"] == "C"
        row = rows([make_trial(EAGER), make_trial(COMPILE, outcome=make_measurement(class_="B", loss_trace=(1.0,)))])
        assert row[COMPILE]["class"] == "B"
        assert row[COMPILE]["doubts"] is None  # equal predictions

    def test_without_the_reference_class_a_is_not_proven(self):
        row = rows([make_trial(COMPILE)])[COMPILE]
        assert (row["class"], row["doubts"][:20]) == ("A", "class A not proven: ")
        assert rows([make_trial(EAGER)])[EAGER]["doubts"] is None

    @pytest.mark.parametrize(
        ("changes", "says"),
        [
            ((0.0005, -0.0005, 0.001, 0.0, 0.0, -0.001), None),
            (
                (0.0005, -0.0005, 0.001, 0.0, 0.0),
                "class B not proven: accuracy within 0.2 pp of the reference variant's takes 6 seeds",
            ),
            ((0.0025,) * 6, "within 0.2 pp of the reference variant's is not shown: [+0.12, +0.38] pp"),
            ((0.01, -0.01) * 3, "class B not proven: accuracy within 0.2 pp"),
        ],
    )
    def test_class_b_is_held_against_the_references_accuracies(self, changes, says):
        def trial(cell, seed, accuracy, class_):
            one = make_epochs((1.0,), accuracy=(accuracy,))
            outcome = make_measurement(epochs=one, class_=class_, predictions_sha256=f"{accuracy:.4f}".zfill(64))
            return make_trial(cell, seed=seed, outcome=outcome)

        trials = [trial(EAGER, seed, 0.97, "A") for seed in range(6)]
        trials += [trial(COMPILE, seed, 0.97 + change, "B") for seed, change in enumerate(changes)]
        row = rows(trials)[COMPILE]
        assert row["class"] == "B"
        assert (row["doubts"] is None) if says is None else (says in row["doubts"])


class TestSpeedUps:
    def test_against_the_reference_and_the_cpu_with_the_weaker_word(self):
        on_cpu, on_gpu, plain = make_trial(COMPILE), make_trial(replace(COMPILE, device="cuda")), make_trial(CUDA)
        session = make_session([on_cpu, on_gpu], [[8.0, 2.0]])
        found = rows([on_cpu, on_gpu, plain], session, make_session([plain], [[3.0]], paired=False))
        row = found[on_gpu.cell]
        assert (row["speedup_vs_cpu"], row["speedup_vs_eager"]) == (pytest.approx(4.0), pytest.approx(1.5))
        assert row["paired"] == "unpaired"
        assert [found[CUDA][key] for key in ("speedup_vs_eager", "speedup_vs_cpu", "paired")] == [None] * 3
        assert rows([on_cpu, on_gpu], session)[on_gpu.cell]["paired"] == "within"

    @pytest.mark.parametrize(
        "other", [make_failed(EAGER), make_trial(make_cell("cnn")), make_trial(make_cell(batch_size=1000))]
    )
    def test_a_failed_side_and_another_model_or_batch_size_are_no_reference(self, other):
        trials = [other, make_trial(COMPILE)]
        assert rows(trials, make_session(trials, [[2.0, 1.0]]))[COMPILE]["speedup_vs_eager"] is None

    def test_reference_is_the_one_that_the_matrix_names_or_eagers_like(self):
        plain, compiled = Variant(name="plain"), Variant(name="compile", execution="compile")
        trials, sessions = timed((make_cell(variant="plain"), 2.0), (COMPILE, 1.0))
        one = replace(plain, threads=1)
        assert rows(trials, *sessions, variants=(compiled, plain))[COMPILE]["speedup_vs_eager"] == pytest.approx(2.0)
        assert rows(trials, *sessions, variants=(compiled, one))[COMPILE]["speedup_vs_eager"] is None
        named = rows(trials, *sessions, variants=(compiled, one), reference="compile")
        assert named[make_cell(variant="plain")]["speedup_vs_eager"] == pytest.approx(0.5)


class TestFastest:
    def fastest(self, trials: list[Trial], *sessions: Session) -> set[str]:
        return {cell.variant for cell, row in rows(trials, *sessions).items() if row["fastest"]}

    def test_is_shared_by_those_that_cannot_be_told_apart(self):
        cells = [make_cell(variant=name) for name in ("eager", "near", "slow")]
        trials, sessions = timed(*zip(cells, (1.0, 1.02, 1.3), strict=True), seeds=3)
        assert self.fastest(trials, *sessions) == {"eager", "near"}

    def test_samples_per_second_do_not_decide(self):
        trials, sessions = timed((EAGER, 1.3), (COMPILE, 1.0), seeds=3)
        quick = make_measurement(epochs=make_epochs((0.1, 0.1)))
        changed = [replace(t, outcome=quick) if t.cell == EAGER else t for t in trials]
        assert self.fastest(changed, *sessions) == {"compile"}

    def test_paired_ratios_overrule_steps_of_sessions_apart(self):
        trials, sessions = timed((EAGER, 1.0), (COMPILE, 0.8), seeds=3)
        alone = [make_session([t], [[0.1]] * 40, paired=False) for t in trials if t.cell == EAGER]  # a quiet hour
        assert self.fastest(trials, *sessions, *alone) == {"compile"}
        solo = [make_session([t], [[1.0 + (t.cell == EAGER)]] * 40, paired=False) for t in trials]
        assert self.fastest(trials, *solo) == set(), "none was timed together with another"

    def test_other_classes_failed_and_single_cells_have_none(self):
        trials, sessions = timed((EAGER, 2.0), (COMPILE, 2.5), (make_cell(variant="tf32"), 1.0))
        tf32 = make_measurement(class_="B")
        changed = [replace(t, outcome=tf32) if t.cell.variant == "tf32" else t for t in trials]
        assert self.fastest(changed, *sessions) == {"eager"}
        assert self.fastest([*trials[:2], make_failed(COMPILE, 1)], *sessions) == set()
        assert self.fastest(trials[:1]) == set()


TWO = Floor(min_accuracy=0.98, min_train_samples_per_s=20_001)
MISSED = ["test accuracy 0.975 is below the floor 0.98", "training samples per second 20000 is below the floor 20001"]
UNKNOWN = ["test accuracy was not measured (crashed), so the floor 0.5 is missed"]


@pytest.mark.parametrize(
    ("trial", "expect", "missed"),
    [
        (make_trial(), [Floor(min_accuracy=0.975, min_train_samples_per_s=20_000)], []),
        (make_trial(), [TWO], MISSED),
        (make_trial(), [Floor(model="mlp", min_accuracy=0.1), TWO], MISSED),  # every one that matches
        (make_trial(), [Floor(variant="compile", min_accuracy=0.99)], []),
        (make_failed(kind="crashed"), [Floor(min_accuracy=0.5)], UNKNOWN),
        (make_trial(outcome=Skip(reason="no GPU")), [Floor(min_accuracy=0.5)], []),  # the machine cannot hold it
    ],
)
def test_floors_that_are_missed(trial, expect, missed):
    run = run_of([trial, make_trial(make_cell("cnn"), outcome=Skip(reason="no"))], expect=tuple(expect))
    assert missed_floors(run.manifest.matrix, run.rows) == [(EAGER, f"{EAGER.id}: {how}") for how in missed]


@pytest.mark.parametrize(("train_s", "rates"), [((0.0, 0.5), [None, 120_000]), ((3.0,), [20_000])])
def test_samples_per_second_of_an_epoch(train_s, rates):
    measured = make_measurement(epochs=make_epochs(train_s, (0.9,) * len(train_s)))
    lines = epochs(run_of([make_trial(outcome=measured), make_failed(seed=1)]))
    assert [dict(zip(EPOCH_COLUMNS, line, strict=True))["train_samples_per_s"] for line in lines] == rates


def test_a_missed_floor_says_how_far_its_seeds_spread():
    own = [make_measurement(epochs=make_epochs((2.0,), (accuracy,))) for accuracy in (0.94, 0.96)]
    run = run_of(
        [make_trial(seed=seed, outcome=one) for seed, one in enumerate(own)], expect=(Floor(min_accuracy=0.96),)
    )
    ((_, how),) = missed_floors(run.manifest.matrix, run.rows)
    assert how.endswith("test accuracy 0.95, over 2 seeds that spread by 0.014, is below the floor 0.96")
