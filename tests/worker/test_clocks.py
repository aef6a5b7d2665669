"""Everything that reads a clock, with clocks made up: warm-up, waterfall, epochs, evaluation, blocks."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Callable, Iterator

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mnist_bench.devices import DEVICES, open_device
from mnist_bench.devices.base import time_steps_by_clock, time_steps_by_events
from mnist_bench.measure import warmup
from mnist_bench.measure.waterfall import Waterfall
from mnist_bench.training import TrainedEpoch, evaluate, train_epoch

MS = 1_000_000


class Clock:
    """Nanoseconds that pass only when told."""

    def __init__(self) -> None:
        self.now = 1_000

    def __call__(self) -> int:
        return self.now

    def sleep(self, duration_ns: int) -> None:
        self.now += duration_ns


# ── warm-up ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def stepping(duration_ns: Callable[[int], int]) -> tuple[Callable[[int], list[int]], list[int]]:
    """A ``time_steps`` whose n-th step takes ``duration_ns(n)``, and the counts that it was asked for."""
    asked: list[int] = []

    def time_steps(count: int) -> list[int]:
        begin = sum(asked)
        asked.append(count)
        return [duration_ns(number) for number in range(begin, begin + count)]

    return time_steps, asked


def test_a_steady_trial_is_warm_after_three_windows() -> None:
    time_steps, asked = stepping(lambda number: 5 * MS)
    durations = warmup.settle(time_steps)
    assert asked == [2, 10, 10, 10]  # windows of 50 ms
    assert durations == [5 * MS] * 32


def test_a_slow_start_is_waited_for() -> None:
    time_steps, _ = stepping(lambda number: max(2, 40 - number) * MS)  # compilation, caches, a clock that speeds up
    durations = warmup.settle(time_steps)
    assert durations[-50:] == [2 * MS] * 50


def test_steps_longer_than_a_window_make_windows_of_one() -> None:
    time_steps, asked = stepping(lambda number: 400 * MS)
    assert len(warmup.settle(time_steps)) == sum(asked) == 5
    assert asked == [2, 1, 1, 1]


def test_a_trial_that_never_settles_is_taken_as_it_is() -> None:
    spread = [1 * MS, 3 * MS, 9 * MS]
    windows: list[int] = []

    def time_steps(count: int) -> list[int]:
        windows.append(count)
        return [spread[len(windows) % 3]] * count

    durations = warmup.settle(time_steps)
    assert warmup.LIMIT_NS <= sum(durations) < warmup.LIMIT_NS + 1_000 * MS


@given(st.lists(st.integers(0, 10**9), min_size=1, max_size=120))
def test_a_block_is_about_a_tenth_of_a_second(durations: list[int]) -> None:
    steps = warmup.block_steps(durations)
    assert steps >= 1
    middle = sorted(durations[-50:])[len(durations[-50:]) // 2]
    if 10 <= middle <= 50 * MS and len(set(durations)) == 1:
        assert 0.5 <= steps * middle / (100 * MS) <= 1.5


def test_a_block_follows_the_latest_steps() -> None:
    assert warmup.block_steps([80 * MS] * 100 + [2 * MS] * 50) == 50
    assert warmup.block_steps([500 * MS]) == 1


# ── waterfall ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_waterfall_adds_up() -> None:
    clock = Clock()
    waterfall = Waterfall(clock, started_ns=0)
    with waterfall.phase("import"):
        clock.sleep(3 * MS)
    with waterfall.asleep():
        clock.sleep(100 * MS)
    with waterfall.phase("step"):
        clock.sleep(5 * MS)
    clock.sleep(7 * MS)  # claimed by nobody
    with waterfall.phase("step"):
        clock.sleep(5 * MS)
    waterfall.add("loader", 2 * MS)
    assert waterfall.phases_s() == pytest.approx({"import": 0.003, "step": 0.010, "loader": 0.002})
    assert waterfall.asleep_s() == pytest.approx(0.1)
    assert waterfall.elapsed_s() == pytest.approx(0.120001)
    assert waterfall.awake_s() == pytest.approx(0.020001)


def test_a_phase_that_fails_is_timed_all_the_same() -> None:
    clock = Clock()
    waterfall = Waterfall(clock, 0)

    @waterfall.phase("build")
    def build() -> None:
        clock.sleep(4 * MS)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        build()
    assert waterfall.phases_s() == pytest.approx({"build": 0.004})


# ── epochs ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_loaders_time_is_what_lies_between_steps() -> None:
    # started 10 | load 5 | step 20 | load 1 | step 30 | load 4 | step 2 | 3 until synchronised
    stamps = TrainedEpoch(started=10, steps=array("q", [15, 35, 36, 66, 70, 72]), ended=75)
    assert stamps.loader_ns() == 5 + 1 + 4
    assert stamps.step_ns() == 20 + 30 + 2
    assert TrainedEpoch(started=10, steps=array("q"), ended=11).loader_ns() == 0


@given(st.lists(st.tuples(st.integers(0, 10**12), st.integers(0, 10**12)), max_size=30), st.integers(0, 10**15))
def test_loading_and_stepping_fill_an_epoch(spans: list[tuple[int, int]], started: int) -> None:
    now, steps = started, array("q")
    for load, work in spans:
        steps.extend((now + load, now + load + work))
        now += load + work
    stamps = TrainedEpoch(started=started, steps=steps, ended=now)
    assert stamps.loader_ns() == sum(load for load, _ in spans)
    assert stamps.loader_ns() + stamps.step_ns() == stamps.ended - stamps.started


def batches(clock: Clock, sizes: list[int], load_ns: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    for size in sizes:
        clock.sleep(load_ns)
        yield torch.zeros(size, 1, 28, 28), torch.zeros(size, dtype=torch.int64)


def test_an_epoch_is_stamped_and_keeps_every_loss_with_its_weight() -> None:
    clock, calls = Clock(), []

    def step(images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        clock.sleep(7)
        calls.append("step")
        return torch.tensor(float(len(labels)))

    trained = train_epoch(step, batches(clock, [4, 4, 2], 3), 3, synchronize=lambda: calls.append("sync"), clock=clock)
    assert calls == ["sync", "step", "step", "step", "sync"]  # at both ends, never inside
    assert list(trained.steps) == [1003, 1010, 1013, 1020, 1023, 1030]
    assert (trained.started, trained.ended, trained.loader_ns()) == (1000, 1030, 9)
    assert ([loss.item() for loss in trained.losses], trained.sizes) == ([4, 4, 2], [4, 4, 2])
    assert (trained.images, trained.mean_loss()) == (10, 3.6)


def test_every_image_is_scored_once() -> None:
    clock = Clock()
    labels = torch.arange(25) % 10
    logits = torch.eye(10)[(labels + (torch.arange(25) < 5).long()) % 10]  # the first five are wrong

    def scored() -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        for begin in range(0, 25, 10):
            clock.sleep(10 * MS)
            yield logits[begin : begin + 10], labels[begin : begin + 10]

    score = evaluate(lambda images: images, scored(), 25, torch.device("cpu"), synchronize=lambda: None, clock=clock)
    assert (score.correct, score.samples) == (20, 25)
    assert score.seconds == pytest.approx(0.03)
    predicted = logits.argmax(1).to(torch.uint8).numpy().tobytes()
    assert score.predictions_sha256 == hashlib.sha256(predicted).hexdigest()


# ── devices ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_steps_by_the_clock() -> None:
    done: list[int] = []
    durations = time_steps_by_clock(lambda: done.append(1), 5)
    assert len(durations) == len(done) == 5
    assert all(duration >= 0 for duration in durations)


class Mark:
    """A device event on a fake clock, in milliseconds as torch has it."""

    clock = Clock()

    def __init__(self, *, enable_timing: bool) -> None:
        assert enable_timing

    def record(self) -> None:
        self.at = Mark.clock()

    def elapsed_time(self, other: Mark) -> float:
        return (other.at - self.at) / MS


def test_steps_by_events_are_synchronised_at_both_ends_only() -> None:
    calls: list[str] = []

    def step() -> None:
        calls.append("step")
        Mark.clock.sleep(len(calls) * 1000)

    durations = time_steps_by_events(Mark, lambda: calls.append("sync"), step, 3)
    assert calls == ["sync", "step", "step", "step", "sync"]
    assert durations == [2000, 3000, 4000]


@pytest.mark.parametrize("name", ["cpu", "cuda", "cuda:3", "mps", "xpu"])
def test_a_device_that_is_missing_says_why(name: str) -> None:
    device = open_device(name)
    assert str(device.torch_device).startswith(name.partition(":")[0])
    reason = device.missing()
    assert reason is None or len(reason) > 20
    if name == "cpu":
        assert reason is None
        assert device.describe()
        assert device.peak_bytes() is None
        assert len(device.time_steps(lambda: None, 4)) == 4


def test_every_device_of_the_matrix_is_there() -> None:
    assert set(DEVICES) == {"cpu", "cuda", "mps", "xpu"}
