"""Faust's Kafka transport, one fetch at a time.

Faust hands its agents single records and commits what they ack. Here what a fetch brought of a topic becomes one
message, whose value is a list of batches, one per partition; what is committed is what the engine says is done; and
the changelog is restored a fetch at a time. Overridden private names of
faust-streaming 0.15.3 and aiokafka 0.14.0 are held still by tests/engine/test_pins.py.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from math import inf
from time import monotonic
from typing import TYPE_CHECKING, Any

from faust.assignor.partition_assignor import PartitionAssignor
from faust.tables import manager, recovery
from faust.transport.drivers import aiokafka as driver
from faust.types import TP, ConsumerMessage
from mode.utils.futures import maybe_async

from streams import topics
from streams.engine.records import Batch
from streams.kafka.cluster import NEWS_S, by_topic
from streams.kafka.connection import stop_consumer
from streams.kafka.errors import IllegalStateError, KafkaError
from streams.kafka.fetcher import Fetches
from streams.kafka.group_client import CoordinatorWatch, adapt, join_again
from streams.kafka.ownership import FencedError
from streams.kafka.read_barrier import Confirmation
from streams.kafka.records import OffsetAndMetadata, TopicPartition
from streams.logs import Ongoing

if TYPE_CHECKING:
    from streams.engine.core import Engine

log = logging.getLogger(__name__)

#: One fetch request asks the broker to wait this long for data; new data answers it at once. A partition that has just
#: been released by its lane waits for the end of the request under way, so this is short.
FETCH_MAX_WAIT_MS = 100
#: Positions of partitions that nothing comes from are looked at so often.
LOOK_S = 0.1


class Fetched(dict[TP, list[Any]]):
    """Records by partition, with the consumer's positions before and after the fetch took them.

    Positions that did not move are there too, now and then, and always those of changelogs that are read.
    """

    #: When (monotonic seconds) they had arrived.
    at: float

    def __init__(self) -> None:
        self.before: dict[TP, int] = {}
        self.after: dict[TP, int] = {}
        #: Where the changes of a partition of requests end, where the same fetch tells; see `Batch.end`.
        self.ends: dict[TP, tuple[int | None, Confirmation | None]] = {}


class ConsumerThread(driver.AIOKafkaConsumerThread):
    """What talks to the broker: in Faust a thread with an event loop of its own, here a task on the worker's loop.

    Two threads take turns at the interpreter, and every hop between them waits for such a turn: several milliseconds
    for a record under load. No step of the engine holds the loop for longer than some ten milliseconds, which a
    heartbeat can wait for.
    """

    #: Until when (monotonic seconds) the group surely counts us as a member.
    lease_until = 0.0
    engine: Engine
    #: The topics `consent.changes` and `eligibility.requests`, with their prefix.
    changes: str
    requests: str
    #: Those of the changelogs.
    changelogs: frozenset[str]
    #: Partitions of which nothing is taken for now: what was fetched of them is fetched again when there is room.
    held: set[TP]
    _fetches: Fetches
    #: The partitions that Faust wants at present, and whether changelogs are among them.
    _active: frozenset[TP] = frozenset()
    _restores = False
    _coordinator_watch: CoordinatorWatch
    #: When (monotonic seconds) the positions of all of them were looked at.
    _all_looked_at = -inf
    _serving: asyncio.Task[None]

    async def start(self) -> None:
        self._thread_started.set()
        self._thread_running = self.parent_loop.create_future()
        self._serving = asyncio.create_task(self._serve(), name="consumer")
        await self._thread_running

    async def stop(self) -> None:
        if self._started.is_set():
            await super().stop()
            await asyncio.wait([self._serving])

    async def _gather_remaining_tasks(self) -> None:
        """Nothing: the loop is not ours alone."""

    async def call_thread(self, fun: Any, *args: Any, **kwargs: Any) -> Any:
        """The call itself: there is no other thread that could make it."""
        return await maybe_async(fun(*args, **kwargs))

    async def on_start(self) -> None:
        await super().on_start()
        self.held = set()
        self._not_committed = Ongoing(log, "offsets are not committed yet", after_s=NEWS_S)
        coordinator = self._ensure_consumer()._coordinator
        session_s = self.app.conf.broker_session_timeout
        beat = coordinator._do_heartbeat

        async def beat_and_note() -> bool:
            sent = monotonic()
            alive: bool = await beat()
            if alive:
                self.lease_until = sent + session_s
            return alive

        coordinator._do_heartbeat = beat_and_note
        self._fetches = Fetches(
            self._ensure_consumer(),
            self.engine.cluster,
            self.engine.barrier,
            self.changes,
            self.requests,
            in_order=self.engine.config.fence == "fetch",
        )

        self._coordinator_watch = CoordinatorWatch(self._ensure_consumer(), self.engine.groups)
        self._coordinator_watch.start()

    async def on_thread_stop(self) -> None:
        await self._coordinator_watch.stop()
        await self._fetches.close()
        await stop_consumer(self._consumer, super().on_thread_stop())

    def _create_worker_consumer(self, transport: Any) -> Any:
        consumer = super()._create_worker_consumer(transport)
        # Producers may be transactional: what they abort never happened.
        consumer._isolation_level = "read_committed"
        consumer._fetch_max_wait_ms = FETCH_MAX_WAIT_MS
        adapt(consumer, self.engine.groups)
        return consumer

    async def _fetch_records(
        self,
        consumer: Any,
        active_partitions: set[TP],
        timeout: float | None = None,  # noqa: ASYNC109 - Faust's signature
        max_records: int | None = None,  # noqa: ARG002 - Faust's signature
    ) -> Fetched:
        """Records of one fetch. Returns as soon as any position moved: transaction markers move it without records."""
        fetcher = consumer._fetcher
        fetched = Fetched()
        if not self.consumer.flow_active:
            return fetched
        if consumer._closed or fetcher._closed:
            raise driver.ConsumerStoppedError
        # After an error that it does not get over, such as a right to the group that was taken away, the coordinator
        # waits for ever to be asked; Faust never asks.
        consumer._coordinator.check_errors()
        subscriptions = fetcher._subscriptions
        deadline = monotonic() + (timeout or 0)
        with subscriptions.fetch_context():
            while True:
                # What was fetched for an assignment that ends just now may be another worker's.
                if subscriptions.reassignment_in_progress:
                    await subscriptions.wait_for_assignment()
                wanted = active_partitions - self.held
                for tp, brought in self._fetches.take(wanted).items():
                    if brought.records:
                        fetched[tp] = brought.records
                    fetched.before[tp], fetched.after[tp] = brought.before, brought.after
                    fetched.ends[tp] = brought.end, brought.confirmation
                # Before the next fetch is sent: that waits for these to be taken.
                fetched.at = monotonic()
                left = deadline - fetched.at
                if fetched.after or left <= 0 or not self.consumer.flow_active:
                    still = self._positions(consumer, self._looked_at(active_partitions))
                    fetched.before, fetched.after = {**still, **fetched.before}, {**still, **fetched.after}
                    return fetched
                await self._fetches.wait(self._assignment(consumer), wanted, left)

    def _looked_at(self, active_partitions: set[TP]) -> Iterable[TP]:
        """The partitions whose positions are looked at even if nothing is taken of them.

        Of a changelog's Faust is to hear. Others only a seek can move that went astray, which is seen soon enough.
        """
        if active_partitions != self._active:
            self._active = frozenset(active_partitions)
            self._restores = any(tp.topic in self.changelogs for tp in active_partitions)
        now = monotonic()
        if not self._restores and now - self._all_looked_at < LOOK_S:
            return ()
        self._all_looked_at = now
        return active_partitions

    @staticmethod
    def _assignment(consumer: Any) -> Any:
        """The partitions that the consumer reads now, with its positions; None while there are none."""
        subscription = consumer._subscription.subscription
        assignment = subscription and subscription.assignment
        return assignment if assignment is not None and assignment.active else None

    def _positions(self, consumer: Any, tps: Iterable[TP]) -> dict[TP, int]:
        assignment = self._assignment(consumer)
        if assignment is None:
            return {}
        states = {tp: assignment.state_value(tp) for tp in tps if tp in assignment.tps}
        return {tp: state.position for tp, state in states.items() if state.has_valid_position}

    async def committed(self, tps: Iterable[TP]) -> dict[TP, int]:
        """The group's committed offset of each partition; 0 where there is none. Waits for brokers that are away."""
        found: dict[TP, int] = {}
        for topic, numbers in by_topic(tps).items():
            offsets = await self.engine.reader.committed(self.app.conf.id, topic, numbers)
            found.update((TP(topic, number), offset) for number, offset in offsets.items())
        return found

    async def highwaters(self, *partitions: TP) -> dict[TP, int]:
        """Where partitions end, asked through the read barrier. Waits for brokers that are away."""
        found: dict[TP, int] = {}
        for topic, numbers in by_topic(partitions).items():
            ends = await self.engine.reader.ends(topic, numbers)
            found.update((TP(topic, number), end) for number, end in ends.items())
        return found

    async def earliest_offsets(self, *partitions: TP) -> dict[TP, int]:
        """Where partitions begin. Waits for brokers that are away."""
        begin = self.engine.reader.beginning
        return dict(zip(partitions, await asyncio.gather(*(begin(*tp) for tp in partitions)), strict=True))

    def join_again(self) -> None:
        """Let the group assign its partitions anew."""
        join_again(self._ensure_consumer())

    def verify_event_path(self, now: float, tp: TP) -> None:
        """Nothing: Faust would look at aiokafka's fetches, of which there are none, and log each partition as stuck."""

    def verify_recovery_event_path(self, now: float, tp: TP) -> None:
        """Nothing, for the same reason."""

    async def _commit(self, offsets: Mapping[TP, int]) -> bool:
        """Commit; a broker that is away or a rebalance under way is no reason to end: the next commit says it all."""
        consumer = self._ensure_consumer()
        held = self.assignment()
        mine = {
            TopicPartition(tp.topic, tp.partition): OffsetAndMetadata(offset, "")
            for tp, offset in offsets.items()
            if tp in held
        }
        if not mine:
            return False
        try:
            await consumer.commit(mine)
        except (KafkaError, TimeoutError) as exc:
            self._not_committed.happens(exc)
            return False
        self._not_committed.over()
        now = monotonic()
        self.tp_last_committed_at.update(dict.fromkeys(mine, now))
        return True


class Consumer(driver.Consumer):
    """Hands out batches at the offsets the engine names, and keeps the books that Faust would get wrong."""

    engine: Engine

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.engine = self.app.engine
        #: Next offset to hand out of each source partition. A partition without one hands out nothing.
        self._cursor: dict[TP, int] = {}

    def _is_changelog_tp(self, tp: TP) -> bool:
        """Asked for every partition of every fetch; Faust makes a set of all tables' for each answer."""
        return tp.topic in self._thread.changelogs

    def _new_consumer_thread(self) -> ConsumerThread:
        thread = ConsumerThread(self, loop=self.loop, thread_loop=self.loop, beacon=self.beacon)
        config = self.app.engine.config
        thread.engine = self.app.engine
        thread.changes = config.topic(topics.CHANGES.name)
        thread.requests = config.topic(topics.REQUESTS.name)
        thread.changelogs = frozenset(config.topic(spec.name) for spec in topics.CHANGELOGS.values())
        return thread

    async def getmany(self, timeout: float) -> AsyncIterator[tuple[TP, ConsumerMessage]]:  # noqa: ASYNC109
        """Hand out what is fetched for `timeout` seconds: batches to their streams, and for a restored changelog its
        last record to Faust.

        Faust would make two tasks for each message, and pause after each fetch, to see whether it must stop.
        """
        until = monotonic() + timeout
        while True:
            fetched, active = await self._wait_next_records(timeout)
            generation = self.app.consumer_generation_id
            if (fetched or getattr(fetched, "after", None)) and await self._positions_agree(fetched):
                for restored in self._restored(fetched, active):
                    yield restored
                    if not self._flows(generation):
                        return
                for tp, batches in self._batches(fetched, active).items():
                    if not self._flows(generation):
                        return
                    self._cursor.update((TP(tp.topic, batch.partition), batch.next_offset) for batch in batches)
                    message = self._message(tp, batches[0].next_offset - 1, batches)
                    await self.callback(message)
                    self._read_offset[tp] = message.offset
                if fetched:
                    # In the next turn the streams take it, in the second what it causes is sent; then more is asked
                    # for: what is fetched while they are at work waits longer than what is fetched after it.
                    for _ in range(2):
                        await asyncio.sleep(0)
            if not self._flows(generation) or self.should_stop or monotonic() >= until:
                return

    def _flows(self, generation: int) -> bool:
        """Whether what was fetched in this generation may be handed out: then no stream makes us wait."""
        return (
            self.flow_active
            and generation == self.app.consumer_generation_id
            and bool(self.app.flow_control.is_active())
        )

    def _restored(self, fetched: Fetched, active: set[TP]) -> Iterator[tuple[TP, ConsumerMessage]]:
        """Write what was fetched of changelogs to their tables; what Faust has to be told of it."""
        for tp, after in fetched.after.items():
            if not self._is_changelog_tp(tp):
                continue
            records = fetched.get(tp)
            if records is None:
                # Transaction markers and compacted records move the position alone.
                if after > self.engine.restored(tp):
                    self.engine.restore(tp, [], after)
                if self._is_to_be_told(tp):
                    yield tp, self._message(tp, self.engine.restored(tp) - 1, None)
            elif tp in active or tp in self._buffered_partitions:
                self.engine.restore(tp, records, after)
                yield tp, self._message(tp, after - 1, None)

    def _batches(self, fetched: Fetched, active: set[TP]) -> dict[TP, list[Batch]]:
        """A message's worth of batches for each source topic, under the partition of its first, for Faust's books.

        The changes come first: once they are applied, the requests need not wait for them.
        """
        found: dict[str, list[Batch]] = {self._thread.changes: []}
        for tp, after in fetched.after.items():
            records = fetched.get(tp)
            if records is not None:
                if tp in self._cursor and (tp in active or tp in self._buffered_partitions):
                    found.setdefault(tp.topic, []).append(self._batch(tp, records, fetched))
            elif after > self._cursor.get(tp, after):
                # Transaction markers and compacted records move the position alone: an empty batch says so.
                found.setdefault(tp.topic, []).append(self._batch(tp, [], fetched))
        return {TP(topic, batches[0].partition): batches for topic, batches in found.items() if batches}

    def _is_to_be_told(self, tp: TP) -> bool:
        """Whether Faust does not know how far a changelog is restored.

        It learns that when a recovery begins and by messages, but not what happens between the two: an opening of the
        partitions that a rebalance overtook still writes markers' offsets to the store.
        """
        recovery = self.app.tables.recovery
        offsets = recovery.active_offsets if tp in recovery.active_tps else recovery.standby_offsets
        known = offsets.get(tp)
        return self.engine.restored(tp) - 1 > (-1 if known is None else known)

    async def _positions_agree(self, fetched: Fetched) -> bool:
        """Whether the fetch began where the last one ended. If not, it is dropped and the consumer is set right.

        Faust lets a fetch that crosses a rebalance or a failed seek go on from anywhere, and drops what a fetch brought
        across one; a skipped record would be a lost one, so nothing is handed out unless it joins what was handed out
        before. A changelog joins its store: markers that were dropped would be waited for without end.
        """
        if not self.flow_active:
            return False
        # A position that was sought in the midst of the fetch has none before it.
        unknown = {tp: after for tp, after in fetched.after.items() if self._is_changelog_tp(tp)}
        astray = self._astray({**unknown, **fetched.before})
        if not astray:
            return True
        for tp in filter(self._is_changelog_tp, astray):
            await self.engine.check_beginning(tp)
        # What the fetch took of the others is dropped with it: they would be astray next, and these again after them.
        astray |= self._astray(fetched.after)
        self.log.warning("reading on from %r", astray)
        # A partition that is gone meanwhile is not ours to read: whoever gets it, reads from where it must.
        with suppress(IllegalStateError):
            await self.seek_wait(astray)
        return False

    def _astray(self, positions: Mapping[TP, int]) -> dict[TP, int]:
        """Which of these positions do not join what was handed out or restored, and where they must be."""
        found = {tp: self._cursor[tp] for tp, at in positions.items() if self._cursor.get(tp, at) != at}
        for tp in filter(self._is_changelog_tp, positions):
            restored = self.engine.restored(tp)
            if positions[tp] > restored:
                found[tp] = restored
        return found

    def _batch(self, tp: TP, records: list[Any], fetched: Fetched) -> Batch:
        """Records for the engine; once they are done the next commit counts them."""
        after = fetched.after[tp]
        done = partial(self._acked[tp].append, after - 1)
        end, confirmation = fetched.ends.get(tp, (None, None))
        return Batch(tp.partition, records, fetched.before[tp], after, fetched.at, done, end, confirmation)

    def _message(self, tp: TP, offset: int, value: Any) -> ConsumerMessage:
        return ConsumerMessage(
            topic=tp.topic,
            partition=tp.partition,
            offset=offset,
            timestamp=0.0,
            timestamp_type=0,
            headers=None,
            key=None,
            value=value,
            checksum=None,
            tp=tp,
            generation_id=self.app.consumer_generation_id,
        )

    def hold_back(self, tp: TP, full: bool) -> None:
        """Take nothing of a partition whose lane is full; take of it again when it has room."""
        if full:
            self._thread.held.add(tp)
        elif tp in self._thread.held:
            self._thread.held.remove(tp)
            fetcher = self._thread._ensure_consumer()._fetcher
            for waiter in fetcher._fetch_waiters:
                fetcher._notify(waiter)

    def join_again(self) -> None:
        """Let the group assign its partitions anew. Does not wait."""
        self._thread.join_again()

    @property
    def holds_lease(self) -> bool:
        """Whether the group surely still counts this worker as a member, so that its partitions are its own."""
        return bool(monotonic() < self._thread.lease_until)

    def lag(self, tp: TP) -> int | None:
        """Records of a source partition that are fetched or known of but not handed out yet; None if not known."""
        cursor = self._cursor.get(tp)
        end = self._thread._ensure_consumer().highwater(tp) if cursor is not None else None
        return None if cursor is None or end is None else max(0, end - cursor)

    async def perform_seek(self) -> None:
        """Start every source partition where the engine says: at the state's own position, not at the commit.

        Nothing is handed out until the flow is resumed, which Faust does next: before that it empties the streams'
        queues, and what was in them would be lost, for it is behind the cursor.
        """
        self.stop_flow()
        sources = [tp for tp in self.assignment() if not self._is_changelog_tp(tp)]
        committed = await self._thread.committed(sources)
        # The assignment that brought us here is as good a sign of life as a heartbeat.
        self._thread.lease_until = monotonic() + self.app.conf.broker_session_timeout
        try:
            starts = await self.engine.open(committed)
        except FencedError as error:
            self.engine.fail(error)
            # The group assigns the partitions anew, which ends this wait.
            await asyncio.get_running_loop().create_future()
        await self.seek_wait(starts)
        for tp, offset in starts.items():
            self._read_offset[tp] = offset or None
            self._committed_offset[tp] = committed[tp] or None
            if offset > committed[tp]:
                # Done before a crash that came before the commit: committed with the next batch, or without one.
                self._acked[tp].append(offset - 1)
        self._cursor = dict(starts)
        self._thread.held.clear()

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        """Finish what is in hand and commit it while the partitions are still ours; Faust forgets it here."""
        self._cursor.clear()
        await self.finish()
        await self.commit()
        await super().on_partitions_revoked(revoked)

    async def finish(self) -> None:
        """Hand out nothing more, and finish what is in hand; the next commit says how far that is."""
        self.stop_flow()
        for tp, position in (await self.engine.close()).items():
            if position:
                self._acked[tp].append(position - 1)

    def ack(self, message: ConsumerMessage) -> bool:
        """The engine has taken the message over; its batches say themselves when they are done."""
        message.acked = True
        self._unacked_messages.discard(message)
        return True

    async def _add_gap(self, tp: TP, offset_from: int, offset_to: int) -> None:
        """Nothing to keep: batches of a partition are acked in order and hold every offset in between."""

    def _new_offset(self, tp: TP) -> int | None:
        """The offset to commit: behind the newest batch that was acked."""
        acked = self._acked[tp]
        if not acked:
            return None
        newest: int = max(acked) + 1
        acked.clear()
        self._acked_index[tp].clear()
        return newest


class Transport(driver.Transport):
    """Faust's transport with our consumer."""

    Consumer = Consumer


class Recovery(recovery.Recovery):  # type: ignore[misc]
    """Faust's recovery without its limits of time: a broker that is away is waited for."""

    async def _wait(self, coro: Any, timeout: Any = None) -> None:  # noqa: ARG002, ASYNC109 - Faust's signature
        await super()._wait(coro)


class TableManager(manager.TableManager):
    """Faust's table manager with our recovery."""

    _recovery: Recovery | None

    @property
    def recovery(self) -> Recovery:
        """The service that restores tables."""
        if self._recovery is None:
            self._recovery = Recovery(self.app, self, beacon=self.beacon, loop=self.loop)
        return self._recovery


class Assignor(PartitionAssignor):
    """Faust's assignor, for static members that come back under another address.

    The broker gives a known member its old assignment, in which Faust insists on the old URL and dies without a word.
    """

    def on_assignment(self, assignment: Any) -> None:
        try:
            super().on_assignment(assignment)
        except AssertionError:
            # Everything was taken over before the URL was compared; the other thing that Faust asserts must hold.
            if sorted(assignment.assignment) != sorted(
                self._assignment.kafka_protocol_assignment(self._table_manager)
            ):
                raise
