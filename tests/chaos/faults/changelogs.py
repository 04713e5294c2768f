"""What becomes of a worker's data folder beside its changelog: too old, or gone."""

from __future__ import annotations

import re
import shutil
import signal
from collections.abc import Iterable

from streams import topics
from tests.chaos.driver import Round
from tests.chaos.faults.registry import fault
from tests.chaos.history import stores_in
from tests.integration.harness import Log
from tests.integration.orgs import dump
from tests.model.generate import ORGS, Step

IDENTITIES = topics.IDENTITIES_CHANGELOG
ERASED = 40
#: While the worker is away, deletions are remembered for so long, and what is so old is compacted.
FORGETFUL = {"delete.retention.ms": "2000"}
COMPACTED = {"segment.ms": "200", "min.cleanable.dirty.ratio": "0"}
#: What the worker says of a partition's files.
TOO_OLD = r"/([^/]*) is too old and removed; it is restored from the changelog"
#: So many customers are written at once.
AT_ONCE = 20_000
#: The first worker that restores them is killed in the midst of it, at so many pieces.
PIECES = 5


def _steps(round_: Round, event: str, customers: Iterable[str], *, identified: bool = False) -> list[Step]:
    """The same event for each of these customers, who have an identifier of their own if they are identified."""
    steps: list[Step] = []
    for customer in customers:
        body = round_.scenario.event(event, ORGS[0], customer)
        if identified:
            body["identifiers"] = {"external_id": customer}
        steps.append(("change", round_.scenario.key(body), dump(body), None))
    return steps


def _keys(round_: Round) -> set[bytes | None]:
    """The identifiers that the changelog speaks of now, be it that they are nobody's any more."""
    log = Log(round_.world, IDENTITIES.name)
    found = {record.key for record in log.complete()}
    round_.world.loop.run(log.close())
    return found


@fault("a worker away for longer than deletions are remembered", alone=True)
def away(round_: Round) -> None:
    """It must not bring back who was erased meanwhile, of whom the changelog does not speak any more."""
    absent, other = round_.workers
    before = _keys(round_)
    erased = [f"erased-{n}" for n in range(ERASED)]
    round_.load(steps=_steps(round_, "customer.registered", erased, identified=True), pause_s=0.0).join()
    round_.world.settle()
    theirs = {key for key in _keys(round_) - before if b"erased-" in (key or b"")}
    assert len(theirs) == ERASED
    assert absent.stop() == 0
    # A partition that it gave up before anything was written there has nothing that could come back.
    stores = [one for one in stores_in(absent.datadir, absent.name, range(round_.partitions)) if one.offset >= 0]
    old = {f"{one.table}-{one.partition}.db" for one in stores if one.table == topics.IDENTITIES_TABLE}
    assert old
    round_.world.configure(IDENTITIES.name, **IDENTITIES.config | FORGETFUL | COMPACTED)
    round_.load(steps=_steps(round_, "customer.erased", erased), pause_s=0.0).join()

    def is_forgotten() -> bool:
        # A log is compacted up to what was written last, so something has to be.
        others = [f"other-{round_.count()}-{n}" for n in range(ERASED)]
        round_.load(steps=_steps(round_, "customer.registered", others, identified=True), pause_s=0.0).join()
        return not theirs & _keys(round_)

    round_.until("the deletions to be forgotten", is_forgotten)
    round_.world.configure(IDENTITIES.name, **IDENTITIES.config | FORGETFUL)
    absent.start().ready()
    assert other.stop() == 0
    round_.others_take_over(other)
    assert set(re.findall(TOO_OLD, absent.errors)) == old, absent.errors
    round_.world.configure(IDENTITIES.name, **IDENTITIES.config)
    other.start()
    round_.goes_on()
    other.ready()


def _emptied(round_: Round, customers: int) -> None:
    (worker,) = round_.workers
    for first in range(0, customers, AT_ONCE):
        names = (f"many-{n}" for n in range(first, min(first + AT_ONCE, customers)))
        round_.load(steps=_steps(round_, "customer.registered", names), pause_s=0.0).join()
    round_.world.settle(60 + customers / 1_000)
    assert worker.stop() == 0
    shutil.rmtree(worker.datadir / "state")
    worker.start(CHAOS_AT=f"restore.after:{PIECES}").may_end(-signal.SIGKILL)
    round_.until("the worker to be killed while it restores", lambda: not worker.running)
    worker.wait()
    assert worker.came_to(), worker.errors
    worker.start()
    round_.goes_on()
    worker.ready()


@fault("an empty data folder with 20 000 customers", workers=1, env={"CONSENT_BATCH_RECORDS": "1000"}, alone=True)
def emptied(round_: Round) -> None:
    _emptied(round_, 20_000)


@fault(
    "an empty data folder with a million customers",
    workers=1, env={"CONSENT_BATCH_RECORDS": "1000"}, alone=True, long=True, large=True,
)  # fmt: skip
def emptied_of_many(round_: Round) -> None:
    _emptied(round_, 1_000_000)
