from __future__ import annotations

import math
import statistics
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from record_factory import (
    make_cell,
    make_epochs,
    make_failed,
    make_manifest,
    make_matrix,
    make_measurement,
    make_session,
    make_trial,
)

from mnist_bench import session_ratios, stats
from mnist_bench.cells import reference_variant
from mnist_bench.records import (
    BUILTIN_VARIANTS,
    STATUSES,
    Floor,
    Session,
    Skip,
    StepTimes,
    Trial,
    Variant,
)
from mnist_bench.rows import Row
from mnist_bench.summary import columns, epoch_rows, floors, outline, pending, summarise

# docs of results/ in the contract, word for word.
CONTRACT = (
    "model, device, batch_size, variant, status, reason, seeds, test_accuracy, test_accuracy_std, "
    "train_samples_per_s, train_samples_per_s_low, train_samples_per_s_high, step_ms_p50, step_ms_p95, step_ms_p99, "
    "epoch_s, eval_samples_per_s, compile_s, time_to_first_step_s, total_s, loader_share, host_peak_mib, "
    "device_peak_mib, speedup_vs_eager, speedup_vs_eager_low, speedup_vs_eager_high, speedup_vs_cpu, "
    "speedup_vs_cpu_low, speedup_vs_cpu_high, paired, noisy, class, dataset, recipe"
)

EAGER, COMPILE = make_cell(), make_cell(variant="compile")
CUDA = make_cell(device="cuda")


def seeds_of(cell: Any, count: int = 3, **changes: Any) -> list[Trial]:
    return [make_trial(cell, seed, make_measurement(**changes)) for seed in range(count)]


def one_row(trials: list[Trial], sessions: tuple[Session, ...] = ()) -> Row:
    (row,) = summarise(make_manifest(trials), trials, sessions)
    return row


def row_of(rows: tuple[Row, ...], cell: Any) -> Row:
    (row,) = (row for row in rows if row.cell == cell)
    return row


def timed_rows(trials: list[Trial], sessions: list[Session], **matrix: Any) -> tuple[Row, ...]:
    return summarise(make_manifest(trials, matrix=make_matrix(**matrix)), trials, sessions)


class TestRows:
    def test_columns_are_those_of_the_contract(self) -> None:
        assert ", ".join(columns(Row)).startswith(f"{CONTRACT}, ")

    def test_order_is_that_of_the_matrix(self) -> None:
        cells = [make_cell(variant="compile"), make_cell("cnn"), make_cell()]
        trials = [make_trial(cell, seed) for seed in (1, 0) for cell in reversed(cells)]
        planned = [make_trial(cell, seed) for cell in cells for seed in (0, 1)]
        assert [row.cell for row in summarise(make_manifest(planned), trials, [])] == cells

    def test_cells_without_a_finished_trial_are_pending(self) -> None:
        planned = [*seeds_of(EAGER), *seeds_of(COMPILE)]
        done = planned[:1]
        (row,) = summarise(make_manifest(planned), done, [])
        assert (row.cell, row.seeds, row.status) == (EAGER, 1, "ok")
        assert pending(make_manifest(planned), done) == tuple(trial.id for trial in planned[1:])

    def test_trial_beyond_the_plan_is_not_lost(self) -> None:
        assert [row.cell for row in summarise(make_manifest(), [make_trial()], [])] == [EAGER]

    @pytest.mark.parametrize(("better", "worse"), [(b, w) for i, b in enumerate(STATUSES) for w in STATUSES[i + 1 :]])
    def test_status_is_the_worst_of_the_seeds(self, better: Any, worse: Any) -> None:
        def trial(seed: int, status: Any) -> Trial:
            if status in ("ok", "skipped"):
                return make_trial(seed=seed, outcome=make_measurement() if status == "ok" else Skip(reason="skipped"))
            return make_failed(seed=seed, kind=status, reason=status)

        row = one_row([trial(0, better), trial(1, worse), trial(2, better)])
        assert (row.status, row.reason) == (worse, worse)
        assert row.seeds == (2 if better == "ok" else 0)

    def test_figures_come_from_the_seeds_that_are_ok(self) -> None:
        ok = seeds_of(EAGER, 2)
        row = one_row([*ok, make_failed(seed=2, kind="timeout")])
        assert row.seeds == 2
        assert replace(row, status="ok", reason="") == one_row(ok)

    def test_nothing_measured_is_nothing_but_words(self) -> None:
        row = one_row([make_failed(reason="why")])
        said = {"model", "device", "batch_size", "variant", "status", "reason", "seeds", "dataset", "recipe"}
        said.add("dataset_sha256")
        assert {name for name in row.__slots__ if getattr(row, name) is not None} == said
        assert row.seeds == 0


class TestFigures:
    def test_throughput_and_epochs(self) -> None:
        trials = [
            make_trial(seed=s, outcome=make_measurement(epochs=make_epochs(t)))
            for s, t in enumerate([(2.0, 4.0), (3.0, 3.0), (3.0, 5.0)])
        ]
        row = one_row(trials)
        assert row.epoch_s == pytest.approx(20 / 6)
        assert row.train_samples_per_s == pytest.approx(360_000 / 20)
        rates = stats.t_interval([20_000, 20_000, 15_000])
        assert (row.train_samples_per_s_low, row.train_samples_per_s_high) == (rates.low, rates.high)
        assert row.eval_samples_per_s == pytest.approx(60_000 / 1.5)
        assert row.loader_share == pytest.approx(3 / 20)

    @given(st.lists(st.tuples(st.floats(0.01, 1e4), st.floats(0.01, 1e4)), min_size=1, max_size=6))
    def test_an_epoch_is_all_images(self, train_s: list[tuple[float, float]]) -> None:
        trials = [make_trial(seed=s, outcome=make_measurement(epochs=make_epochs(t))) for s, t in enumerate(train_s)]
        row = one_row(trials)
        assert row.epoch_s * row.train_samples_per_s == pytest.approx(60_000, rel=1e-12)
        if row.train_samples_per_s_low is not None:
            assert 0 <= row.train_samples_per_s_low <= row.train_samples_per_s <= row.train_samples_per_s_high

    @pytest.mark.parametrize("count", [1, 2])
    def test_few_seeds_have_no_interval(self, count: int) -> None:
        row = one_row(seeds_of(EAGER, count))
        assert (row.train_samples_per_s_low, row.train_samples_per_s_high) == (None, None)
        assert (row.test_accuracy_std is None) == (count == 1)

    def test_accuracy_is_that_of_the_last_epoch(self) -> None:
        last = [0.91, 0.92, 0.96]
        trials = [
            make_trial(seed=s, outcome=make_measurement(epochs=make_epochs(accuracy=(0.99, a))))
            for s, a in enumerate(last)
        ]
        row = one_row(trials)
        assert row.test_accuracy == pytest.approx(0.93)
        assert row.test_accuracy_std == pytest.approx(statistics.stdev(last))
        assert row.train_loss == 0.25

    def test_costs(self) -> None:
        trials = [
            make_trial(
                seed=seed,
                outcome=make_measurement(
                    compile_s=compile_s,
                    total_s=total,
                    time_to_first_step_s=total / 2,
                    host_peak_bytes=peak << 20,
                    device_peak_bytes=None if seed == 0 else peak << 21,
                ),
            )
            for seed, compile_s, total, peak in [(0, None, 10, 100), (1, 7.0, 30, 300), (2, 9.0, 14, 200)]
        ]
        row = one_row(trials)
        assert (row.compile_s, row.total_s, row.time_to_first_step_s) == (8.0, 14, 7)
        assert (row.host_peak_mib, row.device_peak_mib) == (300, 600)
        assert one_row(seeds_of(EAGER)).compile_s is None
        assert one_row(seeds_of(EAGER)).device_peak_mib is None

    def test_time_to_accuracy(self) -> None:
        def trial(seed: int, *accuracy: float) -> Trial:
            return make_trial(seed=seed, outcome=make_measurement(epochs=make_epochs((2.0, 4.0, 8.0), accuracy)))

        soon, late, never = trial(0, 0.97, 0.9, 0.9), trial(1, 0.1, 0.9, 0.98), trial(2, 0.1, 0.2, 0.9699)
        assert one_row([soon]).time_to_accuracy_s == 2.0
        assert one_row([soon, late]).time_to_accuracy_s == (2 + 14) / 2
        assert one_row([soon, late, never]).time_to_accuracy_s is None

    def test_no_epochs_are_no_figures(self) -> None:
        row = one_row([make_trial(outcome=make_measurement(epochs=make_epochs((), ())))])
        assert (row.seeds, row.epoch_s, row.train_samples_per_s, row.train_samples_per_s_high) == (1, None, None, None)
        assert (row.test_accuracy, row.train_loss, row.eval_samples_per_s, row.loader_share) == (None,) * 4

    def test_class_is_the_least_alike_of_the_seeds(self) -> None:
        classes = ["A", "C", "B"]
        row = one_row([make_trial(seed=s, outcome=make_measurement(class_=c)) for s, c in enumerate(classes)])
        assert row.class_ == "C"

    def test_facts(self) -> None:
        row = one_row(seeds_of(EAGER))
        assert (row.device_name, row.threads, row.parameters) == ("AMD EPYC", 2, 235_146)
        trials = seeds_of(EAGER, numerics={})
        (row,) = timed_rows(trials, [], variants=(Variant(name="eager", threads=5),))
        assert row.threads == 5

    def test_step_times_are_medians_over_sessions(self) -> None:
        trials = seeds_of(EAGER)
        sessions = [make_session([t], [[ms]], paired=False) for t, ms in zip(trials, (3.0, 1.0, 2.0), strict=True)]
        row = one_row(trials, tuple(sessions))
        assert (row.step_ms_p50, row.step_ms_p95, row.step_ms_p99) == (2.0, 3.0, 4.0)

    def test_step_times_of_a_member_that_left_do_not_count(self) -> None:
        trial = make_trial()
        left = make_session([trial], [[0]], steps={})
        empty = make_session([trial], [[0]], steps={trial.id: StepTimes(p50_ms=0, p95_ms=0, p99_ms=0, count=0)})
        assert one_row([trial], (left, empty)).step_ms_p50 is None


class TestNoise:
    def test_quiet(self) -> None:
        trials = seeds_of(EAGER)
        row = one_row(trials, (make_session([trials[0]], [[1.0]]),))
        assert (row.noisy, row.noisy_trials, row.doubts) == (False, 0, None)

    def test_trials_and_sessions_count(self) -> None:
        trials = [make_trial(), make_trial(seed=1, outcome=make_measurement(noisy=("load",))), make_trial(seed=2)]
        row = one_row(trials, (make_session([trials[2]], [[1.0]], noisy=("steal", "load")),))
        assert (row.noisy, row.noisy_trials, row.doubts) == (True, 2, "load; steal")

    def test_marks_are_doubts_but_no_noise(self) -> None:
        row = one_row([make_trial(outcome=make_measurement(marks=("the waterfall lacks 5 %",)))])
        assert (row.noisy, row.doubts) == (False, "the waterfall lacks 5 %")


class TestSpeedUps:
    def pair_sessions(self, pairs: list[tuple[Trial, Trial]], ratio: float = 2.0) -> list[Session]:
        return [
            make_session([slow, fast], [[ratio * (1 + n / 1000), 1.0] for n in range(-5, 6)]) for slow, fast in pairs
        ]

    def test_one_session_is_within(self) -> None:
        slow, fast = make_trial(EAGER), make_trial(COMPILE)
        (session,) = self.pair_sessions([(slow, fast)])
        row = row_of(timed_rows([slow, fast], [session]), COMPILE)
        rounds = session_ratios.ratio_of(session_ratios.log_ratios(session, slow.id, fast.id))
        expected = session_ratios.between_processes(rounds).interval
        assert row.paired == "within"
        assert row.speedup_vs_eager == pytest.approx(2.0)
        assert row.speedup_vs_eager_low == pytest.approx(math.exp(expected.low))
        assert row.speedup_vs_eager_high == pytest.approx(math.exp(expected.high))

    def test_several_sessions_are_between(self) -> None:
        slow, fast = seeds_of(EAGER), seeds_of(COMPILE)
        pairs = list(zip(slow, fast, strict=True))
        sessions = [s for n, p in enumerate(pairs) for s in self.pair_sessions([p], 2 + n / 10)]
        row = row_of(timed_rows(slow + fast, sessions), COMPILE)
        expected = stats.t_interval([math.log(2), math.log(2.1), math.log(2.2)])
        assert row.paired == "between"
        assert row.speedup_vs_eager == pytest.approx(math.exp(expected.estimate))
        assert row.speedup_vs_eager_low == pytest.approx(math.exp(expected.low))

    def test_reference_has_no_ratio_to_itself(self) -> None:
        slow, fast = make_trial(EAGER), make_trial(COMPILE)
        row = row_of(timed_rows([slow, fast], self.pair_sessions([(slow, fast)])), EAGER)
        assert (row.speedup_vs_eager, row.speedup_vs_cpu, row.paired) == (None, None, None)

    def test_solo_sessions_are_unpaired(self) -> None:
        slow, fast = seeds_of(EAGER), seeds_of(COMPILE)
        sessions = [make_session([t], [[4.0], [4.4], [400]], paired=False) for t in slow]
        sessions += [make_session([t], [[ms]], paired=False) for t, ms in zip(fast, (2.2, 2.2, 2.0), strict=True)]
        row = row_of(timed_rows(slow + fast, sessions), COMPILE)
        expected = stats.t_interval([math.log(2), math.log(2), math.log(2.2)])
        assert row.paired == "unpaired"
        assert row.speedup_vs_eager == pytest.approx(math.exp(expected.estimate))
        assert row.speedup_vs_eager_high == pytest.approx(math.exp(expected.high))

    def test_two_solo_seeds_bound_nothing(self) -> None:
        slow, fast = seeds_of(EAGER, 2), seeds_of(COMPILE, 2)
        row = row_of(timed_rows(slow + fast, [make_session([t], [[1.0]], paired=False) for t in slow + fast]), COMPILE)
        assert (row.speedup_vs_eager, row.speedup_vs_eager_low) == (1.0, None)

    def test_members_of_an_unpaired_session_are_unpaired(self) -> None:
        slow, fast = make_trial(EAGER), make_trial(COMPILE)
        session = make_session([slow, fast], [[3.0, 1.0]], paired=False)
        row = row_of(timed_rows([slow, fast], [session]), COMPILE)
        assert (row.speedup_vs_eager, row.paired) == (pytest.approx(3.0), "unpaired")

    @pytest.mark.parametrize(
        "sessions",
        [
            lambda slow, fast: [],
            lambda slow, fast: [make_session([slow], [[1.0]], paired=False)],
            lambda slow, fast: [make_session([slow, fast], [[1.0, 0]])],
        ],
    )
    def test_never_timed_is_no_ratio(self, sessions: Any) -> None:
        slow, fast = make_trial(EAGER), make_trial(COMPILE)
        row = row_of(timed_rows([slow, fast], sessions(slow, fast)), COMPILE)
        assert (row.speedup_vs_eager, row.paired) == (None, None)

    @pytest.mark.parametrize("failed", [EAGER, COMPILE])
    def test_a_failed_side_is_no_ratio(self, failed: Any) -> None:
        trials = [make_failed(cell) if cell == failed else make_trial(cell) for cell in (EAGER, COMPILE)]
        row = row_of(timed_rows(trials, [make_session(trials, [[2.0, 1.0]])]), COMPILE)
        assert row.speedup_vs_eager is None

    def test_against_the_cpu_too_and_the_weaker_word(self) -> None:
        on_cpu, on_gpu, plain = make_trial(COMPILE), make_trial(replace(COMPILE, device="cuda")), make_trial(CUDA)
        sessions = [make_session([on_cpu, on_gpu], [[8.0, 2.0]])]
        sessions.append(make_session([plain], [[3.0]], paired=False))
        row = row_of(timed_rows([on_cpu, on_gpu, plain], sessions), on_gpu.cell)
        assert row.speedup_vs_cpu == pytest.approx(4.0)
        assert row.speedup_vs_eager == pytest.approx(1.5)
        assert row.paired == "unpaired"
        assert row_of(timed_rows([on_cpu, on_gpu], sessions[:1]), on_gpu.cell).paired == "within"

    def test_other_models_and_batches_are_no_reference(self) -> None:
        others = [make_trial(make_cell("cnn")), make_trial(make_cell(batch_size=1000))]
        mine = make_trial(COMPILE)
        session = make_session([*others, mine], [[2.0, 2.0, 1.0]])
        assert row_of(timed_rows([*others, mine], [session]), COMPILE).speedup_vs_eager is None

    def test_reference_is_eager_or_its_like(self) -> None:
        compiled = BUILTIN_VARIANTS["compile"]
        assert reference_variant(make_matrix()) == "eager"
        assert reference_variant(make_matrix(variants=(compiled, Variant(name="plain")))) == "plain"
        assert reference_variant(make_matrix(variants=(compiled, Variant(name="one", threads=1)))) is None
        slow, fast = make_trial(make_cell(variant="plain")), make_trial(COMPILE)
        session = make_session([slow, fast], [[2.0, 1.0]])
        variants = (compiled, Variant(name="plain"))
        assert row_of(timed_rows([slow, fast], [session], variants=variants), COMPILE).speedup_vs_eager == 2.0
        assert row_of(timed_rows([slow, fast], [session], variants=(compiled,)), COMPILE).speedup_vs_eager is None

    def test_reference_may_be_named_by_include_alone(self) -> None:
        variants = (BUILTIN_VARIANTS["compile"],)
        assert reference_variant(make_matrix(variants=variants, include=(EAGER,))) == "eager"
        assert reference_variant(make_matrix(variants=(*variants, Variant(name="plain")), include=(EAGER,))) == "plain"
        slow, fast = make_trial(EAGER), make_trial(COMPILE)
        rows = timed_rows([slow, fast], [make_session([slow, fast], [[2.0, 1.0]])], variants=variants, include=(EAGER,))
        assert row_of(rows, COMPILE).speedup_vs_eager == 2.0


class TestFloors:
    def check(self, trials: list[Trial], *expect: Floor) -> list[tuple[str, str]]:
        results = floors(make_matrix(expect=expect), summarise(make_manifest(trials), trials, []))
        return [(result.verdict, result.message) for result in results]

    def test_accuracy(self) -> None:
        floor = Floor(model="mlp", min_accuracy=0.975)
        assert self.check([make_trial()], floor) == [
            ("held", "mlp/cpu/b100/eager: test accuracy 0.975 holds the floor 0.975")
        ]
        assert self.check([make_trial()], replace(floor, min_accuracy=0.98)) == [
            ("missed", "mlp/cpu/b100/eager: test accuracy 0.975 is below the floor 0.98")
        ]

    def test_throughput(self) -> None:
        floor = Floor(min_train_samples_per_s=20_001, min_accuracy=0.5)
        assert self.check([make_trial()], floor) == [
            ("held", "mlp/cpu/b100/eager: test accuracy 0.975 holds the floor 0.5"),
            ("missed", "mlp/cpu/b100/eager: training samples per second 20000 is below the floor 20001"),
        ]

    def test_every_floor_and_every_row_that_matches(self) -> None:
        trials = [make_trial(EAGER), make_trial(COMPILE), make_trial(make_cell("cnn"))]
        everywhere = Floor(min_accuracy=0.1)
        mlp = Floor(model="mlp", variant="eager", min_accuracy=0.99)
        assert [verdict for verdict, _ in self.check(trials, everywhere, mlp)] == ["held", "missed", "held", "held"]

    def test_missing_figure_misses(self) -> None:
        (result,) = self.check([make_failed(kind="crashed")], Floor(min_accuracy=0.5))
        assert result == (
            "missed",
            "mlp/cpu/b100/eager: test accuracy was not measured (crashed), so the floor 0.5 is missed",
        )

    def test_skipped_cell_has_nothing_to_hold(self) -> None:
        trial = make_trial(CUDA, outcome=Skip(reason="no GPU"))
        ((verdict, message),) = self.check([trial], Floor(min_accuracy=0.5))
        assert verdict == "skipped"
        assert message.endswith("was not tested: no GPU")

    def test_other_cells_are_not_asked(self) -> None:
        assert self.check([make_trial()], Floor(device="cuda", min_accuracy=1)) == []


def test_epoch_rows() -> None:
    trials = [make_trial(COMPILE, 4), make_failed(seed=1)]
    first, second = epoch_rows(trials)
    assert (first.trial, first.epoch, first.seed) == ("mlp/cpu/b100/compile/s4", 1, 4)
    assert (second.epoch, second.train_s, second.train_samples_per_s) == (2, 4.0, 15_000)
    assert (second.loader_s, second.loss, second.eval_s, second.accuracy) == (0.5, 0.25, 0.25, 0.975)
    assert (second.dataset, second.recipe, second.variant) == ("mnist", "standard", "compile")


class TestOutline:
    def test_is_the_summary_with_fewer_figures(self) -> None:
        trials = [*seeds_of(EAGER), *seeds_of(COMPILE, compile_s=9.0, noisy=("steal 4 %",)), make_failed(CUDA)]
        session = make_session(trials[:2], [[2.0, 1.0]] * 8)
        brief = outline(make_manifest(trials), trials, (session,))
        full = summarise(make_manifest(trials), trials, (session,))
        assert [row.cell for row in brief] == [EAGER, COMPILE, CUDA]
        for one, other in zip(brief, full, strict=True):
            for name in (
                "status",
                "reason",
                "seeds",
                "compile_s",
                "noisy",
                "noisy_trials",
                "class_",
                "doubts",
                "dataset",
            ):
                assert getattr(one, name) == getattr(other, name)
        assert (brief[1].noisy, brief[1].compile_s, brief[1].class_) == (True, 9.0, "A")
        assert brief[1].speedup_vs_eager is brief[1].test_accuracy is None
