"""When a figure of one checkout counts as worse than the other's."""

from __future__ import annotations

import pytest

from tests.bench.figures import CHANGES, FIGURES, HALF_P99, Compared, Comparison, Figure


@pytest.mark.parametrize(
    ("figure", "ours", "verdict"),
    [
        (CHANGES, [99.0, 98.0, 100.0], "met"),
        (CHANGES, [99.0, 98.0, 90.0], "met, unclear"),
        (CHANGES, [99.0, 96.0, 90.0], "missed, unclear"),
        (CHANGES, [96.0, 96.5, 90.0], "missed"),
        (CHANGES, [150.0, 120.0, 130.0], "met"),
        (HALF_P99, [101.0, 102.0, 90.0], "met"),
        (HALF_P99, [104.0, 106.0, 105.0], "missed"),
    ],
)
def test_the_median_of_the_pairs_decides_and_the_spread_says_how_clearly(
    figure: Figure, ours: list[float], verdict: str
) -> None:
    assert Compared(figure, ours, [100.0] * len(ours)).verdict == verdict


def test_without_a_whole_pair_nothing_is_met() -> None:
    assert not Compared(CHANGES, [1.0], []).met


def test_a_comparison_has_every_figure() -> None:
    assert [it.figure for it in Comparison("a", "b").figures] == list(FIGURES)
