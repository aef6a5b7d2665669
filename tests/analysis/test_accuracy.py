"""Whether two cells are equally accurate: verdicts, intervals, and how often they are wrong."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from record_factory import make_epochs, make_measurement

from mnist_bench.analysis.answers import ENOUGH_SEEDS, MARGIN, AccuracyDifference, compare_accuracy
from mnist_bench.records import Measurement


def scored(accuracy: float, sha: str = "", images: int = 10_000) -> Measurement:
    epochs = make_epochs(train_s=(1.0,), accuracy=(accuracy,))
    return make_measurement(epochs=epochs, eval_samples=images, predictions_sha256=sha or f"of {accuracy}")


def difference(reference: Sequence[float], this: Sequence[float], **kwargs: bool) -> AccuracyDifference:
    pairs = [(scored(a, f"a{n}"), scored(b, f"b{n}")) for n, (a, b) in enumerate(zip(reference, this, strict=True))]
    found = compare_accuracy(pairs, **kwargs)
    assert found is not None
    return found


def bounds(one: AccuracyDifference | None) -> tuple[float, float]:
    assert one is not None
    assert one.difference.low is not None
    assert one.difference.high is not None
    return one.difference.low, one.difference.high


@pytest.mark.parametrize("seeds", [1, 2, 5])
def test_equal_predictions_are_identical_whatever_their_number(seeds: int) -> None:
    same = [(scored(0.92, f"s{n}"), scored(0.92, f"s{n}")) for n in range(seeds)]
    one = compare_accuracy(same)
    assert one is not None
    assert (one.verdict, one.seeds, one.mark, bounds(one)) == ("identical", seeds, "", (0.0, 0.0))
    for other in ({"same_images": False}, {}):
        found = compare_accuracy([*same, *([] if other else [(scored(0.92, "x"), scored(0.88, "y"))])], **other)
        assert found is not None
        assert (found.verdict, found.mark) == ("incomparable" if other else "unproven", "?")


LEVEL = [0.990, 0.991, 0.989]


@pytest.mark.parametrize(
    ("reference", "this", "verdict", "mark"),
    [
        (LEVEL * 2, [0.9901, 0.9911, 0.9889] * 2, "equivalent", ""),
        (LEVEL, [0.9901, 0.9911, 0.9889], "unproven", "?"),  # within the margin, but of three seeds
        (LEVEL, [0.980, 0.981, 0.979], "worse", "↓"),
        ([0.980, 0.981, 0.979], LEVEL, "better", "?"),
        ([0.980, 0.985, 0.979], [0.983, 0.980, 0.979], "unproven", "?"),
        ([0.60, 0.601, 0.599] * 2, [0.60, 0.601, 0.599] * 2, "unproven", "?"),  # so many errors hide 0.3 pp
        ([0.99, 0.99], [0.95, 0.95], "unproven", "?"),  # two seeds bound nothing
        ([1.0] * 6, [1.0] * 6, "equivalent", ""),
    ],
)
def test_verdicts(reference: list[float], this: list[float], verdict: str, mark: str) -> None:
    one = difference(reference, this)
    assert (one.verdict, one.mark, one.difference.low is None) == (verdict, mark, len(this) < 3)


def test_interval_is_students_over_seeds_but_never_narrower_than_chance() -> None:
    changes = [0.0, 0.01, -0.004, 0.006]
    expected = scipy.stats.t.interval(0.95, 3, np.mean(changes), scipy.stats.sem(changes))
    assert bounds(difference([0.9] * 4, [0.9 + change for change in changes])) == pytest.approx(expected)
    half = scipy.stats.t.ppf(0.975, 2) * math.sqrt(0.01 / 20_000 / 3)
    assert bounds(difference([0.99] * 3, [0.99] * 3)) == pytest.approx((-half, half))
    sure = scipy.stats.t.ppf(0.975, 2) * math.sqrt(1e-4 / 20_000 / 3)  # one error at least
    assert bounds(difference([1.0] * 3, [1.0] * 3)) == pytest.approx((-sure, sure))
    many = compare_accuracy([(scored(0.99, "a", 60_000), scored(0.99, "b", 60_000))] * 3)
    assert bounds(many)[1] == pytest.approx(half / math.sqrt(6))  # the tutorial scores 60,000


def test_nothing_scored() -> None:
    empty = make_measurement(epochs=make_epochs(train_s=(), accuracy=()))
    assert compare_accuracy([]) is compare_accuracy([(empty, scored(0.9))]) is None


accuracies = st.lists(st.tuples(st.floats(0.5, 0.999), st.floats(0.5, 0.999)), min_size=1, max_size=8)


@given(accuracies)
def test_laws(pairs: list[tuple[float, float]]) -> None:
    before, after = [a for a, _ in pairs], [b for _, b in pairs]
    there, back = difference(before, after), difference(after, before)
    assert (there.reference, there.this) == (back.this, back.reference)
    assert back.verdict == {"better": "worse", "worse": "better"}.get(there.verdict, there.verdict)
    if len(pairs) >= 3:
        low, high = bounds(there)
        assert bounds(back) == pytest.approx((-high, -low), abs=1e-12)
        assert low <= there.difference.estimate <= high
        assert (there.verdict == "equivalent") == (max(-low, high) < MARGIN and len(pairs) >= ENOUGH_SEEDS)


Training = Callable[[np.random.Generator, int], np.ndarray]


def plain(error: float) -> Training:
    """Accuracies spread by sqrt(err / 2n)."""
    return lambda rng, seeds: rng.normal(1 - error, math.sqrt(error / 20_000), seeds)


def stuck(rng: np.random.Generator, seeds: int) -> np.ndarray:
    """Half of the trainings stay on a plateau."""
    return plain(0.01)(rng, seeds) - 0.04 * rng.integers(0, 2, seeds)


@pytest.mark.parametrize("seeds", [1, 2, 3, 5, 6])
@pytest.mark.parametrize(
    ("reference", "this", "false"),
    [
        (plain(0.01), plain(0.01 + MARGIN), ["equivalent"]),
        (plain(0.01), plain(0.01), ["worse"]),
        (stuck, stuck, ["worse"]),  # the same recipe twice, two-humped
        (plain(0.01), stuck, ["equivalent", "better"]),
        (stuck, plain(0.01), ["equivalent", "worse"]),
    ],
)
def test_false_verdicts_are_rare(reference: Training, this: Training, false: list[str], seeds: int) -> None:
    rng, draws = np.random.default_rng(7), 600
    found = [difference(list(reference(rng, seeds)), list(this(rng, seeds))).verdict for _ in range(draws)]
    assert sum(map(found.count, false)) / draws < 0.025 + 0.012


def test_the_same_recipe_is_shown_equivalent_by_enough_seeds() -> None:
    rng, recipe = np.random.default_rng(7), plain(0.01)
    found = [difference(list(recipe(rng, 10)), list(recipe(rng, 10))).verdict for _ in range(300)]
    assert found.count("equivalent") / len(found) > 0.9
