"""Everything that reads a clock, with clocks made up: warm-up, waterfall, epochs, evaluation, blocks, devices."""

import hashlib
from collections.abc import Iterator

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mnist_bench.worker import loop
from mnist_bench.worker.loop import evaluate, time_steps_by_events, train_epoch

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


@pytest.mark.parametrize(
    ("duration_ms", "asked", "steady"),
    [
        (lambda number: 5, [2, 10, 10, 10], 5),  # windows of 50 ms, three that agree
        (lambda number: 400, [2, 1, 1, 1], 400),  # steps longer than a window make windows of one
        (lambda number: max(2, 40 - number), None, 2),  # compilation, caches, a clock that speeds up: waited for
        (lambda number: 1.03**number, None, None),  # never settles: taken as it is
    ],
)
def test_warm_up_is_found(duration_ms, asked, steady):
    counts: list[int] = []

    def time_steps(count: int) -> list[int]:
        begin = sum(counts)
        counts.append(count)
        return [round(duration_ms(number) * MS) for number in range(begin, begin + count)]

    durations = loop.settle(time_steps)
    assert durations == [round(duration_ms(number) * MS) for number in range(sum(counts))]
    assert asked in (None, counts)
    if steady:
        assert set(durations[-3:]) == {steady * MS}
    else:
        assert loop.LIMIT_NS <= sum(durations) < loop.LIMIT_NS + 1_000 * MS


@given(st.integers(0, 10**9), st.lists(st.integers(0, 10**9), max_size=120))
def test_a_block_is_about_a_tenth_of_a_second_by_the_latest_steps(duration, before):
    steps = loop.block_steps([*before, *[duration] * 50])
    assert steps == max(1, steps)
    if 10 <= duration <= 50 * MS:
        assert 0.5 <= steps * duration / (100 * MS) <= 1.5


# ── epochs ───────────────────────────────────────────────────────────────────────────────────────────────────────────

Spans = st.lists(st.tuples(st.integers(0, 10**12), st.integers(0, 10**12), st.integers(1, 9)), max_size=30)


@given(Spans)
def test_an_epoch_is_stamped_and_keeps_every_loss_with_its_weight(spans):
    """Of each step: how long its batch took to come, how long it took, how many images it had."""
    clock, calls = Clock(), []
    works = iter([work for _, work, _ in spans])

    def batches() -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        for load, _, size in spans:
            clock.sleep(load)
            yield torch.zeros(size, 1), torch.zeros(size, dtype=torch.int64)

    def step(images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        clock.sleep(next(works))
        calls.append("step")
        return torch.tensor(float(len(labels)))

    trained = train_epoch(step, batches(), len(spans), lambda: calls.append("sync"), clock)
    assert calls == ["sync", *["step"] * len(spans), "sync"]  # at both ends, never inside
    loads, works_ns, sizes = (tuple(part) for part in zip(*spans, strict=True)) if spans else ((), (), ())
    assert trained.loader_ns() == sum(loads)
    assert trained.ended - trained.started - trained.loader_ns() == sum(works_ns)
    assert [done - loaded for loaded, done in zip(trained.steps[::2], trained.steps[1::2], strict=True)] == [*works_ns]
    assert tuple(trained.sizes) == sizes
    assert trained.images == sum(sizes)
    if spans:
        assert trained.mean_loss() == pytest.approx(sum(size * size for size in sizes) / sum(sizes))


def test_every_image_is_scored_once():
    clock = Clock()
    labels = torch.arange(25) % 10
    logits = torch.eye(10)[(labels + (torch.arange(25) < 5).long()) % 10]  # the first five are wrong

    def scored() -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        for begin in range(0, 25, 10):
            clock.sleep(10 * MS)
            yield logits[begin : begin + 10], labels[begin : begin + 10]

    score = evaluate(lambda images: images, scored(), torch.empty(25, dtype=torch.uint8), lambda: None, clock)
    assert (score.correct, score.samples, score.seconds) == (20, 25, pytest.approx(0.03))
    predicted = logits.argmax(1).to(torch.uint8).numpy().tobytes()
    assert score.predictions_sha256 == hashlib.sha256(predicted).hexdigest()


def test_an_epoch_lasts_until_the_device_is_done_and_no_span_has_work_of_before():
    """A device's work is queued: it is done, here, only where it is waited for, or a value is asked for."""
    clock, queue = Clock(), [40 * MS]

    def wait() -> None:
        clock.sleep(sum(queue))
        queue.clear()

    def step(images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        queue.append(10 * MS)
        return torch.zeros(())

    batch = torch.zeros(2, 1), torch.zeros(2, dtype=torch.int64)
    trained = train_epoch(step, [batch] * 3, 3, wait, clock)
    assert trained.ended - trained.started == 30 * MS
    queue.append(40 * MS)

    def forward(images: torch.Tensor) -> torch.Tensor:
        wait()  # its values are asked for
        return images

    assert evaluate(forward, [batch], torch.empty(2, dtype=torch.uint8), wait, clock).seconds == 0


# ── devices ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_steps_by_events_are_synchronised_at_both_ends_only():
    clock, calls = Clock(), []

    class Mark:
        """A device event, in milliseconds as torch has it."""

        def __init__(self, *, enable_timing: bool) -> None:
            assert enable_timing

        def record(self) -> None:
            self.at = clock()

        def elapsed_time(self, other: "Mark") -> float:
            return (other.at - self.at) / MS

    def step() -> None:
        calls.append("step")
        clock.sleep(len(calls) * 1000)

    durations = time_steps_by_events(Mark, lambda: calls.append("sync"), step, 3)
    assert calls == ["sync", "step", "step", "step", "sync"]
    assert durations == [2000, 3000, 4000]
