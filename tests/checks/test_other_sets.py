"""Other sets than MNIST through run, compare, report and check, by real workers: made files, and a plug-in."""

import hashlib
import json
import textwrap
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from check_kit import Repo, clean_environ

from mnist_bench.catalogue import FILE_NAMES, SETS
from mnist_bench.cli import main
from mnist_bench.data import raw_folder
from mnist_bench.data.mnist import write_idx
from mnist_bench.gate import conduct, outputs, samples, sides
from mnist_bench.table import plain
from tests.faults import fault_kit

pytestmark = [pytest.mark.timeout(900), pytest.mark.usefixtures("one_core")]
ROOT = Path(__file__).resolve().parents[2]
PLUG_IN = """
    import numpy as np
    from torch import nn

    def load():
        labels = np.arange(700) % 7
        images = np.zeros((700, 3, 32, 32), np.uint8)
        images[np.arange(700), labels % 3] = 30 * labels[:, None, None] + 30
        return {"train": (images[:500], labels[:500]), "test": (images[500:], labels[500:]), "mean": 0.2, "std": 0.3}

    def build(shape, classes):
        return nn.Sequential(nn.Flatten(), nn.Linear(shape[0] * shape[1] * shape[2], classes))
"""
MATRIX = """\
version: 1
dataset: "{dataset}"
epochs: 1
seeds: 1
models: ["{model}"]
devices: [cpu]
batch_sizes: [{batch}]
variants: [{{name: one, threads: 1}}, {{name: other, threads: 1, pipeline: tensors}}]
reference: one
timing: {{budget_seconds: 0.5}}
expect: [{{min_accuracy: 0.3}}]
"""
# Of every worker: the checksums of the made files, as the test has put them into its own table.
INJECTED = """
import dataclasses, json, os
from mnist_bench import catalogue
for name, known in json.loads(os.environ["MADE_SETS"]).items():
    catalogue.SETS[name] = dataclasses.replace(catalogue.SETS[name], **known)
"""


@pytest.fixture
def bench(tmp_path, bench_environ, monkeypatch):
    """A repository to stand in; one pair is the only look of a check."""
    made = fault_kit.Bench(tmp_path, bench_environ)
    made.repo = Repo(tmp_path / "project")
    (tmp_path / "injected").mkdir()
    path = {"PYTHONPATH": f"{tmp_path / 'injected'}:{ROOT}", "MNIST_BENCH_DATA": str(tmp_path / "data")}
    for name, value in clean_environ(**made.environ(**path)).items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(made.repo.root)
    monkeypatch.setattr(sides, "PAIR_TOKEN_S", 0.5)
    for module in (conduct, samples):
        monkeypatch.setattr(module, "looks", lambda cells, margins: (1,))
    yield made
    made.end()
    assert made.alive() == []


@pytest.fixture
def files(bench, tmp_path, monkeypatch):
    """FashionMNIST and KMNIST of 2,000 and 500 images that are easily told apart, of other brightness each."""
    known = {}
    for number, name in enumerate(("fashion-mnist", "kmnist"), start=1):
        raw = raw_folder(tmp_path / "data", name)
        raw.mkdir(parents=True)
        for split, count in enumerate((2000, 500)):
            labels = np.arange(count, dtype=np.uint8) % 10
            images = np.zeros((count, 28, 28), np.uint8)
            images[np.arange(count), labels * 2] = 100 * number
            for file, values in zip(FILE_NAMES[2 * split :], (images, labels), strict=False):
                write_idx(raw / file, values)
        sums = {file: hashlib.sha256((raw / file).read_bytes()).hexdigest() for file in FILE_NAMES}
        known[name] = {"checksums": sums, "packed": {}}
        monkeypatch.setitem(SETS, name, replace(SETS[name], **known[name]))
    monkeypatch.setenv("MADE_SETS", json.dumps(known))
    (tmp_path / "injected" / "sitecustomize.py").write_text(INJECTED)


def run(capsys, *words):
    """Code, stdout and stderr of a command."""
    code = main([*words])
    return code, *capsys.readouterr()


def through_all(bench, capsys, matrix, name):
    """run, compare, report, check: each knows the set and is content with it."""
    bench.repo.put("m.yaml", matrix)
    bench.repo.commit()
    code, out, err = run(capsys, "run", "m.yaml", "--allow-plugins", "--offline", "--no-wait", "--format", "csv")
    assert (code, out.count(f",{name},")) == (0, 2), err
    code, out, _ = run(capsys, "compare", "--by", "variant")
    assert (code, "identical" in out) == (0, True)
    assert run(capsys, "report", "--output", "page.html")[0] == 0
    title = {"kmnist": "KMNIST", "fashion-mnist": "FashionMNIST"}.get(name, name)
    assert f">{title} benchmark<" in Path("page.html").read_text()
    check = ("check", "m.yaml", "--against", "HEAD", "--allow-plugins", "--offline", "--no-wait", "--no-progress")
    code, out, err = run(capsys, *check, "--filter", "variant=one")
    assert f"data {name}, recipe standard" in out, err
    found, _ = outputs.decode(Path("results/checks/latest/check.json").read_bytes())
    (one,) = found.cells
    assert (len(one.pairs), one.seeds[0].a, one.a.reason) == (1, one.seeds[0].b, "")
    return found


@pytest.mark.usefixtures("files")
def test_files_of_mnist_s_layout(bench, capsys):
    for name in ("kmnist", "fashion-mnist"):
        through_all(bench, capsys, MATRIX.format(dataset=name, model="mlp", batch=100), name)
    first, second, _ = sorted(path.name for path in Path("results").iterdir() if path.name != "latest")
    mean = json.loads(Path(f"results/{first}/manifest.json").read_text())["dataset"]["mean"]
    assert mean == pytest.approx(200 / 255 / 28, abs=1e-4)  # KMNIST's: its files say so
    code, out, _ = run(capsys, "compare", first, second)
    assert (code, "not comparable: data set" in " ".join(out.split())) == (5, True)


def test_a_plug_in_of_another_shape(bench, capsys):
    bench.repo.put("tiny.py", textwrap.dedent(PLUG_IN))
    matrix = MATRIX.format(dataset="tiny:load", model="tiny:build", batch=64)
    code, _, err = run(capsys, "run", str(bench.repo.put("m.yaml", matrix)))
    assert (code, err.count("is code: add --allow-plugins")) == (2, 2)
    unfit = bench.repo.put("unfit.yaml", MATRIX.format(dataset="tiny:load", model="mlp", batch=501))
    code, _, err = run(capsys, "run", str(unfit), "--allow-plugins", "--no-wait")
    assert (code, "mlp: made for images of 1 x 28 x 28 and 10 classes; tiny:load has 3 x 32 x 32 and 7" in err) == (
        2,
        True,
    )
    assert "501 is more than the 500 training images of tiny:load: take at most 500" in err
    assert not Path("results").exists()
    through_all(bench, capsys, matrix, "tiny:load")
    bench.repo.put("tiny.py", textwrap.dedent(PLUG_IN).replace("30 *", "31 *"))
    check = "check m.yaml --against HEAD --allow-plugins --no-wait --filter variant=one --budget 1s"
    code, out, _ = run(capsys, *check.split())
    assert (code, "tiny:load returns another in A than in B" in plain(out)) == (5, True)
