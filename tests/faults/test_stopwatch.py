"""The trial's own clocks against a stopwatch that is not in the trial."""

from time import perf_counter_ns
from typing import Any, ClassVar

import pytest

from mnist_bench.cli import main
from mnist_bench.disk.folder import RunFolder
from mnist_bench.running import runner
from mnist_bench.running.process import LocalWorker


class Watched(LocalWorker):
    """A stopwatch runs inside each of its methods; it starts as the worker is made, up to the end of the first call."""

    total_ns: ClassVar[dict[str, int]] = {}

    def __init__(self, *arguments: Any) -> None:
        self._begin_ns: int | None = perf_counter_ns()
        super().__init__(*arguments)

    def _timed(self, method: Any, *arguments: Any) -> Any:
        begin_ns, self._begin_ns = self._begin_ns or perf_counter_ns(), None
        done = method(*arguments)
        self.total_ns[self.spec.id] = self.total_ns.get(self.spec.id, 0) + perf_counter_ns() - begin_ns
        return done

    def call(self, request: Any) -> Any:
        return self._timed(super().call, request)

    def close(self) -> int:
        return self._timed(super().close)


def test_the_waterfall_is_what_a_stopwatch_says(bench, tmp_path, monkeypatch):
    """Rule 6: within 2 %, of two trials that hand the token back and forth (each sleeps while the other works)."""
    monkeypatch.setattr(runner, "LocalWorker", Watched)
    for key, value in bench.environ().items():
        monkeypatch.setenv(key, value)
    (tmp_path / "matrix.yaml").write_text(
        "version: 1\ndataset: auto\nepochs: 1\nseeds: 1\nmodels: [mlp]\ndevices: [cpu]\nbatch_sizes: [500]\n"
        "variants: [{name: fused, threads: 1}, {name: plain, threads: 1, fused_optimizer: false}]\n"
        "timing: {precision: 0.0001, budget_seconds: 3.5}\n"  # never precise enough: each works more than 5 s
    )
    assert main(["run", str(tmp_path / "matrix.yaml"), "--offline", "-q", "-o", str(bench.results)]) == 0
    trials = RunFolder(*bench.runs()).trials()
    assert len(trials) == 2
    for trial in trials:
        measured = trial.outcome
        stopwatch_s = Watched.total_ns[trial.id] * 1e-9
        assert stopwatch_s > 5
        for said_s in (measured.awake_s, measured.token_s, sum(measured.phases.values())):
            assert said_s == pytest.approx(stopwatch_s, rel=0.02)
        assert measured.marks == ()
