"""The one source of order: which image comes when, for every pipeline, variant and device."""

from __future__ import annotations

import hashlib

import torch


def epoch_order(seed: int, epoch: int, count: int) -> torch.Tensor:
    """The permutation of an epoch: int64 (count,) on the CPU, a function of its arguments alone.

    The generator is seeded with the first 8 bytes of SHA-256 of ``seed/epoch``, so that neighbouring seeds and epochs
    have nothing in common.
    """
    digest = hashlib.sha256(f"{seed}/{epoch}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little", signed=True))
    return torch.randperm(count, generator=generator)
