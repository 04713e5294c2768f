"""Every fault under load: all invariants hold.

Those that take minutes are left to `make chaos`.
"""

from __future__ import annotations

import pytest

from streams.broker import EmbeddedBroker
from tests.chaos.bulk import BulkRound, run_bulk
from tests.chaos.conftest import MakeRound
from tests.chaos.faults import FAULTS, Fault, faults_on

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

SEED = 1
#: So many faults share a round, which spares the start of workers and the look at what they left.
TOGETHER = 3
#: One or two of each kind, one after another on the same two workers.
OF_EACH_KIND = (
    "kill -9 of a worker",
    "a producer with the wrong partitioner",
    "broker kill -9 and restart",
    "poison of every kind",
    "kill -9 at a step of a checkpoint, beside others",
    "requests right behind opt-outs while the changes are loaded",
    "an output topic that refuses writes",
    "a settings command killed half way",
    "SIGSTOP past the session, then SIGCONT",
)

SHORT = [fault for fault in faults_on(EmbeddedBroker) if not fault.long]
SOCIABLE = [fault for fault in SHORT if not fault.alone]
ROUNDS = [[fault] for fault in SHORT if fault.alone]
ROUNDS += [SOCIABLE[first : first + TOGETHER] for first in range(0, len(SOCIABLE), TOGETHER)]


def _broken_by(make_round: MakeRound, faults: list[Fault]) -> None:
    first = faults[0]
    with make_round(SEED) as round_:
        round_.start(first.workers, **first.env)
        round_.load()
        for fault in faults:
            fault.do(round_)
        report = round_.finish()
    assert not report.violations, str(report)


def test_a_fault_of_each_kind_after_another_leaves_thousands_of_decisions_right(make_round: MakeRound) -> None:
    with make_round(SEED, BulkRound) as round_:
        report = run_bulk(round_, [FAULTS[name] for name in OF_EACH_KIND], lambda *_: None)
    assert not report.violations, str(report)
    assert report.counts["decisions"] > 5_000, str(report)


@pytest.mark.parametrize("faults", ROUNDS, ids=[", ".join(fault.name for fault in faults) for faults in ROUNDS])
def test_nothing_is_lost_repeated_or_invented(make_round: MakeRound, faults: list[Fault]) -> None:
    _broken_by(make_round, faults)
