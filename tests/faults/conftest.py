import pytest
from fault_kit import Bench


@pytest.fixture
def bench(tmp_path, bench_environ):
    """A folder to run in. Afterwards, whatever the test did, no process of it is left."""
    made = Bench(tmp_path, bench_environ)
    yield made
    made.end()
    assert made.all_gone(), made.alive()
