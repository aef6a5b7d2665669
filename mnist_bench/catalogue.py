"""What a matrix can name: devices, executions, pipelines, models, sets of images. Facts without torch.

To add one: its class or function in the file of ``worker/`` that its ``code`` names, and its entry here; a data set of
MNIST's layout is an entry alone.
"""

import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mnist_bench.records import Channels, DataSet, ModelEntry, Optimizer, Recipe

CODE = r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*:[A-Za-z_][A-Za-z0-9_]*"  # package.module:function
_NUMBER = "(0|[1-9][0-9]{0,2})"
ENTRY_POINT_GROUP = "mnist_bench.models"
SELFTEST = "mnist_bench.worker.models:selftest"  # the program's own model beside these, which no matrix names


@dataclass(frozen=True, slots=True)
class Entry:
    code: str  # module:name, of ``worker/``
    meaning: str


@dataclass(frozen=True, slots=True)
class Device(Entry):
    """Its code is a class, a ``worker.devices.Device``.

    ``numbered``: what ``NAME:N`` means, where there may be several; ``platform``: the only one that has it.
    """

    numbered: str = ""
    platform: str | None = None


@dataclass(frozen=True, slots=True)
class Execution(Entry):
    """Its code makes a ``Program`` of model, optimizer, variant and device; ``compiles``: it needs torch.compile.

    ``captured``: the program's step becomes a CUDA graph (``worker.graphs``); ``device``: the only kind that has it.
    """

    compiles: bool = False
    captured: bool = False
    device: str = ""


@dataclass(frozen=True, slots=True)
class Pipeline(Entry):
    """Its code makes a ``Pipeline`` of spec, training and device; ``image_s``: about what an image costs the loader."""

    image_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Model(Entry):
    """Its code builds a module from float32 (N, 1, 28, 28) to logits (N, 10).

    ``flops`` are of training on one sample and of scoring it. ``tutorial_std``: of the tutorial's Normalize, which
    comes after ToTensor has scaled to [0, 1] (its erratum 2); ``tutorial_vectors``: the tutorial trains it on a list of
    (vector, label) pairs, without a transform.
    """

    parameters: int | None
    flops: tuple[float, float]
    optimizer: "Optimizer" = "adam"
    lr: float = 0.001
    tutorial_std: float = 128.0
    tutorial_vectors: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageSet:
    """A data set of MNIST's layout: four IDX files in ``root/folder/raw``.

    Attributes:
        title: its name for people.
        folder: as torchvision names it.
        mirrors: addresses of folders that serve the files as .gz.
        checksums: SHA-256 by name of the raw file; a set without has its own in SHA256SUMS.
        packed: they are of the .gz files, which alone are published: SHA256SUMS is written of what these unpack to.
        shape: of an image: channels, height, width.
        classes: the names of the labels 0, 1, ...
        pixels: mean and deviation of the training images' pixels, scaled to [0, 1]; None: they are taken of the files.
        mend: what to do where a file is not whole; ``{name}`` and ``{root}`` stand for the set's.
    """

    title: str
    folder: str
    mirrors: tuple[str, ...]
    checksums: Mapping[str, str]
    packed: bool = False
    shape: tuple[int, int, int]
    classes: tuple[str, ...]
    pixels: tuple[float, float] | None
    mend: str


DEVICES = {
    "cpu": Device("devices:Cpu", "the processor"),
    "cuda": Device(
        "devices:Cuda",
        "the first visible NVIDIA GPU, the same as cuda:0",
        numbered="the visible NVIDIA GPU number N, from 0",
    ),
    "mps": Device("devices:Mps", "the GPU of an Apple computer", platform="darwin"),
    "xpu": Device("devices:Xpu", "an Intel GPU"),
}
EXECUTIONS = {
    "eager": Execution("executions:eager", "operator by operator, as written"),
    "compile": Execution("executions:compiled", "torch.compile, of the model or the whole step", compiles=True),
    "cuda_graph": Execution(
        "executions:eager", "the whole step captured once, then replayed", captured=True, device="cuda"
    ),
    "compile_cuda_graph": Execution(
        "executions:compiled", "the compiled step captured, then replayed", compiles=True, captured=True, device="cuda"
    ),
}
# Modes of torch.compile that capture graphs where there are CUDA graphs, and what is left of each without that.
CAPTURING_MODES: dict[str, str] = {"reduce-overhead": "default", "max-autotune": "max-autotune-no-cudagraphs"}
PIPELINES = {
    "resident": Pipeline("pipelines:resident", "all images resident on the device"),
    "tensors": Pipeline("pipelines:tensors", "a DataLoader over tensors", image_s=2e-5),
    "torchvision": Pipeline("pipelines:transformed", "a DataLoader over the torchvision data set", image_s=2.5e-4),
    "tutorial": Pipeline("pipelines:tutorial", "the tutorial's own loops", image_s=2.5e-4),
}
# Optimizers and rates are the tutorial's own (its erratum 4: the text says 0.01 for cnn).
MODELS = {
    "cnn": Model(
        "models:cnn",
        "one convolution, pooled with stride 1, dropout, one hidden layer",
        parameters=934_798,
        flops=(6.390e6, 2.261e6),
    ),
    "lenet5": Model(
        "models:lenet5",
        "LeNet-5 as the tutorial has it: tanh and average pooling",
        parameters=61_706,
        flops=(2.264e6, 0.833e6),
    ),
    "mlp": Model(
        "models:mlp",
        "one hidden layer of 784",
        parameters=623_290,
        flops=(2.506e6, 1.245e6),
        optimizer="sgd",
        lr=0.01,
        tutorial_std=1.0,
        tutorial_vectors=True,
    ),
}
PLUG_IN = Model("", "", parameters=None, flops=max(model.flops for model in MODELS.values()))  # as heavy as they get
MEAN, STD = 0.1307, 0.3081  # of MNIST's training pixels
# By Y. LeCun, C. Cortes and C. J. C. Burges (CC BY-SA 3.0). Mirrors: of ``torchvision.datasets.MNIST``; checksums: of
# what the .gz files unpack to whose MD5 it names.
_MNIST = ImageSet(
    title="MNIST",
    folder="MNIST",
    mirrors=("https://ossci-datasets.s3.amazonaws.com/mnist/", "http://yann.lecun.com/exdb/mnist/"),
    checksums={
        "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    },
    shape=(1, 28, 28),
    classes=tuple("0123456789"),
    pixels=(MEAN, STD),
    mend="`mnist-bench data fetch --dataset {name} --data-dir {root}` replaces it, or delete the file",
)
FILE_NAMES = tuple(_MNIST.checksums)  # the order in which DataSet.sha256 takes the files
_REDRAW = "delete {root} if it is there; `mnist-bench data synthesize` draws the set anew"
_RESTART = "start `mnist-bench selftest` again: it writes the set anew"
SETS = {
    "mnist": _MNIST,
    # By Zalando SE (MIT). Mirror: of ``torchvision.datasets.FashionMNIST``; checksums: of what the .gz files unpack to
    # whose MD5 it names.
    "fashion-mnist": replace(
        _MNIST,
        title="FashionMNIST",
        folder="FashionMNIST",
        mirrors=("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",),
        checksums={
            "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
            "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
            "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
            "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
        },
        pixels=(0.2860, 0.3530),
    ),
    # By CODH (CC BY-SA 4.0). Mirror: of ``torchvision.datasets.KMNIST``; checksums: of the .gz files alone, as
    # ``tensorflow_datasets`` has them. Two pairs of mean and deviation are in use for it: they are taken of the files.
    "kmnist": replace(
        _MNIST,
        title="KMNIST",
        folder="KMNIST",
        mirrors=("http://codh.rois.ac.jp/kmnist/dataset/kmnist/",),
        packed=True,
        checksums={
            "train-images-idx3-ubyte": "51467d22d8cc72929e2a028a0428f2086b092bb31cfb79c69cc0a90ce135fde4",
            "train-labels-idx1-ubyte": "e38f9ebcd0f3ebcdec7fc8eabdcdaef93bb0df8ea12bee65224341c8183d8e17",
            "t10k-images-idx3-ubyte": "edd7a857845ad6bb1d0ba43fe7e794d164fe2dce499a1694695a792adfac43c5",
            "t10k-labels-idx1-ubyte": "20bb9a0ef54c7db3efc55a92eef5582c109615df22683c380526788f98e42a1c",
        },
        pixels=None,
    ),
    "synthetic": replace(_MNIST, title="the synthetic digits", mirrors=(), checksums={}, mend=_REDRAW),
    "mislabelled": replace(_MNIST, title="a set with wrong labels", mirrors=(), checksums={}, mend=_RESTART),
}
DATASETS = ("auto", *(name for name in SETS if name != "mislabelled"))  # that a matrix can name, beside code
FETCHED = tuple(name for name, one in SETS.items() if one.mirrors)


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """One model under one recipe. Inputs are ``(pixel / 255 - mean) / std``."""

    optimizer: "Optimizer"
    lr: float
    mean: "Channels"
    std: "Channels"
    scored_on_training_images: bool


def training_of(entry: "ModelEntry", recipe: "Recipe", data: "DataSet | None" = None) -> Training:
    """The optimizer, rate, normalisation and scored images of ``entry`` under ``recipe``; the entry's own words win.

    Args:
        data: whose mean and deviation the standard recipe takes; None: MNIST's.
    """
    model, tutorial = MODELS.get(entry.model, PLUG_IN), recipe == "tutorial"
    return Training(
        optimizer=entry.optimizer or model.optimizer,
        lr=model.lr if entry.lr is None else entry.lr,
        mean=0.0 if tutorial else data.mean if data else MEAN,
        std=model.tutorial_std if tutorial else data.std if data else STD,
        scored_on_training_images=tutorial,  # erratum 1
    )


def device_names() -> dict[str, str]:
    """What each name of a device means; ``NAME:N`` stands for all the numbered ones.

    >>> [name for name in device_names() if name.startswith("cuda")]
    ['cuda', 'cuda:N']
    """
    found: dict[str, str] = {}
    for name, entry in DEVICES.items():
        found |= {name: entry.meaning} | ({f"{name}:N": entry.numbered} if entry.numbered else {})
    return found


def device_pattern() -> str:
    """The names of devices as a regular expression."""
    return f"^({'|'.join(device_names()).replace(':N', f':{_NUMBER}')})$"


def load(entry: Entry) -> Any:
    """The code of an entry; imports torch: for workers alone."""
    return pkgutil.resolve_name(f"mnist_bench.worker.{entry.code}")
