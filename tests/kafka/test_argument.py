"""The argument that the read barrier rests on, against a model of a partition's replicas.

The barrier is the real one. Its questions are answered by the model, each at any time after it was sent, while leaders
are elected, learn of it or do not, and acknowledge what their in-sync replicas hold.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, find, given, settings
from hypothesis import strategies as st
from hypothesis.errors import NoSuchExample

from streams.kafka.cluster import Leader
from streams.kafka.protocol import Found, Listed, ListOffsets
from streams.kafka.read_barrier import (
    FENCED_LEADER_EPOCH,
    OFFSET_OUT_OF_RANGE,
    UNKNOWN_LEADER_EPOCH,
    ReadBarrier,
)
from streams.kafka.records import Place
from tests.kafka.wire import Wire, asked
from tests.virtual import run, turns

PLACE = ("p-changes", 0)
NOT_LEADER_OR_FOLLOWER, OFFSET_NOT_AVAILABLE = 6, 78


@dataclass
class Replica:
    """What a broker knows of the partition, and holds of it: `held` records, of which `shown` to consumers."""

    number: int
    #: The newest epoch that it knows, and who leads then.
    epoch: int = 0
    leader: int = 0
    held: int = 0
    shown: int = 0
    # Of its time as a leader: the replicas that are in sync, how much those have fetched, where its epoch begins.
    in_sync: set[int] = field(default_factory=set)
    fetched: dict[int, int] = field(default_factory=dict)
    begins: int = 0

    @property
    def leads(self) -> bool:
        """Whether it takes itself for the leader."""
        return self.leader == self.number


class Model:
    """A partition as Kafka keeps it (no unclean elections); every choice that it leaves is taken by numbers."""

    def __init__(self, count: int, min_in_sync: int) -> None:
        self.min_in_sync = min_in_sync
        self.replicas = [Replica(number) for number in range(count)]
        # What the controller knows. All epochs and their leaders, the newest is the last.
        self.leaders = [0]
        self.in_sync = set(range(count))
        self.acknowledged = 0
        first = self.replicas[0]
        first.in_sync = set(self.in_sync)

    @property
    def epoch(self) -> int:
        """The newest epoch."""
        return len(self.leaders) - 1

    def elect(self, who: int, kept: int) -> None:
        """The controller elects one that is in sync; of the others some are taken to be away. Nobody knows it yet."""
        in_sync = sorted(self.in_sync)
        leader = in_sync[who % len(in_sync)]
        self.in_sync = {leader} | {number for number in in_sync if kept >> number & 1}
        self.leaders.append(leader)

    def learn(self, who: int) -> None:
        """A replica hears of the newest epoch."""
        replica = self.replicas[who % len(self.replicas)]
        if replica.epoch == self.epoch:
            return
        replica.epoch, replica.leader = self.epoch, self.leaders[-1]
        if replica.leads:
            replica.in_sync, replica.fetched, replica.begins = set(self.in_sync), {}, replica.held

    def append(self, who: int) -> None:
        """Who takes itself for the leader takes a record, unless it knows too few to be in sync."""
        leaders = [one for one in self.replicas if one.leads]
        if leaders:
            leader = leaders[who % len(leaders)]
            if len(leader.in_sync) >= self.min_in_sync:
                leader.held += 1
                self._advance(leader)

    def fetch(self, who: int) -> None:
        """A follower fetches all of its leader's records, if both know the same epoch."""
        replica = self.replicas[who % len(self.replicas)]
        leader = self.replicas[replica.leader]
        if replica is leader or leader.epoch != replica.epoch:
            return
        replica.held = leader.fetched[replica.number] = leader.held
        # That it holds them is heard after the answer to it was made: a follower shows less than its leader.
        replica.shown = min(leader.shown, replica.held)
        self._advance(leader)

    def change_in_sync(self, who: int) -> None:
        """The newest leader has one taken out of those in sync, or one that is so again added."""
        leader = self.replicas[self.leaders[-1]]
        if leader.epoch != self.epoch:
            return
        number = who % len(self.replicas)
        if number in self.in_sync:
            self.in_sync -= {number} - {leader.number}
        elif leader.fetched.get(number, -1) >= max(leader.shown, leader.begins):
            self.in_sync.add(number)
        leader.in_sync = set(self.in_sync)
        self._advance(leader)

    def _advance(self, leader: Replica) -> None:
        """What all in sync hold is shown, and acknowledged if they are enough."""
        held = [leader.held if n == leader.number else leader.fetched.get(n, 0) for n in leader.in_sync]
        leader.shown = max(leader.shown, min(held))
        if len(leader.in_sync) >= self.min_in_sync:
            self.acknowledged = max(self.acknowledged, leader.shown)

    def check(self) -> None:
        """The model itself: what is acknowledged is held by all that can be elected, and by enough."""
        holding = {one.number for one in self.replicas if one.held >= self.acknowledged}
        assert holding >= self.in_sync

    def answer(self, number: int, epoch: int, *, is_list: bool) -> tuple[int, int]:
        """A broker's answer to a question with this epoch, at this moment: an error code and an end."""
        replica = self.replicas[number]
        if replica.epoch != epoch:
            return (FENCED_LEADER_EPOCH if replica.epoch > epoch else UNKNOWN_LEADER_EPOCH), -1
        if not replica.leads:
            return (NOT_LEADER_OR_FOLLOWER if is_list else OFFSET_OUT_OF_RANGE), -1
        if is_list and replica.shown < replica.begins:
            return OFFSET_NOT_AVAILABLE, -1
        return 0, replica.shown


class Asking:
    """A client's barrier, whose questions lie at the brokers until they are answered."""

    def __init__(self, model: Model, less: int = 0, *, is_sure: bool = False) -> None:
        self.model = model
        self.under_way: list[tuple[int, Any, asyncio.Future[Any]]] = []
        self.wire = Wire(self._wait)
        cluster: Any = self.wire
        self.barrier = ReadBarrier(cluster, {PLACE[0]: model.min_in_sync})
        if less:
            needed = self.barrier.needed
            self.barrier.needed = lambda *of: max(0, needed(*of) - less)  # type: ignore[method-assign]
        if is_sure:
            self.barrier.heard(PLACE, 0)
            self.barrier.counts = lambda *_: True  # type: ignore[method-assign]
        self.asking: list[asyncio.Task[Any]] = []
        self.is_stale = False
        self.hear(0)

    async def _wait(self, node: int, request: Any) -> Any:
        answer = asyncio.get_running_loop().create_future()
        self.under_way.append((node, request, answer))
        return await answer

    def hear(self, epoch: int) -> None:
        """The client hears of this epoch; it does not go back."""
        known = self.wire.leaders.get(PLACE)
        if known is None or epoch > known.epoch:
            replicas = tuple(range(len(self.model.replicas)))
            self.wire.leaders[PLACE] = Leader(self.model.leaders[epoch], epoch, replicas)

    def ask(self) -> None:
        """One question: what is acknowledged now must be below the end that it finds."""
        least = self.model.acknowledged

        def settled(_: Place, end: int) -> None:
            self.is_stale |= end < least

        self.asking.append(asyncio.create_task(self.barrier.ends([PLACE], settled)))

    def tell(self, which: int) -> None:
        """A broker answers, or has just lost, what was asked of it."""
        self.under_way = [one for one in self.under_way if not one[2].done()]
        if not self.under_way:
            return
        node, request, answer = self.under_way.pop(which % len(self.under_way))
        ((epoch, *_),) = asked(request).values()
        is_list = isinstance(request, ListOffsets)
        code, end = self.model.answer(node, epoch, is_list=is_list)
        answer.set_result({PLACE: Listed(code, end) if is_list else Found(code, end, end, [], b"")})


#: What happens, and to whom; numbers are taken modulo how many there are.
STEPS = ("append", "fetch", "learn", "elect", "change", "sync", "hear", "ask", "tell", "later")
Step = tuple[str, int, int]
#: How many replicas there are, and the least number in sync.
Sizes = tuple[int, int]


def steps(*more: str, least: int = 5, most: int = 60) -> st.SearchStrategy[list[Step]]:
    """Some steps, those named a little more often."""
    return st.lists(
        st.tuples(st.sampled_from((*STEPS, *more)), st.integers(0, 9), st.integers(0, 31)),
        min_size=least,
        max_size=most,
    )


async def _is_stale(model: Model, client: Asking, todo: Iterable[Step]) -> bool:
    for what, who, how in todo:
        if what == "append":
            model.append(who)
        elif what == "fetch":
            model.fetch(who)
        elif what == "learn":
            model.learn(who)
        elif what == "elect":
            model.elect(who, how)
        elif what == "change":
            model.change_in_sync(who)
        elif what == "sync":
            # The newest leader and those that are in sync with it, or some more, go on as they should.
            newest = model.leaders[-1]
            for number in [newest, *sorted(model.in_sync - {newest})]:
                model.learn(number)
                model.fetch(number)
            model.append(sum(one.leads for one in model.replicas[:newest]))
            for number in model.in_sync:
                model.fetch(number)
        elif what == "hear":
            client.hear(min(who, model.epoch))
        elif what == "ask":
            client.ask()
            await turns(3)
        elif what == "tell":
            client.tell(who)
            await turns(6)
        else:
            # Others are asked, too.
            await asyncio.sleep(0.06)
        model.check()
    while client.under_way:
        client.tell(0)
        await turns(6)
    for asking in client.asking:
        asking.cancel()
    await asyncio.gather(*client.asking, return_exceptions=True)
    return client.is_stale


def is_stale(sizes: Sizes, todo: Iterable[Step], **weaker: Any) -> bool:
    """Whether a question found an end below what had been acknowledged before it."""
    found: list[bool] = []

    async def scenario() -> None:
        model = Model(*sizes)
        found.append(await _is_stale(model, Asking(model, **weaker), todo))

    run(scenario)
    return found[0]


SIZES = st.integers(1, 5).flatmap(lambda count: st.tuples(st.just(count), st.integers(1, count)))


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(SIZES, steps("sync", "tell", "tell", "ask", "elect", least=12))
def test_no_end_is_below_what_was_acknowledged_before_it_was_asked_for(sizes: Sizes, todo: list[Step]) -> None:
    """Whoever leads, whoever knows it, whichever answers come first, and however old they are."""
    assert not is_stale(sizes, todo)


@pytest.mark.parametrize(
    ("sizes", "weaker", "seed"),
    [
        ((2, 1), {"less": 1}, 2), ((3, 2), {"less": 1}, 11), ((3, 1), {"less": 1}, 9), ((4, 2), {"less": 1}, 9),
        ((2, 2), {"is_sure": True}, 5),
    ],
    ids=["one of two", "two of three", "one of three", "two of four", "not asked for the end first"],
)  # fmt: skip
def test_by_a_weaker_rule_an_end_can_be_below_what_was_acknowledged(
    sizes: Sizes, weaker: dict[str, Any], seed: int
) -> None:
    """What is asserted above is no matter of course: every answer is needed, and the leader's to a ListOffsets.

    Any seed finds an example; with these it takes a few dozen attempts.
    """
    try:
        find(
            steps("sync", "tell", "ask", "elect", least=12, most=40),
            lambda todo: is_stale(sizes, todo, **weaker),
            settings=settings(max_examples=3_000, database=None, phases=[Phase.generate], deadline=None),
            random=Random(seed),
        )
    except NoSuchExample:
        pytest.fail("the weaker rule was not seen to fail")
