"""A round on three brokers: all invariants hold, and the checker sees it where the read barrier is missing."""

from __future__ import annotations

import pytest

from tests.chaos.conftest import MakeRound
from tests.chaos.faults import FAULTS
from tests.integration.compare import STALE

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

SEED = 5
#: A broker that sleeps, leaders that move while all live, a broker that is cut off.
ONE_AFTER_ANOTHER = (
    "a leader SIGSTOP for longer than its session",
    "leaders moved by election",
    "a leader cut off from the other brokers",
)


def test_brokers_of_a_cluster_come_and_go_and_nothing_is_lost_repeated_invented_or_stale(
    make_cluster_round: MakeRound,
) -> None:
    with make_cluster_round(SEED) as round_:
        round_.start(2)
        round_.load()
        for name in ONE_AFTER_ANOTHER:
            FAULTS[name].do(round_)
        report = round_.finish()
    assert not report.violations, str(report)


def test_without_the_read_barrier_decisions_are_stale_while_a_leader_is_cut_off(make_cluster_round: MakeRound) -> None:
    with make_cluster_round(SEED) as round_:
        round_.start(1, CHAOS_BARRIER="off")
        round_.load()
        FAULTS["a leader cut off from the other brokers"].do(round_)
        report = round_.finish(late=True)
    assert ("I3", STALE) in {(one.invariant, one.kind) for one in report.violations}, str(report)
