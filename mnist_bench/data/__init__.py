"""The data set on disk: where it lies, how it gets there, and the proof that it is what it says. No torch in here."""

# The functions resolve and verify cover the modules of the same name as attributes of this package;
# ``from mnist_bench.data.verify import ...`` finds the module all the same.
from mnist_bench.data.idx import read_images, read_labels, write_images, write_labels
from mnist_bench.data.paths import cache_root, default_root, raw_folder
from mnist_bench.data.resolve import resolve
from mnist_bench.data.verify import verify

__all__ = [
    "cache_root",
    "default_root",
    "raw_folder",
    "read_images",
    "read_labels",
    "resolve",
    "verify",
    "write_images",
    "write_labels",
]
