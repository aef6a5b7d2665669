"""What the transcripts are of: runs, shards and checks with made-up figures, fixed ids and times.

Every folder is written by the program's own store, so that a changed format on disk changes nothing here. The years
are those before 2020: what is dated later was dated by the command itself (``normal.py``).
"""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml
from gate_kit import evidence, logs, make_check, pair, side, training
from msgspec import structs
from record_factory import keep, make_cell, make_manifest
from run_factory import Records, figures, write_samples
from test_reproduction import make_trials

from mnist_bench import cells, config
from mnist_bench.gate.evidence import Check, Margins, Pair, SideEvidence
from mnist_bench.gate.judge import judge
from mnist_bench.gate.outputs import encode
from mnist_bench.labs import reproduce
from mnist_bench.machine.shards import shard
from mnist_bench.records import Matrix, RunOptions, Tree

INPUTS = Path(__file__).parent / "inputs"


def build(root: Path) -> Path:
    """Fills a folder with run folders (``results`` and others), matrix files and checks."""
    shutil.copytree(INPUTS, root, dirs_exist_ok=True)
    shutil.copy(INPUTS.parents[2] / "benchmarks.yaml", root)
    for run in yaml.safe_load((INPUTS / "runs.yaml").read_text())["runs"]:
        matrix = config.load(INPUTS / f"{run['matrix']}.yaml", allow_plugins=False)
        how = {key: run[key] for key in ("salt", "trouble", "pace", "changes") if key in run}
        made = figures(shard(matrix, cells.planned(matrix), run.get("shard")), matrix.epochs, **how)
        write(root / run["folder"], run["id"], matrix, made, {"shard": run.get("shard")}, run)
    reproduction(root / "tutorial")
    for name, check in checks().items():
        (root / f"{name}.json").write_bytes(encode(check, judge(check)))
    (root / "edited.json").write_bytes((root / "check.json").read_bytes().replace(b'"pass"', b'"regression"', 1))
    return root


def write(results: Path, run_id: str, matrix: Matrix, made: Records, options: Any, more: Any) -> None:
    """A run on disk; ``more`` may say what its environment says instead, its status, and how many trials it has."""
    (trials, sessions), day = made, f"{run_id[:4]}-{run_id[4:6]}-{run_id[6:8]}"
    manifest = make_manifest(
        trials,
        run_id=run_id,
        matrix=matrix,
        matrix_sha256=cells.fingerprint(matrix),
        options=RunOptions(**options),
        started_at=f"{day}T10:15:00Z",
        ended_at=f"{day}T10:50:00Z",
        status=more.get("status", "complete"),
        **more.get("manifest", {}),
    )
    manifest = replace(manifest, environment=replace(manifest.environment, **more.get("machine", {})))
    done = trials[: more.get("finished")]
    write_samples(keep(results, manifest, done, sessions[: more.get("finished")]), done, run_id)


def reproduction(results: Path) -> None:
    """The published accuracies, 0.2 points apart by seed; cnn's are 5 too high."""
    tutorial, beside = reproduce.tutorial_matrix("resident"), "20010601T101400Z-stand0"
    for run_id, matrix, companion in (
        (beside, reproduce.standard_matrix(tutorial), None),
        ("20010601T101500Z-tutor0", tutorial, beside),
    ):
        options = {"score_both": True, "companion": companion, "plugin_path": "", "shard": None}
        write(results, run_id, matrix, (make_trials(matrix, {"cnn": 5.0}), []), options, {})


def checks() -> dict[str, Check]:
    """One with a cell of every verdict and of every reason for one; some of the other exit codes."""
    costs = {"compile_s": 10.4, "time_to_first_step_s": 3.0, "eval_samples_per_s": 21_000.0, "host_peak_mib": 512.0}
    a, b = side(figures=costs), side(figures=costs | {"compile_s": 11.1})
    oom = SideEvidence(status="oom", reason="8.1 GiB were asked for:\n4 GiB | are <free>")
    crash = SideEvidence(status="crashed", reason="signal 11")
    gone = SideEvidence(status="skipped", reason="no NVIDIA driver was found")
    changes: tuple[dict[str, Any], ...] = (
        {"a": a, "b": b},
        {"ratio": 0.8},
        {"pairs": [pair(log, ["load"]) for log in logs(1.065, sd=0.2)]},
        {"a": None},
        {"ratio": 1.12},
        {"pairs": [pair(log) for log in logs(2.5, 8)]},
        {"ratio": 16.0},
        {"change": -0.02, "seeds": 12},
        {"change": -0.0004},
        {"b": None},
        {"b": oom},
        {"a": crash},
        {"b": gone},
        {"a": gone, "b": gone},
        {"differences": ("protocol versions 2 and 3",)},
        {"min_accuracy": 0.99, "floor_seeds": (0, 1, 2)},
        {"min_train_samples_per_s": 1e6, "samples_per_s": 6400.0},
    )
    cells = [evidence(cell=make_cell("lenet5", batch_size=100 + n), **change) for n, change in enumerate(changes)]
    whole = make_check(
        *cells,
        id="20010701T101500Z-check0",
        started_at="2001-07-01T10:15:00Z",
        ended_at="2001-07-01T10:27:30Z",
        notes=("the working tree has 2 files that git does not know",),
        b=Tree(label="working tree", commit="f00d" * 10, changed=("mnist_bench/models/lenet5.py", "x | y.py")),
    )
    words = [evidence(cell=make_cell("mlp", batch_size=n), **changes) for n, changes in enumerate(sentences(), 100)]
    started = evidence(cell=make_cell("cnn"), pairs=whole.cells[0].pairs[:4]), evidence(None, 0, 0, cell=make_cell())
    return {
        "check": whole,
        "words": structs.replace(whole, cells=tuple(words)),
        "passed": structs.replace(whole, cells=whole.cells[:2], notes=()),
        "undecided": structs.replace(whole, cells=whole.cells[:3]),
        "new": structs.replace(whole, cells=whole.cells[3:4]),
        "interrupted": structs.replace(whole, status="interrupted", cells=(*whole.cells[:2], *started)),
    }


def sentences() -> tuple[dict[str, Any], ...]:
    """A cell for each sentence of the judge's, and for each way in which both sides may have ended."""
    failed = SideEvidence(status="oom", reason="use less")
    hostile, skipped = (SideEvidence(status="skipped", reason=text) for text in ("a\nb\x1b[31m\u202e", "install g++"))
    slow, wreck, alone = tuple(map(pair, logs(1.12))), side([0.1]), side([0.5])
    some_noisy = tuple(pair(log, ("load",) if n < 5 else ()) for n, log in enumerate(logs(1.0, 8)))
    floor = {"floor_seeds": (0, 1, 2)}
    peaks_grown = (
        {"host": 0.0, "device": 1.0},
        {"host": 0.22},
        {"host": 0.22, "device": 1.0},
        {"host": -0.3, "device": -0.3},
    )
    near = [side([0.948, 0.953, 0.954][:trained]) for trained in (1, 2, 3)]
    return (
        *({"ratio": ratio, "change": -0.02, "seeds": 9} for ratio in (1.12, 0.8, 1.0, None)),
        {"pairs": some_noisy},
        {"pairs": tuple(map(pair, logs(1.06, 60, sd=0.5)))},
        {"change": -0.001, "seeds": 2},
        {"change": -0.02, "seeds": 8},
        {"change": -0.02, "seeds": 1},
        {"change": 0.02, "seeds": 3},
        {"a": side([0.97, 0.97, 0.97]), "b": replaced_seed(0.95)},
        {"ratio": None, "seeds": 0},
        *({"pairs": grown(16, **peaks), "margins": Margins(memory=0.1)} for peaks in peaks_grown),
        {"pairs": grown(4, host=0.01), "margins": Margins(memory=0.1)},
        {"pairs": grown(16), "margins": Margins(memory=0.1)},
        {"pairs": slow, "margins": Margins(memory=0.1), "margins_before": Margins()},
        {"pairs": slow, "margins": Margins(margin=0.15, detect=0.3), "margins_before": Margins()},
        {"pairs": slow, "margins": Margins(margin=0.05, detect=0.2), "margins_before": Margins()},
        *({"a": one, "b": one, "min_accuracy": 0.95, **floor} for one in near),
        {"min_accuracy": 0.98, **floor},
        {"min_accuracy": 0.97, **floor},
        {"a": wreck, "b": wreck, "min_accuracy": 0.98, **floor},
        {"b": side([0.97, 0.97, 0.1]), "min_accuracy": 0.97, "floor_seeds": (0, 1)},
        {"ratio": None, "min_train_samples_per_s": 20_001.0},
        *(
            {"b": alone, "min_accuracy": least, "floor_seeds": (0,), **apart}
            for apart in ({"a": None}, {"a": failed}, {"differences": ("lr: 1 in A, 2 in B",)})
            for least in (0.5, 0.9)
        ),
        *({"a": a, "b": failed} for a in (side(), None, failed, skipped)),
        *({"a": a, "b": skipped} for a in (side(), None, failed, skipped)),
        *({"a": a} for a in (failed, skipped, hostile)),
        {"b": hostile, "differences": ("a\nb",)},
        {"b": None},
        {"a": None, "b": side(())},
        {"a": None, "min_accuracy": 0.9, "floor_seeds": (0, 7)},
    )


def grown(pairs: int, **peaks: float) -> tuple[Pair, ...]:
    """As fast as before; ``peaks`` of memory: ln of how far they have grown."""
    return tuple(pair(one, **{f"{key}_peak_mib": one + log for key, log in peaks.items()}) for one in logs(1.0)[:pairs])


def replaced_seed(accuracy: float) -> SideEvidence:
    """A side of which the first of three seeds came to something else."""
    same = side().trainings
    return SideEvidence(trainings=(training(accuracy, "other"), *same[1:]))
