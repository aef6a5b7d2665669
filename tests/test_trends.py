from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mnist_bench.figures import Row, columns
from mnist_bench.trends import (
    BARS,
    GAP,
    METRICS,
    CellName,
    Place,
    Point,
    RunLabel,
    changes,
    gather,
    lines,
    remarks,
    rows,
    sparkline,
)

RATE = "train_samples_per_s"


def make_point(number: int = 0, value: float | None = 1000.0, **more: Any) -> Point:
    """The fields of the parts are given flat: ``run_id``, ``started_at``, ``machine``, ``series``, ..."""
    ok = value is not None
    run = RunLabel(
        id=more.pop("run_id", f"202611{number + 1:02}T101500Z-a1b2c3"),
        started_at=more.pop("started_at", f"2026-11-{number + 1:02}T10:15:00Z"),
        status=more.pop("run_status", "complete"),
        commit=more.pop("commit", "c0ffee" * 6 + "beef"),
        dirty=more.pop("dirty", False),
    )
    place = Place(
        series=more.pop("series", "a" * 16 if ok else ""),
        base=more.pop("base", "b" * 16),
        machine=more.pop("machine", "AMD EPYC, 2 cores, torch 2.13.0"),
        setup=more.pop("setup", "mnist, standard, 2 epochs"),
    )
    cell = CellName("mlp", "cpu", 100, "eager")._replace(**more.pop("cell", {}))
    rest = {"status": "ok", "reason": ""} if ok else {"status": "oom", "reason": "needs 3 GiB"}
    return Point(run=run, place=place, cell=cell, value=value, **{**rest, "seeds": 1, "noisy": False, **more})


def text(points: list[Point], metric: str = RATE, last: int = 5, width: int = 80) -> list[str]:
    return ["".join(piece for piece, _ in line) for line in lines(gather(points), metric, last, width)]


def test_every_metric_is_a_column() -> None:
    assert set(METRICS) <= set(columns(Row))


class TestSparkline:
    @pytest.mark.parametrize(
        ("values", "expected"),
        [
            ([], ""),
            ([5.0], "▄"),
            ([None], "·"),
            ([None, None], "··"),
            ([0.0, 0.0, 0.0], "▄▄▄"),
            ([1.0, 2.0], "▁█"),
            ([2.0, None, 1.0], "█·▁"),
            ([0, 1, 2, 3, 4, 5, 6, 7], "▁▂▃▄▅▆▇█"),
            ([1e308, 0.0, 5e307], "█▁▅"),
            ([1.0, 1.0 + 2e-16, 1.0], "▁█▁"),
        ],
    )
    def test_known_ones(self, values: list[float | None], expected: str) -> None:
        assert sparkline(values) == expected

    @given(st.lists(st.none() | st.floats(0, 1e300)))
    def test_laws(self, values: list[float | None]) -> None:
        line = sparkline(values)
        assert len(line) == len(values)
        pairs = [(value, BARS.index(bar)) for value, bar in zip(values, line, strict=True) if value is not None]
        assert [bar == GAP for bar in line] == [value is None for value in values]
        for value, bar in pairs:
            assert all(other_bar <= bar for other, other_bar in pairs if other <= value)
        if len({value for value, _ in pairs}) > 1:
            assert {0, len(BARS) - 1} <= {bar for _, bar in pairs}, "the lowest and the highest are at the ends"


class TestChanges:
    def test_are_against_the_one_before_that_has_a_figure(self) -> None:
        points = [make_point(n, value) for n, value in enumerate((None, 100.0, None, 150.0, 75.0))]
        assert changes(points, METRICS[RATE]) == (None, None, None, 0.5, -0.5)

    def test_of_accuracies_are_differences(self) -> None:
        points = [make_point(n, value) for n, value in enumerate((0.5, 0.75, 0.0, 0.25))]
        assert changes(points, METRICS["test_accuracy"]) == (None, 0.25, -0.75, 0.25)

    def test_from_nothing_there_is_none(self) -> None:
        points = [make_point(n, value) for n, value in enumerate((0.0, 1.0))]
        assert changes(points, METRICS["compile_s"]) == (None, None)


class TestGather:
    def test_cells_by_name_batch_sizes_by_number(self) -> None:
        points = [
            make_point(cell={"batch_size": size, "model": model})
            for model, size in (("mlp", 1000), ("mlp", 20), ("cnn", 5))
        ]
        assert [one.cell.id for one in gather(points)] == [
            "cnn/cpu/b5/eager",
            "mlp/cpu/b20/eager",
            "mlp/cpu/b1000/eager",
        ]

    def test_another_machine_is_another_series_the_newest_first(self) -> None:
        points = [
            make_point(0),
            make_point(1, series="other", machine="Intel"),
            make_point(2, series="other", machine="Intel"),
        ]
        assert [(one.label.partition(" ·")[0], len(one.points)) for one in gather(points)] == [
            ("Intel", 2),
            ("AMD EPYC, 2 cores, torch 2.13.0", 1),
        ]

    def test_labels_that_would_be_alike_get_their_digest(self) -> None:
        found = gather([make_point(0, series="1" * 16), make_point(1, series="2" * 16)])
        assert [one.label[-6:] for one in found] == ["222222", "111111"]

    def test_what_was_not_measured_goes_with_its_base(self) -> None:
        points = [
            make_point(0, None),  # before any measurement: with the first that comes
            make_point(1, series="one"),
            make_point(2, None),
            make_point(3, series="two"),  # the same base on another GPU
            make_point(4, None),
            make_point(5, None, base="elsewhere"),
        ]
        found = {one.id: [point.run.started_at[8:10] for point in one.points] for one in gather(points)}
        assert found == {"one": ["01", "02", "03"], "two": ["04", "05"], "elsewhere": ["06"]}

    @given(st.lists(st.tuples(st.sampled_from(["", "s1", "s2"]), st.sampled_from(["b1", "b2"]), st.integers(1, 3))))
    def test_loses_no_point_and_keeps_their_order(self, kinds: list[tuple[str, str, int]]) -> None:
        points = [
            make_point(
                n % 28,
                1.0 if series else None,
                series=series,
                base=base,
                run_id=f"r{n}",
                cell={"batch_size": size},
            )
            for n, (series, base, size) in enumerate(kinds)
        ]
        found = gather(points)
        assert sorted(int(p.run.id[1:]) for one in found for p in one.points) == list(range(len(points)))
        for one in found:
            numbers = [int(point.run.id[1:]) for point in one.points]
            assert numbers == sorted(numbers)
            assert len({point.place.series for point in one.points} - {""}) <= 1
            assert {point.cell.id for point in one.points} == {one.cell.id}


class TestLines:
    def test_show_what_a_reader_asks_for(self) -> None:
        points = [make_point(0, 10_000.0), make_point(1, 12_500.0, dirty=True, noisy=True, commit="a1b2c3d" + "0" * 33)]
        shown = text(points)
        assert shown == [
            "mlp/cpu/b100/eager",
            "  AMD EPYC, 2 cores, torch 2.13.0 · mnist, standard, 2 epochs",
            "  ▁█  10,000 to 12,500 samples/s, 2 runs",
            "  run                     date       commit   status samples/s   change",
            "  20261101T101500Z-a1b2c3 2026-11-01 c0ffeec  ok        10,000",
            "  20261102T101500Z-a1b2c3 2026-11-02 a1b2c3d+ ok        12,500† +25.0 %",
        ]
        assert any("†" in remark for remark in remarks(gather(points)))

    def test_fit_80_columns_whatever_the_status(self) -> None:
        points = [make_point(n, 123_456_789.0, run_status="interrupted", dirty=True, noisy=True) for n in range(3)]
        points.append(make_point(4, None, status="compile_error"))
        assert max(map(len, text(points))) <= 80

    def test_last_cuts_the_list_and_not_the_line(self) -> None:
        shown = text([make_point(n, 100.0 + n) for n in range(9)], last=2)
        assert "▁▁▂▃▅▆▇██"[0] in shown[2]
        assert "9 runs" in shown[2]
        assert [line.split()[0][6:8] for line in shown[4:]] == ["08", "09"]
        assert shown[4].endswith("+0.9 %"), "the change is against a run that is not listed"

    def test_long_histories_show_their_newest_part(self) -> None:
        shown = text([make_point(n % 28, 100.0 + n) for n in range(500)])
        assert len(shown[2]) <= 80
        assert shown[2].strip().startswith("▁")
        assert "100 to 599 samples/s, 500 runs" in shown[2]

    def test_without_any_figure_the_reason_stands_there(self) -> None:
        assert text([make_point(0, None), make_point(1, None, status="skipped", reason="no GPU")])[2:] == [
            "  samples/s: not measured in 2 runs; the last one: skipped: no GPU"
        ]

    def test_a_run_that_has_not_ended_says_so(self) -> None:
        points = [make_point(0, run_status="running")]
        assert " running " in text(points)[4]
        assert any(remark.startswith("running:") for remark in remarks(gather(points)))

    def test_figures_are_in_their_units(self) -> None:
        accuracies = text([make_point(0, 0.97), make_point(1, 0.9712)], "test_accuracy")
        assert accuracies[5].endswith("0.9712  +0.12 pp")
        assert text([make_point(0, 1.5)], "speedup_vs_eager")[4].endswith("1.50x")

    def test_hostile_names_stay_on_their_line(self) -> None:
        evil = "\x1b[31mred\n[bold]x\t\u202e"
        points = [
            make_point(0, cell={"model": evil}, machine=evil, setup=evil, run_id=evil, commit=evil, started_at=evil),
            make_point(1, None, cell={"model": evil}, status=evil, reason=evil),
            make_point(2, None, cell={"model": evil, "batch_size": 7}, status="failed", reason=evil),
        ]
        for line in text(points):
            assert line.isprintable(), line


def test_rows_are_whole_figures() -> None:
    points = [make_point(n, 1000 / 3 * (n + 1)) for n in range(4)]
    found = rows(gather(points), RATE, 2)
    assert [row["value"] for row in found] == [1000.0, 4000 / 3]
    assert found[1]["change"] == pytest.approx(1 / 3)
    assert found[0]["metric"] == RATE
    assert rows((), RATE, 2) == []
