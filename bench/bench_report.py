"""The report of 10,000 trials, from files to file; the bar is 10 s."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from run_factory import write_run

from mnist_bench.cli import main
from mnist_bench.disk.folder import SAMPLES, SESSION
from mnist_bench.records import BUILTIN_VARIANTS

STEPS = 2000  # of each trial's session


@pytest.mark.parametrize(("sizes", "seeds"), [(6, 47), (93, 3)], ids=["216-cells", "3348-cells"])
def test_report_of_10000_trials(benchmark: Any, tmp_path: Path, sizes: int, seeds: int) -> None:
    variants = tuple(replace(BUILTIN_VARIANTS["eager"], name=f"variant-{n}") for n in range(6))
    batch_sizes = tuple(range(100, 100 * sizes + 1, 100))
    folder = write_run(
        tmp_path, "mlp", "lenet5", "cnn", batch_sizes=batch_sizes, variants=variants, seeds=tuple(range(seeds))
    )
    rng, rows = np.random.default_rng(0), np.zeros(STEPS, dtype=SAMPLES)
    rows["phase"] = SESSION
    trials = folder.trials()
    assert len(trials) >= 10_000
    for trial in trials:
        rows["done_ns"] = rng.lognormal(np.log(1e6), 0.06, STEPS)
        np.save(folder.samples_path(trial.id), rows)
    code = benchmark.pedantic(main, (["report", str(folder.path)],), rounds=2)
    assert code == 0
    print(f"{(folder.path / 'report.html').stat().st_size / 1e6:.2f} MB")
