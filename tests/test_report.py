"""The report without a browser: honest plots, what it lets through, its refusals. What it says is in tests/golden."""

import base64
import hashlib
import html
import json
import re
import struct
import sys
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from record_factory import make_cell, make_epochs, make_manifest, make_measurement, make_session, make_trial
from run_factory import BF16, write_run

from mnist_bench import figures
from mnist_bench.analysis.summary import Run
from mnist_bench.cli import main
from mnist_bench.disk.folder import SAMPLES, RunFolder
from mnist_bench.errors import BenchError
from mnist_bench.records import BUILTIN_VARIANTS, Failure, Skip, Trial
from mnist_bench.report import costs, making_script, page, vega  # the real process: tests that need no other share one
from mnist_bench.report.learning import curves
from mnist_bench.report.material import (
    CUT,
    MOST_BARS,
    MOST_SERIES,
    MOST_VALUES,
    Drawn,
    Material,
    Plot,
    keys,
    panelled,
)
from mnist_bench.report.page import PLOTS

HOSTILE = "</script><img src=x onerror=alert(1)>"
SMALL: Any = {"devices": ("cpu",), "batch_sizes": (100,), "trouble": {}}
SIZES = (100, 1000, 10000)
SVG = "{http://www.w3.org/2000/svg}"


def material_of(done: Sequence[Trial], **changes: Any) -> Material:
    manifest = make_manifest(**{"trials": done, **changes})
    return Material(Run(manifest=manifest, trials=done, sessions=()), lambda _: None)


def read(folder: RunFolder) -> Material:
    return Material(Run.read(folder), folder.session_ms)


def plots_of(material: Material) -> dict[str, Plot]:
    return {name: draw(material) for name, draw in PLOTS.items()}


def page_of(material: Material) -> str:
    return page.render(material.run, plots_of(material), "/* Vega: takes seconds, and 0.9 MB */")


@pytest.fixture(scope="module")
def material(tmp_path_factory):
    return read(write_run(tmp_path_factory.mktemp("results"), "mlp", "lenet5", "cnn", batch_sizes=SIZES, epochs=5))


@pytest.fixture(scope="module")
def plots(material):
    return plots_of(material)


# ── what the page lets through ───────────────────────────────────────────────────────────────────────────────────────


def test_hostile_names_stay_text_and_nothing_is_asked_for(tmp_path):
    variant = replace(BF16, name="<i>\u2028\x1b[31m{{ 7*7 }}")
    variants = BUILTIN_VARIANTS["eager"], variant
    text = page_of(read(write_run(tmp_path, HOSTILE, variants=variants, batch_sizes=(100,))))
    assert not [sign for sign in ("<img", "<i>", "\x1b", "\u2028", "@import", "url(") if sign in text]
    assert text.count("<script") == text.count("</script") == 3
    assert html.escape(HOSTILE) in text
    assert "{{ 7*7 }}" in text
    assert not re.search(r"""(?:src|href)=["'](?!#)""", text)
    # Only its own scripts and style; an attribute with code or style would be refused.
    policy = html.unescape(re.search(r'Content-Security-Policy" content="([^"]+)"', text)[1])
    own = [part for tag in ("script", "style") for part in re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)]
    digests = [base64.b64encode(hashlib.sha256(part.encode()).digest()).decode() for part in own]
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert re.findall(r"'sha256-([^']+)'", policy) == digests
    assert "unsafe" not in policy
    assert not re.search(r"<[^>]*\s(?:style|on\w+)=", re.sub(r'"[^"]*"', '""', text))


def test_data_come_through(material, plots):
    first = plots["memory"].panels[0]
    strange = replace(first, values=[*first.values, {"cell": f"{HOSTILE}\u2028\udc80&'"}])
    text = page.render(material.run, plots | {"memory": replace(plots["memory"], panels=[strange])}, "")
    data = json.loads(re.search(r'id="data">(.*?)</script>', text, re.DOTALL)[1])["plots"]
    assert data["memory"]["panels"] == [{"values": strange.values, "height": strange.height}]
    nan = replace(first, values=[{"mib": float("nan")}])
    with pytest.raises(ValueError, match="not JSON compliant"):
        page.render(material.run, {"memory": replace(plots["memory"], panels=[nan])}, "")


GPU = make_cell(device="cuda")
COMPILED = make_trial(make_cell(variant="compile"), outcome=Failure(kind="compile_error", reason="no g++"))
EAGER = replace(make_manifest().matrix, variants=(BUILTIN_VARIANTS["eager"],))
SKIPPED = Skip(reason="no GPU: plug one in")
ONE_EPOCH = make_measurement(epochs=make_epochs((2,), (0.9,)))


@pytest.mark.parametrize(
    ("material", "words"),
    [
        (material_of([]), "No trial has finished"),
        (material_of([make_trial(outcome=SKIPPED)]), "Nothing was measured."),
        (material_of([make_trial()]), "No session was timed."),
        (material_of([make_trial()], status="interrupted"), "the run is interrupted"),
        (material_of([make_trial()], trials=[make_trial(), make_trial(seed=1)]), "1 of 2 trials have not finished."),
        (material_of([make_trial()]), "on another device: name both under devices."),
        (material_of([make_trial(GPU)]), "mlp/cpu/b100/eager is not in this run, or not finished."),
        (material_of([make_trial(), make_trial(GPU, outcome=SKIPPED)]), "on another device: no GPU: plug one in."),
        (material_of([make_trial(), make_trial(GPU)]), "this cell or mlp/cpu/b100/eager was never timed"),
        (material_of([make_trial()], matrix=EAGER), "no compiled variant"),
        (material_of([make_trial(), COMPILED]), "No compiled cell could be compared: no g++."),
        (material_of([make_trial(), COMPILED], matrix=EAGER), "No compiled cell could be compared: no g++."),
        (material_of([make_trial(outcome=ONE_EPOCH)]), "One epoch was trained"),
        (material_of([COMPILED]), "No cell finished an epoch."),
    ],
)
def test_what_is_not_there_is_said(material, words):
    assert words in page_of(material)


# ── honest plots ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_interval_that_reaches_0_is_drawn_on_a_logarithmic_axis():
    outcomes = [make_measurement(epochs=make_epochs((seconds,), (0.9,))) for seconds in (1, 1, 50)]
    seeds = [make_trial(seed=seed, outcome=outcome) for seed, outcome in enumerate(outcomes)]
    (panel,) = PLOTS["throughput"](material_of(seeds)).panels
    assert panel.values[0]["low"] == panel.values[0]["rate"] / 100, "a logarithmic axis has no 0"


def test_curves_are_means_with_the_lowest_and_highest_seed():
    outcomes = [make_measurement(epochs=make_epochs((2.0, 4.0), acc)) for acc in ((0.9, 0.96), (0.92, 0.94))]
    trials = [make_trial(seed=seed, outcome=outcome) for seed, outcome in enumerate(outcomes)]
    (curve,) = curves(material_of(trials).run)
    found = [[value[key] for value in curve.values] for key in ("accuracy", "low", "high", "seconds")]
    assert found == [[0.91, 0.95], [0.9, 0.94], [0.92, 0.96], [2.0, 6.0]]


def test_phases_add_up_to_the_time_awake_and_what_none_claims_is_other():
    outcome = make_measurement(phases={"train step": 6.0, "a new phase": 1.0}, awake_s=10.0)
    (panel,) = costs.waterfall(material_of([make_trial(outcome=outcome)])).panels
    assert {value["phase"]: value["seconds"] for value in panel.values} == {"train step": 6.0, costs.REST: 4.0}


def test_a_long_panel_of_bars_says_what_it_left_out():
    plot = costs.memory(material_of([make_trial(make_cell(batch_size=size)) for size in range(1, MOST_BARS + 6)]))
    assert len(plot.panels[0].values) == MOST_BARS
    assert plot.notes == [CUT]


def test_more_devices_and_variants_than_looks_and_more_values_than_a_page_bears_are_left_out():
    names = [f"v{number}" for number in range(MOST_SERIES + 1)]
    plot = PLOTS["throughput"](material_of([make_trial(make_cell(variant=name)) for name in names]))
    assert [key.label for key in plot.legend] == [f"cpu · {name}" for name in names[:-1]]
    assert plot.notes == [CUT]
    values = [{"series": "a"}] * (MOST_VALUES // 2 + 1)
    drawn = [Drawn(make_cell(model), values) for model in ("mlp", "cnn")]
    plot = panelled(drawn, lambda own: "", [], missing="", title="", lead="", spec={})
    assert ([panel.title for panel in plot.panels], plot.notes) == (["mlp"], [CUT])


def test_of_very_many_cells_the_table_has_groups_with_the_span_and_the_best_of_each(material, monkeypatch):
    monkeypatch.setattr(page, "MOST_CELLS", 10)
    text, cells = page_of(material), {row.cell: row for row in material.run.rows if row.status != "skipped"}
    assert text.partition("<template")[0].count("<tr data-keys=") == 6  # of each model and device
    assert text.partition("<template")[2].count("<tr data-status=") == len(cells)
    for name, device in {(cell.model, cell.device) for cell in cells}:
        rates = {
            row["train_samples_per_s"]: cell
            for cell, row in cells.items()
            if (cell.model, cell.device) == (name, device) and row.seeds
        }
        best = rates[max(rates)]
        words = f"{figures.significant(min(rates))} to {figures.significant(max(rates))}"
        assert f"{words}<small>best: {best.batch_size:,} {best.variant}</small>" in text


def test_of_step_times_every_seed_counts_alike_and_of_many_some_are_read():
    trials = [make_trial(seed=seed) for seed in range(costs.MOST_SEEDS + 5)]
    sessions = tuple(make_session([trial], [[2.0], [2.1]]) for trial in trials)
    rng = np.random.default_rng(0)
    steps = {trial.id: rng.lognormal(seed % 2, 0.1, 9 if seed % 2 else 9000) for seed, trial in enumerate(trials)}
    asked: list[str] = []
    run = Run(manifest=make_manifest(trials), trials=tuple(trials), sessions=sessions)
    plot = costs.step_times(Material(run, lambda trial: asked.append(trial) or steps[trial]))
    assert asked == [trial.id for trial in trials[: costs.MOST_SEEDS]]
    assert plot.notes == [f"Of each cell the first {costs.MOST_SEEDS} seeds are shown."]
    ms, shares = zip(*((value["ms"], value["share"]) for value in plot.panels[0].values), strict=True)
    assert list(ms) == sorted(ms)
    assert (shares[0], shares[-1]) == (0.01, 0.99)
    # Three of the five seeds, those of many steps, took about 1 ms, the other two about 2.7.
    assert [ms[shares.index(share)] for share in (0.3, 0.8)] == pytest.approx([1.0, 2.7], rel=0.1)
    assert max(one for one, share in zip(ms, shares, strict=True) if share < 0.58) < 1.4


def test_samples_are_those_of_the_session_and_broken_files_are_named(tmp_path):
    folder = RunFolder(tmp_path)
    path = folder.samples_path("x")
    assert folder.session_ms("x") is None
    path.parent.mkdir()
    rows = [(0, 0, 0, 9_000_000), (1, 0, 0, 2_500_000), (1, 1, 0, 3_000_000), (2, 0, 5, 7)]
    np.save(path, np.array(rows, dtype=SAMPLES))
    assert folder.session_ms("x").tolist() == [2.5, 3.0]
    for content in (b"", b"\x93NUMPY", b"pickle"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"x\.npy: cannot be read as samples"):
            folder.session_ms("x")
    np.save(path, np.zeros(3))
    with pytest.raises(ValueError, match="holds float64"):
        folder.session_ms("x")


# ── specifications, colours, images ──────────────────────────────────────────────────────────────────────────────────


def test_specifications_have_no_data_and_no_colour_and_ask_for_fields_that_are_there(plots):
    for plot in plots.values():
        text = json.dumps(plot.spec)
        assert '"values": [{' not in text
        assert not re.search(r"#[0-9a-fA-F]{3,6}\b", text)
        for panel in plot.panels:
            assert set(re.findall(r'"field": "(\w+)"', text)) <= set().union(*panel.values)


def test_an_axis_labels_what_its_panel_has_room_for():
    """With a single size the axis has no length: whatever else was labelled would stand at the same place."""
    sizes = {"a": [100], "b": [1000], "c": [10000], "d": [100, 1000, 10000]}
    trials = [make_trial(make_cell(model, batch_size=size)) for model, own in sizes.items() for size in own]
    images = dict(vega.images_of("x", PLOTS["throughput"](material_of(trials))))
    for number, (model, own) in enumerate(sizes.items(), start=1):
        texts = ET.fromstring(images[f"x-{number}-{model}.svg"].decode()).iter(f"{SVG}text")
        shown = [text.text for text in texts if text.get("opacity") != "0"]
        assert [text for text in shown if text in {"100", "1,000", "10,000"}] == [f"{size:,}" for size in own]


def test_a_series_has_one_look_in_all_plots_and_no_look_comes_twice(material, plots):
    series = [(k.label, k.colour, k.shape) for plot in plots.values() for k in plot.legend if k.field == "series"]
    assert sorted({label for label, *_ in series}) == sorted(material.series)
    assert len(set(series)) == len(material.series) == 6
    for legend in (plots["time"].legend, keys("series", map(str, range(24)))):
        assert len({(key.colour, key.shape, key.area) for key in legend}) == len(legend)


def test_all_devices_of_a_model_stand_in_one_panel(plots):
    titles = {name: [panel.title for panel in plot.panels] for name, plot in plots.items()}
    models = ["mlp", "lenet5", "cnn"]
    assert {name for name, own in titles.items() if own == models} == {*titles} - {"epochs", "steps"}
    for name in ("epochs", "steps"):
        assert titles[name] == [f"{model} · batch {size:,}" for model in models for size in SIZES]
        assert {value["series"].split()[0] for value in plots[name].panels[0].values} == {"cpu", "cuda"}


def test_a_single_epoch_is_no_curve():
    trial = make_trial(outcome=ONE_EPOCH)
    drawn = plots_of(material_of([trial]))
    assert drawn["epochs"].missing
    text = page_of(material_of([trial]))
    headings = re.findall(r"<h2 id[^>]*>([^<]+)</h2>", text)
    assert re.findall(r'<li><a href="#\w+">([^<]+)</a></li>', text) == headings[1:]
    assert headings[:3] == ["At a glance", "All cells", "Throughput"]
    assert "Accuracy by epoch" not in headings


@pytest.mark.parametrize(("colours", "ground"), [(vega.LIGHT, "#ffffff"), (vega.DARK, "#191c20")])
def test_colours_stand_out_from_their_ground(colours, ground):
    """By 3:1, WCAG 2.2's contrast ratio."""

    def luminance(colour: str) -> float:
        channels = [int(colour[n : n + 2], 16) / 255 for n in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    for colour in colours:
        dark, light = sorted((luminance(colour), luminance(ground)))
        assert (light + 0.05) / (dark + 0.05) >= 3, colour


def test_the_script_is_made_by_a_process_that_does_not_outlive_its_user(monkeypatch):
    with making_script() as made:
        text = made()
    assert "window.vegaEmbed=" in text.replace(" ", "")
    assert "</script" not in text
    assert 500_000 < len(text) < 1_200_000
    with making_script() as made:
        pass
    with pytest.raises(BenchError, match="could not be made"):
        made()
    monkeypatch.setattr(sys, "executable", "false")
    with making_script() as made, pytest.raises(BenchError, match="could not be made"):
        made()


# ── the command ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_page_of_200_cells_is_under_3_mb(tmp_path):
    variants = tuple(replace(BUILTIN_VARIANTS["eager"], name=f"variant-{n}") for n in range(6))
    sizes = (10, 50, 100, 500, 1000, 10000)
    folder = write_run(tmp_path, "mlp", "lenet5", "cnn", batch_sizes=sizes, variants=variants)
    assert main(["report", str(folder.path)]) == 0
    text = (folder.path / "report.html").read_text("utf-8")
    assert text.startswith("<!doctype html>")
    assert text.count("data-keys=") == 216
    assert text.count("data-plot=") > 50
    assert len(text.encode()) < 3_000_000


def test_images_of_every_plot(tmp_path):
    hostile = replace(BF16, name=HOSTILE)
    folder = write_run(tmp_path, HOSTILE, batch_sizes=(100,), variants=(BUILTIN_VARIANTS["eager"], hostile))
    target = tmp_path / "deep" / "images"
    assert main(["report", str(folder.path), "--images", str(target), "-q"]) == 0
    panels = [panel for plot in plots_of(read(folder)).values() for panel in plot.panels]
    captions = (target / "captions.txt").read_text("utf-8")
    assert all(panel.caption in captions for panel in panels)
    names = [path.name for path in target.iterdir() if path.name != "captions.txt"]
    assert len(names) == 2 * len(panels)
    assert all(re.fullmatch(r"[a-z]+-\d+-[a-z0-9.-]+\.(png|svg)", name) for name in names)
    for path in target.glob("*.svg"):
        root = ET.fromstring(path.read_text("utf-8"))
        assert len(list(root.iter(f"{SVG}path"))) > 5
        assert HOSTILE[:18] in "".join(root.itertext()), "long names of bars are cut"


def test_a_picture_for_print_has_the_size_that_was_asked_for_and_one_size_of_text(tmp_path):
    folder = write_run(tmp_path, "lenet5", "mlp")
    look = "--plot", "time,throughput", "--plot", "waterfall", "--format", "pdf,svg,png", "--width", "84mm"
    assert main(["report", str(folder.path), "--images", str(tmp_path / "x"), "-q", *look, "--theme", "dark"]) == 0
    assert {path.stem.split("-")[0] for path in (tmp_path / "x").iterdir()} == {
        "time", "throughput", "waterfall", "captions",
    }  # fmt: skip
    points = 84 / 25.4 * 72
    for path in (tmp_path / "x").glob("*.svg"):
        root = ET.fromstring(path.read_text("utf-8"))
        texts = list(root.iter(f"{SVG}text"))
        scale = points / float(root.get("viewBox").split()[2])
        sizes = {float(text.get("font-size").removesuffix("px")) * scale for text in texts}
        assert [*sizes] == [pytest.approx(8, abs=0.01)]
        assert (root.get("width"), root.find(f"{SVG}rect").get("fill")) == (f"{points:.2f}pt", vega.TONES["card"][1])
        words = {text.text for text in texts}
        assert not words & {"lenet5", "mlp"}, "no title"
        assert words >= ({"train step"} if path.stem.startswith("waterfall") else {"cpu · eager", "cuda · eager"})
        (box,) = re.findall(rb"/MediaBox \[0 0 ([\d.]+) ", path.with_suffix(".pdf").read_bytes())
        assert float(box) == pytest.approx(points, abs=0.01)
        png = path.with_suffix(".png").read_bytes()
        wide, dots = struct.unpack(">I", png[16:20])[0], struct.unpack(">I", png.partition(b"pHYs")[2][:4])[0]
        assert (wide, dots) == (pytest.approx(84 / 25.4 * 300, abs=1), round(300 / 0.0254))


def test_samples_that_are_gone_are_told_and_a_page_goes_where_a_link_leads(tmp_path, capsys):
    folder = write_run(tmp_path, "mlp", **SMALL)
    files = sorted((folder.path / "samples").iterdir())
    files[0].unlink()
    files[1].write_bytes(b"broken")
    written, link = tmp_path / "page.html", tmp_path / "link.html"
    written.write_text("old")
    link.symlink_to(written)
    assert main(["report", str(folder.path), "--output", str(link)]) == 0
    assert "its step times are left out" in capsys.readouterr().err
    assert link.is_symlink()
    assert "raw samples of 2 trials are missing" in written.read_text("utf-8")


@pytest.mark.parametrize("flag", ["--output", "--images"])
def test_a_place_that_cannot_be_written_is_refused_before_anything_is_drawn(tmp_path, capsys, monkeypatch, flag):
    folder = write_run(tmp_path, "mlp", **SMALL)
    monkeypatch.setattr("mnist_bench.report.material.Material", lambda *_: pytest.fail("too late"))
    (tmp_path / "file").write_text("")
    assert main(["report", str(folder.path), flag, str(tmp_path / "file" / "x")]) == 2
    assert f"{flag} {tmp_path / 'file' / 'x'}" in capsys.readouterr().err
