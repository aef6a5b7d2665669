"""A block's main thread stays on one core, drawn by the round's seed, and is free again afterwards."""

from __future__ import annotations

import os
import random

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


@pytest.mark.skipif(len(getattr(os, "sched_getaffinity", lambda _: ())(0)) < 2, reason="needs two cores")
def test_one_seed_is_one_core_and_all_cores_have_their_turn() -> None:
    def core(seed: int) -> int:
        with on_random_core(random.Random(seed)):
            (found,) = os.sched_getaffinity(0)
            return found

    assert [core(seed) for seed in range(20)] == [core(seed) for seed in range(20)]
    assert {core(seed) for seed in range(64)} == os.sched_getaffinity(0)
