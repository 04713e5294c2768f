"""What is fetched, in which order, what comes of it, and what a broker may answer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from io import BytesIO
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.consumer.subscription_state import Assignment
from aiokafka.errors import (
    CorruptRecordException,
    KafkaConnectionError,
    NotLeaderForPartitionError,
    OffsetOutOfRangeError,
    RecordTooLargeError,
    TopicAuthorizationFailedError,
)
from aiokafka.protocol.fetch import FetchResponse_v11
from crc32c import crc32c

from streams.kafka.fetcher import Brought, Fetches
from streams.kafka.record_batch import Owner, RecordBatch

LEADER, OTHER = 1, 2
CHANGES, REQUESTS, OTHERS = "p-changes", "p-requests", "p-others"
TRANSACTIONAL, CONTROL = 0x10, 0x20
PRODUCER = 7
ABORT, COMMIT = b"\0\0\0\0", b"\0\0\0\1"

#: What a broker says of one partition, as `FetchResponse_v11` takes it.
Said = tuple[Any, ...]


def batch(first: int, *values: bytes, attributes: int = 0, key: bytes = b"k") -> bytes:
    """A record batch as it stands in a log from the offset `first` on."""
    made = RecordBatch(10_000)
    for value in values:
        made.add(key, value)
    made.sign(Owner(PRODUCER, 0), 0)
    raw = bytearray(made.build())
    raw[0:8] = first.to_bytes(8, "big")
    raw[21:23] = attributes.to_bytes(2, "big")
    raw[17:21] = crc32c(bytes(raw[21:])).to_bytes(4, "big")
    return bytes(raw)


def marker(first: int, kind: bytes) -> bytes:
    """The end of a transaction."""
    return batch(first, b"\0\0\0\0\0\0", attributes=TRANSACTIONAL | CONTROL, key=kind)


def said(
    number: int, records: bytes = b"", *, end: int = 100, stable: int = 99, error: int = 0, aborted: Any = ()
) -> Said:
    """What a broker says of a partition."""
    return number, error, end, stable, 0, list(aborted), -1, records


class Broker:
    """A client of a cluster, whose brokers answer with what is put into `answers`, or wait until something is."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, list[tuple[str, list[tuple[int, int, int]]]]]] = []
        self.answers: dict[int, asyncio.Queue[Any]] = {LEADER: asyncio.Queue(), OTHER: asyncio.Queue()}
        self.leaders: dict[TopicPartition, int] = {}
        self.updates = 0
        self._conns: dict[Any, Any] = {}
        self.cluster = SimpleNamespace(
            _partitions={}, leader_for_partition=lambda tp: self.leaders.get(TopicPartition(*tp), LEADER)
        )

    async def send(self, leader: int, request: Any) -> Any:
        self.asked.append((leader, request._topics))
        answer = await self.answers[leader].get()
        if isinstance(answer, Exception):
            raise answer
        return request.decode(BytesIO(FetchResponse_v11(0, 0, 0, answer).encode()))

    def answer(self, *topics: tuple[str, list[Said]], leader: int = LEADER) -> None:
        """What the leader says next."""
        self.answers[leader].put_nowait(list(topics))

    def force_metadata_update(self) -> None:
        self.updates += 1

    def update_metadata(self) -> None:
        """The leaders may be others now."""
        self.cluster._partitions = {}


class World:
    """Fetches of a consumer that begins at offset 10 of every partition."""

    def __init__(self, *tps: tuple[str, int]) -> None:
        self.broker = Broker()
        self.tps = frozenset(TopicPartition(*tp) for tp in tps)
        self.assignment = Assignment(set(self.tps))
        for tp in self.tps:
            self.assignment.state_value(tp).await_reset(0)
            self.assignment.state_value(tp).reset_to(10)
        self.told: list[tuple[int, dict[int, int | None]]] = []
        self.counts = True
        fetcher = SimpleNamespace(
            _get_actions_per_node=lambda _: ([], {"a reset": 1}, 0.2, False, []),
            _fetcher_timeout=0.2,
            _fetch_max_wait_ms=100,
            _fetch_min_bytes=1,
            _fetch_max_bytes=99,
            _max_partition_fetch_bytes=9,
            _isolation_level=1,
            _retry_backoff=0.0,
            _default_reset_strategy=-2,
            _wait_consume_future=None,
            _notify=lambda _: None,
            _create_fetch_waiter=lambda: asyncio.get_running_loop().create_future(),
        )
        self.fetcher = fetcher
        consumer: Any = SimpleNamespace(_fetcher=fetcher, _client=self.broker)
        self.fetches = Fetches(consumer, CHANGES, REQUESTS, self._on_ends)

    def _on_ends(self, leader: int, _: float, ends: Any) -> dict[int, int]:
        self.told.append((leader, dict(ends)))
        return {number: end for number, end in ends.items() if end is not None} if self.counts else {}

    def position(self, topic: str, number: int) -> int:
        at: int = self.assignment.state_value(TopicPartition(topic, number)).position
        return at

    async def fetch(self, wanted: Any = None) -> dict[Any, Brought]:
        """One wait, and what can be taken then."""
        wanted = self.tps if wanted is None else wanted
        await self.fetches.wait(self.assignment, wanted, 1)
        return self.fetches.take(wanted)

    async def taken(self, *records: bytes, **fields: Any) -> Brought:
        """What is taken of the one partition of others that brings these batches."""
        self.broker.answer((OTHERS, [said(0, b"".join(records), **fields)]))
        return (await self.fetch())[TopicPartition(OTHERS, 0)]


def in_a_world(*tps: tuple[str, int]) -> Callable[[Callable[[World], Awaitable[None]]], None]:
    """Run a scenario, in a world with these partitions."""

    def run(scenario: Callable[[World], Awaitable[None]]) -> None:
        async def whole() -> None:
            await asyncio.wait_for(scenario(World(*tps)), 20)

        asyncio.run(whole())

    return run


def values(brought: Brought) -> list[tuple[int, bytes | None]]:
    return [(record.offset, record.value) for record in brought.records]


def test_what_has_come_is_taken_once_and_moves_the_position() -> None:
    @in_a_world((OTHERS, 0), (OTHERS, 1))
    async def scenario(world: World) -> None:
        world.broker.answer((OTHERS, [said(0, batch(10, b"a", b"b") + batch(14, b"c")), said(1)]))
        brought = await world.fetch()
        assert brought.keys() == {TopicPartition(OTHERS, 0)}
        assert values(brought[TopicPartition(OTHERS, 0)]) == [(10, b"a"), (11, b"b"), (14, b"c")]
        assert brought[TopicPartition(OTHERS, 0)][1:] == (10, 15, None)
        assert (world.position(OTHERS, 0), world.position(OTHERS, 1)) == (15, 10)
        assert world.fetches.take(world.tps) == {}
        state = world.assignment.state_value(TopicPartition(OTHERS, 1))
        assert (state.highwater, state.lso) == (100, 99), "how far it goes is told of what brings nothing, too"


def test_what_is_not_wanted_is_neither_asked_for_nor_taken() -> None:
    @in_a_world((OTHERS, 0), (OTHERS, 1))
    async def scenario(world: World) -> None:
        held = {TopicPartition(OTHERS, 1)}
        world.broker.answer((OTHERS, [said(0), said(1, batch(10, b"a"))]))
        await world.fetches.wait(world.assignment, world.tps, 1)
        # Held back while the fetch was under way: it is asked for again later, from where it was.
        assert world.fetches.take(world.tps - held) == {}
        assert world.position(OTHERS, 1) == 10
        world.broker.answer((OTHERS, [said(0)]))
        await world.fetch(world.tps - held)
        world.broker.answer((OTHERS, [said(1, batch(10, b"a"))]))
        assert [tp.partition for tp in await world.fetch()] == [1]
        asked = [{number: offset for number, offset, _ in topics[0][1]} for _, topics in world.broker.asked]
        assert asked == [{0: 10, 1: 10}, {0: 10}, {0: 10, 1: 10}]


def test_every_partition_is_asked_for_first_in_its_turn() -> None:
    @in_a_world(*((OTHERS, number) for number in range(3)))
    async def scenario(world: World) -> None:
        for _ in range(3):
            world.broker.answer()
            await world.fetch()
        assert {topics[0][1][0][0] for _, topics in world.broker.asked} == {0, 1, 2}


def test_a_fetch_tells_where_the_changes_end_of_the_requests_that_it_brings() -> None:
    """It asks for the changes last; what is not answered, or does not count yet, is not told."""

    @in_a_world(*((topic, number) for topic in (CHANGES, OTHERS, REQUESTS) for number in range(3)))
    async def scenario(world: World) -> None:
        requests = [said(number, batch(10, b"r")) for number in range(3)]
        changes = [said(0, end=20), said(1, error=NotLeaderForPartitionError.errno), said(2, batch(10, b"c"), end=22)]
        for counts in (True, False):
            world.counts = counts
            for state in map(world.assignment.state_value, world.tps):
                state.seek(10)
            world.broker.answer((REQUESTS, requests), (CHANGES, changes), (OTHERS, [said(0, batch(10, b"o"))]))
            brought = await world.fetch()
            found = {number: brought[TopicPartition(REQUESTS, number)].end for number in range(3)}
            assert found == ({0: 20, 1: None, 2: 22} if counts else dict.fromkeys(range(3)))
            assert brought[TopicPartition(OTHERS, 0)].end is None
        assert world.told == [(LEADER, {0: 20, 1: None, 2: 22})] * 2
        assert all([topic for topic, _ in topics] == [OTHERS, REQUESTS, CHANGES] for _, topics in world.broker.asked)


def test_requests_that_another_leader_brings_are_not_fenced_by_this_one() -> None:
    """They may have been written after it was read where the changes end, and before that was heard of."""

    @in_a_world((CHANGES, 0), (REQUESTS, 0))
    async def scenario(world: World) -> None:
        world.broker.leaders[TopicPartition(REQUESTS, 0)] = OTHER
        world.broker.answer((CHANGES, [said(0, batch(10, b"c"), end=20)]))
        brought = await world.fetch()
        assert brought.keys() == {TopicPartition(CHANGES, 0)}, "whoever answers first is not kept waiting"
        world.broker.answer((REQUESTS, [said(0, batch(10, b"r"))]), leader=OTHER)
        brought = await world.fetch()
        assert brought[TopicPartition(REQUESTS, 0)].end is None
        asked = sorted(leader for leader, _ in world.broker.asked)
        assert asked == [LEADER, LEADER, OTHER], "one at a time for each leader"
        world.fetches.cancel()


def test_what_moves_to_another_leader_is_asked_for_there() -> None:
    @in_a_world((OTHERS, 0))
    async def scenario(world: World) -> None:
        world.broker.answer((OTHERS, [said(0, error=NotLeaderForPartitionError.errno)]))
        assert await world.fetch() == {}
        assert world.broker.updates == 1
        world.broker.leaders[TopicPartition(OTHERS, 0)] = OTHER
        world.broker.update_metadata()
        world.broker.answer((OTHERS, [said(0, batch(10, b"a"))]), leader=OTHER)
        assert len(await world.fetch()) == 1


def test_a_partition_without_a_leader_holds_up_no_other() -> None:
    @in_a_world((OTHERS, 0), (OTHERS, 1))
    async def scenario(world: World) -> None:
        world.broker.leaders[TopicPartition(OTHERS, 1)] = -1
        world.broker.answer((OTHERS, [said(0, batch(10, b"a"))]))
        assert len(await world.fetch()) == 1
        assert world.broker.updates == 1
        # Metadata that came meanwhile are looked at without being told.
        world.broker.leaders.clear()
        world.broker.answer((OTHERS, [said(1, batch(10, b"b"))]))
        assert len(await world.fetch()) == 1


def test_where_nothing_can_be_asked_the_wait_is_short() -> None:
    @in_a_world((OTHERS, 0))
    async def scenario(world: World) -> None:
        await world.fetches.wait(None, world.tps, 9)
        await world.fetches.wait(world.assignment, set(), 9)
        world.assignment.state_value(TopicPartition(OTHERS, 0)).await_reset(-1)
        await world.fetches.wait(world.assignment, world.tps, 9)
        assert world.broker.asked == []


@pytest.mark.parametrize("meanwhile", ["a seek", "another assignment", "a pause"])
def test_what_does_not_come_next_any_more_is_dropped(meanwhile: str) -> None:
    @in_a_world((OTHERS, 0))
    async def scenario(world: World) -> None:
        world.broker.answer((OTHERS, [said(0, batch(10, b"a"))]))
        await world.fetches.wait(world.assignment, world.tps, 1)
        if meanwhile == "a seek":
            world.assignment.state_value(TopicPartition(OTHERS, 0)).seek(5)
        elif meanwhile == "a pause":
            world.assignment.state_value(TopicPartition(OTHERS, 0)).pause()
        else:
            world.assignment._unassign()
        assert world.fetches.take(world.tps) == {}


def test_a_seek_while_the_fetch_is_under_way_leaves_the_answer_unread() -> None:
    @in_a_world((OTHERS, 0))
    async def scenario(world: World) -> None:
        waiting = asyncio.create_task(world.fetch())
        await asyncio.sleep(0)
        world.assignment.state_value(TopicPartition(OTHERS, 0)).seek(5)
        world.broker.answer((OTHERS, [said(0, batch(10, b"a"))]))
        assert await waiting == {}
        assert world.assignment.state_value(TopicPartition(OTHERS, 0)).highwater is None


def test_an_offset_that_is_gone_is_left_to_aiokafka_to_find_anew() -> None:
    @in_a_world((OTHERS, 0))
    async def scenario(world: World) -> None:
        actions = world.fetcher._get_actions_per_node
        assert actions(world.assignment) == ([], {}, 0.2, False, []), "nothing is left to it while all have a position"
        world.broker.answer((OTHERS, [said(0, error=OffsetOutOfRangeError.errno)]))
        assert await world.fetch() == {}
        assert world.assignment.state_value(TopicPartition(OTHERS, 0)).awaiting_reset
        assert actions(world.assignment) == ([], {"a reset": 1}, 0.2, False, [])


def test_a_right_that_is_taken_away_is_told() -> None:
    @in_a_world((OTHERS, 0))
    async def scenario(world: World) -> None:
        world.broker.answer((OTHERS, [said(0, error=TopicAuthorizationFailedError.errno)]))
        with pytest.raises(TopicAuthorizationFailedError, match=OTHERS):
            await world.fetch()


def test_a_broker_that_is_away_is_asked_again_and_its_changes_end_nowhere() -> None:
    @in_a_world((CHANGES, 0))
    async def scenario(world: World) -> None:
        world.broker.answers[LEADER].put_nowait(KafkaConnectionError("away"))
        assert await world.fetch() == {}
        world.broker.answer((CHANGES, [said(0, batch(10, b"a"), end=11)]))
        assert len(await world.fetch()) == 1
        assert world.told == [(LEADER, {0: None}), (LEADER, {0: 11})]


def test_records_from_the_middle_of_a_batch_on() -> None:
    @in_a_world((OTHERS, 0))
    async def scenario(world: World) -> None:
        assert values(await world.taken(batch(8, b"a", b"b", b"c", b"d"))) == [(10, b"c"), (11, b"d")]


def test_a_batch_that_is_cut_off_is_read_the_next_time() -> None:
    @in_a_world((OTHERS, 0))
    async def scenario(world: World) -> None:
        assert (await world.taken(batch(10, b"a"), batch(11, b"b")[:-1]))[1:3] == (10, 11)
        with pytest.raises(RecordTooLargeError, match="p-others-0: the record at 11 is larger"):
            await world.taken(batch(11, b"b")[:-1])


def test_markers_move_the_position_alone() -> None:
    @in_a_world((OTHERS, 0))
    async def scenario(world: World) -> None:
        assert await world.taken(marker(10, COMMIT)) == Brought([], 10, 11, None)


def test_what_was_aborted_never_happened() -> None:
    @in_a_world((OTHERS, 0))
    async def scenario(world: World) -> None:
        whole = (
            batch(10, b"aborted", attributes=TRANSACTIONAL),
            marker(11, ABORT),
            batch(12, b"committed", attributes=TRANSACTIONAL),
            marker(13, COMMIT),
            batch(14, b"plain"),
        )
        brought = await world.taken(*whole, aborted=[(PRODUCER, 10)])
        assert values(brought) == [(12, b"committed"), (14, b"plain")]
        assert brought.after == 15


@pytest.mark.parametrize("aborted", [(), [(PRODUCER, 10)]])
def test_a_damaged_batch_is_told(aborted: Any) -> None:
    @in_a_world((OTHERS, 0))
    async def scenario(world: World) -> None:
        damaged = bytearray(batch(10, b"value"))
        damaged[-3] ^= 1
        with pytest.raises(CorruptRecordException):
            await world.taken(bytes(damaged), aborted=aborted)
        assert world.position(OTHERS, 0) == 10


def test_a_cancelled_wait_is_cancelled() -> None:
    @in_a_world((OTHERS, 0))
    async def scenario(world: World) -> None:
        waiting = asyncio.create_task(world.fetches.wait(world.assignment, world.tps, 1))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
