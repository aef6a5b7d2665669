"""Where data sets lie."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import platformdirs

APP = "mnist_bench"


def cache_root(environ: Mapping[str, str]) -> Path:
    """The program's cache folder: ``$XDG_CACHE_HOME/mnist_bench``, else the system's own place for caches."""
    base = environ.get("XDG_CACHE_HOME", "").strip()
    # The XDG specification has relative paths ignored.
    if base and Path(base).is_absolute():
        return Path(base) / APP
    return Path(platformdirs.user_cache_dir(APP, appauthor=False))


def default_root(data_dir: str | Path | None, environ: Mapping[str, str]) -> Path:
    """The folder whose ``MNIST/raw`` holds MNIST: ``--data-dir``, else ``MNIST_BENCH_DATA``, else the cache folder.

    Returns:
        An absolute path (workers run in other folders); it need not exist.
    """
    named = data_dir or environ.get("MNIST_BENCH_DATA", "").strip()
    return Path(named).expanduser().absolute() if named else cache_root(environ)


def raw_folder(root: Path) -> Path:
    """The folder of the four IDX files, where ``torchvision.datasets.MNIST(root)`` looks for them."""
    return root / "MNIST" / "raw"
