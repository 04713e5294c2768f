"""Which rates hold, and the search for the highest one, against a system that is computed."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from tests.bench.sustained import HALF_STEP, STEP, Probe, Sustained, backlog, scout, search

SECONDS, SAMPLES = 60.0, 600
PROBES = 6


def probe_of(rate: float, samples: list[float], sent: float = 1.0) -> Probe:
    return Probe(rate, SECONDS, rate * sent, rate, samples)


def system_of(capacity: float) -> Callable[[float], Probe]:
    """Works off up to `capacity` records per second; what is more waits."""

    def probe(rate: float) -> Probe:
        excess = max(0.0, rate - capacity)
        samples = [rate * 0.01 + excess * SECONDS * n / (SAMPLES - 1) for n in range(SAMPLES)]
        return Probe(rate, SECONDS, rate, min(rate, capacity), samples)

    return probe


def searched(start: float, capacity: float) -> Sustained:
    found = Sustained()
    search(start, system_of(capacity), PROBES, found)
    return found


def test_the_backlog_is_what_was_sent_and_not_answered_in_whichever_order_it_is_answered() -> None:
    sent, answered = [10, 20, 30, 40], [35, 25, 31, 90]
    assert backlog(sent, answered, [5, 10, 24, 25, 30, 34, 40, 90]) == [0, 1, 2, 1, 2, 1, 1, 0]


def test_a_level_backlog_holds_and_its_noise_is_no_growth() -> None:
    pick = random.Random(1)
    assert probe_of(10_000, [200.0] * SAMPLES).holds
    assert probe_of(10_000, [pick.uniform(0, 4_000) for _ in range(SAMPLES)]).holds


def test_one_stall_in_the_midst_of_a_minute_holds() -> None:
    stalled = [5_000.0 * max(0.0, 1 - abs(n - 300) / 10) for n in range(SAMPLES)]
    assert probe_of(10_000, stalled).holds


def test_a_backlog_that_grows_does_not_hold_even_where_it_is_small() -> None:
    probe = probe_of(10_000, [n * 1.5 for n in range(SAMPLES)])
    assert probe.growth == pytest.approx(898.5)
    assert probe.why_not == "the backlog grows"


def test_a_backlog_that_shrinks_holds_until_more_than_a_second_is_left() -> None:
    assert probe_of(10_000, [20_000 - n * 20.0 for n in range(SAMPLES)]).holds
    assert probe_of(10_000, [30_000 - n * 20.0 for n in range(SAMPLES)]).why_not == "a backlog of 1.8 s is left"


def test_a_rate_that_was_not_sent_does_not_hold() -> None:
    assert probe_of(10_000, [0.0] * SAMPLES, sent=0.97).why_not == "only 9,700/s could be sent"
    assert not Probe(10_000, SECONDS).holds


@pytest.mark.parametrize("start", [8_000, 9_500, 10_000, 11_000, 14_000, 40_000])
def test_the_search_ends_below_the_capacity_and_within_half_a_step_of_it(start: float) -> None:
    found = searched(start, 10_000)
    assert found.rate is not None
    assert found.rate <= 10_000 * 1.001
    assert found.rate * HALF_STEP * 1.001 > 10_000
    assert len(found.probes) <= PROBES


def test_the_search_goes_down_to_what_was_worked_off_and_up_by_steps() -> None:
    assert [probe.rate for probe in searched(15_000, 10_000).probes] == pytest.approx([15_000, 10_000, 11_000, 10_500])
    up = searched(9_000, 10_000)
    rates = [9_000, 9_900, 9_900 * STEP**2, 9_900 * STEP, 9_900 * HALF_STEP]
    assert [probe.rate for probe in up.probes] == pytest.approx(rates)
    assert up.rate == pytest.approx(9_900)
    assert up.complete
    assert up.bounded


def test_a_search_that_began_far_too_low_says_that_it_saw_no_bound() -> None:
    found = searched(1_000, 10_000)
    assert not found.complete
    assert not found.bounded


def test_a_load_that_cannot_even_be_sent_is_a_step_down() -> None:
    found = Sustained([Probe(20_000, SECONDS)])
    assert found.next_rate == pytest.approx(20_000 / STEP)


def test_short_loads_lead_from_far_too_much_to_what_can_be_worked_off() -> None:
    """The more is sent, the less is left to the worker of what it shares with the generator."""
    asked = []

    def probe(rate: float) -> Probe:
        asked.append(rate)
        worked_off = min(rate, 30_000 - rate / 2)
        return Probe(rate, 3.0, rate, worked_off) if worked_off > 0 else Probe(rate, 3.0, failure="too much")

    assert scout(64_000, probe, 4) == pytest.approx(20_000, rel=0.15)
    assert asked[:2] == [64_000, 32_000]
    assert probe(64_000).why_not == "too much"


def test_short_loads_end_with_one_that_is_worked_off_and_with_none_that_can_be_sent() -> None:
    assert scout(5_000, system_of(10_000), 4) == 5_000
    assert scout(5_000, lambda rate: Probe(rate, 3.0, failure="too much"), 4) is None


def test_no_rate_is_sustained_where_all_probes_fail() -> None:
    found = searched(1_000_000, 1_000)
    assert found.rate is None
    assert len(found.probes) == PROBES
