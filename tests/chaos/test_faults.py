"""Every fault once, under load, up to three after each other in a round: all invariants hold."""

from __future__ import annotations

import pytest

from tests.chaos.conftest import MakeRound
from tests.chaos.faults import FAULTS, Fault

pytestmark = [pytest.mark.kafka, pytest.mark.slow, pytest.mark.faults]

SEED = 1
#: So many faults share a round, which spares the start of workers and the look at what they left.
TOGETHER = 3

SHORT = [fault for fault in FAULTS.values() if not fault.long]
SOCIABLE = [fault for fault in SHORT if not fault.alone]
ROUNDS = [[fault] for fault in SHORT if fault.alone]
ROUNDS += [SOCIABLE[first : first + TOGETHER] for first in range(0, len(SOCIABLE), TOGETHER)]


@pytest.mark.parametrize("faults", ROUNDS, ids=[", ".join(fault.name for fault in faults) for faults in ROUNDS])
def test_nothing_is_lost_repeated_or_invented(make_round: MakeRound, faults: list[Fault]) -> None:
    first = faults[0]
    with make_round(SEED) as round_:
        round_.start(first.workers, **first.env)
        round_.load()
        for fault in faults:
            fault.do(round_)
        report = round_.finish()
    assert not report.violations, report
