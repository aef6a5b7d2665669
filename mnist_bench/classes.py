"""Whether a variant is the same mathematics: its class by its settings, held against its loss trace (rule 8)."""

from __future__ import annotations

from collections.abc import Iterable

from mnist_bench.records import Measurement, VariantClass

TRACE_RTOL = 1e-3  # of every loss of the first steps, dropout off, against the reference variant's


def trace_difference(one: Measurement, other: Measurement) -> float:
    """The largest relative difference of two loss traces; infinite where one ends early (a loss was not finite)."""
    if one.loss_trace == other.loss_trace:
        return 0.0
    pairs = zip(one.loss_trace, other.loss_trace, strict=False)
    worst = max((abs(a - b) / max(abs(b), 1e-12) for a, b in pairs), default=0.0)
    return worst if len(one.loss_trace) == len(other.loss_trace) else float("inf")


def proven_class(
    pairs: Iterable[tuple[Measurement, Measurement]], by_settings: VariantClass
) -> tuple[VariantClass, str | None]:
    """The class of a cell, and the doubt where its traces speak against its settings.

    Args:
        pairs: (this cell's, the reference's) trials of one seed each.
        by_settings: what the variant's settings claim.
    """
    worst = max((trace_difference(this, reference) for this, reference in pairs), default=0.0)
    if by_settings != "A" or worst <= TRACE_RTOL:
        return by_settings, None
    return "B", f"its losses differ from the reference variant's by up to {worst:.1%} in the first steps: class B"
