"""The plot: accuracy by epoch, published and measured, a panel per entry. The drawing library is imported late."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from mnist_bench.reproduction.verdicts import ModelFigures

if TYPE_CHECKING:
    from collections.abc import Sequence

    import altair as alt

PUBLISHED, MEASURED = "published", "measured (mean, range over seeds)"
COLORS = ("#d55e00", "#0072b2")  # apart for the colour-blind too (Okabe and Ito)
PNG_SCALE = 2.0


def svg(models: Sequence[ModelFigures]) -> bytes:
    """The plot as SVG."""
    out = io.StringIO()
    chart(models).save(out, format="svg")
    return out.getvalue().encode()


def png(models: Sequence[ModelFigures]) -> bytes:
    """The plot as PNG, at twice its size."""
    out = io.BytesIO()
    chart(models).save(out, format="png", scale_factor=PNG_SCALE)
    return out.getvalue()


def chart(models: Sequence[ModelFigures]) -> alt.ConcatChart:
    """Two panels a row, each with a scale of its own."""
    import altair as alt

    panels = [_panel(model) for model in models]
    drawn: alt.ConcatChart = (
        alt.concat(*panels, columns=2)
        .configure_view(stroke=None)
        .configure_legend(orient="top", title=None, labelLimit=400, symbolOpacity=1)
        .configure_axis(gridColor="#e5e5e5", domainColor="#888", tickColor="#888")
        .properties(background="white")
    )
    return drawn


def _panel(model: ModelFigures) -> alt.LayerChart | alt.FacetChart:
    import altair as alt

    x = alt.X("epoch:Q", title="epoch", axis=alt.Axis(values=[each.epoch for each in model.epochs], format="d"))
    series = alt.Color("series:N", scale=alt.Scale(domain=[PUBLISHED, MEASURED], range=list(COLORS)))
    y = alt.Y("accuracy:Q", title="accuracy, %", scale=alt.Scale(zero=False))
    points = alt.Chart(alt.InlineData(values=_values(model)))
    band = points.mark_area(opacity=0.25).encode(x=x, y=alt.Y("low:Q", title="accuracy, %"), y2="high:Q", color=series)
    measured = points.transform_filter(alt.datum.series == MEASURED).mark_line(point=True)
    # Above the measured line, and with gaps: where the two agree, both are seen.
    published = points.transform_filter(alt.datum.series == PUBLISHED).mark_line(strokeDash=[4, 4], point=True)
    lines = [line.encode(x=x, y=y, color=series) for line in (measured, published)]
    return alt.layer(band, *lines).properties(width=320, height=220, title=f"{model.name}, lr {model.lr:g}")


def _values(model: ModelFigures) -> list[dict[str, object]]:
    published = [
        {"epoch": e.epoch, "series": PUBLISHED, "accuracy": e.published, "low": e.published, "high": e.published}
        for e in model.epochs
    ]
    measured = [
        {
            "epoch": e.epoch,
            "series": MEASURED,
            "accuracy": e.mean,
            "low": min(e.measured),
            "high": max(e.measured),
        }
        for e in model.epochs
    ]
    return [*published, *measured]
