"""The engine: partitions with their lanes, opened when Faust has assigned and restored them, closed when it revokes."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from faust.types import TP

from streams import metrics, topics
from streams.config import Config
from streams.domain.identities import decode_holders
from streams.domain.state import decode_state
from streams.engine.lane import Lane
from streams.engine.outputs import Writer
from streams.engine.partition import Partition
from streams.engine.records import Batch, Joints, LostError
from streams.engine.table import BytesStore
from streams.kafka.cluster import Cluster
from streams.kafka.coordinators import GROUP, Coordinators
from streams.kafka.leader_watch import LeaderWatch
from streams.kafka.log_reader import LogReader
from streams.kafka.ownership import FencedError, Fences
from streams.kafka.read_barrier import ReadBarrier
from streams.kafka.records import Place
from streams.logs import about
from streams.topics import TopicSpec

log = logging.getLogger(__name__)

#: The broker forgets an id that was not used for a week.
RENEW_S = 86_400.0
#: Pause between two looks at how far other partitions are.
POLL_S = 0.02
#: A partition with work waiting and no checkpoint for so long makes the worker unready.
STALE_CHECKPOINT_S = 60.0


#: What is left to do when a changelog lacks something.
ANEW = "stop all workers, delete both changelog topics and the state folders, and start again, to compute both anew"

Decode = Callable[[bytes | None], Any]


class NotRestoredError(Exception):
    """Faust says a partition's state is restored, and it is not: going on would answer from an old state."""


@dataclass(frozen=True, slots=True)
class Tables:
    """What a worker has of the two tables, by partition: the customers' consent, and who has which identifier."""

    customers: dict[int, Partition]
    identities: dict[int, Partition]

    def by_source(self) -> tuple[tuple[str, dict[int, Partition]], ...]:
        """The topic that each table's records come from, and its partitions."""
        return (topics.CHANGES.name, self.customers), (topics.IDENTITIES.name, self.identities)


#: Where each table's records come from, where its changelog is, and what makes a state of a value.
_CUSTOMERS = (topics.CUSTOMERS_TABLE, topics.CHANGES.name, topics.CHANGELOG.name, decode_state)
_IDENTITIES = (topics.IDENTITIES_TABLE, topics.IDENTITIES.name, topics.IDENTITIES_CHANGELOG.name, decode_holders)
_TABLE_OF = {changelog.name: table for table, changelog in topics.CHANGELOGS.items()}


class Opener(Protocol):
    """Makes the lanes of an assignment; the agents' side of the engine."""

    async def lanes(self, tables: Tables, committed: Mapping[str, Mapping[int, int]]) -> Opened:
        """The lanes over these partitions, whose sources are committed up to the given offsets."""


class Opened(NamedTuple):
    """A lane for each source topic, by its name without prefix; and where to start those that have no table."""

    lanes: dict[str, Lane]
    starts: dict[str, dict[int, int]]


class Engine:
    """Owns what a worker has open. All of it runs on the worker's main event loop."""

    def __init__(self, config: Config, store: Callable[[str], BytesStore], min_in_sync: Mapping[str, int]) -> None:
        self.config = config
        self.cluster = Cluster(config, config.group, [config.topic(spec.name) for spec in topics.ALL])
        self.barrier = ReadBarrier(self.cluster, min_in_sync, quorum=config.read_barrier == "quorum")
        self._watch = LeaderWatch(self.cluster, self._places)
        #: Each lane, and HTTP, writes by a connection of its own: none waits for another's acknowledgements.
        self.changes_writer = Writer(self.cluster, "changes")
        self.requests_writer = Writer(self.cluster, "requests")
        self.intake_writer = Writer(self.cluster, "intake")
        self.groups = Coordinators(self.cluster, "group", GROUP)
        self.reader = LogReader(self.cluster, self.barrier, self.groups)
        self._fences = Fences(self.cluster)
        #: Whether this Kafka was seen to refuse what an earlier owner writes.
        self._owns = False
        self._renewing: asyncio.Task[None] | None = None
        self.opener: Opener
        self.tables = Tables({}, {})
        self._lanes: dict[str, Lane] = {}
        self._joints = Joints({})
        #: Set with the error that ends the worker.
        self.failed: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()
        #: Buffer hooks of the consumer, by "is full".
        self.on_pressure: Callable[[TP, bool], None] = lambda _tp, _full: None
        #: Whether the group surely still counts this worker as a member.
        self.lease: Callable[[], bool] = lambda: False
        #: Lets the group assign the partitions anew.
        self.join_again: Callable[[], None] = lambda: None
        #: The store of a table, by the table's name.
        self._store = store

    @property
    def partitions(self) -> dict[int, Partition]:
        """The customers' partitions that are open, by number."""
        return self.tables.customers

    async def start(self) -> None:
        """Wait until some broker answers, and begin to watch who leads. Raises BarrierError."""
        await self.cluster.start()
        await self.barrier.check(self.config.topic(topics.CHANGES.name))
        self._watch.start()
        self._renewing = asyncio.create_task(self._renew(), name="renew")

    async def stop(self) -> None:
        await self.close()
        if self._renewing is not None:
            self._renewing.cancel()
        writers = self.changes_writer, self.requests_writer, self.intake_writer
        users = (*writers, self.reader, self.groups, self._fences, self._watch, self.barrier)
        await asyncio.gather(*(user.stop() for user in users))
        await self.cluster.stop()

    def _places(self) -> list[Place]:
        """What is read and written: all topics' partitions that are open."""
        return [(self.config.topic(spec.name), number) for spec in topics.ALL for number in self.tables.customers]

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(RENEW_S)
            try:
                await self._fences.renew()
            except Exception as exc:
                self.fail(exc)

    def fail(self, error: BaseException) -> None:
        """The worker cannot go on: nothing behind this point may be acked.

        Where another worker owns a partition now, the group knows better whose it is: it assigns them anew.
        """
        if isinstance(error, FencedError):
            log.warning("%s: joining the group again", error)
            self.join_again()
        elif not self.failed.done():
            self.failed.set_result(error)

    def restored(self, tp: TP) -> int:
        """The offset behind what the store has of a changelog."""
        return self._store_of(tp).offset(tp.partition) + 1

    def restore(self, tp: TP, records: list[Any], after: int) -> None:
        """Write fetched changelog records to their table's store; `after` is the position behind them and markers."""
        store = self._store_of(tp)
        known = store.offset(tp.partition)
        fresh = [(r.key, r.value) for r in records if r.offset > known]
        if after - 1 > known:
            store.write(tp.partition, fresh, after - 1, upto_s=records[-1].timestamp / 1000 if records else None)
            metrics.RESTORED.labels(tp.partition).inc(len(fresh))

    async def check_beginning(self, tp: TP) -> None:
        """Raises NotRestoredError if a changelog has lost what its store would have to begin with.

        A log that is only compacted keeps its beginning: its settings were others when this was cut off.
        """
        needed, first = self.restored(tp), await self.reader.beginning(tp.topic, tp.partition)
        if first > needed:
            raise NotRestoredError(f"{tp.topic}-{tp.partition} begins at {first}, but the state needs {needed}: {ANEW}")

    def _store_of(self, tp: TP) -> BytesStore:
        return self._store(_TABLE_OF[tp.topic.removeprefix(self.config.topic_prefix)])

    async def open(self, committed: dict[TP, int]) -> dict[TP, int]:
        """Open every assigned partition; returns where to start reading each source partition."""
        await self.close()
        by_topic = {
            spec.name: {tp.partition: at for tp, at in committed.items() if tp.topic == self.config.topic(spec.name)}
            for spec in topics.SOURCES
        }
        numbers = sorted(by_topic[topics.CHANGES.name])
        if numbers and not self._owns:
            await self._fences.check(f"{self.config.owner_ids}check-{numbers[0]}", self._changelog(numbers[0]))
            self._owns = True
        await asyncio.gather(*(self._take(number) for number in numbers))
        tables = Tables(await self._open_all(_CUSTOMERS, numbers), await self._open_all(_IDENTITIES, numbers))
        _check_whole(tables)
        self._lanes, starts = await self.opener.lanes(tables, by_topic)
        self.tables = tables
        for source, opened in tables.by_source():
            starts[source] = {number: partition.applied for number, partition in opened.items()}
        begin = {(name, number): at for name, own in starts.items() for number, at in own.items()}
        self._joints = Joints(begin)
        for lane in self._lanes.values():
            lane.start()
        metrics.OWNED.set(len(numbers))
        for number, partition in tables.customers.items():
            for org_id in partition.org_ids():
                metrics.SETTINGS.labels(org_id, number).set(_version_of(partition, org_id))
        found = {TP(self.config.topic(name), number): at for (name, number), at in begin.items()}
        return {tp: at for tp, at in found.items() if tp in committed}

    def _changelog(self, number: int) -> Place:
        return self.config.topic(topics.CHANGELOG.name), number

    async def _take(self, number: int) -> None:
        """Own what is written for this partition: by each writer under an id of its own, since each counts its own."""
        own: tuple[tuple[str, Writer, tuple[TopicSpec, ...]], ...] = (
            ("changes", self.changes_writer, (topics.AUDIT, topics.DEADLETTER, topics.NOTIFICATIONS, topics.CHANGELOG)),
            ("requests", self.requests_writer, (topics.AUDIT, topics.DEADLETTER, topics.DECISIONS)),
            ("intake", self.intake_writer, (topics.AUDIT, topics.DEADLETTER, topics.IDENTITIES_CHANGELOG)),
        )

        async def take(name: str, writer: Writer, specs: tuple[TopicSpec, ...]) -> None:
            places = [(self.config.topic(spec.name), number) for spec in specs]
            writer.own(number, places, await self._fences.take(f"{self.config.owner_ids}{name}-{number}", places))

        await asyncio.gather(*(take(*one) for one in own))

    async def _open_all(self, table: tuple[str, str, str, Decode], numbers: list[int]) -> dict[int, Partition]:
        opened = await asyncio.gather(*(self._open(table, number) for number in numbers))
        return dict(zip(numbers, opened, strict=True))

    async def _open(self, table: tuple[str, str, str, Decode], number: int) -> Partition:
        name, source, changelog, decode = table
        store = self._store(name)
        await self._finish_restore(store, self.config.topic(changelog), number)
        state = Partition(number, store, decode)
        await self._check_log(state, self.config.topic(source))
        return state

    async def _finish_restore(self, store: BytesStore, changelog: str, number: int) -> None:
        """Restore what came since Faust looked: the earlier owner's last checkpoint, and markers. Nothing comes now."""
        await self.check_beginning(TP(changelog, number))
        first, end = store.offset(number) + 1, await self.reader.end(changelog, number)
        if first > end:
            raise NotRestoredError(f"{changelog}-{number}: the state is at {first}, the log ends at {end}")
        async for records in self.reader.scan(changelog, number, first, end):
            if records:
                store.write(number, [(record.key or b"", record.value) for record in records], records[-1].offset)
        if end:
            store.write(number, [], end - 1, upto_s=time.time())

    async def _check_log(self, state: Partition, source: str) -> None:
        first, end = await self.reader.beginning(source, state.number), await self.reader.end(source, state.number)
        if state.applied > end:
            raise NotRestoredError(f"{source}-{state.number} ends at {end}, but the state has weighed {state.applied}")
        if state.applied < first:
            at = state.applied
            if at:
                raise NotRestoredError(f"{source}-{state.number} begins at {first}, but the state needs {at}")
            place = about(source, state.number, first)
            log.warning("the log begins here: what was before is not in the state", extra=place)
            state.advance(first)
            state.written = first

    async def close(self) -> dict[TP, int]:
        """Finish the checkpoints in hand; what only waits is left to the next owner.

        Returns how far that is: a checkpoint may end in the midst of a batch, which then is not done.
        """
        lanes, self._lanes = self._lanes, {}
        tables, self.tables = self.tables, Tables({}, {})
        self._fences.forget()
        metrics.OWNED.set(0)
        metrics.SETTINGS.clear()
        await asyncio.gather(*(lane.close() for lane in lanes.values()))
        if not self.failed.done():
            for partition in (*tables.customers.values(), *tables.identities.values()):
                partition.leave()
        return {
            TP(self.config.topic(source), number): partition.stored
            for source, own in tables.by_source()
            for number, partition in own.items()
        }

    def put(self, topic: str, batches: Iterable[Batch]) -> None:
        """Queue batches of a source topic; one of a partition that is not open is left to its owner."""
        lane = self._lanes.get(topic)
        if lane is None:
            return
        own = [batch for batch in batches if batch.partition in self.tables.customers]
        try:
            for batch in own:
                self._joints.check(topic, batch)
        except LostError as exc:
            self.fail(exc)
        else:
            lane.put(*own)

    async def ends_of_changes(self, partitions: Iterable[int]) -> Mapping[int, int]:
        """The ends of partitions of `consent.changes` at a moment after the call; brokers that are away are waited for.

        No record that was acknowledged before the call lies beyond: see `ReadBarrier`.
        """
        return await self.reader.ends(self.config.topic(topics.CHANGES.name), partitions)

    async def find_ends(self, partitions: Iterable[int], on_end: Callable[[int, int], None]) -> None:
        """Ask once for these ends; `on_end` is called for each partition's as soon as it is known.

        Takes about a second at most. Partitions whose end could not be found by then are left out.
        """
        topic = self.config.topic(topics.CHANGES.name)
        await self.barrier.ends(
            [(topic, number) for number in partitions], lambda place, end: on_end(place[1], end)
        )

    async def everybody_is_known(self, numbers: Iterable[int], stopped: Callable[[], bool]) -> bool:
        """Wait until the identities of partitions hold every registration that is in the log now; False if stopped.

        A registration takes two steps: from any partition of `consent.changes` to the topic of identities, and from
        there to the table. So all changes of this moment must be through the first, and then these partitions' ends of
        that topic through the second. False too if one of them is not ours any more.
        """
        asking = asyncio.create_task(self._wait_for_everybody(numbers))
        while not asking.done() and not stopped():
            await asyncio.wait([asking], timeout=POLL_S)
        if not asking.done():
            asking.cancel()
            return False
        return asking.result()

    async def _wait_for_everybody(self, numbers: Iterable[int]) -> bool:
        ends = await self._not_told(await self.ends_of_changes(range(self.config.partitions)))
        while ends:
            await asyncio.sleep(POLL_S)
            ends = await self._not_told(ends)
        ends = await self.reader.ends(self.config.topic(topics.IDENTITIES.name), numbers)
        while ends.keys() <= self.tables.identities.keys():
            if all(self.tables.identities[number].applied >= end for number, end in ends.items()):
                return True
            await asyncio.sleep(POLL_S)
        return False

    async def _not_told(self, ends: Mapping[int, int]) -> Mapping[int, int]:
        told = await self._told_of(ends)
        return {partition: end for partition, end in ends.items() if told[partition] < end}

    async def _told_of(self, partitions: Iterable[int]) -> Mapping[int, int]:
        """Up to where all that partitions of `consent.changes` cause is in the log, whoever owns them."""
        own = {number: self.partitions[number].written for number in partitions if number in self.partitions}
        others = [number for number in partitions if number not in own]
        if not others:
            return own
        # A commit that is not the newest only makes this wait longer.
        topic = self.config.topic(topics.CHANGES.name)
        return {**own, **await self.reader.committed(self.config.group, topic, others)}

    def pressure(self, topic: str) -> Callable[[int, bool], None]:
        """What a topic's lane calls when it is full of a partition and when it has room again."""
        name = self.config.topic(topic)
        return lambda partition, full: self.on_pressure(TP(name, partition), full)

    def unready(self, assigned: Iterable[int]) -> str | None:
        """Why this worker is not ready, or None: every assigned partition must be open and none stuck."""
        missing = sorted(set(assigned) - set(self.partitions))
        if missing:
            return f"partitions {missing} are not restored yet"
        for lane in self._lanes.values():
            if lane.busy_for() > STALE_CHECKPOINT_S:
                return f"{lane.name}: no checkpoint for {lane.busy_for():.0f} s with work waiting"
        return None


def _version_of(partition: Partition, org_id: int) -> int:
    org = partition.org(org_id)
    return 0 if org is None else org.version


def _check_whole(tables: Tables) -> None:
    """The identities are told of registrations once; without them, words of known customers would be lost."""
    for number, identities in tables.identities.items():
        lost = identities.applied > 0 and identities.store.offset(number) < 0
        if lost and tables.customers[number].store.offset(number) >= 0:
            raise NotRestoredError(
                f"partition {number}: there are customers, but who has which identifier is gone: {ANEW}"
            )
