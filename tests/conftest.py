"""What several folders of tests share: what takes long to make, made once, and an environment of a test's own."""

import functools
import os
import signal
from contextlib import nullcontext
from pathlib import Path

import pytest

from mnist_bench import data, report
from mnist_bench.report import making_script

# A shell that starts the tests in the background lets them ignore Ctrl-C, and so would every program under test.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Of the processes that share the tests (pytest-xdist) each has cores of its own, and so has what it starts: threads of
# a step that share theirs with other work wait for each other's turn, and a test takes minutes.
if process := os.environ.pop("PYTEST_XDIST_WORKER", None):
    count = int(os.environ.pop("PYTEST_XDIST_WORKER_COUNT"))
    if hasattr(os, "sched_setaffinity") and count <= len(os.sched_getaffinity(0)):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[int(process.removeprefix("gw")) % count :: count])


CORES = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set[int]()


@pytest.fixture
def one_core():
    """What a test starts runs on one core: these take minutes where others are at work."""
    if CORES:
        os.sched_setaffinity(0, {max(CORES)})


@pytest.fixture(scope="session")
def bench_data(request):
    """Environment that lets ``dataset: auto`` find images offline: MNIST where MNIST_BENCH_DATA has it, else synthetic.

    The synthetic set is drawn once and kept in pytest's cache folder (some seconds, 60 MB).
    """
    if os.environ.get("MNIST_BENCH_DATA"):
        return {"MNIST_BENCH_DATA": os.environ["MNIST_BENCH_DATA"]}
    cache = Path(request.config.cache.mkdir("mnist_bench"))
    environ = {**os.environ, "XDG_CACHE_HOME": str(cache)}
    drawn = data.resolve("synthetic", data.Request(root=cache, offline=True, notify=print, environ=environ))
    return {"synthetic": drawn.root}


@pytest.fixture(scope="session", autouse=True)
def _vega_is_made_once():
    """The script that draws on pages takes seconds to make: commands that this process runs share one."""

    @functools.cache
    def made() -> str:
        with making_script() as script:
            return script()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report, "making_script", lambda: nullcontext(made))
        yield


@pytest.fixture
def bench_environ(bench_data, tmp_path):
    """Makes environments whose caches and temporary files lie in a folder of the test's own, by name.

    Runs in environments of different names do not wait for each other, as runs of one machine would.
    """

    def make(name: str = "one") -> dict[str, str]:
        cache, temporary = tmp_path / name / "cache", tmp_path / name / "tmp"
        (cache / "mnist_bench").mkdir(parents=True, exist_ok=True)
        temporary.mkdir(exist_ok=True)
        own = {"XDG_CACHE_HOME": str(cache), "TMPDIR": str(temporary)}
        if drawn := bench_data.get("synthetic"):
            link = cache / "mnist_bench" / Path(drawn).name
            if not link.exists():
                link.symlink_to(drawn)
            own["MNIST_BENCH_DATA"] = str(tmp_path / "no-mnist-here")
        return {**os.environ, **{key: value for key, value in bench_data.items() if key.isupper()}, **own}

    return make


@pytest.fixture(autouse=True)
def _same_cores():
    """What binds this process to a core (a block in it, ``one_core``) does so for one test."""
    yield
    if CORES:
        os.sched_setaffinity(0, CORES)
