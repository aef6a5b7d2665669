"""The report of 10,000 trials, from files to file; the bar is 10 s."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from run_factory import Plan, write_run

from mnist_bench.cli import main
from mnist_bench.records import BUILTIN_VARIANTS


@pytest.mark.parametrize(("sizes", "seeds"), [(6, 47), (93, 3)], ids=["216-cells", "3348-cells"])
def test_report_of_10000_trials(benchmark: Any, tmp_path: Path, sizes: int, seeds: int) -> None:
    variants = tuple(replace(BUILTIN_VARIANTS["eager"], name=f"variant-{n}") for n in range(6))
    plan = Plan(
        batch_sizes=tuple(range(100, 100 * sizes + 1, 100)),
        variants=variants,
        seeds=tuple(range(seeds)),
        session_steps=2000,
    )
    folder = write_run(tmp_path, plan)
    assert len(folder.trials()) >= 10_000
    code = benchmark.pedantic(main, (["report", str(folder.path)],), rounds=2)
    assert code == 0
    print(f"{folder.report_path.stat().st_size / 1e6:.2f} MB")
