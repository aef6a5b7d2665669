"""The baseline file: there and back, a diff that a person can review, and what is refused."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from baseline_kit import COMPILED, EAGER, OTHER, make_baseline
from hypothesis import given, settings
from hypothesis import strategies as st

from mnist_bench.analysis.keys import Key
from mnist_bench.gate.baseline import MIB, Baseline, BaselineCell, CellRatios, SeedFigures, Source
from mnist_bench.gate.baseline_codec import FORMAT, SCHEMA_VERSION, WIDTH, decode, encode
from mnist_bench.gate.records import SessionLogRatio, Training
from mnist_bench.gate.run_figures import cell_of

texts = st.text(max_size=30)
figures = st.floats(1e-6, 1e9).map(lambda value: float(f"{value:.4g}"))
names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,8}", fullmatch=True)
devices = st.sampled_from(["cpu", "cuda", "cuda:1"])
cells = st.builds("{}/{}/b{}/{}".format, names, devices, st.integers(1, 10**4), names).map(cell_of)
keys = st.builds(
    Key,
    gpu=st.none() | texts,
    cpu=texts,
    cell_sha256=texts,
    threads=st.none() | st.integers(1, 64),
    cores=st.integers(1, 64),
    torch=st.none() | texts,
    driver=st.none() | texts,
    recipe=texts,
    epochs=st.integers(1, 50),
    dataset_sha256=texts,
)
trainings = st.builds(
    Training,
    accuracy=st.integers(0, 10_000).map(lambda right: right / 10_000),
    images=st.just(10_000),
    predictions_sha256=st.text("0123456789abcdef", min_size=64, max_size=64),
    device_name=texts,
    compile_s=st.none() | figures,
    time_to_first_step_s=figures,
    train_samples_per_s=figures,
    eval_samples_per_s=figures,
    host_peak_bytes=st.integers(1, 10**6).map(lambda mib: mib * MIB),
    device_peak_bytes=st.none() | st.integers(1, 10**6).map(lambda mib: mib * MIB),
)
sessions = st.builds(
    SessionLogRatio,
    seed=st.integers(0, 2**32 - 1),
    log_ratio=st.floats(1e-3, 1e3).map(lambda speedup: -math.log(float(f"{speedup:.5g}"))),
    sd=st.floats(1e-6, 10.0).map(lambda value: float(f"{value:.4g}")),
    rounds=st.integers(6, 1000),
    noisy=st.booleans(),
)
ratios = st.builds(
    CellRatios,
    reference=texts,
    reference_sha256=texts,
    sessions=st.lists(sessions, max_size=4).map(tuple),
)
seeds = st.dictionaries(st.integers(0, 2**32 - 1), trainings, min_size=1, max_size=4).map(
    lambda found: tuple(SeedFigures(seed=seed, training=one) for seed, one in found.items())
)
telling = st.dictionaries(names, st.none() | st.booleans() | st.integers(0, 99) | figures | texts, max_size=4)
sources = st.builds(
    Source,
    run_id=st.just("one"),
    reason=texts,
    date=texts,
    commit=st.none() | texts,
    dirty=st.booleans(),
    program_version=texts,
    machine=texts,
    platform=texts,
    python=texts,
    torch=st.none() | texts,
    dataset=texts,
    recipe=texts,
)
measured = st.builds(
    BaselineCell,
    cell=cells,
    run_id=st.just("one"),
    status=st.just("ok"),
    key=keys,
    settings=telling,
    step_ms_p50=st.none() | figures,
    seeds=seeds,
    ratios=st.none() | ratios,
)
skipped = st.builds(BaselineCell, cell=cells, run_id=st.just("one"), status=st.just("skipped"), reason=texts)
baselines = st.builds(
    Baseline,
    sources=sources.map(lambda source: (source,)),
    cells=st.lists(measured | skipped, max_size=4, unique_by=lambda one: one.cell).map(
        lambda found: tuple(sorted(found, key=lambda one: one.cell))
    ),
)


@settings(max_examples=40, deadline=None)
@given(baselines)
def test_there_and_back(baseline: Baseline) -> None:
    data = encode(baseline)
    assert decode(data) == baseline
    assert encode(decode(data)) == data


def test_what_a_run_measured_is_what_the_file_says() -> None:
    baseline = make_baseline()
    assert decode(encode(baseline)) == baseline
    assert len(baseline.cells) == 4


class TestDiff:
    def test_cells_are_sorted_blocks_of_short_lines(self) -> None:
        text = encode(make_baseline()).decode()
        document = json.loads(text)
        assert (document["format"], document["schema_version"]) == (FORMAT, SCHEMA_VERSION)
        assert list(document["cells"]) == [
            "lenet5/cpu/b100/compile",
            "lenet5/cpu/b100/eager",
            "mlp/cpu/b100/compile",
            "mlp/cpu/b100/eager",
        ]
        assert max(map(len, text.splitlines())) <= WIDTH + 20  # the key stands before what has to fit
        assert '      "accuracy": [0.97, 0.9721, 0.9742],' in text.splitlines()
        assert text.endswith("}\n")

    def test_a_cell_that_changes_changes_its_own_lines_alone(self) -> None:
        before = make_baseline()
        changed = tuple(replace(one, step_ms_p50=9.9) if one.cell.id == COMPILED else one for one in before.cells)
        old, new = (encode(one).decode().splitlines() for one in (before, replace(before, cells=changed)))
        differing = [number for number, pair in enumerate(zip(old, new, strict=True)) if pair[0] != pair[1]]
        start = old.index(f'    "{COMPILED}": {{')
        assert differing
        assert all(start < number < old.index("    },", start) for number in differing)

    def test_one_seed_s_accuracy_is_one_line(self) -> None:
        before = make_baseline()
        after = make_baseline(accuracy={EAGER: 0.0})  # other predictions, the same accuracy
        old, new = (set(encode(one).decode().splitlines()) for one in (before, after))
        assert all("predictions" in line or line.strip().strip('",').isalnum() for line in old ^ new)

    def test_text_from_outside_is_ascii_on_its_line(self) -> None:
        before = make_baseline()
        source = replace(before.sources[0], reason="\u202ereversed\nline")
        data = encode(replace(before, sources=(source,)))
        assert data.isascii()
        assert rb"\u202ereversed\nline" in data


def broken(change: Callable[[dict[str, Any]], object]) -> bytes:
    document = json.loads(encode(make_baseline()))
    change(document)
    return json.dumps(document).encode()


def of_cell(name: str, value: object) -> Callable[[dict[str, Any]], object]:
    return lambda document: document["cells"][COMPILED].update({name: value})


def of_ratios(name: str, value: object) -> Callable[[dict[str, Any]], object]:
    return lambda document: document["cells"][COMPILED]["ratios"].update({name: value})


class TestRefused:
    @pytest.mark.parametrize(
        ("data", "message"),
        [
            (b"", "Expecting value: line 1"),
            (b"<<<<<<< HEAD\n{}", "Expecting value: line 1"),
            (b"[]", "a baseline is a JSON object, not list"),
            (b"{}", "its `format` is not 'mnist-bench baseline'"),
            (b'{"check": {}, "schema_version": 1}', "its `format` is not"),
            (b"\xff\xfe", "codec can't decode"),
            (b'{"format": "a", "format": "b"}', "'format' stands there twice"),
            (b'{"format": NaN}', "NaN is not a figure"),
            (b'{"format": 1e999}', "1e999 is too large"),
        ],
    )
    def test_what_is_no_baseline(self, data: bytes, message: str) -> None:
        with pytest.raises(ValueError, match=re.escape(message)):
            decode(data)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda d: d.update(schema_version=2), "written by a newer mnist_bench (schema 2; this one reads up to 1)"),
            (lambda d: d.update(schema_version=True), "schema_version must be a whole number"),
            (lambda d: d.pop("cells"), "cells is a JSON object, not NoneType"),
            (lambda d: d["runs"].clear(), "is not among the runs"),
            (lambda d: d["cells"].update({"mlp/cpu/100/eager": {}}), "'mlp/cpu/100/eager' is no cell"),
            (lambda d: d["cells"].update({"mlp/cpu/b0100/eager": {}}), "'mlp/cpu/b0100/eager' is no cell"),
            (lambda d: d["cells"][COMPILED].pop("ratios"), f"cells.{COMPILED}: ratios is missing"),
            (of_cell("colour", 1), "unknown key 'colour'"),
            (of_cell("status", "failed"), f"cells.{COMPILED}: status: Input should be 'ok' or 'skipped'"),
            (of_cell("accuracy", [0.9, 0.9]), "accuracy: 2 values for 3 seeds"),
            (of_cell("accuracy", 1.5), "an accuracy lies in [0, 1]"),
            (of_cell("accuracy", "good"), "Input should be a valid number"),
            (of_cell("seeds", [0, 1, 1]), "seeds: one of them stands there twice"),
            (of_cell("seeds", 3), "seeds: a list of whole numbers"),
            (of_cell("key", None), "a measured cell has a key"),
            (of_ratios("sd", 0), "ratios.sd: 0.0 is no standard error"),
            (of_ratios("sd", 1e-200), "ratios.sd: 1e-200 is no standard error"),
            (of_ratios("sd", 1e9), "ratios.sd: 1000000000.0 is no standard error"),
            (of_ratios("speedup", -1), "speedup: -1 is no ratio"),
            (of_ratios("speedup", 5e-324), "speedup: 5e-324 is no ratio of two times"),
            (of_ratios("speedup", 1e30), "speedup: 1e+30 is no ratio of two times"),
            (of_cell("step_ms_p50", 1e300), "1e+300 is too large for a figure"),
            (of_cell("images", 10**400), "is too large for a figure"),
            (of_ratios("rounds", [1]), "rounds: 1 values for 3 seeds"),
            (lambda d: d["runs"].update({"x": 1}), "runs.x: a run is a JSON object, not int"),
        ],
    )
    def test_what_is_broken_says_where(self, change: Callable[[dict[str, Any]], object], message: str) -> None:
        with pytest.raises(ValueError, match=re.escape(message)):
            decode(broken(change))

    def test_deep_nesting_ends_in_an_error_that_is_caught(self) -> None:
        with pytest.raises((ValueError, RecursionError)):
            decode(b'{"format": ' + b"[" * 100_000)


def test_other_cells_are_untouched_by_a_skipped_one() -> None:
    baseline = make_baseline(trouble={OTHER: ("skipped", "no C++ compiler was found: install g++")})
    document = json.loads(encode(baseline))
    assert document["cells"][OTHER] == {
        "run": baseline.sources[0].run_id,
        "status": "skipped",
        "reason": "no C++ compiler was found: install g++",
    }
