"""What is fetched, in which order, what comes of it, and what a broker may answer."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
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

from streams.kafka import fetcher as fetching
from streams.kafka import read_barrier
from streams.kafka.cluster import Leader
from streams.kafka.fetcher import Brought, Fetches, UnreadableBatchError
from streams.kafka.read_barrier import FENCED_LEADER_EPOCH, UNKNOWN_LEADER_EPOCH, ReadBarrier
from streams.kafka.records import Place
from tests.kafka.batches import ABORT, COMMIT, PRODUCER, TRANSACTIONAL, batch, marker

LEADER, OTHER = 1, 2
EPOCH = 5
CHANGES, REQUESTS, OTHERS = "p-changes", "p-requests", "p-others"

#: What a broker says of one partition, as `FetchResponse_v11` takes it.
Said = tuple[Any, ...]


def said(
    number: int, records: bytes = b"", *, end: int = 100, stable: int = 99, error: int = 0, aborted: Any = ()
) -> Said:
    """What a broker says of a partition."""
    return number, error, end, stable, 0, list(aborted), -1, records


class Brokers:
    """A cluster, and connections to its brokers, which answer with what is put into `answers`, or wait for it."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, list[tuple[str, list[tuple[int, int, int, int]]]]]] = []
        #: Who led the partitions of each request.
        self.leaders_told: list[dict[Place, Leader]] = []
        self.answers: dict[int, asyncio.Queue[Any]] = {LEADER: asyncio.Queue(), OTHER: asyncio.Queue()}
        #: Instead of LEADER in EPOCH.
        self.leaders: dict[Place, Leader | None] = {}
        self.doubts = 0
        self.version = 0
        self.is_closed = False

    def connections(self, _: str, timeout_s: float) -> Brokers:
        return self

    def leader(self, topic: str, number: int) -> Leader | None:
        return self.leaders.get((topic, number), Leader(LEADER, EPOCH))

    def doubt(self) -> None:
        self.doubts += 1

    async def send_to_leader(self, node: int, request: Any, leaders: Mapping[Place, Leader]) -> Any:
        self.asked.append((node, request._topics))
        self.leaders_told.append(dict(leaders))
        answer = await self.answers[node].get()
        if isinstance(answer, Exception):
            raise answer
        return request.decode(BytesIO(FetchResponse_v11(0, 0, 0, answer).encode()))

    def answer(self, *topics: tuple[str, list[Said]], leader: int = LEADER) -> None:
        """What the leader says next."""
        self.answers[leader].put_nowait(list(topics))

    def update_metadata(self) -> None:
        """The leaders may be others now."""
        self.version += 1

    async def close(self) -> None:
        self.is_closed = True


class Barrier:
    """Notes what it is told; what is told of the ends counts or does not."""

    def __init__(self) -> None:
        self.does_count = True
        self.asked: list[tuple[Place, Leader]] = []
        self.told: list[tuple[Place, int]] = []
        self.confirmed: list[dict[Place, Leader]] = []
        #: What is given to be waited for.
        self.confirmation: Any = object()

    def heard(self, place: Place, end: int) -> None:
        self.told.append((tuple(place), end))  # type: ignore[arg-type]

    def counts(self, place: Place, leader: Leader, _: float) -> bool:
        self.asked.append((tuple(place), leader))  # type: ignore[arg-type]
        return self.does_count

    def confirm(self, leaders: Mapping[Place, Leader]) -> Any:
        self.confirmed.append(dict(leaders))
        return self.confirmation


class World:
    """Fetches of a consumer that begins at offset 10 of every partition."""

    def __init__(self, *tps: tuple[str, int], barrier: Any = None, in_order: bool = True) -> None:
        self.broker = Brokers()
        self.barrier = Barrier() if barrier is None else barrier(self.broker)
        self.tps = frozenset(TopicPartition(*tp) for tp in tps)
        self.assignment = Assignment(set(self.tps))
        for tp in self.tps:
            self.assignment.state_value(tp).await_reset(0)
            self.assignment.state_value(tp).reset_to(10)
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
        consumer: Any = SimpleNamespace(_fetcher=fetcher)
        brokers: Any = self.broker
        self.fetches = Fetches(consumer, brokers, self.barrier, CHANGES, REQUESTS, in_order=in_order)

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


def in_a_world(*tps: tuple[str, int], **how: Any) -> Callable[[Callable[[World], Awaitable[None]]], None]:
    """Run a scenario, in a world with these partitions."""

    def run(scenario: Callable[[World], Awaitable[None]]) -> None:
        async def whole() -> None:
            await asyncio.wait_for(scenario(World(*tps, **how)), 20)

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
        assert brought[TopicPartition(OTHERS, 0)][1:] == (10, 15, None, None)
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
        asked = [{number: offset for number, _, offset, _ in topics[0][1]} for _, topics in world.broker.asked]
        assert asked == [{0: 10, 1: 10}, {0: 10}, {0: 10, 1: 10}]


def test_every_partition_is_asked_for_first_in_its_turn() -> None:
    @in_a_world(*((OTHERS, number) for number in range(3)))
    async def scenario(world: World) -> None:
        for _ in range(3):
            world.broker.answer()
            await world.fetch()
        assert {topics[0][1][0][0] for _, topics in world.broker.asked} == {0, 1, 2}


def test_a_fetch_names_the_epoch_of_each_leader_and_is_given_up_with_any_of_them() -> None:
    @in_a_world((OTHERS, 0), (OTHERS, 1))
    async def scenario(world: World) -> None:
        world.broker.leaders[OTHERS, 1] = newer = Leader(LEADER, EPOCH + 1, (LEADER, OTHER))
        world.broker.answer((OTHERS, [said(0), said(1)]))
        await world.fetch()
        ((_, topics),) = world.broker.asked
        assert sorted(topics[0][1]) == [(0, EPOCH, 10, 9), (1, EPOCH + 1, 10, 9)]
        assert world.broker.leaders_told == [{(OTHERS, 0): Leader(LEADER, EPOCH), (OTHERS, 1): newer}]


def test_a_fetch_tells_where_the_changes_end_of_the_requests_that_it_brings() -> None:
    """It asks for the changes last; what is not answered, or does not count yet, is not told."""

    @in_a_world(*((topic, number) for topic in (CHANGES, OTHERS, REQUESTS) for number in range(3)))
    async def scenario(world: World) -> None:
        requests = [said(number, batch(10, b"r")) for number in range(3)]
        changes = [said(0, end=20), said(1, error=NotLeaderForPartitionError.errno), said(2, batch(10, b"c"), end=22)]
        for counts in (True, False):
            world.barrier.does_count = counts
            for state in map(world.assignment.state_value, world.tps):
                state.seek(10)
            world.broker.answer((REQUESTS, requests), (CHANGES, changes), (OTHERS, [said(0, batch(10, b"o"))]))
            brought = await world.fetch()
            found = {number: brought[TopicPartition(REQUESTS, number)].end for number in range(3)}
            assert found == ({0: 20, 1: None, 2: 22} if counts else dict.fromkeys(range(3)))
            assert brought[TopicPartition(OTHERS, 0)].end is None
        assert sorted(world.barrier.told) == [((CHANGES, 0), 20)] * 2 + [((CHANGES, 2), 22)] * 2
        assert {leader for _, leader in world.barrier.asked} == {Leader(LEADER, EPOCH)}
        assert all([topic for topic, _ in topics] == [OTHERS, REQUESTS, CHANGES] for _, topics in world.broker.asked)


def test_what_leaders_tell_for_requests_is_to_be_confirmed_by_one_question_for_them_all() -> None:
    """Where nobody came with a request, or the end does not count, nobody is asked."""

    @in_a_world(*((topic, number) for topic in (CHANGES, REQUESTS) for number in range(3)))
    async def scenario(world: World) -> None:
        changes = [said(number, batch(10, b"c"), end=20) for number in range(3)]
        requests = [said(0, batch(10, b"r")), said(1), said(2, batch(10, b"r"))]
        world.broker.answer((REQUESTS, requests), (CHANGES, changes))
        brought = await world.fetch()
        assert world.barrier.confirmed == [{(CHANGES, number): Leader(LEADER, EPOCH) for number in (0, 2)}]
        assert all(brought[TopicPartition(REQUESTS, n)].confirmation is world.barrier.confirmation for n in (0, 2))
        world.barrier.does_count = False
        world.broker.answer((REQUESTS, [said(0, batch(11, b"r"))]), (CHANGES, changes))
        assert (await world.fetch())[TopicPartition(REQUESTS, 0)][3:] == (None, None)
        world.barrier.does_count = True
        world.broker.answer((REQUESTS, [said(0)]), (CHANGES, changes))
        await world.fetch()
        assert len(world.barrier.confirmed) == 1


def test_where_brokers_read_in_any_order_no_fetch_tells_the_ends_of_what_it_brings() -> None:
    @in_a_world((CHANGES, 0), (REQUESTS, 0), in_order=False)
    async def scenario(world: World) -> None:
        world.broker.answer((REQUESTS, [said(0, batch(10, b"r"))]), (CHANGES, [said(0, end=20)]))
        brought = await world.fetch()
        assert brought[TopicPartition(REQUESTS, 0)] == Brought(brought[TopicPartition(REQUESTS, 0)].records, 10, 11)
        assert world.barrier.confirmed == []
        assert world.barrier.told == [((CHANGES, 0), 20)], "where to ask for the end by a fetch is known all the same"


def test_a_leaders_high_watermark_counts_for_fetches_sent_after_it_was_asked_for_the_end_in_its_epoch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Just elected, it may know too little of how far its predecessor's acknowledgements went."""
    now = SimpleNamespace(s=100.0)
    monkeypatch.setattr(fetching, "monotonic", lambda: now.s)
    place = (CHANGES, 0)

    def barrier(brokers: Any) -> ReadBarrier:
        return ReadBarrier(SimpleNamespace(connections=lambda *_: brokers, leader=brokers.leader), {})  # type: ignore[arg-type]

    @in_a_world((CHANGES, 0), (REQUESTS, 0), barrier=barrier)
    async def scenario(world: World) -> None:
        async def end(*, sent_at: float) -> int | None:
            now.s = sent_at
            for state in map(world.assignment.state_value, world.tps):
                state.seek(10)
            world.broker.answer((REQUESTS, [said(0, batch(10, b"r"))]), (CHANGES, [said(0, end=20)]))
            return (await world.fetch())[TopicPartition(REQUESTS, 0)].end

        assert await end(sent_at=100.0) is None, "nobody asked this leader yet"
        world.barrier._sure[place] = read_barrier._Sure(EPOCH, 101.0)
        assert await end(sent_at=100.9) is None, "nor does a fetch count that was sent before the answer came"
        assert await end(sent_at=101.0) == 20
        world.broker.leaders[place] = Leader(LEADER, EPOCH + 1)
        world.broker.update_metadata()
        assert await end(sent_at=102.0) is None, "the same broker, but another epoch"
        world.barrier._sure[place] = read_barrier._Sure(EPOCH + 1, 103.0)
        assert await end(sent_at=103.0) == 20
        # Neither a pause nor a fetch that was not answered makes another leader of it: the epoch would be another.
        world.broker.answers[LEADER].put_nowait(KafkaConnectionError("away"))
        await world.fetch()
        assert await end(sent_at=1_000.0) == 20


def test_requests_that_another_leader_brings_are_not_fenced_by_this_one() -> None:
    """They may have been written after it was read where the changes end, and before that was heard of."""

    @in_a_world((CHANGES, 0), (REQUESTS, 0))
    async def scenario(world: World) -> None:
        world.broker.leaders[REQUESTS, 0] = Leader(OTHER, EPOCH)
        world.broker.answer((CHANGES, [said(0, batch(10, b"c"), end=20)]))
        brought = await world.fetch()
        assert brought.keys() == {TopicPartition(CHANGES, 0)}, "whoever answers first is not kept waiting"
        world.broker.answer((REQUESTS, [said(0, batch(10, b"r"))]), leader=OTHER)
        brought = await world.fetch()
        assert brought[TopicPartition(REQUESTS, 0)].end is None
        assert world.barrier.confirmed == []
        asked = sorted(leader for leader, _ in world.broker.asked)
        assert asked == [LEADER, LEADER, OTHER], "one at a time for each leader"
        await world.fetches.close()
        assert world.broker.is_closed


def test_what_moves_to_another_leader_is_asked_for_there() -> None:
    @in_a_world((OTHERS, 0))
    async def scenario(world: World) -> None:
        world.broker.answer((OTHERS, [said(0, error=NotLeaderForPartitionError.errno)]))
        assert await world.fetch() == {}
        assert world.broker.doubts == 1
        world.broker.leaders[OTHERS, 0] = Leader(OTHER, EPOCH + 1)
        world.broker.update_metadata()
        world.broker.answer((OTHERS, [said(0, batch(10, b"a"))]), leader=OTHER)
        assert len(await world.fetch()) == 1


@pytest.mark.parametrize("error", [FENCED_LEADER_EPOCH, UNKNOWN_LEADER_EPOCH, NotLeaderForPartitionError.errno])
def test_another_epoch_is_no_warning_and_no_error_but_a_doubt(error: int, caplog: pytest.LogCaptureFixture) -> None:
    """The broker knows a newer leader than we do, or is the one that knows less: metadata tell."""
    caplog.set_level(logging.INFO)

    @in_a_world((OTHERS, 0), (OTHERS, 1), (CHANGES, 0), (REQUESTS, 0))
    async def scenario(world: World) -> None:
        world.broker.answer(
            (OTHERS, [said(0, error=error), said(1, batch(10, b"a"))]),
            (REQUESTS, [said(0, batch(10, b"r"))]),
            (CHANGES, [said(0, error=error)]),
        )
        brought = await world.fetch()
        assert brought.keys() == {TopicPartition(OTHERS, 1), TopicPartition(REQUESTS, 0)}
        assert (brought[TopicPartition(REQUESTS, 0)].end, world.barrier.told) == (None, [])
        assert world.broker.doubts == 2
        assert world.position(OTHERS, 0) == 10

    assert caplog.records == []


def test_a_partition_without_a_leader_holds_up_no_other() -> None:
    @in_a_world((OTHERS, 0), (OTHERS, 1))
    async def scenario(world: World) -> None:
        world.broker.leaders[OTHERS, 1] = None
        world.broker.answer((OTHERS, [said(0, batch(10, b"a"))]))
        assert len(await world.fetch()) == 1
        assert world.broker.doubts == 1
        # Metadata that came meanwhile are looked at without being told.
        world.broker.leaders.clear()
        world.broker.update_metadata()
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
        assert (world.barrier.told, world.broker.doubts) == ([], 1)
        world.broker.answer((CHANGES, [said(0, batch(10, b"a"), end=11)]))
        assert len(await world.fetch()) == 1
        assert world.barrier.told == [((CHANGES, 0), 11)]


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


@pytest.mark.parametrize("aborted", [(), [(PRODUCER, 10)]])
@pytest.mark.parametrize("codec", [5, 6, 7])
def test_a_batch_of_an_unknown_codec_is_told_in_one_line_with_its_place(codec: int, aborted: Any) -> None:
    @in_a_world((OTHERS, 0))
    async def scenario(world: World) -> None:
        with pytest.raises(UnreadableBatchError, match=r"^p-others-0: the batch at or behind offset 10 cannot be"):
            await world.taken(batch(10, b"value", attributes=codec), aborted=aborted)
        assert world.position(OTHERS, 0) == 10


def test_a_cancelled_wait_is_cancelled() -> None:
    @in_a_world((OTHERS, 0))
    async def scenario(world: World) -> None:
        waiting = asyncio.create_task(world.fetches.wait(world.assignment, world.tps, 1))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
