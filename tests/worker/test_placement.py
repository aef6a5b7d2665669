"""A block's main thread stays on one core, drawn by the round's seed, and is free again afterwards."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator

import pytest

from mnist_bench.measure.placement import on_random_core

pytestmark = pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system binds no thread to a core")


def test_the_thread_is_on_one_core_and_free_afterwards() -> None:
    before = os.sched_getaffinity(0)
    with on_random_core(random.Random(1)):
        assert len(os.sched_getaffinity(0)) == 1
        assert os.sched_getaffinity(0) <= before
    assert os.sched_getaffinity(0) == before


def test_it_is_free_again_after_an_error() -> None:
    before = os.sched_getaffinity(0)
    with pytest.raises(ZeroDivisionError), on_random_core(random.Random(1)):
        raise ZeroDivisionError
    assert os.sched_getaffinity(0) == before


@pytest.fixture
def every_core() -> Iterator[set[int]]:
    """All cores that this process may have, also where it shares them with other tests."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, range(os.cpu_count() or 1))
    yield os.sched_getaffinity(0)
    os.sched_setaffinity(0, before)


def test_one_seed_is_one_core_and_all_cores_have_their_turn(every_core: set[int]) -> None:
    if len(every_core) < 2:
        pytest.skip("needs two cores")

    def core(seed: int) -> int:
        with on_random_core(random.Random(seed)):
            (found,) = os.sched_getaffinity(0)
            return found

    assert [core(seed) for seed in range(20)] == [core(seed) for seed in range(20)]
    assert {core(seed) for seed in range(64)} == every_core
