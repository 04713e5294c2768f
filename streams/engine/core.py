"""The engine: partitions with their lanes, opened when Faust has assigned and restored them, closed when it revokes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

from aiokafka.errors import KafkaError
from faust.types import TP

from streams import metrics, topics
from streams.config import Config
from streams.engine.checkpoint import ChangesLane
from streams.engine.lane import Lane
from streams.engine.outputs import Writer
from streams.engine.partition import Partition
from streams.engine.records import Batch
from streams.engine.requests import RequestsLane
from streams.engine.table import BytesStore
from streams.engine.tail import LogReader

log = logging.getLogger(__name__)

#: Pause between two questions to a broker that is away.
RETRY_S = 0.2
#: A partition with work waiting and no checkpoint for so long makes the worker unready.
STALE_CHECKPOINT_S = 60.0


class NotRestoredError(Exception):
    """Faust says a partition's state is restored, and it is not: going on would answer from an old state."""


class Opener(Protocol):
    """Makes the lanes of an assignment; the agents' side of the engine."""

    async def lanes(
        self, partitions: list[Partition], committed: Mapping[int, int]
    ) -> tuple[ChangesLane, RequestsLane]:
        """The lanes over these partitions, whose requests are committed up to the given offsets."""


class Engine:
    """Owns what a worker has open. All of it runs on the worker's main event loop."""

    def __init__(self, config: Config, store: Callable[[], BytesStore]) -> None:
        self.config = config
        #: Each lane, and HTTP, writes by a connection of its own: none waits for another's acknowledgements.
        self.changes_writer = Writer(config)
        self.requests_writer = Writer(config)
        self.intake_writer = Writer(config)
        self.reader = LogReader(config)
        self.opener: Opener
        self.partitions: dict[int, Partition] = {}
        self._changes: ChangesLane | None = None
        self._requests: RequestsLane | None = None
        #: Set with the error that ends the worker.
        self.failed: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()
        #: Buffer hooks of the consumer, by "is full".
        self.on_pressure: Callable[[TP, bool], None] = lambda _tp, _full: None
        #: Whether the group surely still counts this worker as a member.
        self.lease: Callable[[], bool] = lambda: False
        self._store = store

    async def start(self) -> None:
        await asyncio.gather(*(client.start() for client in self._clients()))

    async def stop(self) -> None:
        await self.close()
        await asyncio.gather(*(client.stop() for client in self._clients()))

    def _clients(self) -> tuple[Writer | LogReader, ...]:
        return self.changes_writer, self.requests_writer, self.intake_writer, self.reader

    def fail(self, error: BaseException) -> None:
        """The worker cannot go on: nothing behind this point may be acked."""
        if not self.failed.done():
            self.failed.set_result(error)

    def restore(self, partition: int, records: list[Any]) -> None:
        """Write fetched changelog records to the store."""
        store = self._store()
        known = store.offset(partition)
        fresh = [(r.key, r.value) for r in records if r.offset > known]
        if fresh:
            store.write(partition, fresh, records[-1].offset)
            metrics.RESTORED.labels(partition).inc(len(fresh))

    async def open(self, committed: dict[TP, int]) -> dict[TP, int]:
        """Open every assigned partition; returns where to start reading each source partition."""
        await self.close()
        changes = self.config.topic(topics.CHANGES.name)
        requests = self.config.topic(topics.REQUESTS.name)
        numbers = sorted(tp.partition for tp in committed if tp.topic == changes)
        states = await asyncio.gather(*map(self._restored, numbers))
        asked = {number: committed.get(TP(requests, number), 0) for number in numbers}
        self._changes, self._requests = await self.opener.lanes(states, asked)
        self.partitions = dict(zip(numbers, states, strict=True))
        starts = {TP(changes, number): state.applied for number, state in self.partitions.items()}
        starts |= {TP(requests, number): desk.progress.floor for number, desk in self._requests.desks.items()}
        self._changes.start()
        self._requests.start()
        metrics.OWNED.set(len(self.partitions))
        return {tp: offset for tp, offset in starts.items() if tp in committed}

    async def _restored(self, number: int) -> Partition:
        store = self._store()
        await self._check_restored(store, number)
        state = Partition(number, store)
        await self._check_log(state)
        return state

    async def _check_restored(self, store: BytesStore, number: int) -> None:
        topic = self.config.topic(topics.CHANGELOG.name)
        end = await self.reader.end(topic, number)
        if store.offset(number) + 1 != end:
            at = store.offset(number) + 1
            raise NotRestoredError(f"{topic}-{number}: the state is at {at}, the log ends at {end}")

    async def _check_log(self, state: Partition) -> None:
        topic = self.config.topic(topics.CHANGES.name)
        first, end = await self.reader.beginning(topic, state.number), await self.reader.end(topic, state.number)
        if state.applied > end:
            raise NotRestoredError(f"{topic}-{state.number} ends at {end}, but the state has weighed {state.applied}")
        if state.applied < first:
            if state.applied:
                raise NotRestoredError(f"{topic}-{state.number} begins at {first}, but the state needs {state.applied}")
            log.warning("%s-%d begins at %d: what was before is not in the state", topic, state.number, first)
            state.advance(first)

    async def close(self) -> None:
        """Finish the checkpoints in hand; what only waits is left to the next owner."""
        lanes = self._lanes()
        self.partitions = {}
        self._changes = self._requests = None
        metrics.OWNED.set(0)
        await asyncio.gather(*(lane.close() for lane in lanes))

    def _lanes(self) -> list[Lane]:
        return [lane for lane in (self._changes, self._requests) if lane is not None]

    def put_change(self, batch: Batch) -> None:
        """Queue a batch of `consent.changes`; one of a partition that is not open is left to its owner."""
        if self._changes is not None and batch.partition in self.partitions:
            self._changes.put(batch)

    def put_request(self, batch: Batch) -> None:
        """Queue a batch of `eligibility.requests`."""
        if self._requests is not None and batch.partition in self.partitions:
            self._requests.put(batch)

    async def ends_of_changes(self, partitions: Iterable[int]) -> Mapping[int, int]:
        """The ends of partitions of `consent.changes`, asked of the broker now; one that is away is waited for."""
        topic = self.config.topic(topics.CHANGES.name)
        while True:
            try:
                return await self.reader.ends(topic, partitions)
            except KafkaError as exc:
                log.warning("the broker does not say where %s ends: %r", topic, exc)
                await asyncio.sleep(RETRY_S)

    def pressure(self, topic: str) -> Callable[[int, bool], None]:
        """What a topic's lane calls when it is full of a partition and when it has room again."""
        name = self.config.topic(topic)
        return lambda partition, full: self.on_pressure(TP(name, partition), full)

    def unready(self, assigned: Iterable[int]) -> str | None:
        """Why this worker is not ready, or None: every assigned partition must be open and none stuck."""
        missing = sorted(set(assigned) - set(self.partitions))
        if missing:
            return f"partitions {missing} are not restored yet"
        for lane in self._lanes():
            if lane.busy_for() > STALE_CHECKPOINT_S:
                return f"{lane.name}: no checkpoint for {lane.busy_for():.0f} s with work waiting"
        return None
