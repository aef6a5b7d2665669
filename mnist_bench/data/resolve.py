"""From what was asked for (auto, mnist, synthetic) to a verified data set on disk."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

from mnist_bench.data import mnist, synthetic
from mnist_bench.data.download import HURRIED, PATIENT, Limits
from mnist_bench.data.fetch import fetch, unpack_all
from mnist_bench.data.mnist import Resource
from mnist_bench.data.paths import cache_root, raw_folder
from mnist_bench.data.verify import combined, demand_whole, expectations, fetch_hint, inspect
from mnist_bench.errors import DataError, DownloadError
from mnist_bench.records import DataSet

Kind = Literal["auto", "mnist", "synthetic"]
Notify = Callable[[str], None]


def resolve(
    kind: Kind,
    *,
    root: Path,
    offline: bool,
    notify: Notify,
    environ: Mapping[str, str],
    progress: bool = False,
    resources: Sequence[Resource] | None = None,
    hurried: Limits = HURRIED,
    patient: Limits = PATIENT,
    sizes: tuple[int, int] | None = None,
) -> DataSet:
    """Finds, fetches or draws a data set, and verifies it.

    Args:
        kind: ``mnist``: MNIST at ``root``, else downloaded there; ``synthetic``: the synthetic set of the cache folder,
            drawn when absent; ``auto``: MNIST where it is or can be had within ``hurried.total_s``, else the synthetic
            set, with a warning.
        root: as ``default_root`` returns it.
        offline: download nothing.
        notify: told what goes on, one line each; several for a warning.
        environ: for the cache folder and ``MNIST_BENCH_MIRROR``.
        progress: draw a bar on stderr while downloading.
        resources: MNIST's files; None: the real ones.
        hurried: patience of ``auto``.
        patient: patience of ``mnist``.
        sizes: training and test images of the synthetic set; None: as many as MNIST has.

    Raises:
        DataError: a file at ``root`` is corrupt or unreadable (``auto`` too), or MNIST is missing and ``offline``.
        DownloadError: ``mnist`` could not be downloaded, or ``root`` not be written.
    """
    resources, sizes = resources or mnist.RESOURCES, sizes or synthetic.SIZES
    match kind:
        case "synthetic":
            return _synthetic(environ, notify, sizes)
        case "mnist":
            return _mnist(root, offline, notify, environ, progress, resources, patient)
        case "auto":
            try:
                return _mnist(root, offline, notify, environ, progress, resources, hurried)
            except (_MissingError, DownloadError) as error:
                _warn(notify, root, error)
                return _synthetic(environ, notify, sizes)


class _MissingError(DataError):
    """MNIST is not at the root, and nothing may be downloaded."""


def _mnist(
    root: Path,
    offline: bool,
    notify: Notify,
    environ: Mapping[str, str],
    progress: bool,
    resources: Sequence[Resource],
    limits: Limits,
) -> DataSet:
    expected = expectations("mnist", root, resources)
    states = inspect(root, expected, environ)
    # Before anything is fetched: a file that is there and wrong is for the user to judge.
    demand_whole([state for state in states if state.status != "missing"], mend=fetch_hint(root))
    missing = [state.expected.name for state in states if state.status == "missing"]
    if missing:
        missing = unpack_all(root, resources, missing)
    if missing and offline:
        raise _MissingError(
            f"{raw_folder(root)}: {', '.join(missing)} missing, and --offline forbids to download; "
            f"run `mnist-bench data fetch --data-dir {root}` where there is a network, or use dataset: synthetic"
        )
    if missing:
        fetch(root, environ=environ, resources=resources, limits=limits, progress=progress, notify=notify)
    states = inspect(root, expected, environ)
    demand_whole(states, mend=fetch_hint(root))
    return DataSet(name="mnist", root=str(root), sha256=combined(states))


def _synthetic(environ: Mapping[str, str], notify: Notify, sizes: tuple[int, int]) -> DataSet:
    root = cache_root(environ) / synthetic.folder_name(synthetic.SEED, sizes)
    synthetic.ensure(root, seed=synthetic.SEED, sizes=sizes, notify=notify, environ=environ)
    states = inspect(root, expectations("synthetic", root), environ)
    demand_whole(states, mend=f"delete {root}; the next run draws it anew")
    return DataSet(name="synthetic", root=str(root), sha256=combined(states))


def _warn(notify: Notify, root: Path, error: Exception) -> None:
    notify(f"WARNING: MNIST is not at {root} and could not be had:")
    for line in str(error).splitlines():
        notify(f"  {line.strip()}")
    notify("WARNING: taking the SYNTHETIC digits instead: their accuracies and figures do NOT compare with MNIST's.")
    notify(f"  `mnist-bench data fetch --data-dir {root}` downloads MNIST; `dataset: mnist` insists on it.")
