"""The matrix file: what is read, and that all that is wrong in it is said at once, each with its place."""

from __future__ import annotations

import importlib.metadata
import json
import os
import random
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields, replace
from datetime import date
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from bad_matrices import CASES, GOOD, SOURCE, added, changed
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from mnist_bench import config
from mnist_bench.catalogue import ENTRY_POINT_GROUP
from mnist_bench.cells import expand
from mnist_bench.config import checked, positions, rules, schema
from mnist_bench.config.positions import read_yaml11, read_yaml12
from mnist_bench.errors import ConfigError
from mnist_bench.records import BUILTIN_VARIANTS, CompileOptions, Floor, GateRule, Matrix, ModelEntry, Selector, Variant

ROOT = Path(__file__).parent.parent
CONTRACT = """\
# yaml-language-server: $schema=./mnist_bench/schema.json
version: 1
name: default
dataset: auto              # auto | mnist | synthetic
recipe: standard           # standard | tutorial
epochs: 2
seeds: 3                   # a count (0, 1, 2) or a list
models: [mlp, cnn, lenet5] # built-in, plug-in or "package.module:function"
devices: [cpu, cuda]       # cpu | cuda | cuda:N | mps | xpu
batch_sizes: [100, 1000]
variants:
  - eager                  # built-in names
  - compile
  - name: compile-max      # or your own
    execution: compile
    compile: {mode: max-autotune}
exclude:                   # every key given must match
  - {model: cnn, batch_size: 100, variant: compile-max}
include:                   # adds cells after exclude; all four keys
  - {model: lenet5, device: cpu, batch_size: 10000, variant: eager}
timing: {precision: 0.02, budget_seconds: 20}
limits: {timeout_seconds: 1800, memory_gib: 16}
expect:                    # absolute floors; every one that matches must hold
  - {model: lenet5, min_accuracy: 0.95}
  - {model: mlp, device: cpu, min_train_samples_per_s: 5000}
"""
# Of the line of a problem; the message never breaks the line.
PROBLEM = re.compile(r"^[^:]+:[1-9]\d*:[1-9]\d*: [^\n\r\x00-\x1f\x7f]+$")


def parse(text: str, *, allow_plugins: bool = False) -> Matrix:
    return config.parse(text, source=SOURCE, allow_plugins=allow_plugins)


def problems(text: str, *, allow_plugins: bool = False) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        parse(text, allow_plugins=allow_plugins)
    return caught.value.problems


class TestGoodFiles:
    def test_contract_example(self) -> None:
        matrix = parse(CONTRACT)
        assert [m.name for m in matrix.models] == ["mlp", "cnn", "lenet5"]
        assert matrix.seeds == (0, 1, 2)
        assert matrix.variants[:2] == (BUILTIN_VARIANTS["eager"], BUILTIN_VARIANTS["compile"])
        assert matrix.variants[2] == Variant(
            name="compile-max", execution="compile", compile=CompileOptions(mode="max-autotune")
        )
        assert matrix.exclude == (Selector(model="cnn", batch_size=100, variant="compile-max"),)
        assert [c.id for c in matrix.include] == ["lenet5/cpu/b10000/eager"]
        assert (matrix.timing.precision, matrix.timing.budget_seconds) == (0.02, 20.0)
        assert (matrix.limits.timeout_seconds, matrix.limits.memory_gib) == (1800.0, 16.0)
        assert matrix.expect[0] == Floor(model="lenet5", min_accuracy=0.95)
        assert matrix.expect[1].min_train_samples_per_s == 5000.0
        assert len(expand(matrix)) == 3 * 2 * 2 * 3 - 2 + 1

    def test_defaults_are_those_of_the_records(self) -> None:
        matrix = parse(GOOD)
        axes = {axis: getattr(matrix, axis) for axis in ("models", "devices", "batch_sizes", "variants")}
        assert matrix == Matrix(**axes)

    def test_every_setting_of_a_variant_arrives(self) -> None:
        compiled = {"scope": "step", "mode": "default", "backend": "aot_eager", "fullgraph": True, "dynamic": True}
        flags = dict.fromkeys(("channels_last", "flush_denormal", "deterministic"), True) | {"fused_optimizer": False}
        numbers = {"workers": 2, "threads": 3, "processes": 1}
        settings = {"name": "a", "pipeline": "tensors", "precision": "bf16", "execution": "compile", **flags, **numbers}
        (variant,) = parse(changed(5, f"variants: [{json.dumps({**settings, 'compile': compiled})}]")).variants
        assert variant == Variant(**settings, compile=CompileOptions(**compiled))
        assert settings.keys() | {"compile"} == {field.name for field in fields(Variant)}

    def test_one_model_twice_under_two_names(self) -> None:
        matrix = parse(changed(2, "models: [cnn, {model: cnn, name: cnn-fast, optimizer: adamw, lr: 0.01}]"))
        assert matrix.models[1] == ModelEntry(name="cnn-fast", model="cnn", optimizer="adamw", lr=0.01)

    @pytest.mark.parametrize("device", ["cpu", "cuda", "cuda:0", "cuda:1", "cuda:15", "mps", "xpu"])
    def test_devices(self, device: str) -> None:
        assert parse(changed(3, f"devices: [{device}]")).devices == (device,)

    @pytest.mark.parametrize(
        ("line", "seeds"), [("seeds: 1", (0,)), ("seeds: [7, 0]", (7, 0)), ("seeds: [4294967295]", (2**32 - 1,))]
    )
    def test_seeds(self, line: str, seeds: tuple[int, ...]) -> None:
        assert parse(added(line)).seeds == seeds

    def test_include_puts_back_what_was_excluded(self) -> None:
        text = added("exclude: [{model: mlp}]\ninclude: [{model: mlp, device: cpu, batch_size: 100, variant: eager}]")
        assert "mlp/cpu/b100/eager" in {cell.id for cell in expand(parse(text))}

    def test_include_may_name_built_ins_that_are_on_no_axis(self) -> None:
        text = added("include: [{model: lenet5, device: xpu, batch_size: 3, variant: tutorial}]")
        assert parse(text).include[0].id == "lenet5/xpu/b3/tutorial"

    def test_modest_anchors_are_read(self) -> None:
        text = added("exclude:\n  - &one {model: mlp, device: cuda}\n  - *one\n")
        assert parse(text).exclude == (Selector(model="mlp", device="cuda"),) * 2

    def test_a_fault_behind_an_alias_is_where_it_is_mended(self) -> None:
        text = added("exclude:\n  - &one {model: vgg}\n  - *one\n")
        assert [p.split(" no cell")[0] for p in problems(text)] == [
            "benchmarks.yaml:7:18: exclude[0].model:",
            "benchmarks.yaml:7:18: exclude[1].model:",
        ]

    def test_merge_keys_and_extensions(self) -> None:
        text = """\
            x-small: &small {batch_size: 100, model: cnn}
            version: 1
            models: [mlp, cnn]
            devices: [cpu, cuda]
            batch_sizes: [100, 1000]
            variants:
              - &fast {name: fast, execution: compile, threads: 2}
              - {<<: *fast, name: faster, threads: 4}
            exclude: [{<<: *small}, {<<: [*small, {device: cuda, model: mlp}], batch_size: 1000}]
            """.replace("            ", "")
        matrix = parse(text)
        assert matrix.variants[1] == Variant(name="faster", execution="compile", threads=4)
        assert matrix.exclude[0] == Selector(model="cnn", batch_size=100)
        assert matrix.exclude[1] == Selector(model="cnn", device="cuda", batch_size=1000)
        jsonschema.validate(yaml.safe_load(text), schema(), jsonschema.Draft202012Validator)

    def test_rules_of_the_gate(self) -> None:
        assert parse(added("gate: {margin: 0.05}")).gate == (GateRule(margin=0.05),)
        rules = parse(added("gate: [{model: mlp, margin: 0.05}, {detect: 0.2}]")).gate
        assert rules == (GateRule(model="mlp", margin=0.05), GateRule(detect=0.2))

    def test_reference(self) -> None:
        assert parse(added("reference: compile")).reference == "compile"
        cell = "{model: mlp, device: cpu, batch_size: 7, variant: tutorial}"
        assert parse(added(f"reference: tutorial\ninclude: [{cell}]")).reference == "tutorial"

    def test_byte_order_mark_windows_lines_and_directive(self) -> None:
        assert parse("\ufeff" + GOOD.replace("\n", "\r\n")) == parse(GOOD) == parse("%YAML 1.2\n---\n" + GOOD + "...\n")

    def test_quotes_make_ambiguous_scalars_text(self) -> None:
        assert parse(added('name: "010"')).name == "010"
        assert parse(changed(5, "variants: [{name: 'on'}]")).variants[0].name == "on"

    def test_empty_lists_of_no_axis_are_allowed(self) -> None:
        assert parse(added("exclude: []\ninclude: []\nexpect: []")) == parse(GOOD)

    def test_exactly_ten_thousand_cells(self) -> None:
        sizes = ", ".join(map(str, range(1, 10_001)))
        text = changed(4, f"batch_sizes: [{sizes}]").replace("[mlp, cnn]", "[mlp]").replace("[cpu, cuda]", "[cpu]")
        text = text.replace("[eager, compile]", "[eager]")
        assert len(expand(parse(text))) == 10_000
        more = text + "include: [{model: cnn, device: cpu, batch_size: 1, variant: eager}]\n"
        assert "more than 10,000" in problems(more)[0]

    @pytest.mark.parametrize("text", [CONTRACT, GOOD, added("limits: {memory_gib: 0.5}")])
    def test_survives_json(self, text: str) -> None:
        adapter = TypeAdapter(Matrix)
        assert adapter.validate_json(adapter.dump_json(parse(text))) == parse(text)


class TestBadFiles:
    @pytest.mark.parametrize(("text", "prefix", "phrase"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
    def test_refused_with_its_place(self, text: str, prefix: str, phrase: str) -> None:
        found = problems(text)
        assert found[0].startswith(prefix)
        assert phrase in found[0]
        assert all(PROBLEM.match(problem) for problem in found)

    def test_there_are_at_least_300(self) -> None:
        assert len({text for _, text, _, _ in CASES}) >= 300

    def test_the_contract_s_own_message(self) -> None:
        text = changed(2, "models:\n        - mlp\n          # nothing\n        - lenet")
        assert problems(text) == (
            f"{SOURCE}:5:11: models[1]: unknown model 'lenet' (known: cnn, lenet5, mlp): did you mean 'lenet5'?",
        )

    def test_all_at_once_in_the_order_of_the_file(self) -> None:
        text = """\
            version: 2
            modles: [mlp]
            models: [mlp, lenet, {model: cnn, lr: 0}, mlp]
            devices: [cpu, gpu]
            batch_sizes: [0, 100]
            variants: [eager, {name: a, execution: cuda_graph, compile: {}}, {name: b, workers: 1}]
            exclude: [{}]
            epochs: 1_0
            epochs: 3
            expect: [{model: mlp}]
            """.replace("            ", "")
        found = problems(text)
        assert [re.sub(r".*?:(\d+:\d+): ([\w.\[\]]+).*", r"\1 \2", problem) for problem in found] == [
            "1:10 version",
            "2:1 modles",
            "3:15 models[1]",
            "3:39 models[2].lr",
            "3:43 models[3]",
            "4:16 devices[1]",
            "5:15 batch_sizes[0]",
            "6:40 variants[1].execution",
            "6:76 variants[2].workers",
            "7:11 exclude[0]",
            "8:9 epochs",
            "9:1 epochs",
            "10:10 expect[0]",
        ]

    def test_one_fault_makes_one_problem(self) -> None:
        for name, text, _, _ in CASES:
            if not name.startswith("include-without"):
                assert len(problems(text)) == 1, name

    def test_vast_axes_are_never_multiplied_out(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(rules, "expand", lambda matrix: pytest.fail("expanded"))
        sizes = ", ".join(map(str, range(1, 5001)))
        assert "20,000 cells" in problems(changed(4, f"batch_sizes: [{sizes}]").replace("[cpu, cuda]", "[cpu]"))[0]

    def test_faults_in_axes_and_cells_together(self) -> None:
        found = problems(changed(1, "version: 3") + "exclude: [{model: lenet5}]\n")
        assert [problem.split(":")[1] for problem in found] == ["1", "6"]


class TestPlugins:
    def test_named_without_being_imported(self, tmp_path: Path) -> None:
        (tmp_path / "mine.py").write_text("raise SystemExit('imported')\n")
        matrix = parse(
            changed(2, 'models: ["mine:build", {model: "pkg.mod:make", optimizer: sgd, lr: 0.01}]'), allow_plugins=True
        )
        assert matrix.models == (
            ModelEntry(name="mine.build", model="mine:build"),
            ModelEntry(name="pkg.mod.make", model="pkg.mod:make", optimizer="sgd", lr=0.01),
        )
        assert "mine" not in sys.modules

    def test_entry_points_are_known_by_name(self, monkeypatch: pytest.MonkeyPatch) -> None:
        point = importlib.metadata.EntryPoint("resnet", "nowhere:at_all", ENTRY_POINT_GROUP)
        monkeypatch.setattr(importlib.metadata, "entry_points", lambda *, group: [point])
        assert parse(changed(2, "models: [resnet]"), allow_plugins=True).models[0].model == "resnet"
        assert "add --allow-plugins" in problems(changed(2, "models: [resnet]"))[0]
        text = changed(2, "models: [vgg]")
        assert "(known: cnn, lenet5, mlp, resnet)" in problems(text, allow_plugins=True)[0]

    def test_a_name_that_no_table_can_hold(self) -> None:
        text = changed(2, 'models: ["_mine:build", {model: "_mine:build", name: mine}]')
        assert [entry.name for entry in parse(text, allow_plugins=True).models] == ["mine.build", "mine"]

    def test_an_alias_and_a_plug_in_of_one_name(self) -> None:
        text = changed(2, 'models: ["mine:build", {model: "mine:other", name: mine.build}]')
        assert "duplicate model 'mine.build'" in problems(text, allow_plugins=True)[0]


class TestChecked:
    def test_what_a_file_resolves_to_is_sound(self) -> None:
        for text in (CONTRACT, GOOD, (ROOT / "benchmarks.yaml").read_text()):
            assert checked(parse(text), source="x", allow_plugins=False) == parse(text)

    @pytest.mark.parametrize(
        ("changes", "problem"),
        [
            ({"epochs": 99}, "epochs: should be less than or equal to 50, got the number 99"),
            ({"name": "a\x1b[1m"}, "name: 'a\\x1b[1m' is no name"),
            ({"seeds": (1, 1)}, "seeds[1]: duplicate seed 1"),
            ({"devices": ("tpu",)}, "devices[0]: unknown device 'tpu'"),
            ({"models": (ModelEntry(name="a", model="evil:build"),)}, "models[0].model: 'evil:build' is code"),
            ({"variants": (Variant(name="../a"),)}, "variants[0].name: '../a' is no name"),
            ({"variants": (Variant(name="a", compile=CompileOptions(mode="no")),)}, "variants[0].compile.mode: should"),  # type: ignore[arg-type]
            ({"expect": (Floor(min_accuracy=2.0),)}, "expect[0].min_accuracy: should be less than or equal to 1"),
            ({"reference": "fast"}, "reference: unknown variant 'fast'"),
            ({"batch_sizes": tuple(range(1, 10_002))}, "the axes multiply to"),
        ],
    )
    def test_a_stranger_s_obeys_the_rules_of_a_file(self, changes: dict[str, Any], problem: str) -> None:
        with pytest.raises(ConfigError) as caught:
            checked(replace(parse(GOOD), **changes), source="run/manifest.json", allow_plugins=False)
        assert caught.value.problems[0].startswith(f"run/manifest.json: {problem}")


class TestLoad:
    def test_reads_a_file(self, tmp_path: Path) -> None:
        path = tmp_path / "m.yaml"
        path.write_text(GOOD)
        assert config.load(path, allow_plugins=False) == parse(GOOD)

    @pytest.mark.parametrize(
        ("make", "phrase"),
        [
            (lambda path: None, "no such file"),
            (lambda path: path.mkdir(), "is no regular file"),
            (lambda path: path.write_bytes(b""), "is empty"),
            (lambda path: path.write_bytes(b"name: \xff\n"), "not UTF-8 (byte 6 is 0xff)"),
            (lambda path: path.write_bytes(GOOD.encode("utf-16")), "not UTF-8"),
            (lambda path: path.write_text("#" * (1 << 20) + "#"), "larger than 1,048,576 bytes"),
            (lambda path: path.symlink_to(path), "cannot be read"),
            (os.mkfifo, "is no regular file"),
            (lambda path: path.symlink_to("/dev/zero"), "is no regular file"),
        ],
        ids=["missing", "directory", "empty", "latin", "utf-16", "large", "loop", "pipe", "device"],
    )
    def test_files_that_cannot_be_used(self, tmp_path: Path, make: Callable[[Path], Any], phrase: str) -> None:
        path = tmp_path / "m.yaml"
        make(path)
        with pytest.raises(ConfigError) as caught:
            config.load(path, allow_plugins=False)
        (problem,) = caught.value.problems
        assert problem.startswith(f"{path}:1:1: ")
        assert phrase in problem

    @pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
    def test_unreadable(self, tmp_path: Path) -> None:
        path = tmp_path / "m.yaml"
        path.write_text(GOOD)
        path.chmod(0)
        with pytest.raises(ConfigError, match="cannot be read: Permission denied"):
            config.load(path, allow_plugins=False)

    def test_a_nul_in_the_path(self) -> None:
        with pytest.raises(ConfigError, match="cannot be read"):
            config.load(Path("a\0b"), allow_plugins=False)

    def test_torch_is_not_imported(self) -> None:
        code = "import sys, mnist_bench.config; sys.exit('torch' in sys.modules)"
        assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


class TestShippedFiles:
    def test_default_matrix(self) -> None:
        text = (ROOT / "benchmarks.yaml").read_text()
        assert text.startswith("# yaml-language-server: $schema=./mnist_bench/schema.json\n")
        matrix = config.load(ROOT / "benchmarks.yaml", allow_plugins=False)
        assert len(expand(matrix)) == 24
        assert (matrix.epochs, matrix.seeds, matrix.dataset) == (1, (0,), "auto")

    def test_its_commented_examples_are_valid(self) -> None:
        text = (ROOT / "benchmarks.yaml").read_text()
        examples = re.sub(r"^# (exclude:|include:|expect:|  - \{|- |  \w+: \w+$)", r"\1", text, flags=re.MULTILINE)
        # The list of variants is indented as a list under a key may be.
        examples = re.sub(r"^(- |  precision)", r"  \1", examples, flags=re.MULTILINE)
        matrix = parse(examples)
        assert len(matrix.expect) == 4
        assert [variant.name for variant in matrix.variants][-2:] == ["tutorial", "bf16"]
        assert (len(matrix.exclude), len(matrix.include)) == (1, 1)

    def test_schema_file_is_up_to_date(self) -> None:
        shipped = json.loads((ROOT / "mnist_bench" / "schema.json").read_text())
        assert shipped == schema(), "run: mnist-bench schema > mnist_bench/schema.json"

    def test_schema_is_one_and_accepts_the_good(self) -> None:
        jsonschema.Draft202012Validator.check_schema(schema())
        for text in (GOOD, CONTRACT, (ROOT / "benchmarks.yaml").read_text()):
            jsonschema.validate(yaml.safe_load(text), schema(), jsonschema.Draft202012Validator)

    @pytest.mark.parametrize(
        "name",
        ["epochs-51", "device-gpu", "unknown-key", "missing-models", "models-empty", "unknown-variant", "null-exclude"],
    )
    def test_schema_refuses_the_bad(self, name: str) -> None:
        text = next(case[1] for case in CASES if case[0] == name)
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(yaml.safe_load(text), schema(), jsonschema.Draft202012Validator)


class TestScalars:
    @pytest.mark.parametrize(
        "text",
        [
            "~",
            "null",
            "true",
            "False",
            "0",
            "-12",
            "+3",
            "0x1F",
            "1.",
            ".5",
            "1.5e+3",
            "text",
            "1.2.3",
            "tRUE",
            "0o8",
            "e5",
            ".",
        ],
    )
    def test_read_alike(self, text: str) -> None:
        value = yaml.safe_load(text)
        for read in (read_yaml11, read_yaml12):
            assert (read(text), type(read(text))) == (value, type(value))

    def test_read_differently(self) -> None:
        assert (read_yaml11("010"), read_yaml12("010")) == (8, 10)
        assert (read_yaml11("2026-11-23"), read_yaml12("2026-11-23")) == (date(2026, 11, 23), "2026-11-23")

    @given(st.text("0123456789._:-+eExXobBnNyYtTaAfFlL~= ", max_size=8))
    def test_what_passes_is_what_pyyaml_reads(self, text: str) -> None:
        tree, found = positions.read(f"a: {text}\n")
        if tree is not None and not found and isinstance(tree.value, dict) and "a" in tree.value:
            value = tree.value["a"].plain()
            assert yaml.safe_load(f"a: {text}\n") == {"a": value}


JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-5, 70_000),
    st.floats(),
    st.text(max_size=6),
    st.sampled_from(
        ["mlp", "cpu", "cuda:0", "eager", "on", "010", [], {}, [[]], {"name": "x"}, {"model": "mlp"}, 2**70]
    ),
)


def mutated(data: Any, rng: random.Random, junk: list[Any]) -> Any:
    """The data with each piece of junk put, or a key or item dropped or doubled, somewhere in it."""
    for value in junk:
        target, parent = data, data
        while isinstance(target, dict | list) and target and (target is data or rng.random() < 0.7):
            key = rng.choice(list(target) if isinstance(target, dict) else list(range(len(target))))
            parent, target = target, target[key]
        if not isinstance(parent, dict | list) or not parent:
            continue
        match rng.randrange(4):
            case 0:
                del parent[key]
            case 1:
                parent[key] = value
            case 2 if isinstance(parent, list):
                parent.append(target)
            case _ if isinstance(parent, dict):
                parent[value if isinstance(value, str) else str(value)] = target
            case _:
                parent.insert(key, value)
    return data


def accept_or_refuse(text: str) -> None:
    """A file is either a matrix, or refused with every problem in its place; never anything else."""
    found: tuple[str, ...] = ()
    matrix = None
    try:
        matrix = parse(text)
    except ConfigError as error:
        found = error.problems
    assert (matrix is None) == bool(found)
    assert all(PROBLEM.match(problem) for problem in found), found
    if matrix is not None:
        assert 1 <= len(expand(matrix)) <= 10_000
        assert len(set(expand(matrix))) == len(expand(matrix))
        jsonschema.validate(yaml.safe_load(text), SCHEMA, jsonschema.Draft202012Validator)


SCHEMA = schema()


class TestMutations:
    @settings(max_examples=200, deadline=None)
    @given(st.randoms(use_true_random=False), st.lists(JUNK, min_size=1, max_size=4))
    def test_of_the_values(self, rng: random.Random, junk: list[Any]) -> None:
        accept_or_refuse(yaml.safe_dump(mutated(yaml.safe_load(CONTRACT), rng, junk), sort_keys=False))

    @settings(max_examples=200, deadline=None)
    @given(
        st.integers(0, len(CONTRACT)),
        st.integers(0, 30),
        st.one_of(st.text(max_size=10), st.text("[]{}:-,&*!|>'\"%@#?\n \t01e.~<a", max_size=10)),
    )
    @example(0, 0, "\ud800")
    @example(0, 0, "\x85")
    @example(60, 0, "&a ")
    @example(0, 0, "%TAG ! tag:x,2000:\n---\n")
    @example(0, 0, "%YAML " + "1" * 5000 + ".1\n---\n")
    def test_of_the_text(self, place: int, length: int, insert: str) -> None:
        accept_or_refuse(CONTRACT[:place] + insert + CONTRACT[place + length :])

    @settings(max_examples=100, deadline=None)
    @given(st.text("[]{}:-,&*!|>'\"%@#?\n \t01e.~<ab", max_size=60))
    def test_of_nothing(self, text: str) -> None:
        accept_or_refuse(text)
