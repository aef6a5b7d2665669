"""``samples/*.npy``: the raw step times of a trial. Read with numpy alone; no torch.

A sample of warm-up or session holds a duration in ``done_ns`` (``loaded_ns`` is 0); one of training holds two stamps.
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mnist_bench.disk.files import read_regular

MOST_BYTES = 1 << 30
SAMPLES = np.dtype([("phase", "u1"), ("index", "u4"), ("loaded_ns", "i8"), ("done_ns", "i8")])
WARMUP, SESSION, TRAINING = 0, 1, 2  # ``phase`` of a sample


def session_ms(path: Path) -> NDArray[np.float64] | None:
    """The durations of a trial's single steps in its timing session, shape (n,), milliseconds, in their order.

    Returns:
        None where there is no such file.

    Raises:
        ValueError: it is no file of samples; the message names it.
    """
    try:
        rows = np.load(io.BytesIO(read_regular(path, MOST_BYTES)), allow_pickle=False)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, EOFError, MemoryError) as error:  # a header may promise more than there is
        raise ValueError(f"{path}: cannot be read as samples: {error}") from error
    if rows.dtype != SAMPLES or rows.ndim != 1:
        raise ValueError(f"{path}: holds {rows.dtype} of shape {rows.shape}, not samples")
    durations: NDArray[np.float64] = rows["done_ns"][rows["phase"] == SESSION] * 1e-6
    return durations
