"""Asks a process of its own about torch, so that this one never imports it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

from pydantic import Field, TypeAdapter, ValidationError

from mnist_bench.diagnosis.facts import STAGE, ProbeFailure, TorchReport

TIMEOUT_S = 120.0
COMPILE_TIMEOUT_S = 300.0  # a cold compilation on a busy machine
COMMAND = (sys.executable, "-m", "mnist_bench.probe")
OUTPUT, ERRORS = "output", "errors"
_MOST_BYTES = 1 << 20

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
    words = [*command, *(["--compile"] if try_compile else [])]
    limit_s = timeout_s or (COMPILE_TIMEOUT_S if try_compile else TIMEOUT_S)
    try:
        with tempfile.TemporaryDirectory(prefix="mnist-bench-doctor-", ignore_cleanup_errors=True) as folder:
            code = _run(words, environ, Path(folder), limit_s)
            return _answer(code, _read(Path(folder, OUTPUT)), _read(Path(folder, ERRORS)), limit_s)
    except OSError as error:
        return ProbeFailure(kind="crashed", detail=f"could not be started: {error}", stage="start")


def _run(command: Sequence[str], environ: Mapping[str, str], folder: Path, limit_s: float) -> int | None:
    """Its exit code; None: it took too long. Nothing that it started is left."""
    caches = {"TORCHINDUCTOR_CACHE_DIR": str(folder / "inductor"), "TRITON_CACHE_DIR": str(folder / "triton")}
    # Files, not pipes: a compiler's helper that outlives the probe would hold a pipe open.
    with (folder / OUTPUT).open("wb") as output, (folder / ERRORS).open("wb") as errors:
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


def _read(path: Path) -> bytes:
    """What was written, or the end of it: a compiler may say a lot, an answer is short."""
    with path.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - _MOST_BYTES))
        return file.read()
