"""How long the synthetic set takes to draw, and a data set to verify: ``pytest bench/synthetic_set.py``."""

from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from mnist_bench.data import verify
from mnist_bench.data.mnist import proven
from mnist_bench.data.synthetic import SEED, SIZES, draw_digits, write_set
from mnist_bench.records import DataSet


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> DataSet:
    root = tmp_path_factory.mktemp("set")
    write_set(root, seed=SEED, sizes=SIZES)
    return proven("synthetic", root)


def test_draw_ten_thousand_digits(benchmark: BenchmarkFixture) -> None:
    images, _ = benchmark.pedantic(draw_digits, (10_000,), {"seed": SEED, "split": 0}, rounds=3, warmup_rounds=1)
    assert len(images) == 10_000


def test_write_the_whole_set(benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    benchmark.pedantic(write_set, (tmp_path,), {"seed": SEED, "sizes": SIZES}, rounds=1)
    assert proven("synthetic", tmp_path)


def test_verify(benchmark: BenchmarkFixture, data: DataSet) -> None:
    benchmark(verify, data)
