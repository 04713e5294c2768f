"""Medians, spreads and ratios of runs that took turns."""

from __future__ import annotations

import pytest

from tests.bench.results import HALF, LONE, Latency, Times, present
from tests.bench.spread import Spread, ratios, spread, worse_by


def test_a_spread_is_the_median_the_least_and_the_most() -> None:
    assert spread([3.0, 9.0, 1.0, 4.0, 5.0]) == Spread(4.0, 1.0, 9.0)
    assert spread([2.0, 4.0]) == Spread(3.0, 2.0, 4.0)
    assert spread([7.0]) == Spread(7.0, 7.0, 7.0)


def test_a_spread_reads_as_the_median_with_its_bounds() -> None:
    assert spread([3.1, 3.5, 4.2]).text() == "3.5 (3.1-4.2)"
    assert spread([1.0, 2.0, 4.0]).text(".2f", "x") == "2.00x (1.00-4.00)"


def test_the_ratio_is_the_median_of_the_pairs_not_the_ratio_of_the_medians() -> None:
    ours, theirs = [2.0, 30.0, 4.0], [1.0, 10.0, 4.0]
    assert ratios(ours, theirs) == Spread(2.0, 1.0, 3.0)


def test_a_turn_without_its_second_half_is_no_pair() -> None:
    assert ratios([2.0], [1.0, 5.0]) == Spread(2.0, 2.0, 2.0)
    assert ratios([], [1.0]) is None


def test_worse_is_less_of_what_should_be_more_and_more_of_what_should_be_less() -> None:
    assert worse_by(0.97, more_is_better=True) == pytest.approx(0.03)
    assert worse_by(0.97, more_is_better=False) == pytest.approx(-0.03)


def test_turns_tell_the_ratio_of_product_to_echo_and_what_the_runs_have() -> None:
    turns = Latency(3).turns
    turns[HALF].echo += [Times(2.0, 8.0, rate=100.0), Times(4.0, 8.0, rate=110.0)]
    turns[HALF].product += [Times(6.0, 8.0, rate=100.0, enforced_p50=100.0)]
    assert turns[HALF].ratio(lambda it: it.p50) == Spread(3.0, 3.0, 3.0)
    assert turns[LONE].ratio(lambda it: it.p50) is None
    assert present(turns[HALF].echo, "rate") == Spread(105.0, 100.0, 110.0)
    assert present(turns[HALF].echo, "enforced_p50") is None
