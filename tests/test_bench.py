"""bench/: the proofs' arithmetic and exit codes, that the plain loop does the harness's work, the suites' storage."""

import argparse
import json
import math
import os
import random
import re
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from record_factory import SHA, make_epochs, make_measurement, make_session

from bench import aa, bars, bench_cells, live, overhead, peer_work, peers, report, tutorial_loop
from bench.bars import Bar
from bench.plain_loop import PlainLoop
from mnist_bench import config
from mnist_bench.analysis.ratios import SpeedUp
from mnist_bench.catalogue import training_of
from mnist_bench.cells import expand
from mnist_bench.disk.folder import SAMPLES, TRAINING, WARMUP
from mnist_bench.errors import DataError, WorkerError
from mnist_bench.records import BUILTIN_VARIANTS, DataSet, ModelEntry
from mnist_bench.running.process import Interrupts
from mnist_bench.stats import Interval
from mnist_bench.worker.executions import eager, missing_compiler
from mnist_bench.worker.models import build_model, build_optimizer
from mnist_bench.worker.pipelines import Resident, epoch_order

ROOT = Path(__file__).resolve().parents[1]
MACHINE = {"span_s": 10.0, "steal": 0.0, "others": 0.0, "load_1min": 1.0}


def speed_up(ratio: float, half_width: float = 0.02) -> SpeedUp:
    return SpeedUp(Interval(ratio, ratio - half_width, ratio + half_width), "within")


def timed(*ms: tuple[float, ...]) -> live.Timed:
    members = ("mlp/cpu/b100/a/s0", "mlp/cpu/b100/b/s0")[: len(ms[0])]
    return live.Timed(session=make_session(members, ms), timing_s=3.0, machine=MACHINE, noisy=())


def trained(train_s: float, eval_s: float, call_s: float = 0.0, step_s: float = 0.0) -> live.Trained:
    epochs = replace(make_epochs(train_s=(train_s,), accuracy=(0.9,)), eval_s=(eval_s,), loader_s=(0.25,))
    return live.Trained(
        measurement=make_measurement(epochs=epochs), call_s=(call_s,), step_s=(step_s,), machine=MACHINE
    )


def ran(*command: str, cwd: Path = ROOT, **environ: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, **environ}
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("ratios", "half_width", "held"),
    [
        ([1.01, 0.99, 1.005, 0.995, 1.0, 1.0, 1.01, 0.99, 1.002, 0.998], 0.02, [True, True, True]),
        ([1.1, 0.9] * 5, 0.2, [False, True, True]),  # spread too wide
        ([1.01, 1.012] * 5, 0.02, [True, False, True]),  # one side is always slower
        ([1.012, 0.988] * 5, 0.01, [True, True, False]),  # intervals too narrow
        ([1.0] * 7 + [1.025, 0.975, 1.025], 0.02, [True, True, False]),  # seven of ten hold 1
    ],
)
def test_a_missed_bar_is_exit_code_1(ratios, half_width, held):
    found = bars.agreement_bars("mlp", [speed_up(ratio, half_width) for ratio in ratios])
    assert [bar.holds for bar in found] == held
    assert bars.exit_code(found) == (0 if all(held) else 1)


@pytest.mark.parametrize(
    ("by_name", "by_start", "held"),
    [
        ([0.02, -0.02] * 8, [0.02] * 16, False),  # the names are alike, and whichever starts first is slower
        ([0.02] * 16, [0.02, -0.02] * 8, True),  # one name is slower, whichever starts first
        ([0.004, -0.004] * 8, [0.004] * 16, True),
    ],
)
def test_the_process_that_starts_first_is_as_fast_as_the_other(by_name, by_start, held):
    """``b`` starts first in every second session."""
    found = [
        aa.Repeat(model="mlp", seed=n, paired=speed_up(math.exp(log)), solo=None, together=timed((3.0, 3.0)), apart=())
        for n, log in enumerate(by_name)
    ]
    assert [one.first_log for one in found] == pytest.approx(by_start)
    assert aa.judge(["mlp"], found)[-1].holds == held


def test_too_few_sessions_prove_nothing():
    found = bars.agreement_bars("mlp", [speed_up(1.0)])
    assert [bar.holds for bar in found] == [False, False, True]
    assert found[0].measured == "unknown"
    assert not bars.holds_one(SpeedUp(Interval(1.0), "within"))


@pytest.mark.parametrize(
    ("logs", "held"),
    [
        ([0.003 + 0.001 * (-1) ** n for n in range(30)], [True, True]),
        ([0.012 + 0.0001 * n for n in range(30)], [False, True]),  # the ratio is over the bar
        ([-0.1, 0.1] * 6, [True, False]),  # its upper bound is
        ([0.0] * 5, [True, False]),  # its upper bound is not known
    ],
)
def test_what_is_over_a_bar_misses_it(logs, held):
    assert [bar.holds for bar in bars.step_bars("mlp", logs)] == held


@pytest.mark.parametrize(("harness", "sign"), [("mlp/cpu/b100/a/s0", 1), ("mlp/cpu/b100/b/s0", -1)])
def test_a_pair_is_the_median_over_its_rounds(harness, sign):
    found = overhead.step_pair("mlp", 0, timed((3.3, 3.0), (3.0, 3.0), (3.03, 3.0)), harness)
    assert found.log_ratio == pytest.approx(sign * math.log(1.01))


def test_parts_of_an_epoch():
    (cost,) = overhead.epoch_costs("mlp", trained(2.0, 0.5, call_s=2.01, step_s=1.74))
    assert (cost.outside_span, cost.around_span, cost.outside) == pytest.approx((0.005, 0.005, 0.01))
    assert [bars.outside_bar("mlp", [share, share, 0.5]).holds for share in (0.009, 0.011)] == [True, False]


@pytest.mark.parametrize(("seconds", "code"), [(40.1, 0), (39.9, 1)])
def test_tutorial(seconds, code):
    sides = {"best": trained(8.0, 2.0), "tutorial": trained(seconds - 5, 5.0)}
    pairs = [tutorial_loop.LoopPair(model="lenet5", pair=n, **sides) for n in range(3)]
    assert bars.exit_code(tutorial_loop.judge(("lenet5",), pairs)) == code


GOOD = Bar(what="good", measured="1", limit="<= 2", holds=True)
BAD = Bar(what="bad", measured="3", limit="<= 2", holds=False)


@pytest.mark.parametrize(
    ("found", "code", "words"),
    [
        ([GOOD], 0, "good"),
        ([], 1, ""),  # nothing measured is no proof
        ([GOOD, BAD], 1, "\nMISSED  bad: 3, not <= 2"),
        (WorkerError("it died"), 1, "it died"),
        (DataError("no data"), 2, "no data"),
    ],
)
def test_a_proof_says_what_it_missed_and_keeps_what_was_measured(found, code, words, tmp_path, capsys):
    def opened(args: argparse.Namespace, interrupts: Interrupts) -> live.Workshop:
        data = DataSet(name="synthetic", root="nowhere", sha256=SHA)
        return live.Workshop(data=data, folder=Path(), environ={}, interrupts=interrupts)

    def prove(workshop: live.Workshop, samples: list[Any]) -> list[Bar]:
        samples.extend([timed((3.0, 3.0)), trained(2.0, 0.5)])
        if isinstance(found, Exception):
            raise found
        return found

    args = argparse.Namespace(json=tmp_path / "out" / "samples.json", data_dir=None)
    assert report.conduct("x", args, prove, opened) == code
    assert words in "\n".join(capsys.readouterr())
    written = json.loads(args.json.read_text())
    assert written["samples"][0]["session"]["rounds"][0]["seconds"] == [0.03, 0.03]
    assert written["samples"][1]["measurement"]["epochs"]["train_s"] == [2.0]
    assert isinstance(found, Exception) or [bar["holds"] for bar in written["bars"]] == [bar.holds for bar in found]


@pytest.mark.parametrize("steps", [600, 599])
def test_steps_are_summed_by_epoch_and_a_missing_one_is_an_error(steps, tmp_path):
    """Two epochs as a trial keeps them, after a warm-up."""
    assert live.TRAINING_PHASE == TRAINING
    data = DataSet(name="mnist", root="nowhere", sha256=SHA)
    with Interrupts() as interrupts:
        workshop = live.Workshop(data=data, folder=tmp_path, environ={}, interrupts=interrupts)
        spec = workshop.spec("mlp", live.EAGER, 0, epochs=2)
    rows = np.zeros(10 + 2 * steps, dtype=SAMPLES)
    rows["phase"] = np.repeat([WARMUP, TRAINING], [10, 2 * steps])
    rows["index"][10 + steps :] = 1
    rows["loaded_ns"] = np.arange(len(rows)) * 3_000_000
    rows["done_ns"] = rows["loaded_ns"] + 2_000_000
    np.save(spec.samples_path, rows)
    if steps == 600:
        assert live.step_seconds(spec) == pytest.approx((600 * 2e-3, 600 * 2e-3))
    else:
        with pytest.raises(WorkerError, match="1198 training steps, not the 1200"):
            live.step_seconds(spec)


def plain_loop() -> PlainLoop:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (53, 1, 28, 28), dtype=torch.uint8, generator=generator)
    labels = torch.randint(10, (53,), generator=generator)
    torch.manual_seed(3)
    model = build_model(ModelEntry(name="lenet5", model="lenet5"))
    optimizer = build_optimizer(model, "adam", 0.001, fused=True)
    return PlainLoop(model, optimizer, images, labels, images[:20], mean=0.1307, std=0.3081, batch_size=10, seed=3)


def test_the_plain_loop_takes_the_steps_of_the_harness_wherever_its_memory_lies():
    """Same images in the same order, same weights after them; 7 steps of 5 an epoch: the order is drawn anew within."""
    plain, mirror = plain_loop(), plain_loop()
    data = argparse.Namespace(data=mirror.images.squeeze(1), targets=mirror.labels)
    training = training_of(ModelEntry(name="lenet5", model="lenet5"), "standard")
    pipeline = Resident(data, data, training, 10, torch.device("cpu"))
    pipeline.transfer()
    program = eager(mirror.model, mirror.optimizer, BUILTIN_VARIANTS["eager"], torch.device("cpu"))
    orders = [epoch_order(mirror.seed, epoch, 53)[:50] for epoch in (-1, -2)]
    for batch in [batch for order in orders for batch in pipeline.train_batches(order)][:7]:
        program.step(*batch)
    assert plain.train(3) > 0.0
    tensors = [plain.images, *plain.model.parameters()]
    before = [tensor.data_ptr() for tensor in tensors]
    plain.relocate(random.Random(0))
    assert not any(tensor.data_ptr() == address for tensor, address in zip(tensors, before, strict=True))
    plain.train(4)
    for ours, theirs in zip(plain.model.parameters(), mirror.model.parameters(), strict=True):
        assert torch.equal(ours, theirs)


MATRIX = """\
version: 1
models: [mlp]
devices: [cpu, mps]
batch_sizes: [16]
variants: [eager, compile, {name: tf32, precision: tf32}, {name: one, channels_last: true, threads: 1}]
"""


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_make_bench_times_each_cell_or_says_why_not_and_stores_it(tmp_path):
    (tmp_path / "matrix.yaml").write_text(MATRIX)
    target = ["make", "bench", "-o", ".venv/installed-test", f"BIN={Path(sys.executable).parent}"]
    arguments = (
        f"-p no:cacheprovider -v --benchmark-storage={tmp_path / 'stored'} --benchmark-max-time=0.1 -k 'mlp or hodges'"
    )
    settings = f"MATRIX={tmp_path / 'matrix.yaml'}", f"ARGS={arguments}"
    done = ran(*target, *settings, TORCHINDUCTOR_CACHE_DIR=str(tmp_path / "cache"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(list((tmp_path / "stored").rglob("*.json"))) == 1
    verdicts = dict(re.findall(r"^bench/\w+\.py::(\S+) (PASSED|SKIPPED)", done.stdout, re.MULTILINE))
    compiler = missing_compiler(BUILTIN_VARIANTS["compile"], torch.device("cpu"))
    for cell in expand(config.parse(MATRIX, source="m.yaml", allow_plugins=False)):
        possible = cell.device == "cpu" and cell.variant != "tf32" and not (cell.variant == "compile" and compiler)
        for name in (f"test_step[{cell.id}]", f"test_evaluation_batch[{cell.id}]"):
            assert verdicts.pop(name) == ("PASSED" if possible else "SKIPPED"), name
    assert verdicts == {"test_hodges_lehmann_of_200": "PASSED"}
    assert "precision tf32 exists on NVIDIA GPUs" in done.stdout
    assert compiler is None or compiler in done.stdout


def test_a_bad_matrix_is_refused_with_its_line(tmp_path):
    matrix = tmp_path / "matrix.yaml"
    matrix.write_text("version: 1\nmodels: [lenet]\n")
    flags = {"--matrix": matrix, "--allow-plugins": False}
    with pytest.raises(pytest.UsageError, match=r"matrix\.yaml:2:10: models\[0\]: unknown model 'lenet'"):
        bench_cells.pytest_generate_tests(SimpleNamespace(config=SimpleNamespace(getoption=flags.get)))


@pytest.mark.bars
@pytest.mark.parametrize(
    ("command", "missed", "members"),
    [
        ("aa --sessions 1 --budget 1 --precision 0.5", "sd of ln ratio between sessions: unknown", "a b"),
        ("overhead --parts steps --pairs 1", "the upper bound of its 95 % interval: unknown", "eager plain"),
    ],
)
def test_a_proof_of_too_little_runs_and_proves_nothing(command, missed, members, tmp_path):
    """Real workers, in one session of each pair."""
    samples = tmp_path / "samples.json"
    done = ran(sys.executable, "-m", *f"bench.{command} --models mlp --json {samples}".split())
    assert done.returncode == 1, done.stderr
    assert f"MISSED  mlp: {missed}" in done.stderr
    (found,) = json.loads(samples.read_text())["samples"]
    session = found.get("together", found.get("timed"))["session"]
    assert [one.split("/")[3] for one in session["members"]] == members.split()
    assert all(all(one["steps"]) for one in session["rounds"])
    assert [found[how]["paired"] for how in ("paired", "solo") if how in found] in ([], ["within", "unpaired"])


def test_a_step_is_slower_by_the_share_that_it_should_be():
    begin = time.perf_counter()
    assert peer_work.slowed(lambda seconds: time.sleep(seconds) or "done", 0.5)(0.1) == "done"
    assert time.perf_counter() - begin >= 0.15


@pytest.mark.parametrize(
    ("seconds", "spread", "says"), [(1.05, 0.01, "slower"), (1.05, 0.05, "same"), (0.9, 0.02, "faster")]
)
def test_hyperfine_is_read_as_it_says_it(tmp_path, monkeypatch, seconds, spread, says):
    both = [{"mean": 1.0, "stddev": 0.0}, {"mean": seconds, "stddev": spread}]
    monkeypatch.setattr(peers, "ran", lambda *_: (tmp_path / "both.json").write_text(json.dumps({"results": both})))
    assert peers.hyperfine(tmp_path, 0.05) == (pytest.approx(math.log(seconds)), says)


def test_peers_are_told_by_spread_alarms_and_what_they_found():
    answers = [(0.0, 0.03, "same"), (0.0, -0.04, "faster"), (0.05, 0.05, "slower"), (0.05, 0.01, "same")]
    verdicts = [
        peers.Verdict("asv", *answer, seconds) for answer, seconds in zip(answers, (9, 10, 11, 12), strict=True)
    ]
    assert peers.table(verdicts).splitlines()[2:] == ["| asv | 3.5 % | 1 of 2 | 1.030 | 1 of 2 | 10 |"]
