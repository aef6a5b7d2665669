"""The class of a variant: by its settings, held against its loss trace."""

from __future__ import annotations

from dataclasses import replace

import pytest
from record_factory import make_measurement

from mnist_bench.classes import proven_class, trace_difference

EAGER = make_measurement(loss_trace=(2.3, 2.0, 1.5))


@pytest.mark.parametrize(
    ("trace", "class_"),
    [((2.3, 2.0, 1.5), "A"), ((2.301, 2.0, 1.499), "A"), ((2.3, 2.0, 1.51), "B"), ((2.3, 2.0), "B")],
)
def test_a_trace_that_differs_is_no_class_a(trace: tuple[float, ...], class_: str) -> None:
    found, doubt = proven_class([(replace(EAGER, loss_trace=trace), EAGER)], "A")
    assert found == class_
    assert (doubt is None) == (class_ == "A")


def test_a_class_by_settings_is_never_raised() -> None:
    assert proven_class([(EAGER, EAGER)], "B") == ("B", None)


def test_without_a_reference_the_settings_stand() -> None:
    assert proven_class([], "A") == ("A", None)


def test_the_difference_is_relative() -> None:
    assert trace_difference(replace(EAGER, loss_trace=(2.3, 2.0, 3.0)), EAGER) == pytest.approx(1.0)
