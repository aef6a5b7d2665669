"""Installs this project where the Python that runs it installs: ``python scripts/install.py [EXTRA]``.

What PyPI has of torch for Linux is the CUDA build, several GB. A machine without an NVIDIA driver gets the CPU build,
where its index answers. The variable TORCH decides otherwise: ``cpu`` or ``cuda``. A torch that is there stays, as long
as constraints.txt allows it.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

ROOT = Path(__file__).resolve().parents[1]
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
ANSWER_S = 5
ASK = "import sys, urllib.request; urllib.request.urlopen(sys.argv[1]).close()"
DRIVER = (Path("/proc/driver/nvidia"), Path("/usr/lib/wsl/lib/nvidia-smi"))
PIP = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-c", "constraints.txt"]


def has_driver() -> bool:
    """Whether this machine has a driver for NVIDIA GPUs."""
    return shutil.which("nvidia-smi") is not None or any(place.exists() for place in DRIVER)


def answers(url: str) -> bool:
    """Whether a server answers in time. A process asks, since looking up a name has no time-out."""
    words = [sys.executable, "-c", ASK, url]
    try:
        return subprocess.run(words, stderr=subprocess.DEVNULL, timeout=ANSWER_S, check=False).returncode == 0
    except subprocess.TimeoutExpired:
        return False


def chosen(wish: str) -> tuple[bool, str]:
    """Whether to take the CPU build, and what to tell the user.

    Raises:
        ValueError: ``wish`` is no build, or one that cannot be had.
    """
    if wish not in ("", "cpu", "cuda"):
        raise ValueError(f"TORCH={wish}: say cpu or cuda")
    if wish == "cuda" or (not wish and (sys.platform != "linux" or has_driver())):
        return False, ""
    why, host = "TORCH=cpu" if wish else "no NVIDIA driver here", urlsplit(CPU_INDEX).netloc
    if answers(f"{CPU_INDEX}/torch/"):
        return True, f"{why}: torch's CPU build from {host}" + ("" if wish else "; TORCH=cuda takes the CUDA build")
    if wish:
        raise ValueError(f"{why}: {host} did not answer within {ANSWER_S} s: try again, or leave TORCH out")
    return False, f"{why}, but {host} did not answer within {ANSWER_S} s: torch as pip's own index has it"


def main(extra: str = "") -> int:
    """The program and torch; or, after that, what an extra adds. Gives pip's exit code, or 2."""
    if extra:
        return pip("-e", f".[{extra}]")
    try:
        cpu, why = chosen(os.environ.get("TORCH", ""))
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    print(why, end="\n" if why else "", file=sys.stderr, flush=True)
    code = pip("torch", "torchvision", "--index-url", CPU_INDEX) if cpu else 0
    return code or pip("-e", ".")


def pip(*words: str) -> int:
    """Installs; what is there and of the right version stays."""
    return subprocess.call([*PIP, *words], cwd=ROOT)


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
