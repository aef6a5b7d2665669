"""What MNIST is: its four files, their sizes and checksums, and the mirrors that serve them.

Source: ``torchvision.datasets.MNIST`` (``resources``, ``mirrors``); the digests of the unpacked files were taken from
what its .gz files unpack to. MNIST is by Y. LeCun, C. Cortes and C. J. C. Burges (CC BY-SA 3.0).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mnist_bench.errors import UsageError


@dataclass(frozen=True, slots=True, kw_only=True)
class Resource:
    """One raw file: its name and size in bytes, its MD5, and the MD5 of the .gz file that the mirrors serve."""

    name: str
    size: int
    md5: str
    gz_md5: str


TRAIN_IMAGES_FILE = "train-images-idx3-ubyte"
TRAIN_LABELS_FILE = "train-labels-idx1-ubyte"
TEST_IMAGES_FILE = "t10k-images-idx3-ubyte"
TEST_LABELS_FILE = "t10k-labels-idx1-ubyte"

RESOURCES: tuple[Resource, ...] = (
    Resource(
        name=TRAIN_IMAGES_FILE,
        size=47_040_016,
        md5="6bbc9ace898e44ae57da46a324031adb",
        gz_md5="f68b3c2dcbeaaa9fbdd348bbdeb94873",
    ),
    Resource(
        name=TRAIN_LABELS_FILE,
        size=60_008,
        md5="a25bea736e30d166cdddb491f175f624",
        gz_md5="d53e105ee54ea40749a09fcbcd1e9432",
    ),
    Resource(
        name=TEST_IMAGES_FILE,
        size=7_840_016,
        md5="2646ac647ad5339dbf082846283269ea",
        gz_md5="9fb629c4189551a2d022fa330f9573f3",
    ),
    Resource(
        name=TEST_LABELS_FILE,
        size=10_008,
        md5="27ae3e4e09519cfbb04c329615203637",
        gz_md5="ec29112dd5afa0611ce80d1b7f02629c",
    ),
)

# The order in which DataSet.sha256 takes the files.
FILE_NAMES: tuple[str, ...] = tuple(resource.name for resource in RESOURCES)

MIRRORS: tuple[str, ...] = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "http://yann.lecun.com/exdb/mnist/",
)


def mirrors(environ: Mapping[str, str]) -> tuple[str, ...]:
    """The addresses to try in order: ``MNIST_BENCH_MIRROR`` alone where it is set, else the public ones.

    Raises:
        UsageError: ``MNIST_BENCH_MIRROR`` is no http(s) address.
    """
    named = environ.get("MNIST_BENCH_MIRROR", "").strip()
    if not named:
        return MIRRORS
    if not named.startswith(("http://", "https://")):
        raise UsageError(f"MNIST_BENCH_MIRROR={named}: not an http:// or https:// address; mend or unset it")
    return (named.rstrip("/") + "/",)
