"""The data set on disk: where it lies, how it gets there, and the proof that it is what it says. No torch in here."""

from mnist_bench.data.fetch import Request, resolve
from mnist_bench.data.mnist import cache_root, default_root, raw_folder, verify

__all__ = ["Request", "cache_root", "default_root", "raw_folder", "resolve", "verify"]
