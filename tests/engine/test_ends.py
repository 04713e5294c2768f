"""When the consumer's own fetches tell where the changes end, and when the broker has to be asked."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from streams.engine import core, ends
from streams.engine.ends import FetchedEnds


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
