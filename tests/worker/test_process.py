"""What is of the whole process: numerics, set in a process of its own and read back there; core, memory, state."""

import json
import os
import random
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn
from worker_kit import make_spec

from mnist_bench.errors import TrialError
from mnist_bench.records import Variant
from mnist_bench.running.process import uninstalled_package, worker_environment
from mnist_bench.worker import process
from mnist_bench.worker.models import build_optimizer
from mnist_bench.worker.process import Relocator, apply_numerics, on_random_core, state_tensors

PROGRAM = """
import json, sys, torch
from mnist_bench.records import Variant
from mnist_bench.worker.process import apply_numerics, describe_numerics

settings = json.loads(sys.argv[1])
device, leniently = torch.device(settings.pop("device", "cpu")), settings.pop("deterministic_if_possible", False)
variant = Variant(name="tested", **settings)
apply_numerics(variant, device, deterministic_if_possible=leniently)
# Read from torch, not from what was asked for.
found = describe_numerics(Variant(name="other", precision=variant.precision, threads=7), device)
found["warns_only"] = torch.is_deterministic_algorithms_warn_only_enabled()
found["flags"] = torch.get_float32_matmul_precision(), torch.backends.cuda.matmul.fp32_precision
print(json.dumps(found))
"""
LENIENT = {"deterministic": True, "deterministic_if_possible": True}
IN_FORCE = [
    ({"threads": 1}, {"threads": 1, "autocast": "off", "deterministic": False, "denormals_flushed": False}),
    ({"threads": 2, "precision": "bf16"}, {"threads": 2, "autocast": "torch.bfloat16"}),
    ({"onednn": False, "precision": "fp16"}, {"onednn": False, "autocast": "torch.float16"}),
    ({"flush_denormal": True, "deterministic": True}, {"denormals_flushed": True, "warns_only": False}),
    # Flags of the process, which a build for the CPU has too; read by their older and their newer names.
    ({"device": "cuda", **LENIENT}, {"flags": ["highest", "ieee"], "conv_precision": "ieee", "warns_only": True}),
    ({"device": "cuda", "precision": "tf32"}, {"flags": ["high", "tf32"], "conv_precision": "tf32"}),
]


@pytest.mark.parametrize(("settings", "expected"), IN_FORCE, ids=range(len(IN_FORCE)))
def test_numerics_are_set_and_read_back(settings, expected):
    command = [sys.executable, "-c", PROGRAM, json.dumps(settings)]
    found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert found.items() >= expected.items()
    assert {"interop_threads", "onednn", "omp_wait_policy"} <= found.keys()


def test_a_processor_that_cannot_flush_denormals_is_refused(monkeypatch):
    monkeypatch.setattr(torch, "set_flush_denormal", lambda wanted: False)
    with pytest.raises(TrialError, match="cannot flush denormals"):
        apply_numerics(Variant(name="flush", flush_denormal=True), torch.device("cpu"))


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system binds no thread to a core")
def test_a_block_has_one_core_by_its_seed_and_is_free_afterwards():
    def core(seed: int) -> int:
        with on_random_core(random.Random(seed)):
            (found,) = os.sched_getaffinity(0)
            return found

    os.sched_setaffinity(0, range(os.cpu_count() or 1))  # the test's end puts it back
    every = os.sched_getaffinity(0)
    assert [core(seed) for seed in range(20)] == [core(seed) for seed in range(20)]
    assert {core(seed) for seed in range(64)} == every
    with pytest.raises(ZeroDivisionError), on_random_core(random.Random(1)):
        raise ZeroDivisionError
    assert os.sched_getaffinity(0) == every


def test_memory_is_that_of_the_whole_tree_and_its_peak():
    program = "held = bytearray(200 << 20); del held; print('held', flush=True); input()"
    before = process.tree_peak_bytes()
    np.ones(before + (100 << 20), np.uint8)  # more than this process ever had, and gone
    assert process.tree_peak_bytes() - before >= 100 << 20
    own = process.tree_peak_bytes()
    child = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with child:
        child.stdout.readline()
        assert process.tree_peak_bytes() - own > 200 << 20
        child.communicate(b"\n")


def test_the_folder_that_a_worker_is_started_in_is_not_on_its_path(tiny, tmp_path):
    for name in ("argparse", "torch", "mnist_bench"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit(97)")
    environ = {**os.environ, "PYTHONPATH": os.pathsep}  # an empty entry is the folder
    own = worker_environment(environ, make_spec(tiny, execution="compile"), "own", uninstalled_package())
    assert own["TMPDIR"] == "own"  # precompiled headers lie there, and go with it
    own["TMPDIR"] = str(tmp_path)
    for command in (["-m", "mnist_bench.worker", "--help"], ["-c", "import mnist_bench.worker.server"]):
        done = subprocess.run([sys.executable, *command], cwd=tmp_path, env=own, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr


def test_every_tensor_moves_and_keeps_its_value():
    model = nn.Sequential(nn.BatchNorm1d(16), nn.Linear(16, 16), nn.Linear(16, 16))
    model[2].weight = model[1].weight  # shared
    optimizer = build_optimizer(model, "adam", 0.01, fused=True)
    model(torch.rand(8, 16)).sum().backward()
    optimizer.step()
    tensors = [*state_tensors(model, optimizer), torch.rand(4, 3, 8, 8).to(memory_format=torch.channels_last)]
    assert len({id(tensor) for tensor in tensors}) == 5 + 3 + 5 * 3 + 1  # parameters, buffers, moments and counts
    relocator = Relocator()
    for seed in range(6):
        before = [(each, each.data_ptr(), each.clone(), each.stride()) for each in tensors]
        relocator.move(tensors, random.Random(seed))
        for (tensor, address, value, stride), after in zip(before, tensors, strict=True):
            assert after is tensor
            assert after.data_ptr() != address
            assert torch.equal(after, value)
            assert after.stride() == stride
    sizes = [spacer.numel() for spacer in relocator._spacers]  # held until the next move
    assert len(sizes) == len(tensors) == len(set(sizes))
    assert 1 <= min(sizes) < max(sizes[1:]) < process.MAX_SPACER_BYTES
