"""Logs read by whoever leads, over leaders that change, brokers that are away, and what retention takes away."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.errors import (
    CoordinatorLoadInProgressError,
    CorruptRecordException,
    GroupAuthorizationFailedError,
    KafkaConnectionError,
    KafkaError,
    NotCoordinatorError,
    NotLeaderForPartitionError,
    RequestTimedOutError,
    TopicAuthorizationFailedError,
)
from aiokafka.protocol.commit import OffsetFetchRequest
from aiokafka.protocol.coordination import FindCoordinatorRequest

from streams.kafka import log_reader
from streams.kafka.cluster import Leader
from streams.kafka.coordinators import GROUP, Coordinators
from streams.kafka.log_reader import FETCH_BYTES, READ_COMMITTED, READ_UNCOMMITTED, RETRY_S, WAIT_MS, LogReader
from streams.kafka.protocol import Fetch, Found, Listed, ListOffsets
from streams.kafka.read_barrier import FENCED_LEADER_EPOCH, OFFSET_OUT_OF_RANGE, UNKNOWN_LEADER_EPOCH
from streams.kafka.records import Place, Record
from tests.kafka.batches import ABORT, COMMIT, PRODUCER, TRANSACTIONAL, batch, marker
from tests.kafka.wire import Wire, asked
from tests.virtual import now, run, turns

TOPIC, GROUP_NAME = "p-changes", "a group"
PLACE = (TOPIC, 0)
LEADER, OTHER, EPOCH = 1, 2, 5
NOT_LEADER = NotLeaderForPartitionError.errno


class World:
    """One partition's log, which a leader reads one batch at a time; whatever `said` holds is said first."""

    def __init__(self) -> None:
        self.begin, self.end = 0, 0
        #: First offsets and batches.
        self.log: list[tuple[int, bytes]] = []
        #: Producer, first offset and marker of transactions that were aborted.
        self.aborted: list[tuple[int, int, int]] = []
        #: Errors, codes or whatever a function gives, instead of what is in the log.
        self.said: list[Any] = []
        self.commits: list[Any] = []
        self.wire = Wire(self._answer, {PLACE: Leader(LEADER, EPOCH, (1, 2, 3))})
        self.wire.on_doubt = self._doubted
        #: Who leads as soon as somebody doubts.
        self.next_leader: Leader | None = None
        cluster: Any = self.wire
        barrier: Any = SimpleNamespace(every_end=self._every_end)
        self.reader = LogReader(cluster, barrier, Coordinators(cluster, "group", GROUP))

    def _doubted(self) -> None:
        if self.next_leader is not None:
            self.wire.leaders[PLACE] = self.next_leader

    async def _every_end(self, places: Iterable[Place]) -> dict[Place, int]:
        return dict.fromkeys(places, self.end)

    def write(self, *values: bytes, each: int = 1) -> None:
        """Append batches of plain records."""
        for first in range(0, len(values), each):
            some = values[first : first + each]
            self.append(batch(self.end, *some), len(some))

    def append(self, raw: bytes, count: int = 1) -> None:
        self.log.append((self.end, raw))
        self.end += count

    async def _answer(self, node: int, request: Any) -> Any:
        await asyncio.sleep(0.001)
        if isinstance(request, FindCoordinatorRequest):
            return SimpleNamespace(error_code=0, coordinator_id=3)
        if isinstance(request, OffsetFetchRequest):
            told = self.commits.pop(0)
            if isinstance(told, KafkaError):
                raise told
            return told
        ((place, (epoch, *what)),) = asked(request).items()
        told = self.said.pop(0) if self.said else None
        if callable(told):
            told = told()
        if isinstance(told, KafkaError):
            raise told
        leader = self.wire.leaders[place]
        assert (node, epoch) == (leader.node, leader.epoch)
        if isinstance(request, ListOffsets):
            assert what == [] or request._which == ListOffsets.BEGIN
            return {place: Listed(told or 0, self.begin)}
        return {place: Found(told, -1, -1, [], b"") if told else self._read(what[0])}

    def _read(self, offset: int) -> Found:
        if not self.begin <= offset <= self.end:
            return Found(OFFSET_OUT_OF_RANGE, -1, -1, [], b"")
        later = [raw for first, raw in self.log if first > offset][:1]
        raw = [raw for first, raw in self.log if first <= offset][-1:] if offset < self.end else []
        aborted = [(producer, begun) for producer, begun, ended in self.aborted if ended >= offset]
        return Found(0, self.end, self.end, aborted, b"".join(raw + later))

    async def scan(self, first: int = 0, end: int | None = None, **how: Any) -> list[tuple[int, bytes | None]]:
        found: list[Record] = []
        async for records in self.reader.scan(TOPIC, 0, first, self.end if end is None else end, **how):
            found += records
        return [(record.offset, record.value) for record in found]


def in_a_world(scenario: Callable[[World], Awaitable[None]]) -> None:
    run(lambda: scenario(World()))


ALL = [(n, b"%d" % n) for n in range(6)]
VALUES = [value for _, value in ALL]


# Scanning


@pytest.mark.parametrize("each", [1, 2, 3, 6])
def test_a_scan_has_every_record_once_and_in_order(each: int) -> None:
    @in_a_world
    async def scenario(world: World) -> None:
        world.write(*VALUES, each=each)
        for first in range(7):
            for end in range(first, 7):
                assert await world.scan(first, end) == ALL[first:end]
        assert world.wire.doubts == []


def test_a_scan_names_the_epoch_and_waits_a_little_at_the_end_of_the_log() -> None:
    @in_a_world
    async def scenario(world: World) -> None:
        world.write(*VALUES)
        for committed, level in ((False, READ_UNCOMMITTED), (True, READ_COMMITTED)):
            world.wire.forget()
            await world.scan(committed=committed)
            sent = world.wire.fetches()
            assert [one.asked[PLACE] for one in sent] == [(EPOCH, at, FETCH_BYTES) for at in (0, 2, 4)]
            assert {Fetch._BEGIN.unpack(one.request._begin) for one in sent} == {
                (-1, WAIT_MS, 1, FETCH_BYTES, level, 0, -1)
            }


def test_nothing_is_asked_where_there_is_nothing_to_read() -> None:
    @in_a_world
    async def scenario(world: World) -> None:
        world.write(*VALUES)
        assert await world.scan(3, 3) == []
        assert world.wire.sent == []


@pytest.mark.parametrize(
    "fault",
    [
        NOT_LEADER, FENCED_LEADER_EPOCH, UNKNOWN_LEADER_EPOCH, 3, 56, -1, 100, KafkaConnectionError("away"),
        RequestTimedOutError(),
    ],
    ids=str,
)  # fmt: skip
def test_a_scan_goes_on_over_whatever_passes_at_the_leader_of_then(fault: Any) -> None:
    @in_a_world
    async def scenario(world: World) -> None:
        world.write(*VALUES)
        world.next_leader = Leader(OTHER, EPOCH + 1, (1, 2, 3))
        world.said = [None, fault, fault]
        assert await world.scan() == ALL
        assert len(world.wire.doubts) == 2
        assert [sent.node for sent in world.wire.fetches()] == [LEADER, LEADER, OTHER, OTHER, OTHER]
        assert now() < 3 * RETRY_S, "it is asked again after a pause, not at once"
        assert now() > 2 * RETRY_S


def test_a_scan_waits_while_nobody_leads() -> None:
    @in_a_world
    async def scenario(world: World) -> None:
        world.write(*VALUES)
        leader = world.wire.leaders.pop(PLACE)
        scanning = asyncio.create_task(world.scan())
        await asyncio.sleep(10)
        assert not scanning.done()
        assert 0 < len(world.wire.doubts) <= 10 / RETRY_S + 1
        assert world.wire.sent == []
        world.wire.leaders[PLACE] = leader
        assert await scanning == ALL


def test_what_retention_takes_away_during_a_scan_is_left_out() -> None:
    @in_a_world
    async def scenario(world: World) -> None:
        world.write(*VALUES)

        def retain() -> None:
            world.begin = 4

        world.said = [None, retain]
        assert await world.scan() == [ALL[0], ALL[1], ALL[4], ALL[5]]
        world.begin = world.end
        assert await world.scan() == [], "all of it, as it may be"


def test_a_leader_that_has_not_got_there_yet_is_asked_again() -> None:
    """A new one may know no high watermark as high as its predecessor's, or have lost what was never acknowledged."""

    @in_a_world
    async def scenario(world: World) -> None:
        world.write(*VALUES[:3])
        scanning = asyncio.create_task(world.scan(1, 6))
        await asyncio.sleep(1)
        assert not scanning.done()
        world.end = 1
        await asyncio.sleep(1)
        world.end = 3
        await asyncio.sleep(1)
        world.write(*VALUES[3:])
        assert await scanning == ALL[1:]


def test_a_leader_that_never_gets_there_is_doubted() -> None:
    """Cut off from the others, it answers, and there is nothing in its answers."""

    @in_a_world
    async def scenario(world: World) -> None:
        world.write(*VALUES)
        nothing = Found(0, 2, 2, [], b"")
        answer = world._answer

        async def cut_off(node: int, request: Any) -> Any:
            if node == LEADER and isinstance(request, Fetch) and asked(request)[PLACE][1] >= 2:
                await asyncio.sleep(WAIT_MS / 1000)
                return {PLACE: nothing}
            return await answer(node, request)

        world.wire.answer = cut_off
        world.next_leader = Leader(OTHER, EPOCH + 1, (1, 2, 3))
        assert await asyncio.wait_for(world.scan(), 60) == ALL


@pytest.mark.parametrize("committed", [True, False])
def test_what_was_aborted_is_left_out_where_that_is_asked_for(committed: bool) -> None:
    @in_a_world
    async def scenario(world: World) -> None:
        world.append(batch(0, b"aborted", attributes=TRANSACTIONAL))
        world.append(batch(1, b"aborted, too", attributes=TRANSACTIONAL))
        world.append(batch(2, b"the same", attributes=TRANSACTIONAL))
        world.append(marker(3, ABORT))
        world.append(batch(4, b"committed", attributes=TRANSACTIONAL))
        world.append(marker(5, COMMIT))
        world.append(batch(6, b"plain"))
        # As a broker does, that tells of them only if they are to be left out.
        world.aborted = [(PRODUCER, 0, 3)] if committed else []
        found = [(0, b"aborted"), (1, b"aborted, too"), (2, b"the same"), (4, b"committed"), (6, b"plain")]
        assert await world.scan(committed=committed) == (found[3:] if committed else found)


def test_what_cannot_be_read_is_told() -> None:
    @in_a_world
    async def scenario(world: World) -> None:
        damaged = bytearray(batch(0, b"value"))
        damaged[-3] ^= 1
        world.append(bytes(damaged))
        with pytest.raises(CorruptRecordException):
            await world.scan()


@pytest.mark.parametrize("error", [TopicAuthorizationFailedError.errno, TopicAuthorizationFailedError(TOPIC)], ids=str)
def test_a_right_that_is_missing_is_told(error: Any) -> None:
    @in_a_world
    async def scenario(world: World) -> None:
        world.write(*VALUES)
        for ask in (world.scan, lambda: world.reader.beginning(TOPIC, 0)):
            world.said = [error]
            with pytest.raises(TopicAuthorizationFailedError, match=TOPIC):
                await ask()


# Where it begins and ends, and the rest


@pytest.mark.parametrize("fault", [NOT_LEADER, FENCED_LEADER_EPOCH, KafkaConnectionError("away")], ids=str)
def test_the_beginning_is_asked_for_until_it_is_told(fault: Any) -> None:
    @in_a_world
    async def scenario(world: World) -> None:
        world.begin = 7
        world.said = [fault, fault]
        assert await world.reader.beginning(TOPIC, 0) == 7
        assert [sent.asked for sent in world.wire.questions()] == [{PLACE: (EPOCH,)}] * 3


def test_ends_are_asked_for_through_the_barrier() -> None:
    @in_a_world
    async def scenario(world: World) -> None:
        world.end = 9
        assert await world.reader.ends(TOPIC, [0, 1, 2]) == {0: 9, 1: 9, 2: 9}
        assert await world.reader.end(TOPIC, 0) == 9
        assert world.wire.sent == []


def test_a_tail_is_read_from_the_end_backwards_in_larger_and_larger_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each look is read forwards, what was looked at before is not read again, and the records are in order."""
    monkeypatch.setattr(log_reader, "FIRST_LOOK", 4)

    @in_a_world
    async def scenario(world: World) -> None:
        values = [b"%d" % number for number in range(100)]
        world.write(*values)

        async def tail(**how: Any) -> list[int]:
            world.wire.forget()
            records = await world.reader.tail(TOPIC, 0, **how)
            return [int(record.value) for record in records]

        def reads() -> list[int]:
            return [sent.asked[PLACE][1] for sent in world.wire.fetches()]

        assert await tail(enough=lambda _: True) == list(range(96, 100))
        assert reads() == [96, 98]
        assert await tail(enough=lambda found: len(found) > 4) == list(range(84, 100))
        assert reads() == [96, 98, *range(84, 96, 2)]
        assert await tail(enough=lambda _: False) == list(range(100))
        assert await tail(enough=lambda _: False, most=10) == list(range(90, 100))
        assert await tail(enough=lambda _: False, keep=lambda record: record.offset % 50 == 0) == [0, 50]
        world.begin = 60
        assert await tail(enough=lambda _: False) == list(range(60, 100))
        future = 10**15
        assert await tail(enough=lambda _: False, since=future) == list(range(96, 100)), "all before are older"


def test_it_is_known_whether_a_tail_reaches_back_to_the_beginning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_reader, "LIMIT", 10)

    @in_a_world
    async def scenario(world: World) -> None:
        world.end = 30
        for world.begin, is_within in ((19, False), (20, True), (30, True)):
            assert await world.reader.is_within_tail(TOPIC, 0) == is_within


def test_when_a_record_was_written_is_told_of_the_next_one_that_there_is() -> None:
    @in_a_world
    async def scenario(world: World) -> None:
        world.append(marker(0, COMMIT))
        world.append(batch(1, b"of the producer's time"))
        world.append(batch(2, b"of the broker's time", attributes=0x08))
        assert [await world.reader.written_at(TOPIC, 0, at) for at in (0, 1)] == [0.0, 0.0]
        assert (await world.reader.written_at(TOPIC, 0, 2) or 0) > 1.5e12
        assert await world.reader.written_at(TOPIC, 0, 3) is None
        world.begin = 2
        assert (await world.reader.written_at(TOPIC, 0, 0) or 0) > 1.5e12, "what is gone was written before"


# Commits


def commits(*told: tuple[int, int], code: int = 0) -> Any:
    """What a coordinator says of partitions: offset and error of each."""
    topics = [(TOPIC, [(number, offset, "", error) for number, (offset, error) in enumerate(told)])]
    return SimpleNamespace(error_code=code, topics=topics)


@pytest.mark.parametrize(
    "fault",
    [
        KafkaConnectionError("away"),
        RequestTimedOutError(),
        commits((5, 0), (-1, NotCoordinatorError.errno)),
        commits((5, CoordinatorLoadInProgressError.errno), (5, 0)),
        commits(code=NotCoordinatorError.errno),
    ],
    ids=["away", "silent", "elsewhere", "busy", "elsewhere, of all"],
)
def test_what_is_committed_is_asked_for_until_all_of_it_is_told(fault: Any) -> None:
    @in_a_world
    async def scenario(world: World) -> None:
        world.commits = [fault, fault, commits((5, 0), (-1, 0))]
        assert await world.reader.committed(GROUP_NAME, TOPIC, [0, 1]) == {0: 5, 1: 0}
        assert now() > 2 * RETRY_S
        finders = [sent for sent in world.wire.sent if isinstance(sent.request, FindCoordinatorRequest)]
        assert len(finders) == 3 * len(world.wire.known), "it may be elsewhere"


@pytest.mark.parametrize(
    "fault",
    [GroupAuthorizationFailedError(), commits((0, GroupAuthorizationFailedError.errno), (0, 0))],
    ids=["raised", "told"],
)
def test_a_right_to_the_commits_that_is_missing_is_told(fault: Any) -> None:
    @in_a_world
    async def scenario(world: World) -> None:
        world.commits = [fault]
        with pytest.raises(GroupAuthorizationFailedError):
            await world.reader.committed(GROUP_NAME, TOPIC, [0, 1])


def test_a_topic_that_may_not_be_described_is_told_instead_of_waiting_for_its_leader() -> None:
    @in_a_world
    async def scenario(world: World) -> None:
        del world.wire.leaders[PLACE]
        world.wire.denied = {TOPIC}
        with pytest.raises(TopicAuthorizationFailedError, match=TOPIC):
            await world.reader.beginning(*PLACE)


def test_stopping_closes_the_connections_that_are_its_own() -> None:
    @in_a_world
    async def scenario(world: World) -> None:
        await turns()
        await world.reader.stop()
        assert world.wire.closed == 1
        assert world.wire.timeouts.keys() == {"reader", "group", "group-finding"}
