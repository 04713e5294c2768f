"""When the consumer's own fetches tell where the changes end, and when the broker has to be asked."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import TopicPartition

from streams.engine import core, ends
from streams.engine.ends import FetchedEnds
from streams.engine.transport import ConsumerThread


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """What the time is, in seconds."""
    now = SimpleNamespace(s=100.0)
    monkeypatch.setattr(ends, "monotonic", lambda: now.s)
    return now


def test_only_a_fetch_that_was_sent_after_a_request_had_arrived_counts_for_it() -> None:
    fetched = FetchedEnds()
    fetched.tell(10.0, {0: 5, 1: 7})
    assert fetched.since({0: 9.0, 1: 10.0, 2: 9.0}) == {0: 5}
    fetched.tell(11.0, {1: 8})
    assert fetched.since({0: 10.5, 1: 10.5}) == {1: 8}


def test_a_fetch_is_waited_for_where_fetches_are_quicker_than_the_broker(clock: SimpleNamespace) -> None:
    async def wanted(fetched: FetchedEnds, *, told_after_s: float, answered_after_s: float) -> None:
        await fetched.next()
        asked_at = clock.s
        clock.s += answered_after_s
        fetched.answered(asked_at)
        clock.s += told_after_s - answered_after_s
        fetched.tell(clock.s, {0: 1})

    async def is_waited_for(fetched: FetchedEnds) -> bool:
        waiting = asyncio.create_task(fetched.next())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        done = waiting.done()
        fetched.tell(clock.s, {0: 1})
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
        fetched = FetchedEnds()
        fetched.tell(10.0, {0: 5})
        asked = []

        async def ends_of_changes(partitions: Any) -> dict[int, int]:
            asked.append(set(partitions))
            return dict.fromkeys(partitions, 9)

        engine: Any = SimpleNamespace(fetched_ends=fetched, ends_of_changes=ends_of_changes)
        assert await core.Engine.ends_since(engine, {0: 9.0, 1: 9.0, 2: 11.0}) == {0: 5, 1: 9, 2: 9}
        assert asked == [{1, 2}]
        assert await core.Engine.ends_since(engine, {0: 9.0}) == {0: 5}
        assert asked == [{1, 2}]

    asyncio.run(scenario())


class State:
    """What aiokafka keeps of a partition, as far as a fetch sets it."""

    def __init__(self, highwater: int, timestamp: int | None) -> None:
        self.highwater, self.timestamp = highwater, timestamp


def test_what_a_fetch_tells_is_taken_only_where_it_was_taken_as_an_answer() -> None:
    """A partition whose part of the answer is an error, or dropped, keeps what it had; that is older than the fetch."""

    async def scenario() -> None:
        states = {TopicPartition("changes", n): State(n, n * 1_000 or None) for n in range(3)}
        states[TopicPartition("others", 0)] = State(99, None)

        async def fetch(assignment: Any, node_id: int, request: Any) -> bool:
            answered = assignment.state_value(TopicPartition("changes", 2))
            answered.highwater, answered.timestamp = 20, 2_000  # in the same millisecond as before
            return True

        told = []
        thread: Any = SimpleNamespace(changes="changes", on_ends=lambda sent, found: told.append((sent, found)))
        noting = ConsumerThread.noting_ends(thread, fetch)
        request = SimpleNamespace(topics=[("changes", [(n, 0, 0) for n in range(3)]), ("others", [(0, 0, 0)])])
        before = ends.monotonic()
        assert await noting(SimpleNamespace(state_value=states.__getitem__), 1, request)
        ((sent, found),) = told
        assert found == {2: 20}
        assert before <= sent <= ends.monotonic()

    asyncio.run(scenario())
