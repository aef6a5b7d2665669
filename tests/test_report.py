"""The report without a browser: honest plots, what it lets through, its refusals. What it says is in tests/golden."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from record_factory import make_cell, make_epochs, make_manifest, make_measurement, make_session, make_trial
from run_factory import BF16, Plan, write_run

from mnist_bench.analysis.answers import BatchPoint, Crossover
from mnist_bench.analysis.summary import Run
from mnist_bench.cli import main
from mnist_bench.disk.folder import SAMPLES, RunFolder
from mnist_bench.errors import BenchError
from mnist_bench.records import BUILTIN_VARIANTS, Failure, Skip, Trial
from mnist_bench.report import costs, specs, vega
from mnist_bench.report import page as pages
from mnist_bench.report.learning import curves
from mnist_bench.report.material import MOST_BARS, MOST_SEEDS, SKETCH, Material, Plot, gather, sketch
from mnist_bench.report.page import PLOTS, script_json
from mnist_bench.report.rates import crossover_words
from mnist_bench.report.vega import making  # the real one: vega.making is shared by the tests that need no other

HOSTILE = "</script><img src=x onerror=alert(1)>"
SMALL = Plan(models=("mlp",), devices=("cpu",), batch_sizes=(100,), mishaps=False)


def material_of(done: Sequence[Trial], **changes: Any) -> Material:
    manifest = make_manifest(**{"trials": done, **changes})
    return gather(Run(manifest=manifest, trials=tuple(done), sessions=()), lambda _: None)


def read(folder: RunFolder) -> Material:
    return gather(Run.read(folder), lambda trial: folder.session_ms(trial))


def plots_of(material: Material) -> dict[str, Plot]:
    return {plot.id: plot for plot in (draw(material) for draw in PLOTS.values())}


def page_of(material: Material) -> str:
    return pages.render(material, list(plots_of(material).values()), "/* Vega: takes seconds, and 0.9 MB */")


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Material:
    return read(write_run(tmp_path_factory.mktemp("results")))


@pytest.fixture(scope="module")
def plots(material: Material) -> dict[str, Plot]:
    return plots_of(material)


# ── what the page lets through ───────────────────────────────────────────────────────────────────────────────────────


@given(
    st.recursive(
        st.text() | st.integers() | st.booleans() | st.none(),
        lambda v: st.lists(v) | st.dictionaries(st.text(), v),
        max_leaves=10,
    )
)
def test_json_comes_back_and_cannot_end_its_element(value: Any) -> None:
    text = script_json(value)
    assert json.loads(text) == value
    assert not set(text) & set("<>&\u2028\u2029")


def test_json_of_a_lone_surrogate_and_of_what_is_no_number() -> None:
    assert json.loads(script_json("\udc80").encode("utf-8")) == "\udc80"
    with pytest.raises(ValueError, match="not JSON compliant"):
        script_json(float("nan"))


def test_hostile_names_stay_text_and_nothing_is_asked_for(tmp_path: Path) -> None:
    variant = replace(BF16, name="<i>\u2028\x1b[31m{{ 7*7 }}")
    plan = Plan(models=(HOSTILE,), variants=(BUILTIN_VARIANTS["eager"], variant), batch_sizes=(100,))
    page = page_of(read(write_run(tmp_path, plan)))
    assert not [text for text in ("<img", "<i>", "\x1b", "\u2028", "@import", "url(") if text in page]
    assert page.count("<script") == page.count("</script") == 3
    assert html.escape(HOSTILE) in page
    assert "{{ 7*7 }}" in page
    assert not re.search(r"""(?:src|href)=["'](?!#)""", page)
    # Only its own scripts and style; an attribute with code or style would be refused.
    policy = html.unescape(re.search(r'Content-Security-Policy" content="([^"]+)"', page)[1])  # type: ignore[index]
    own = [text for tag in ("script", "style") for text in re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)]
    digests = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in own]
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert re.findall(r"'sha256-([^']+)'", policy) == digests
    assert "unsafe" not in policy
    assert not re.search(r"<[^>]*\s(?:style|on\w+)=", re.sub(r'"[^"]*"', '""', page))


def test_data_and_sort_keys_come_through(material: Material, plots: dict[str, Plot]) -> None:
    page = page_of(material)
    data = json.loads(re.search(r'id="data">(.*?)</script>', page, re.DOTALL)[1])["plots"]  # type: ignore[index]
    for name, plot in plots.items():
        shown = [{"values": [dict(v) for v in panel.values], "height": panel.height} for panel in plot.panels]
        assert data[name]["panels"] == shown
    places = re.findall(r'data-plot="(\w+)" data-panel="(\d+)"', page)
    assert places == [(name, str(n)) for name, plot in plots.items() for n in range(len(plot.panels))]
    assert page.count('class="panels wide"') == sum(plot.wide for plot in plots.values()) == 2
    keys = [json.loads(html.unescape(text)) for text in re.findall(r'data-keys="([^"]*)"', page)]
    assert [key[0] for key in keys] == sorted(key[0] for key in keys), "failed, skipped, ok"
    cells = {tuple(key[1:5]) for key in keys}
    assert cells == {(r.cell.model, r.cell.device, r.cell.batch_size, r.cell.variant) for r in material.rows}


def test_the_fastest_cells_that_cannot_be_told_apart_are_named_together() -> None:
    trials = (make_trial(), make_trial(make_cell(variant="compile")))
    session = make_session(trials, [[2.0, 2.1], [2.1, 2.0], [2.0, 2.0]])
    run = Run(manifest=make_manifest(trials), trials=trials, sessions=(session,))
    assert "<strong>eager on cpu or compile on cpu</strong> at batch 100" in page_of(gather(run, lambda _: None))


@pytest.mark.parametrize(
    ("material", "words"),
    [
        (material_of([]), "No trial has finished"),
        (material_of([make_trial(outcome=Skip(reason="no GPU: plug one in"))]), "Nothing was measured."),
        (material_of([make_trial()]), "No session was timed."),
        (material_of([make_trial()], status="interrupted"), "the run is interrupted"),
        (material_of([make_trial()], trials=[make_trial(), make_trial(seed=1)]), "1 of 2 trials have not finished."),
    ],
)
def test_a_run_with_little_in_it_is_a_page_that_says_so(material: Material, words: str) -> None:
    assert words in page_of(material)


# ── honest plots ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_speed_ups_and_rates_are_those_of_the_table(material: Material, plots: dict[str, Plot]) -> None:
    def drawn(name: str) -> list[Any]:
        return [v["rate"] for panel in plots[name].panels for v in panel.values]

    def rows(key: str) -> list[Any]:
        return [row[key] for row in material.rows if row[key] is not None]

    assert drawn("throughput") == rows("train_samples_per_s")
    assert sorted(drawn("devices")) == sorted(rows("speedup_vs_cpu"))
    assert set(drawn("compiled")) < set(rows("speedup_vs_eager"))
    assert all(v["low"] > 0 for p in plots["throughput"].panels for v in p.values), "a logarithmic axis has no 0"  # type: ignore[operator]


def test_a_cell_that_lost_a_seed_is_shown_by_the_others_and_marked(plots: dict[str, Plot]) -> None:
    """Seed 2 of mlp/cpu/b100/compile has crashed."""
    marked = {
        (name, panel.title, v["variant"], v["batch_size"], v["note"])
        for name in ("throughput", "devices", "compiled")
        for panel in plots[name].panels
        for v in panel.values
        if "¶" in str(v["marks"])
    }
    assert marked == {
        ("throughput", "mlp", "cpu · compile", 100, "partial"),
        ("compiled", "mlp · cpu", "compile", 100, "partial"),
        ("devices", "mlp · cuda", "compile", 100, "partial"),
    }
    assert all(plots[name].notes[-1].startswith("¶ partial") for name, *_ in marked)


GPU = make_cell(device="cuda")
COMPILED = make_trial(make_cell(variant="compile"), outcome=Failure(kind="compile_error", reason="no g++"))
EAGER = replace(make_manifest().matrix, variants=(BUILTIN_VARIANTS["eager"],))


@pytest.mark.parametrize(
    ("plot", "material", "words"),
    [
        ("devices", material_of([make_trial()]), "The matrix has no device but the CPU"),
        ("devices", material_of([make_trial(GPU)]), "The CPU was not measured"),
        ("devices", material_of([make_trial(), make_trial(GPU, outcome=Skip(reason="plug one in"))]), "plug one in"),
        ("devices", material_of([make_trial(), make_trial(GPU)]), "never timed"),
        ("compiled", material_of([make_trial()], matrix=EAGER), "no compiled variant"),
        ("compiled", material_of([make_trial(), COMPILED]), "no g++"),
        ("compiled", material_of([make_trial(), COMPILED], matrix=EAGER), "no g++"),
        ("epochs", material_of([make_trial(outcome=make_measurement(epochs=make_epochs((2,), (0.9,))))]), "One epoch"),
        ("epochs", material_of([COMPILED]), "No cell finished an epoch."),
    ],
)
def test_a_plot_without_figures_says_why(plot: str, material: Material, words: str) -> None:
    found = PLOTS[plot](material)
    assert not found.panels
    assert words in found.missing


@pytest.mark.parametrize(
    ("estimate", "words"),
    [
        (BatchPoint(where="at", batch_size=180.4), "faster than the CPU from batch size 180 on [120, 260]."),
        (BatchPoint(where="below"), "faster than the CPU at every batch size measured."),
        (BatchPoint(where="above"), "slower than the CPU at every batch size measured."),
        (BatchPoint(where="unknown"), "crossover unknown (why)."),
    ],
)
def test_crossovers_in_words(estimate: BatchPoint, words: str) -> None:
    low, high = BatchPoint(where="at", batch_size=120), BatchPoint(where="at", batch_size=260)
    names = {"model": "mlp", "device": "cuda"}
    both = [
        Crossover(variant=name, estimate=estimate, low=low, high=high, reason="why", **names)
        for name in ("eager", "compile")
    ]
    assert crossover_words(both[:1]) == f"eager: {words}"
    assert crossover_words(both) == f"eager, compile: {words}"


def test_curves_are_means_with_the_lowest_and_highest_seed(material: Material, plots: dict[str, Plot]) -> None:
    outcomes = [make_measurement(epochs=make_epochs((2.0, 4.0), acc)) for acc in ((0.9, 0.96), (0.92, 0.94))]
    trials = [make_trial(seed=seed, outcome=outcome) for seed, outcome in enumerate(outcomes)]
    (curve,) = curves(material_of(trials).run)
    assert (curve.mean, curve.seconds) == (pytest.approx([0.91, 0.95]), [2.0, 6.0])
    (panel,) = PLOTS["epochs"](material_of(trials)).panels
    assert [(v["low"], v["high"]) for v in panel.values] == [(0.9, 0.92), (0.94, 0.96)]
    for name in ("epochs", "time"):
        assert sum(len(panel.values) for panel in plots[name].panels) == 5 * len(material.measured)


def test_bins_hold_nearly_all_steps_and_few_steps_make_a_coarse_picture(plots: dict[str, Plot]) -> None:
    shares: dict[tuple[str, Any], float] = {}
    for panel in plots["steps"].panels:
        for value in panel.values:
            key = panel.title, value["variant"]
            shares[key] = shares.get(key, 0.0) + float(value.get("share") or 0.0)
    assert all(0.95 < share <= 1.001 for share in shares.values())
    few, many, alike = np.geomspace(1, 2, 8), np.geomspace(1, 2, 5000), np.full(100, 2.0)
    assert costs.edges_of([few, many]).size - 1 == 6 + 2
    assert costs.edges_of([many]).size - 1 == costs.MOST_BINS + 2
    assert costs.edges_of([alike])[0] < 2.0 < costs.edges_of([alike])[-1]


def test_phases_add_up_to_the_time_awake_and_what_none_claims_is_other(plots: dict[str, Plot]) -> None:
    totals: dict[tuple[str, Any], float] = {}
    for panel in plots["waterfall"].panels:
        for value in panel.values:
            key = panel.title, value["cell"]
            totals[key] = totals.get(key, 0.0) + float(value["share"])  # type: ignore[arg-type]
    assert list(totals.values()) == pytest.approx([1.0] * len(totals), abs=1e-4)
    outcome = make_measurement(phases={"train step": 6.0, "a new phase": 1.0}, awake_s=10.0)
    seconds = costs.phase_seconds(material_of([make_trial(outcome=outcome)]).run)[make_cell()]
    assert (seconds["train step"], seconds[costs.REST]) == (6.0, 4.0)


def test_a_long_panel_of_bars_says_what_it_left_out() -> None:
    plot = PLOTS["memory"](material_of([make_trial(make_cell(batch_size=size)) for size in range(1, MOST_BARS + 6)]))
    assert len(plot.panels[0].values) == MOST_BARS
    assert plot.notes == (f"The first {MOST_BARS} of {MOST_BARS + 5} cells are drawn; the table has them all.",)


def test_of_many_seeds_some_are_read_and_of_many_steps_a_sketch() -> None:
    trials = [make_trial(seed=seed) for seed in range(MOST_SEEDS + 5)]
    sessions = tuple(make_session([trial], [[2.0], [2.1]]) for trial in trials)
    asked: list[str] = []
    run = Run(manifest=make_manifest(trials), trials=tuple(trials), sessions=sessions)
    plot = PLOTS["steps"](gather(run, lambda trial: asked.append(trial) or np.full(9, 2.0)))
    assert asked == [trial.id for trial in trials[:MOST_SEEDS]]
    assert plot.notes == (f"Of each cell the first {MOST_SEEDS} seeds are shown.",)
    steps = np.random.default_rng(0).lognormal(1, 0.3, 20_000)
    small = sketch(steps)
    assert small.size == SKETCH
    assert np.percentile(small, (5, 50, 95)) == pytest.approx(np.percentile(steps, (5, 50, 95)), rel=0.01)


def test_samples_are_those_of_the_session_and_broken_files_are_named(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    path = folder.samples_path("x")
    assert folder.session_ms("x") is None
    path.parent.mkdir()
    rows = [(0, 0, 0, 9_000_000), (1, 0, 0, 2_500_000), (1, 1, 0, 3_000_000), (2, 0, 5, 7)]
    np.save(path, np.array(rows, dtype=SAMPLES))
    assert folder.session_ms("x").tolist() == [2.5, 3.0]  # type: ignore[union-attr]
    for content in (b"", b"\x93NUMPY", b"pickle"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"x\.npy: cannot be read as samples"):
            folder.session_ms("x")
    np.save(path, np.zeros(3))
    with pytest.raises(ValueError, match="holds float64"):
        folder.session_ms("x")


# ── specifications, colours, images ──────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", sorted(PLOTS))
def test_a_specification_has_no_data_and_no_colour_and_asks_for_fields_that_are_there(
    name: str, plots: dict[str, Plot]
) -> None:
    text = json.dumps(plots[name].spec)
    assert '"values": [{' not in text
    assert not re.search(r"#[0-9a-fA-F]{3,6}\b", text)
    for panel in plots[name].panels:
        assert set(re.findall(r'"field": "(\w+)"', text)) <= set().union(*panel.values)


@pytest.mark.parametrize(
    ("measured", "labels"),
    [([100], ["100"]), ([1000], ["1,000"]), ([10000], ["10,000"]), ([100, 10000], ["100", "1,000", "10,000"])],
)
def test_an_axis_labels_what_its_panel_has_room_for(measured: list[int], labels: list[str]) -> None:
    """With a single one the axis has no length: whatever else was labelled would stand at the same place."""
    trials = [make_trial(make_cell(batch_size=size)) for size in measured]
    plot = PLOTS["throughput"](material_of(trials))
    plot = replace(plot, spec=specs.throughput(["cpu · eager"], [100, 1000, 10000]))
    _, svg = next(vega.images_of(plot))
    texts = ET.fromstring(svg.decode()).iter("{http://www.w3.org/2000/svg}text")
    shown = [text.text for text in texts if text.get("opacity") != "0"]
    assert [text for text in shown if text in {"100", "1,000", "10,000"}] == labels


def test_a_variant_has_one_colour_and_no_look_comes_twice(plots: dict[str, Plot]) -> None:
    colours = {(k.label, k.colour) for n in ("devices", "compiled", "epochs", "time", "steps") for k in plots[n].legend}
    assert {label for label, colour in colours if colour} == {"eager", "compile", "bf16"}
    assert len([label for label, colour in colours if colour]) == 3
    looks = [(key.colour, key.shape) for key in plots["time"].legend]
    assert len(set(looks)) == len(looks)
    assert len({(specs.colour_of(n), specs.shape_of(n)) for n in range(1, 25)}) == 24


@pytest.mark.parametrize(("colours", "ground"), [(specs.LIGHT, "#ffffff"), (specs.DARK, "#191c20")])
def test_colours_stand_out_from_their_ground(colours: Sequence[str], ground: str) -> None:
    """By 3:1, WCAG 2.2's contrast ratio."""

    def luminance(colour: str) -> float:
        channels = [int(colour[n : n + 2], 16) / 255 for n in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    for colour in colours:
        dark, light = sorted((luminance(colour), luminance(ground)))
        assert (light + 0.05) / (dark + 0.05) >= 3, colour


def test_the_script_is_made_by_a_process_that_does_not_outlive_its_user(monkeypatch: pytest.MonkeyPatch) -> None:
    with making() as made:
        text = made()
    assert "window.vegaEmbed=" in text.replace(" ", "")
    assert "</script" not in text
    assert 500_000 < len(text) < 1_200_000
    with making() as made:
        pass
    with pytest.raises(BenchError, match="could not be made"):
        made()
    monkeypatch.setattr(vega.sys, "executable", "false")
    with making() as made, pytest.raises(BenchError, match="could not be made"):
        made()


# ── the command ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_page_of_200_cells_is_under_3_mb(tmp_path: Path) -> None:
    variants = tuple(replace(BUILTIN_VARIANTS["eager"], name=f"variant-{n}") for n in range(6))
    plan = Plan(batch_sizes=(10, 50, 100, 500, 1000, 10000), variants=variants, rounds=8, session_steps=200)
    folder = write_run(tmp_path, plan)
    assert main(["report", str(folder.path)]) == 0
    page = folder.report_path.read_text("utf-8")
    assert page.startswith("<!doctype html>")
    assert page.count("data-keys=") == 216
    assert page.count("data-plot=") > 80
    assert len(page.encode()) < 3_000_000


def test_images_of_every_plot(tmp_path: Path) -> None:
    folder = write_run(tmp_path, Plan(models=(HOSTILE,), batch_sizes=(100,), mishaps=False))
    target = tmp_path / "deep" / "images"
    assert main(["report", str(folder.path), "--images", str(target), "-q"]) == 0
    names = [path.name for path in target.iterdir()]
    assert len(names) == 2 * sum(len(plot.panels) for plot in plots_of(read(folder)).values())
    assert all(re.fullmatch(r"[a-z]+-\d+-[a-z0-9.-]+\.(png|svg)", name) for name in names)
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in target.glob("*.png"))
    for path in target.glob("*.svg"):
        root = ET.fromstring(path.read_text("utf-8"))
        assert len(list(root.iter("{http://www.w3.org/2000/svg}path"))) > 5
        assert HOSTILE in "".join(root.itertext())


def test_samples_that_are_gone_are_told_and_a_page_goes_where_a_link_leads(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_run(tmp_path, SMALL)
    files = sorted((folder.path / "samples").iterdir())
    files[0].unlink()
    files[1].write_bytes(b"broken")
    page, link = tmp_path / "page.html", tmp_path / "link.html"
    page.write_text("old")
    link.symlink_to(page)
    assert main(["report", str(folder.path), "--output", str(link)]) == 0
    assert "its step times are left out" in capsys.readouterr().err
    assert link.is_symlink()
    assert "raw samples of 2 trials are missing" in page.read_text("utf-8")


def test_nothing_measured_is_exit_code_5_and_a_page(tmp_path: Path) -> None:
    folder = write_run(tmp_path, Plan(models=("cnn",), devices=("cuda",), batch_sizes=(10000,)))
    page = tmp_path / "deep" / "page.html"
    assert main(["report", str(folder.path), "--output", str(page)]) == 5
    assert "Nothing was measured." in page.read_text("utf-8")


@pytest.mark.parametrize("flag", ["--output", "--images"])
def test_a_place_that_cannot_be_written_is_refused_before_anything_is_drawn(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, flag: str
) -> None:
    folder = write_run(tmp_path, SMALL)
    monkeypatch.setattr("mnist_bench.report.material.gather", lambda *_: pytest.fail("too late"))
    (tmp_path / "file").write_text("")
    assert main(["report", str(folder.path), flag, str(tmp_path / "file" / "x")]) == 2
    assert f"{flag} {tmp_path / 'file' / 'x'}" in capsys.readouterr().err
