from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fault_kit import Bench


@pytest.fixture
def bench(tmp_path: Path, bench_environ: Callable[[str], dict[str, str]]) -> Iterator[Bench]:
    """A folder to run in. Afterwards, whatever the test did, no process of it is left."""
    made = Bench(tmp_path, bench_environ)
    yield made
    made.end()
    assert made.all_gone(), made.alive()
