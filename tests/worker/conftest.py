import sys

import pytest
import torch
import torch._dynamo
import torch._inductor.config
from worker_kit import TEST, TRAIN

from mnist_bench.data.mnist import proven
from mnist_bench.data.synthetic import write_set
from mnist_bench.worker import loop


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """2,300 training images (ragged at most batch sizes) and 1,000 test images."""
    root = tmp_path_factory.mktemp("tiny")
    write_set(root, seed=5, sizes=(TRAIN, TEST))
    return proven("synthetic", root)


@pytest.fixture(scope="session")
def tiniest(tmp_path_factory):
    """350 training images and 200 test images: for the cnn, which takes its time."""
    root = tmp_path_factory.mktemp("tiniest")
    write_set(root, seed=5, sizes=(350, 200))
    return proven("synthetic", root)


@pytest.fixture(autouse=True)
def _a_process_of_its_own(tmp_path, monkeypatch):
    """What a trial changes in its process is put back; nothing reaches the user's cache."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "inductor"))
    monkeypatch.setattr(sys, "path", [*sys.path])
    threads = torch.get_num_threads()
    with torch._inductor.config.patch(compile_threads=1):  # no pool of compilers that outlives the test
        yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(False)
    torch._dynamo.reset()


@pytest.fixture
def hasty(monkeypatch):
    """Warm-up and blocks of milliseconds: for tests that look at values, not at times."""
    monkeypatch.setattr(loop, "WINDOW_NS", 1_000_000)
    monkeypatch.setattr(loop, "LIMIT_NS", 10_000_000)
    monkeypatch.setattr(loop, "block_steps", lambda durations: 3)
