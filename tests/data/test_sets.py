"""The sets of MNIST's layout: their facts, and how they are fetched and proven beside each other."""

import hashlib
from dataclasses import replace

import pytest

from mnist_bench.catalogue import FETCHED, FILE_NAMES, SETS
from mnist_bench.cli import main
from mnist_bench.data import raw_folder, verify
from mnist_bench.data.mnist import SUMS_FILE, read_idx
from mnist_bench.errors import DataError
from mnist_bench.worker.pipelines import import_torchvision

from .conftest import pack


@pytest.mark.parametrize("name", FETCHED)
def test_the_facts_are_torchvision_s(name):
    theirs, ours = getattr(import_torchvision().datasets, SETS[name].folder), SETS[name]
    assert {url.partition(":")[2] for url in theirs.mirrors} <= {url.partition(":")[2] for url in ours.mirrors}
    assert [packed.removesuffix(".gz") for packed, _ in theirs.resources] == list(ours.checksums)
    assert len(theirs.classes) == len(ours.classes)


@pytest.fixture
def known(world, server, monkeypatch):
    """The tiny set in the place of every other; a good mirror."""
    world.environ["MNIST_BENCH_MIRROR"] = server.url("good")
    monkeypatch.setenv("MNIST_BENCH_MIRROR", server.url("good"))
    packed = {name: hashlib.sha256(pack(content)).hexdigest() for name, content in world.tiny.items()}
    for name, sums in (("kmnist", packed), ("fashion-mnist", SETS["mnist"].checksums)):
        monkeypatch.setitem(SETS, name, replace(SETS[name], checksums=sums))
    return server


@pytest.mark.parametrize("name", ["fashion-mnist", "kmnist"])
def test_a_set_is_fetched_and_proven_beside_the_others(world, known, name):
    world.put(packed=True)  # MNIST's, which are none of this set's
    assert main(["data", "fetch", "--dataset", name]) == main(["data", "verify", "--dataset", name]) == 0
    raw = raw_folder(world.root, name)
    assert (world.is_whole(raw), len(known.asked)) == (True, 4)
    assert (raw.parent / SUMS_FILE).exists() == (name == "kmnist")
    before, data = world.files(), world.ask(name, offline=True)
    pixels = read_idx(raw / FILE_NAMES[0], 28, 28) / 255
    own = SETS[name].pixels or (pixels.mean(), pixels.std())
    assert (data.mean, data.std) == pytest.approx(own, abs=5e-5)
    assert world.files() == before
    assert world.ask("mnist", offline=True).sha256 == data.sha256  # its own files were not lost on the way
    labels = raw / FILE_NAMES[1]
    labels.write_bytes(labels.read_bytes()[:-1] + b"\n")
    with pytest.raises(DataError, match=rf"{labels}: corrupt(?s:.*)fetch --dataset {name} --data-dir"):
        verify(data)
    assert main(["data", "fetch", "--dataset", name]) == 0
    verify(data)


def test_what_no_published_checksum_proves_is_not_believed(world, known):
    """Of KMNIST the .gz alone is known: files without it, and without sums written when it was unpacked."""
    folder = world.put(below="KMNIST/raw")
    with pytest.raises(DataError, match=f"{FILE_NAMES[0]}: missing, and --offline.*fetch --dataset kmnist"):
        world.ask("kmnist", offline=True)
    world.put(below="KMNIST/raw", packed=True)
    data = world.ask("kmnist", offline=True)
    assert known.asked == []
    (folder.parent / SUMS_FILE).unlink()
    with pytest.raises(DataError, match="missing"):
        verify(data)
