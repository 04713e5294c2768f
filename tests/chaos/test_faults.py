"""Every fault once, under load on two workers: all invariants hold."""

from __future__ import annotations

import pytest

from tests.chaos.conftest import MakeRound
from tests.chaos.faults import FAULTS

pytestmark = [pytest.mark.kafka, pytest.mark.slow]


@pytest.mark.parametrize("name", FAULTS)
def test_nothing_is_lost_repeated_or_invented(make_round: MakeRound, name: str) -> None:
    with make_round(1) as round_:
        round_.start(2)
        round_.load()
        FAULTS[name](round_)
        report = round_.finish()
    assert not report.violations, report
