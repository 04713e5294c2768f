"""One round of a million decisions: a fast load, and one fault after another until there are so many."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from functools import partial
from pathlib import Path

from aiokafka import AIOKafkaProducer
from aiokafka.structs import RecordMetadata

from tests.chaos.checker import Report
from tests.chaos.driver import Kafka, Round
from tests.chaos.faults import Deck, Fault, faults_on
from tests.chaos.history import BATCH_PATIENCE_S, History, Sent
from tests.chaos.scenario import Bulk, Endless
from tests.integration.harness import CHANGES, DECISIONS, PATIENCE_S, REQUESTS, Loop, Place, World, forget, wait_for
from tests.model.generate import Step

PARTITIONS = 8
WORKERS = 2
#: Changes that are acknowledged together, the requests made behind them, and how many of these a second: about a
#: quarter of what workers, broker and load do on two cores, so that what a fault held up is caught up with.
BATCH_CHANGES = 200
BATCH_REQUESTS = 2_000
REQUESTS_PER_S = 2_500
#: So many are handed to the producer at once.
CHUNK = 250
#: So much more is written here than in other rounds, in the same time.
FACTOR = 25


class BulkLoad:
    """Writes without an end, until it is stopped: a batch of changes, and many requests once that is acknowledged."""

    def __init__(self, world: World, seed: int, base_ms: int) -> None:
        partitions = world.config.partitions
        self.scenario = Bulk(seed, base_ms, partitions)
        self.written = 0
        self.sent: list[Sent] = []
        #: By the requests' home partition and id: see `History`.
        self.ends: list[dict[str, int]] = [{} for _ in range(partitions)]
        #: The end of each partition of the changes, as far as it was acknowledged.
        self.acknowledged = [0] * partitions
        self._world = world
        self._stopping = False
        self._refused: list[BaseException] = []
        self._running: Future[None] | None = None
        self._producer: AIOKafkaProducer | None = None

    def start(self) -> None:
        self._running = self._world.loop.start(self._write())

    def writes(self, count: int) -> None:
        """Wait until so many more are written."""
        wanted = self.written + count
        wait_for(f"{count} records to be written", lambda: self.written >= wanted or self._ended())

    async def forget(self, port: int) -> None:
        """Ask for the brokers until its producer knows of none at this port; on the loop."""
        assert self._producer is not None
        await forget(self._producer, port)

    def stop(self) -> None:
        """Write no more; returns when all is acknowledged."""
        self._stopping = True
        assert self._running is not None
        self._running.result(2 * PATIENCE_S)

    def _ended(self) -> bool:
        assert self._running is not None
        if self._running.done():
            self._running.result()
            raise AssertionError("the load has ended")
        return False

    async def _write(self) -> None:
        producer = AIOKafkaProducer(
            bootstrap_servers=self._world.config.bootstrap_servers,
            acks="all",
            enable_idempotence=True,
            linger_ms=10,
            max_batch_size=256 << 10,
            request_timeout_ms=self._world.answer_ms,
        )
        await producer.start()
        self._producer = producer
        # One that gave up while the broker is away could not say whether its record is in the log.
        producer._message_accumulator._batch_ttl = BATCH_PATIENCE_S
        try:
            while not self._stopping and not self._refused:
                changes, requests = self.scenario.batch(BATCH_CHANGES, BATCH_REQUESTS)
                pending = [await self._send(producer, step) for step in changes]
                await asyncio.gather(*pending)
                ends = list(self.acknowledged)
                for chunk in _chunks(requests):
                    due = time.monotonic() + CHUNK / REQUESTS_PER_S
                    for step in chunk:
                        self._note(step, ends)
                        await self._send(producer, step)
                    await asyncio.sleep(due - time.monotonic())
            await producer.flush()
            for error in self._refused:
                raise error
        finally:
            await producer.stop()

    async def _send(self, producer: AIOKafkaProducer, step: Step) -> asyncio.Future[RecordMetadata]:
        kind, key, value, partition = step
        topic = CHANGES if kind == "change" else REQUESTS
        number = self._world.home(key or b"") if partition is None else partition
        pending = await producer.send(self._world.config.topic(topic), value, key, number)
        pending.add_done_callback(partial(self._acknowledged, topic, key, value))
        self.written += 1
        return pending

    def _acknowledged(
        self, topic: str, key: bytes | None, value: bytes | None, done: asyncio.Future[RecordMetadata]
    ) -> None:
        if (error := done.exception()) is not None:
            self._refused.append(error)
            return
        place = Place(done.result().partition, done.result().offset)
        self.sent.append(Sent.of(topic, place, key, value))
        if topic == CHANGES:
            self.acknowledged[place.partition] = max(self.acknowledged[place.partition], place.offset + 1)

    def _note(self, step: Step, ends: Sequence[int]) -> None:
        _, key, value, _ = step
        home = self._world.home(key or b"")
        try:
            self.ends[home][json.loads(value or b"")["request_id"]] = ends[home]
        except (ValueError, TypeError, KeyError):
            return  # a bad request, which nobody could ask about


def _chunks(steps: list[Step]) -> Iterator[list[Step]]:
    return (steps[first : first + CHUNK] for first in range(0, len(steps), CHUNK))


class BulkRound(Round):
    """A round whose load goes on by itself; what a fault writes, it writes besides."""

    def __init__(self, kafka: Kafka, loop: Loop, folder: Path, seed: int) -> None:
        super().__init__(kafka, loop, folder, seed, PARTITIONS)
        self.scenario = Endless(seed, self.base_ms, PARTITIONS, "-aside")
        self.bulk = BulkLoad(self.world, seed, self.base_ms)

    def goes_on(self, low: int = 30, high: int = 120) -> None:
        self.bulk.writes(FACTOR * self.rng.randint(low, high))

    def comes_to_rest(self) -> None:
        """Not here: its load goes on by itself."""

    def acknowledged(self) -> dict[int, int]:
        return dict(enumerate(self.bulk.acknowledged))

    def settings_are_at(self, org_id: int, version: int) -> None:
        super().settings_are_at(org_id, version)
        self.bulk.scenario.versions[org_id] = version

    def leave(self, node: int) -> None:
        super().leave(node)
        self.world.loop.run(self.bulk.forget(self.cluster.nodes[node].port))

    def decisions(self) -> int:
        """How many there are by now; markers of transactions, one for each owner, count too."""
        return sum(self.world.ends(DECISIONS))

    def ends(self, number: int | None = None) -> dict[str, int]:
        some = self.bulk.ends if number is None else [self.bulk.ends[number]]
        return {name: end for ends in (*some, super().ends()) for name, end in ends.items()}

    def sent(self) -> list[Sent]:
        return [*self.bulk.sent, *super().sent()]

    def end(self, *, late: bool) -> History:
        self.bulk.stop()
        return super().end(late=late)


def run_bulk(round_: BulkRound, faults: Iterable[Fault], tell: Callable[[Fault, int], None]) -> Report:
    """One fault after the other, then the check; `tell` hears of each and of how much was decided meanwhile."""
    round_.start(WORKERS)
    round_.bulk.start()
    before = 0
    for fault in faults:
        fault.do(round_)
        now = round_.decisions()
        tell(fault, now - before)
        before = now
    return round_.finish(large=True)


def faults_up_to(round_: BulkRound, decisions: int) -> Iterator[Fault]:
    """At random, of all that can share a round, until there are so many decisions."""
    deck = Deck(round_.rng, (fault for fault in faults_on(round_.kafka) if not fault.alone and not fault.long))
    while round_.decisions() < decisions:
        yield deck.draw()
