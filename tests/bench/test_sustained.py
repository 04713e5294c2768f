"""Which rates hold, and the search for the highest one, against a system that is computed."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from tests.bench.sustained import HALF_STEP, STEP, Probe, Sustained, backlog, first_rate, search

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


@pytest.mark.parametrize("start", [7_000, 9_500, 10_000, 11_000, 14_000, 40_000])
def test_the_search_ends_below_the_capacity_and_within_half_a_step_of_it(start: float) -> None:
    found = searched(start, 10_000)
    assert found.rate is not None
    assert found.rate <= 10_000 * 1.001
    assert found.rate * HALF_STEP * 1.001 > 10_000
    assert len(found.probes) <= PROBES


def test_the_search_goes_down_to_what_was_worked_off_and_up_by_steps() -> None:
    assert [probe.rate for probe in searched(15_000, 10_000).probes] == pytest.approx([15_000, 10_000, 11_000, 10_500])
    up = searched(9_000, 10_000)
    assert [probe.rate for probe in up.probes] == pytest.approx([9_000, 9_000 * STEP, 9_000 * STEP**2, 9_900 * 1.05])
    assert up.rate == pytest.approx(9_900)


def test_a_load_that_cannot_even_be_sent_is_a_step_down() -> None:
    found = Sustained([Probe(20_000, SECONDS)])
    assert found.next_rate == pytest.approx(20_000 / STEP)


def test_the_first_rate_is_what_is_worked_off_of_the_first_load_that_can_be_sent() -> None:
    def probe(rate: float) -> Probe:
        return Probe(rate, SECONDS, failure="too much") if rate > 50_000 else system_of(10_000)(rate)

    assert first_rate(150_000, probe, 3) == 10_000
    assert first_rate(450_000, probe, 3) is None
    assert probe(60_000).why_not == "too much"


def test_no_rate_is_sustained_where_all_probes_fail() -> None:
    found = searched(1_000_000, 1_000)
    assert found.rate is None
    assert len(found.probes) == PROBES
