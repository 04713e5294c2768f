"""When the consumer's own fetches tell where the changes end, and when the broker has to be asked."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from io import BytesIO
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.protocol.fetch import FetchRequest, FetchResponse_v11

from streams.engine import core, ends
from streams.engine.ends import FetchedEnds
from streams.engine.fetching import Fetches


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """What the time is, in seconds."""
    now = SimpleNamespace(s=100.0)
    monkeypatch.setattr(ends, "monotonic", lambda: now.s)
    return now


LEADER = 3


def confirmed(clock: SimpleNamespace, *partitions: int) -> FetchedEnds:
    """Fetches of these partitions count from now on."""
    fetched = FetchedEnds()
    fetched.tell(LEADER, clock.s - 0.02, dict.fromkeys(partitions, 1))
    fetched.answered(clock.s - 0.01, partitions)
    return fetched


def test_only_a_fetch_that_was_sent_after_a_request_had_arrived_counts_for_it(clock: SimpleNamespace) -> None:
    fetched = confirmed(clock, 0, 1)
    now = clock.s
    clock.s += 0.01
    fetched.tell(LEADER, now + 0.005, {0: 5, 1: 7})
    assert fetched.since({0: now, 1: now + 0.005, 2: now}) == {0: 5}
    fetched.tell(LEADER, now + 0.01, {1: 8})
    assert fetched.since({0: now + 0.005, 1: now + 0.005}) == {1: 8}


def test_fetches_count_only_after_the_leader_was_asked_for_the_end(clock: SimpleNamespace) -> None:
    fetched, at = FetchedEnds(), clock.s - 1
    fetched.tell(LEADER, clock.s, {0: 5})
    assert fetched.since({0: at}) == {}
    # What was asked before the first fetch was sent may have been answered by another leader.
    fetched.answered(clock.s - 0.1, [0])
    clock.s += 0.1
    fetched.tell(LEADER, clock.s, {0: 5})
    assert fetched.since({0: at}) == {}
    fetched.answered(clock.s - 0.05, [0])
    # Nor does a fetch count that was sent before the answer came.
    clock.s += 0.1
    fetched.tell(LEADER, clock.s - 0.1 - 0.01, {0: 6})
    assert fetched.since({0: at}) == {}
    fetched.tell(LEADER, clock.s, {0: 7})
    assert fetched.since({0: at}) == {0: 7}


@pytest.mark.parametrize(
    "interrupt",
    [
        lambda fetched, clock: fetched.tell(LEADER, clock.s, {0: None}),
        lambda fetched, clock: fetched.tell(LEADER + 1, clock.s, {0: 9}),
        lambda _, clock: setattr(clock, "s", clock.s + ends.GAP_S + 0.01),
    ],
    ids=["an error", "another leader", "a pause"],
)
def test_fetches_count_no_more_once_there_may_be_another_leader(clock: SimpleNamespace, interrupt: Any) -> None:
    fetched, at = confirmed(clock, 0), clock.s
    clock.s += 0.01
    fetched.tell(LEADER, clock.s, {0: 7})
    assert fetched.since({0: at}) == {0: 7}
    clock.s += 0.01
    interrupt(fetched, clock)
    clock.s += 0.01
    fetched.tell(LEADER, clock.s, {0: 8})
    assert fetched.since({0: at}) == {}
    # Until it was asked again.
    fetched.answered(clock.s, [0])
    clock.s += 0.01
    fetched.tell(LEADER, clock.s, {0: 9})
    assert fetched.since({0: at}) == {0: 9}


def test_a_fetch_is_waited_for_where_fetches_are_quicker_than_the_broker(clock: SimpleNamespace) -> None:
    async def wanted(fetched: FetchedEnds, *, told_after_s: float, answered_after_s: float) -> None:
        await fetched.next()
        asked_at = clock.s
        clock.s += answered_after_s
        fetched.answered(asked_at, [0])
        clock.s += told_after_s - answered_after_s
        fetched.tell(LEADER, clock.s, {0: 1})

    async def is_waited_for(fetched: FetchedEnds) -> bool:
        waiting = asyncio.create_task(fetched.next())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        done = waiting.done()
        fetched.tell(LEADER, clock.s, {0: 1})
        await asyncio.wait_for(waiting, 10)
        return not done

    async def scenario() -> None:
        fetched = FetchedEnds()
        assert not await is_waited_for(fetched)  # nothing is known yet
        for _ in range(30):
            await wanted(fetched, told_after_s=1.0, answered_after_s=0.03)
        assert not await is_waited_for(fetched)  # nothing comes but the next request itself
        for _ in range(30):
            await wanted(fetched, told_after_s=0.01, answered_after_s=0.03)
        assert await is_waited_for(fetched)  # under load
        for _ in range(30):
            await wanted(fetched, told_after_s=1.0, answered_after_s=0.03)
        assert not await is_waited_for(fetched)  # the load is over

    asyncio.run(scenario())


def test_the_broker_is_asked_for_what_no_fetch_has_told() -> None:
    async def scenario() -> None:
        now = ends.monotonic()
        fetched = confirmed(SimpleNamespace(s=now - 1), 0)
        fetched.tell(LEADER, now, {0: 4})
        fetched.answered(now, [0])
        fetched.tell(LEADER, now + 0.1, {0: 5})
        asked = []

        async def ends_of_changes(partitions: Any) -> dict[int, int]:
            asked.append(set(partitions))
            return dict.fromkeys(partitions, 9)

        engine: Any = SimpleNamespace(fetched_ends=fetched, ends_of_changes=ends_of_changes)
        assert await core.Engine.ends_since(engine, {0: now, 1: now, 2: now + 1}) == {0: 5, 1: 9, 2: 9}
        assert asked == [{1, 2}]
        assert await core.Engine.ends_since(engine, {0: now}) == {0: 5}
        assert asked == [{1, 2}]

    asyncio.run(scenario())


class State:
    """What aiokafka keeps of a partition, as far as a fetch sets it."""

    def __init__(self, position: int) -> None:
        self.position, self.has_valid_position = position, True
        self.highwater = self.lso = -1


class Fetcher:
    """aiokafka's, with a broker's answer to the one fetch that is sent."""

    def __init__(self, request: FetchRequest, answer: FetchResponse_v11) -> None:
        self._records: dict[Any, Any] = {}
        self.asked: list[str] = []
        self._request, self._answer = request, answer

    def _get_actions_per_node(self, _: Any) -> Any:
        return [(LEADER, self._request)], {}, 0.2, False, []

    async def _proc_fetch_request(self, _assignment: Any, _leader: int, request: Any) -> bool:
        self.asked = [topic for topic, _ in request.topics]
        for topic, partitions in request.decode(BytesIO(self._answer.encode())).topics:
            for number, error, *_ in partitions:
                if not error:
                    self._records[TopicPartition(topic, number)] = SimpleNamespace()
        return True


def test_a_fetch_tells_where_the_changes_end_of_the_requests_that_it_brings() -> None:
    """It asks for the changes last; what is not answered, or does not count yet, is not told."""

    async def scenario() -> None:
        topics = [
            ("changes", [(n, 0, 9) for n in range(4)]),
            ("others", [(0, 0, 9)]),
            ("requests", [(n, 5, 9) for n in range(4)]),
        ]
        found = [
            ("requests", [(n, 0, 8, 8, 0, [], -1, b"records") for n in range(3)] + [(3, 0, 8, 8, 0, [], -1, b"")]),
            ("others", [(0, 0, 3, 2, 0, [], -1, b"")]),
            (
                "changes",
                [(0, 0, 20, 19, 0, [], -1, b""), (1, 6, -1, -1, 0, [], -1, b""), (2, 0, 22, 22, 0, [], -1, b"x")],
            ),
        ]
        fetcher: Any = Fetcher(FetchRequest(100, 1, 99, 1, topics), FetchResponse_v11(0, 0, 0, found))
        states = {TopicPartition(topic, n): State(at) for topic, asked in topics for n, at, _ in asked}
        states[TopicPartition("others", 0)].position = 7  # was sought meanwhile
        told: list[Any] = []

        def on_ends(leader: int, sent: float, ended: Any) -> dict[int, int]:
            told.append((leader, dict(ended)))
            return {number: end for number, end in ended.items() if end is not None and number != 2}

        consumer: Any = SimpleNamespace(_fetcher=fetcher)
        assignment = SimpleNamespace(active=True, state_value=states.__getitem__, tps=list(states))
        fetches = Fetches(consumer, "changes", "requests", on_ends)
        await fetches.wait(assignment, 1)
        assert fetcher.asked == ["others", "requests", "changes"], "a broker reads them in this order"
        assert told == [(LEADER, {0: 20, 1: None, 2: 22, 3: None})]
        ends_of = {n: getattr(fetcher._records.get(TopicPartition("requests", n)), "end", None) for n in range(4)}
        assert ends_of == {0: 20, 1: None, 2: None, 3: None}
        assert (states[TopicPartition("changes", 0)].highwater, states[TopicPartition("changes", 0)].lso) == (20, 19)
        assert states[TopicPartition("others", 0)].highwater == -1

    asyncio.run(scenario())


def test_requests_that_another_leader_brings_are_not_fenced_by_this_one() -> None:
    """They may have been written after it was read where the changes end, and before that was heard of."""

    async def scenario() -> None:
        fetcher: Any = Fetcher(
            FetchRequest(100, 1, 99, 1, [("changes", [(0, 0, 9)])]),
            FetchResponse_v11(0, 0, 0, [("changes", [(0, 0, 20, 20, 0, [], -1, b"")])]),
        )
        theirs = SimpleNamespace()
        fetcher._records[TopicPartition("requests", 0)] = theirs
        consumer: Any = SimpleNamespace(_fetcher=fetcher)
        assignment = SimpleNamespace(active=True, state_value=lambda _: State(0), tps=[])
        await Fetches(consumer, "changes", "requests", lambda *_: {0: 20}).wait(assignment, 1)
        assert not hasattr(theirs, "end")

    asyncio.run(scenario())


def test_only_a_fetch_that_counts_tells_the_ends_of_what_it_brings(clock: SimpleNamespace) -> None:
    fetched = FetchedEnds()
    assert fetched.tell(LEADER, clock.s, {0: 5, 1: 6}) == {}, "nobody asked this leader yet"
    fetched.answered(clock.s, [0])
    clock.s += 0.01
    assert fetched.tell(LEADER, clock.s, {0: 7, 1: 8}) == {0: 7}
    assert fetched.tell(LEADER, clock.s, {0: None}) == {}
    assert fetched.tell(LEADER, clock.s, {0: 8}) == {}, "it may have been another leader for a moment"


def test_where_brokers_read_in_any_order_a_fetch_counts_only_for_what_came_before_it(clock: SimpleNamespace) -> None:
    fetched, at = FetchedEnds(in_order=False), clock.s
    fetched.tell(LEADER, clock.s, {0: 5})
    fetched.answered(clock.s, [0])
    clock.s += 0.01
    assert fetched.tell(LEADER, clock.s, {0: 7}) == {}
    assert fetched.since({0: at}) == {0: 7}


def test_a_cancelled_fetch_cancels_who_waits_for_it() -> None:
    """aiokafka takes a cancellation for the end of a task of its own, and returns."""

    async def scenario() -> None:
        fetcher: Any = Fetcher(FetchRequest(100, 1, 99, 1, [("changes", [(0, 0, 9)])]), FetchResponse_v11(0, 0, 0, []))

        async def fetch(*_: Any) -> bool:
            with suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
            return False

        fetcher._proc_fetch_request = fetch
        consumer: Any = SimpleNamespace(_fetcher=fetcher)
        fetches = Fetches(consumer, "changes", "requests", lambda *_: {})
        waiting = asyncio.create_task(fetches.wait(SimpleNamespace(active=True, tps=[]), 1))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    asyncio.run(scenario())
