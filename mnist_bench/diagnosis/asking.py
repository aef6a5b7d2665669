"""Asks a process of its own about torch, so that this one never imports it."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Annotated

from pydantic import Field, TypeAdapter, ValidationError

from mnist_bench.diagnosis.facts import ProbeFailure, TorchReport

TIMEOUT_S = 120.0
COMPILE_TIMEOUT_S = 300.0  # a cold compilation on a busy machine
COMMAND = (sys.executable, "-m", "mnist_bench.probe")
STAGE = "probe: "  # as the probe writes it; it is not imported here, torch lies behind it
_TAIL_BYTES = 8192

_ANSWER: TypeAdapter[TorchReport | ProbeFailure] = TypeAdapter(
    Annotated[TorchReport | ProbeFailure, Field(discriminator="type")]
)


def ask_torch(
    environ: Mapping[str, str],
    *,
    try_compile: bool,
    command: Sequence[str] = COMMAND,
    timeout_s: float | None = None,
) -> TorchReport | ProbeFailure:
    """What the probe says of torch; a probe that crashes or hangs is an answer too.

    Args:
        environ: of the probe, but for the compiler's caches, which are empty.
        try_compile: compile a small function too.
        command: starts the probe; timeout_s: how long it may take (None: by what it does). Tests give others.
    """
    limit_s = timeout_s or (COMPILE_TIMEOUT_S if try_compile else TIMEOUT_S)
    cache = tempfile.mkdtemp(prefix="mnist-bench-doctor-")
    try:
        # Files, not pipes: a compiler's helper that outlives the probe would hold a pipe open.
        with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
            code = _run([*command, *(["--compile"] if try_compile else [])], environ, cache, output, errors, limit_s)
            return _answer(code, _read(output), _read(errors), limit_s)
    finally:
        shutil.rmtree(cache, ignore_errors=True)


def _run(
    command: Sequence[str],
    environ: Mapping[str, str],
    cache: str,
    output: IO[bytes],
    errors: IO[bytes],
    limit_s: float,
) -> int | None:
    """Its exit code; None: it took too long. Nothing that it started is left."""
    caches = {"TORCHINDUCTOR_CACHE_DIR": str(Path(cache, "inductor")), "TRITON_CACHE_DIR": str(Path(cache, "triton"))}
    process = subprocess.Popen(
        command,
        env={**environ, **caches},
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=errors,
        start_new_session=True,
    )
    try:
        return process.wait(limit_s)
    except subprocess.TimeoutExpired:
        return None
    finally:  # after Ctrl-C too
        with contextlib.suppress(ProcessLookupError, PermissionError):  # macOS: not permitted where all are gone
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _answer(code: int | None, output: bytes, errors: bytes, limit_s: float) -> TorchReport | ProbeFailure:
    lines = errors.decode(errors="replace").splitlines()
    stage = next((line.removeprefix(STAGE) for line in reversed(lines) if line.startswith(STAGE)), "start")
    if code is None:
        return ProbeFailure(kind="hung", detail=f"no answer within {limit_s:g} s", stage=stage)
    if code == 0:
        try:
            return _ANSWER.validate_json(output)
        except ValidationError:
            return ProbeFailure(kind="crashed", detail="gave no answer that can be read", stage=stage)
    if code < 0 and -code in set(signal.Signals):
        return ProbeFailure(kind="crashed", detail=f"was killed by {signal.Signals(-code).name}", stage=stage)
    said = [line.strip() for line in lines if line.strip() and not line.startswith(STAGE)]
    return ProbeFailure(kind="crashed", detail=f"exited with {code} ({said[-1] if said else 'silent'})", stage=stage)


def _read(file: IO[bytes]) -> bytes:
    """All of the answer, or the end of what was said (an answer is far shorter)."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - _TAIL_BYTES))
    return file.read()
