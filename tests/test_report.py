"""The report without a browser: what its plots hold, its table, its words, its size, and what it lets through."""

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
from run_factory import BF16, Plan, step_ms, write_run

from mnist_bench import vega
from mnist_bench.analysis.answers import BatchPoint, Crossover
from mnist_bench.analysis.summary import Run
from mnist_bench.cli import main
from mnist_bench.disk.folder import RunFolder
from mnist_bench.disk.samples import SAMPLES, session_ms
from mnist_bench.errors import BenchError
from mnist_bench.figures import SHOWN
from mnist_bench.records import BUILTIN_VARIANTS, Failure, Session, Skip, Trial
from mnist_bench.report import PLOTS, costs, specs
from mnist_bench.report import page as pages
from mnist_bench.report.images import images_of
from mnist_bench.report.learning import curves
from mnist_bench.report.material import MOST_SEEDS, SKETCH, Material, Panel, Plot, gather, sketch, trials_to_read
from mnist_bench.report.page import content_security_policy, script_json
from mnist_bench.report.rates import crossover_words
from mnist_bench.vega import making  # the real one: vega.making is shared by the tests that need no other

HOSTILE = "</script><img src=x onerror=alert(1)>"
BUNDLE = "/* Vega */"  # the real one takes seconds and is 0.9 MB


def material_of(done: Sequence[Trial], sessions: Sequence[Session] = (), **changes: Any) -> Material:
    manifest = make_manifest(**{"trials": done, **changes})
    run = Run(manifest=manifest, trials=tuple(done), sessions=tuple(sessions))
    return gather(run, {})


def read(folder: RunFolder) -> Material:
    run = Run.read(folder)
    return gather(run, {t.id: session_ms(folder.samples_path(t.id)) for t in trials_to_read(run)})


def plots_of(material: Material) -> list[Plot]:
    return [draw(material) for draw in PLOTS.values()]


def lines_of(material: Material) -> list[dict[str, Any]]:
    shown = [figure for figure in SHOWN if any(row[figure.key] is not None for row in material.rows)]
    return [pages._line(row, shown) for row in pages.worst_first(material.rows)]


def page_of(material: Material) -> str:
    return pages.render(material, plots_of(material), BUNDLE)


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Material:
    return read(write_run(tmp_path_factory.mktemp("results")))


@pytest.fixture(scope="module")
def plots(material: Material) -> dict[str, Plot]:
    return {plot.id: plot for plot in plots_of(material)}


@pytest.fixture(scope="module")
def page(material: Material) -> str:
    return page_of(material)


class TestEmbedding:
    @given(
        st.recursive(
            st.text() | st.integers() | st.booleans() | st.none(),
            lambda v: st.lists(v) | st.dictionaries(st.text(), v),
            max_leaves=10,
        )
    )
    def test_json_comes_back_and_cannot_end_its_element(self, value: Any) -> None:
        text = script_json(value)
        assert json.loads(text) == value
        assert not set(text) & set("<>&\u2028\u2029")

    def test_lone_surrogate_can_be_written(self) -> None:
        assert json.loads(script_json("\udc80").encode("utf-8")) == "\udc80"

    def test_refuses_what_is_no_json(self) -> None:
        with pytest.raises(ValueError, match="not JSON compliant"):
            script_json(float("nan"))

    def test_policy_names_each_script_by_its_hash(self) -> None:
        policy = content_security_policy(["let a", "let b"], ["p{}"])
        digest = base64.b64encode(hashlib.sha256(b"let b").digest()).decode()
        assert policy.startswith("default-src 'none'; script-src 'sha256-")
        assert f"'sha256-{digest}'" in policy
        assert "unsafe" not in policy


class TestVega:
    def test_script_is_made_by_a_process(self) -> None:
        with making() as process:
            text = process.result()
        assert "window.vegaEmbed=" in text.replace(" ", "")
        assert "</script" not in text
        assert 500_000 < len(text) < 1_200_000

    def test_process_that_fails_is_an_error_that_says_why(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(vega.sys, "executable", "false")
        with making() as process, pytest.raises(BenchError, match="could not be made"):
            process.result()

    def test_process_does_not_outlive_its_user(self) -> None:
        with pytest.raises(KeyError), making() as process:
            raise KeyError
        assert process._process.returncode is not None


class TestSamples:
    def test_session_alone_in_milliseconds(self, tmp_path: Path) -> None:
        rows = np.array([(0, 0, 0, 9_000_000), (1, 0, 0, 2_500_000), (1, 1, 0, 3_000_000), (2, 0, 5, 7)], dtype=SAMPLES)
        np.save(tmp_path / "x.npy", rows)
        steps = session_ms(tmp_path / "x.npy")
        assert steps is not None
        assert steps.tolist() == [2.5, 3.0]

    def test_missing_file_is_none(self, tmp_path: Path) -> None:
        assert session_ms(tmp_path / "x.npy") is None

    @pytest.mark.parametrize("content", [b"", b"\x93NUMPY", b"pickle"])
    def test_broken_file_is_named(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "x.npy").write_bytes(content)
        with pytest.raises(ValueError, match=r"x\.npy: cannot be read as samples"):
            session_ms(tmp_path / "x.npy")

    def test_other_arrays_are_refused(self, tmp_path: Path) -> None:
        np.save(tmp_path / "x.npy", np.zeros(3))
        with pytest.raises(ValueError, match="holds float64"):
            session_ms(tmp_path / "x.npy")

    def test_sketch_keeps_the_distribution(self) -> None:
        steps = np.random.default_rng(0).lognormal(1, 0.3, 20_000)
        small = sketch(steps)
        assert small.size == SKETCH
        for rank in (5, 50, 95):
            assert np.percentile(small, rank) == pytest.approx(np.percentile(steps, rank), rel=0.01)
        assert sketch(small) is small

    def test_of_many_seeds_some_are_read(self) -> None:
        trials = [make_trial(seed=seed) for seed in range(MOST_SEEDS + 5)]
        sessions = [make_session([trial], [[2.0], [2.1]]) for trial in trials]
        manifest = make_manifest(trials)
        run = Run(manifest=manifest, trials=tuple(trials), sessions=tuple(sessions))
        assert [trial.seed for trial in trials_to_read(run)] == list(range(MOST_SEEDS))
        plot = PLOTS["steps"](gather(run, {trial.id: np.full(9, 2.0) for trial in trials_to_read(run)}))
        assert plot.notes == (f"Of each cell the first {MOST_SEEDS} seeds are shown.",)


class TestThroughput:
    def test_all_devices_of_a_model_share_a_panel(self, plots: dict[str, Plot]) -> None:
        assert [panel.title for panel in plots["throughput"].panels] == ["mlp", "lenet5", "cnn"]
        series = {str(v["variant"]).partition(" · ")[0] for v in plots["throughput"].panels[0].values}
        assert series == {"cpu", "cuda"}

    def test_values_are_those_of_the_rows(self, material: Material, plots: dict[str, Plot]) -> None:
        values = [value for panel in plots["throughput"].panels for value in panel.values]
        rows = [row for row in material.rows if row.seeds]
        assert [v["rate"] for v in values] == [row["train_samples_per_s"] for row in rows]
        known = [(v, row) for v, row in zip(values, rows, strict=True) if row["train_samples_per_s_high"] is not None]
        assert len(known) == len(rows) - 1, "one cell has two seeds only"
        assert all(v["high"] == row["train_samples_per_s_high"] for v, row in known)
        assert all(v["low"] > 0 for v in values), "a logarithmic axis has no 0"

    def test_marks_are_those_of_the_table(self, plots: dict[str, Plot]) -> None:
        marks = {
            (p.title, v["variant"], v["batch_size"]): v["marks"] for p in plots["throughput"].panels for v in p.values
        }
        assert marks["lenet5", "cpu · eager", 1000] == "†"
        assert marks["lenet5", "cpu · bf16", 1000] == "†§"
        assert marks["lenet5", "cpu · eager", 100] == ""
        assert [note[0] for note in plots["throughput"].notes] == ["†", "§", "¶"]

    def test_caption_names_the_highest_and_the_lowest(self) -> None:
        trials = [
            make_trial(make_cell(batch_size=size), outcome=make_measurement(epochs=make_epochs((size / 100,), (0.9,))))
            for size in (100, 1000)
        ]
        plot = PLOTS["throughput"](material_of(trials))
        assert plot.panels[0].caption == (
            "Highest: cpu · eager at batch 100, 60,000 samples/s. Lowest: cpu · eager at batch 1,000, 6,000 samples/s."
        )


class TestSpeedUps:
    def test_devices_are_compared_as_in_the_table(self, material: Material, plots: dict[str, Plot]) -> None:
        values = {
            (p.title, v["variant"], v["batch_size"]): v["rate"] for p in plots["devices"].panels for v in p.values
        }
        rows = {
            (f"{r.cell.model} · {r.cell.device}", r.cell.variant, r.cell.batch_size): r["speedup_vs_cpu"]
            for r in material.rows
            if r["speedup_vs_cpu"] is not None
        }
        assert values == rows
        assert ("mlp · cuda", "compile", 100) in rows, "its cell on the CPU has crashed with one of its seeds only"

    def test_cell_that_lost_a_seed_is_shown_by_the_others_and_marked(
        self, material: Material, plots: dict[str, Plot]
    ) -> None:
        """Seed 2 of mlp/cpu/b100/compile has crashed."""
        (row,) = (r for r in material.rows if r.seeds and r.status != "ok")
        found = {
            (name, panel.title, v["variant"], v["batch_size"]): v
            for name in ("throughput", "devices", "compiled")
            for panel in plots[name].panels
            for v in panel.values
        }
        marked = {place: v for place, v in found.items() if "¶" in str(v["marks"])}
        assert {place: v["rate"] for place, v in marked.items()} == {
            ("throughput", "mlp", "cpu · compile", 100): row["train_samples_per_s"],
            ("compiled", "mlp · cpu", "compile", 100): row["speedup_vs_eager"],
            ("devices", "mlp · cuda", "compile", 100): next(
                r["speedup_vs_cpu"] for r in material.rows if r.cell == replace(row.cell, device="cuda")
            ),
        }
        assert all("partial" in str(v["note"]) for v in marked.values())
        for name in ("throughput", "devices", "compiled"):
            assert any(note.startswith("¶ partial") for note in plots[name].notes)

    def test_crossover_is_told(self, plots: dict[str, Plot]) -> None:
        first = plots["devices"].panels[0]
        assert first.title == "mlp · cuda"
        assert (
            re.search(r"eager: faster than the CPU from batch size \d", first.caption)
            or "every batch size" in first.caption
        )

    def test_compiled_variants_alone(self, plots: dict[str, Plot]) -> None:
        assert {v["variant"] for p in plots["compiled"].panels for v in p.values} == {"compile"}
        assert [key.label for key in plots["compiled"].legend] == ["compile"]

    def test_break_even_has_a_line_for_each_ratio_and_says_when(self, plots: dict[str, Plot]) -> None:
        table = plots["compiled"].table
        assert table is not None
        columns, lines = table.texts()
        assert len(lines) == sum(len(panel.values) for panel in plots["compiled"].panels)
        answers = {line[[column.title for column in columns].index("pays off")] for line in lines}
        assert any(answer.startswith("after ") for answer in answers)

    @pytest.mark.parametrize(
        ("devices", "words"),
        [
            (("cpu",), "The matrix has no device but the CPU"),
            (("cuda",), "The CPU was not measured"),
        ],
    )
    def test_says_why_there_is_no_other_device(self, devices: Sequence[str], words: str) -> None:
        plot = PLOTS["devices"](material_of([make_trial(make_cell(device=device)) for device in devices]))
        assert not plot.panels
        assert words in plot.missing

    def test_says_why_the_other_device_has_no_figure(self) -> None:
        trials = [make_trial(), make_trial(make_cell(device="cuda"), outcome=Skip(reason="no GPU: plug one in"))]
        assert "no GPU: plug one in" in PLOTS["devices"](material_of(trials)).missing

    def test_says_why_no_cell_was_timed_on_both(self) -> None:
        trials = [make_trial(), make_trial(make_cell(device="cuda"))]
        assert "never timed" in PLOTS["devices"](material_of(trials)).missing

    def test_says_why_nothing_is_compiled(self) -> None:
        matrix = replace(make_manifest().matrix, variants=(BUILTIN_VARIANTS["eager"],))
        assert "no compiled variant" in PLOTS["compiled"](material_of([make_trial()], matrix=matrix)).missing
        failed = make_trial(make_cell(variant="compile"), outcome=Failure(kind="compile_error", reason="no g++"))
        assert "no g++" in PLOTS["compiled"](material_of([make_trial(), failed])).missing
        beside = replace(matrix, include=(make_cell(variant="compile"),))
        assert "no g++" in PLOTS["compiled"](material_of([make_trial(), failed], matrix=beside)).missing

    @pytest.mark.parametrize(
        ("estimate", "words"),
        [
            (BatchPoint(where="at", batch_size=180.4), "eager: faster than the CPU from batch size 180 on [120, 260]."),
            (BatchPoint(where="below"), "eager: faster than the CPU at every batch size measured."),
            (BatchPoint(where="above"), "eager: slower than the CPU at every batch size measured."),
            (BatchPoint(where="unknown"), "eager: crossover unknown (why)."),
        ],
    )
    def test_crossover_in_words(self, estimate: BatchPoint, words: str) -> None:
        low, high = BatchPoint(where="at", batch_size=120), BatchPoint(where="at", batch_size=260)
        one = Crossover(
            model="mlp",
            device="cuda",
            variant="eager",
            smallest=100,
            largest=1000,
            estimate=estimate,
            low=low,
            high=high,
            reason="why",
        )
        assert crossover_words([one]) == words

    def test_variants_that_agree_are_told_together(self) -> None:
        below = BatchPoint(where="below")
        both = [
            Crossover(model="mlp", device="cuda", variant=name, smallest=1, largest=9, estimate=below)
            for name in ("eager", "compile")
        ]
        assert crossover_words(both) == "eager, compile: faster than the CPU at every batch size measured."


class TestLearning:
    def test_mean_and_band_over_seeds(self) -> None:
        outcomes = [
            make_measurement(epochs=make_epochs((2.0, 4.0), accuracy)) for accuracy in ((0.9, 0.96), (0.92, 0.94))
        ]
        trials = [make_trial(seed=seed, outcome=outcome) for seed, outcome in enumerate(outcomes)]
        (curve,) = curves(material_of(trials).run)
        assert curve.mean == pytest.approx((0.91, 0.95))
        assert (curve.low, curve.high) == ([0.9, 0.94], [0.92, 0.96])
        assert curve.seconds == [2.0, 6.0]
        assert curve.seeds == 2

    def test_seed_that_has_fewer_epochs_counts_while_it_lasts(self) -> None:
        trials = [
            make_trial(seed=0, outcome=make_measurement(epochs=make_epochs((2.0,), (0.8,)))),
            make_trial(seed=1, outcome=make_measurement(epochs=make_epochs((2.0, 2.0), (0.9, 0.95)))),
        ]
        (curve,) = curves(material_of(trials).run)
        assert curve.mean == pytest.approx((0.85, 0.95))

    def test_curves_are_in_the_order_of_the_matrix(self) -> None:
        trials = [make_trial(make_cell(batch_size=size)) for size in (100, 1000)]
        plot = PLOTS["epochs"](material_of(trials[::-1], trials=trials))
        assert [panel.title for panel in plot.panels] == ["mlp · cpu · batch 100", "mlp · cpu · batch 1,000"]

    def test_every_epoch_of_every_cell_is_in_both_plots(self, material: Material, plots: dict[str, Plot]) -> None:
        for name in ("epochs", "time"):
            points = sum(len(panel.values) for panel in plots[name].panels)
            assert points == 5 * len(material.measured), name

    def test_a_single_epoch_draws_no_curve(self) -> None:
        one = make_trial(outcome=make_measurement(epochs=make_epochs((2.0,), (0.9,))))
        assert PLOTS["epochs"](material_of([one])).missing == "One epoch was trained: its accuracy is in the table."

    def test_legend_of_colours_and_shapes_has_no_look_twice(self, plots: dict[str, Plot]) -> None:
        looks = [(key.colour, key.shape) for key in plots["time"].legend]
        assert len(set(looks)) == len(looks)
        assert {key.shape for key in plots["time"].legend if key.colour} == {"line"}


class TestCosts:
    def test_histogram_adds_up(self) -> None:
        steps = np.random.default_rng(0).lognormal(1, 0.2, 5000)
        shares = costs.histogram(steps, costs.edges_of([steps]))
        assert shares.size == costs.MOST_BINS + 2, "an outline begins and ends low"
        assert shares.sum() == pytest.approx(0.985, abs=0.01)

    def test_few_steps_make_a_coarse_picture(self) -> None:
        few, many = np.geomspace(1, 2, 8), np.geomspace(1, 2, 5000)
        assert costs.edges_of([few, many]).size - 1 == 6 + 2
        assert costs.edges_of([many]).size - 1 == costs.MOST_BINS + 2

    def test_steps_that_are_all_alike_have_an_axis(self) -> None:
        steps = np.full(100, 2.0)
        edges = costs.edges_of([steps])
        assert edges[0] < 2.0 < edges[-1]
        assert costs.histogram(steps, edges).sum() == pytest.approx(1.0)

    def test_panel_tells_the_median(self, plots: dict[str, Plot]) -> None:
        panel = next(p for p in plots["steps"].panels if p.title == "cnn · cpu · batch 1,000")
        medians = {v["variant"]: v["median"] for v in panel.values if "median" in v}
        assert medians["eager"] == pytest.approx(step_ms(make_cell("cnn", batch_size=1000)), rel=0.02)
        assert set(medians) == {"eager", "compile", "bf16"}

    def test_phases_add_up_to_the_time_awake(self, material: Material, plots: dict[str, Plot]) -> None:
        totals: dict[tuple[str, Any], float] = {}
        for panel in plots["waterfall"].panels:
            for value in panel.values:
                key = panel.title, value["cell"]
                totals[key] = totals.get(key, 0.0) + float(value["share"])  # type: ignore[arg-type]
        assert len(totals) == len(material.measured)
        assert all(total == pytest.approx(1.0, abs=1e-4) for total in totals.values())

    def test_what_no_phase_claims_is_shown_as_other(self) -> None:
        outcome = make_measurement(phases={"train step": 6.0, "a new phase": 1.0}, awake_s=10.0)
        seconds = costs.phase_seconds(material_of([make_trial(outcome=outcome)]).run)[make_cell()]
        assert (seconds["train step"], seconds[costs.REST]) == (6.0, 4.0)

    def test_memory_of_host_and_device(self, material: Material, plots: dict[str, Plot]) -> None:
        values = {(p.title, v["cell"], v["place"]): v["mib"] for p in plots["memory"].panels for v in p.values}
        row = next(r for r in material.rows if r.cell == make_cell("mlp", "cuda", 1000))
        assert values["mlp · cuda", "1,000 · eager", "device"] == pytest.approx(row["device_peak_mib"], rel=1e-3)
        assert values["mlp · cuda", "1,000 · eager", "host"] == pytest.approx(row["host_peak_mib"], rel=1e-3)
        assert ("mlp · cpu", "1,000 · eager", "device") not in values

    def test_samples_that_are_gone_are_told(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        folder = write_run(tmp_path, Plan(models=("mlp",), devices=("cpu",), batch_sizes=(100,), mishaps=False))
        files = sorted((folder.path / "samples").iterdir())
        files[0].unlink()
        files[1].write_bytes(b"broken")
        assert main(["report", str(folder.path)]) == 0
        assert "its step times are left out" in capsys.readouterr().err
        assert "raw samples of 2 trials are missing" in (folder.path / "report.html").read_text("utf-8")

    def test_long_panel_of_bars_says_what_it_left_out(self) -> None:
        trials = [make_trial(make_cell(batch_size=size)) for size in range(1, costs.MOST_BARS + 6)]
        plot = PLOTS["memory"](material_of(trials))
        assert len(plot.panels[0].values) == costs.MOST_BARS
        assert plot.notes == (
            f"The first {costs.MOST_BARS} of {costs.MOST_BARS + 5} cells are drawn; the table has them all.",
        )


class TestTable:
    def test_failed_then_skipped_then_the_rest(self, material: Material) -> None:
        statuses = [line["status"] for line in lines_of(material)]
        assert statuses[:4] == ["crashed", "oom", "oom", "oom"]
        assert (statuses[4:6], set(statuses[6:]), len(statuses)) == (["skipped"] * 2, {"ok"}, 54)

    def test_cell_without_figures_has_its_reason_in_their_place(self, material: Material) -> None:
        lines = {line["names"]: line for line in lines_of(material)}
        lost = lines["oom", "cnn", "cuda", "10,000", "eager"]
        assert (lost["figures"], lost["reason"]) == ([], "the device ran out of memory: take a smaller batch size")
        partly = lines["crashed", "mlp", "cpu", "100", "compile"]
        assert (partly["seeds"], len(partly["figures"])) == (2, len(SHOWN))
        assert "signal 9" in partly["reason"]
        assert {len(line["order"]) for line in lines.values()} == {len(pages.NAMES) + len(SHOWN)}

    def test_reasons_are_told_once(self, material: Material) -> None:
        found = pages.reasons(material.rows)
        assert [(each["status"], each["cells"]) for each in found] == [("crashed", 1), ("oom", 3), ("skipped", 2)]
        assert found[1]["names"].startswith("cnn/cuda/b10000/eager, cnn/cuda/b10000/compile")

    def test_filter_finds_what_no_column_shows(self, material: Material) -> None:
        words = {line["words"] for line in lines_of(material)}
        assert any(text.startswith("mlp/cuda/b100/eager NVIDIA L4 A") for text in words)
        assert any("noisy" in text for text in words)

    def test_tiles_name_the_fastest_by_paired_ratios(self, material: Material) -> None:
        tiles = pages.fastest(material.rows)
        told = {(model, size, cells) for model, sizes in tiles.items() for size, cells in sizes}
        rows = [row for row in material.rows if row["fastest"]]
        for row in rows:
            size, cell = f"{row.cell.batch_size:,}", f"{row.cell.variant} on {row.cell.device}"
            assert any((m, s) == (row.cell.model, size) and cell in c.split(" or ") for m, s, c in told)
        assert sum(len(c.split(" or ")) for _, _, c in told) == len(rows)


class TestWords:
    def test_how_it_was_measured_is_counted(self, material: Material) -> None:
        facts = dict(pages.measured_how(material))
        stopped = [session.stopped for session in material.run.sessions]
        assert (facts["Seeds"], facts["Epochs"]) == ("3 (0, 1, 2)", "5, recipe standard")
        assert facts["Sessions"] == (
            f"27, 27 of them paired: {stopped.count('precise')} precise enough, "
            f"{stopped.count('budget')} at the end of the budget"
        )
        assert facts["Rounds"] == "median 20 per session, 20 to 20"
        assert facts["Noisy"] == "6 of 146 trials; 0 sessions"

    def test_environment_is_told(self, page: str) -> None:
        for text in ("AMD EPYC, 2 cores", "24.0 GiB", "cuda: NVIDIA L4", "2.13.0+cpu", "c0ffeec0ffee with changes"):
            assert html.escape(text) in page

    def test_run_that_is_not_complete_says_so(self) -> None:
        trials = [make_trial(), make_trial(seed=1)]
        manifest = make_manifest(trials, status="interrupted")
        text = page_of(gather(Run(manifest=manifest, trials=(trials[0],), sessions=()), {}))
        assert "the run is interrupted" in text
        assert "1 of 2 trials have not finished." in text


class TestPage:
    def test_asks_for_nothing(self, page: str) -> None:
        assert not re.search(r"""(?:src|href)=["'](?!#)""", page)
        assert "@import" not in page
        assert "url(" not in page

    def test_scripts_and_style_are_those_of_the_policy(self, page: str) -> None:
        policy = html.unescape(re.search(r'Content-Security-Policy" content="([^"]+)"', page)[1])  # type: ignore[index]
        own = re.findall(r"<script>(.*?)</script>", page, re.DOTALL) + re.findall(
            r"<style>(.*?)</style>", page, re.DOTALL
        )
        digests = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in own]
        assert re.findall(r"'sha256-([^']+)'", policy) == digests
        assert not re.search(r"<[^>]*\s(?:style|on\w+)=", page), "the policy would refuse it"

    def test_data_are_those_of_the_plots(self, page: str, plots: dict[str, Plot]) -> None:
        data = json.loads(re.search(r'id="data">(.*?)</script>', page, re.DOTALL)[1])  # type: ignore[index]
        assert list(data["plots"]) == list(PLOTS)
        for name, plot in plots.items():
            shown = [{"values": [dict(v) for v in panel.values], "height": panel.height} for panel in plot.panels]
            assert data["plots"][name]["panels"] == shown
        places = re.findall(r'data-plot="(\w+)" data-panel="(\d+)"', page)
        assert places == [(name, str(n)) for name, plot in plots.items() for n in range(len(plot.panels))]

    def test_sort_keys_come_through_the_attribute(self, page: str, material: Material) -> None:
        keys = [json.loads(html.unescape(text)) for text in re.findall(r'data-keys="([^"]*)"', page)]
        assert keys == [list(line["order"]) for line in lines_of(material)]

    def test_hostile_names_stay_text(self, tmp_path: Path) -> None:
        variant = replace(BF16, name="<i>\u2028\x1b[31m{{ 7*7 }}")
        plan = Plan(models=(HOSTILE,), variants=(BUILTIN_VARIANTS["eager"], variant), batch_sizes=(100,))
        text = page_of(read(write_run(tmp_path, plan)))
        assert "<img" not in text
        assert "<i>" not in text
        assert "\x1b" not in text
        assert "\u2028" not in text
        assert text.count("<script") == 3
        assert text.count("</script") == 3
        assert html.escape(HOSTILE) in text
        assert "{{ 7*7 }}" in text

    def test_nothing_measured_is_a_page_that_says_so(self) -> None:
        text = page_of(material_of([make_trial(outcome=Skip(reason="no GPU: plug one in"))]))
        assert "Nothing was measured." in text
        assert "no GPU: plug one in" in text
        assert "data-plot" not in text

    def test_no_trial_at_all_is_a_page_that_says_so(self) -> None:
        assert "No trial has finished" in page_of(material_of([]))

    def test_a_single_trial_without_a_session_is_a_page(self) -> None:
        text = page_of(material_of([make_trial()]))
        assert 'data-plot="throughput"' in text
        assert "No session was timed." in text


class TestSpecs:
    @pytest.mark.parametrize("name", sorted(PLOTS))
    def test_holds_no_data_and_no_colour(self, name: str, plots: dict[str, Plot]) -> None:
        text = json.dumps(plots[name].spec)
        assert '"values": [{' not in text
        assert not re.search(r"#[0-9a-fA-F]{3,6}\b", text)

    @pytest.mark.parametrize("name", sorted(PLOTS))
    def test_every_field_that_is_encoded_is_in_the_data(self, name: str, plots: dict[str, Plot]) -> None:
        fields = set(re.findall(r'"field": "(\w+)"', json.dumps(plots[name].spec)))
        for panel in plots[name].panels:
            assert fields <= set().union(*panel.values)

    @pytest.mark.parametrize(
        ("measured", "labels"),
        [([100], ["100"]), ([1000], ["1,000"]), ([10000], ["10,000"]), ([100, 10000], ["100", "1,000", "10,000"])],
    )
    def test_axis_labels_what_its_panel_has_room_for(self, measured: list[int], labels: list[str]) -> None:
        """With a single one the axis has no length: whatever else was labelled would stand at the same place."""
        sizes = [100, 1000, 10000]
        values = [
            {"variant": "eager", "batch_size": size, "rate": 5.0 * size, "low": 4.0 * size, "high": 6.0 * size}
            for size in measured
        ]
        panel = Panel(title="", values=values, caption="")
        spec = specs.throughput(["eager"], sizes)
        plot = Plot(id="throughput", title="", lead="", spec=spec, panels=[panel])
        svg = next(images_of(plot)).content.decode()
        texts = ET.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")
        shown = [text.text for text in texts if text.get("opacity") != "0"]
        assert [text for text in shown if text in {f"{size:,}" for size in sizes}] == labels

    def test_variant_has_one_colour_in_all_plots(self, plots: dict[str, Plot]) -> None:
        colours: dict[str, set[int]] = {}
        for name in ("devices", "compiled", "epochs", "time", "steps"):
            for key in (key for key in plots[name].legend if key.colour):
                colours.setdefault(key.label, set()).add(key.colour)
        assert {label: len(found) for label, found in colours.items()} == {"eager": 1, "compile": 1, "bf16": 1}

    @pytest.mark.parametrize(("colours", "ground"), [(specs.LIGHT, "#ffffff"), (specs.DARK, "#191c20")])
    def test_colours_stand_out_from_their_ground(self, colours: Sequence[str], ground: str) -> None:
        for colour in colours:
            assert contrast(colour, ground) >= 3, colour

    def test_more_variants_than_colours_still_differ(self) -> None:
        looks = {(specs.colour_of(n), specs.shape_of(n)) for n in range(1, 25)}
        assert len(looks) == 24
        assert specs.throughput([f"v{n}" for n in range(30)], [1])


def contrast(one: str, other: str) -> float:
    """WCAG 2.2's contrast ratio of two colours."""

    def luminance(colour: str) -> float:
        channels = [int(colour[n : n + 2], 16) / 255 for n in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


class TestCommand:
    def test_writes_into_the_run_and_prints_where(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        folder = write_run(tmp_path, Plan(models=("mlp",)))
        assert main(["report", "latest", "-o", str(tmp_path)]) == 0
        assert capsys.readouterr().out == f"{folder.path / 'report.html'}\n"
        text = (folder.path / "report.html").read_text("utf-8")
        assert text.startswith("<!doctype html>")
        assert "vegaEmbed" in text

    def test_page_of_200_cells_is_under_3_mb(self, tmp_path: Path) -> None:
        variants = tuple(replace(BUILTIN_VARIANTS["eager"], name=f"variant-{n}") for n in range(6))
        sizes = (10, 50, 100, 500, 1000, 10000)
        plan = Plan(batch_sizes=sizes, variants=variants, rounds=8, session_steps=200)
        folder = write_run(tmp_path, plan)
        assert main(["report", str(folder.path), "--output", str(tmp_path / "page.html")]) == 0
        material = read(folder)
        assert len(material.rows) == 216
        assert sum(len(plot.panels) for plot in plots_of(material)) > 80
        assert (tmp_path / "page.html").stat().st_size < 3_000_000

    def test_images_of_every_plot(self, tmp_path: Path) -> None:
        folder = write_run(tmp_path, Plan(models=(HOSTILE,), batch_sizes=(100, 1000), mishaps=False))
        target = tmp_path / "deep" / "images"
        assert main(["report", str(folder.path), "--images", str(target), "-q"]) == 0
        names = sorted(path.name for path in target.iterdir())
        expected = sum(len(plot.panels) for plot in plots_of(read(folder)))
        assert len(names) == 2 * expected
        assert all(re.fullmatch(r"[a-z]+-\d+-[a-z0-9.-]+\.(png|svg)", name) for name in names)
        for path in target.glob("*.png"):
            assert path.read_bytes().startswith(b"\x89PNG")
        for path in target.glob("*.svg"):
            root = ET.fromstring(path.read_text("utf-8"))
            assert len(list(root.iter("{http://www.w3.org/2000/svg}path"))) > 5
            assert HOSTILE in "".join(root.itertext())

    def test_nothing_measured_is_exit_code_5_and_a_page(self, tmp_path: Path) -> None:
        folder = write_run(tmp_path, Plan(models=("cnn",), devices=("cuda",), batch_sizes=(10000,)))
        assert main(["report", str(folder.path)]) == 5
        assert "Nothing was measured." in (folder.path / "report.html").read_text("utf-8")

    def test_page_makes_its_folder_and_goes_where_a_link_leads(self, tmp_path: Path) -> None:
        folder = write_run(tmp_path, Plan(models=("mlp",), devices=("cpu",), batch_sizes=(100,)))
        page, link = tmp_path / "deep" / "page.html", tmp_path / "link.html"
        assert main(["report", str(folder.path), "--output", str(page)]) == 0
        page.write_text("old")
        link.symlink_to(page)
        assert main(["report", str(folder.path), "--output", str(link)]) == 0
        assert link.is_symlink()
        assert page.read_text("utf-8").startswith("<!doctype html>")

    @pytest.mark.parametrize("flag", ["--output", "--images"])
    def test_place_that_cannot_be_written_is_a_usage_error_before_anything_is_drawn(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, flag: str
    ) -> None:
        folder = write_run(tmp_path, Plan(models=("mlp",), devices=("cpu",), batch_sizes=(100,)))
        monkeypatch.setattr("mnist_bench.report.material.gather", lambda *_: pytest.fail("too late"))
        (tmp_path / "file").write_text("")
        assert main(["report", str(folder.path), flag, str(tmp_path / "file" / "x")]) == 2
        error = capsys.readouterr().err
        assert f"{flag} {tmp_path / 'file' / 'x'}" in error
        assert "Traceback" not in error

    def test_unknown_run_is_a_usage_error(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["report", "nope", "-o", str(tmp_path)]) == 2
        assert "no run 'nope'" in capsys.readouterr().err
