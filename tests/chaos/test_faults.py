"""Every fault once, under load: all invariants hold."""

from __future__ import annotations

import pytest

from tests.chaos.conftest import MakeRound
from tests.chaos.faults import FAULTS, Fault

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

SEED = 1
SHORT = [fault for fault in FAULTS.values() if not fault.long]


@pytest.mark.parametrize("fault", SHORT, ids=[fault.name for fault in SHORT])
def test_nothing_is_lost_repeated_or_invented(make_round: MakeRound, fault: Fault) -> None:
    with make_round(SEED) as round_:
        round_.start(fault.workers, **fault.env)
        round_.load()
        fault.do(round_)
        report = round_.finish(late=fault.late)
    assert not report.violations, report
    assert not report.forwarded_twice, report
