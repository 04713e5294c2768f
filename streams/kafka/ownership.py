"""Fencing: from the moment a worker opens a partition, the broker takes nothing more of any earlier owner.

Every write of an owner carries a producer id and an epoch, and a partition of a topic refuses a lower epoch than the
last that it has seen. So a new owner asks for the next epoch of the partition's transactional id, and shows it to all
that it will write to: an empty transaction, aborted at once, leaves a marker with the epoch there. Nobody reads it. No
write of the owner is part of a transaction, so fencing costs nothing afterwards.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from typing import Any

from aiokafka.errors import (
    ConcurrentTransactions,
    CoordinatorLoadInProgressError,
    CoordinatorNotAvailableError,
    InvalidProducerEpoch,
    InvalidTxnState,
    KafkaError,
    NotCoordinatorError,
    NotEnoughReplicasAfterAppendError,
    NotEnoughReplicasError,
    ProducerFenced,
    RequestTimedOutError,
    TransactionalIdAuthorizationFailed,
    UnknownTopicOrPartitionError,
    for_code,
)
from aiokafka.protocol.transaction import AddPartitionsToTxnRequest, EndTxnRequest, InitProducerIdRequest

from streams.kafka.cluster import NEWS_S, Cluster
from streams.kafka.coordinators import Coordinators
from streams.kafka.producer import Numbers, Producer, Sent
from streams.kafka.record_batch import Owner, RecordBatch
from streams.kafka.records import Place
from streams.logs import Ongoing

log = logging.getLogger(__name__)

#: A transaction that its beginner left open holds the next owner up for so long.
TRANSACTION_MS = 10_000
#: Pause before the coordinator is asked again: it is busy with the markers, for some milliseconds.
BUSY_S = 0.005
#: Pause before it is looked for again.
RETRY_S = 0.2

_BUSY = (ConcurrentTransactions, CoordinatorLoadInProgressError)
#: What passes by itself, or when the coordinator is found anew. A partition's leader may be unknown for a moment, and
#: what is to be replicated may find too few replicas.
_PASSING = (
    *_BUSY, NotCoordinatorError, CoordinatorNotAvailableError, UnknownTopicOrPartitionError, RequestTimedOutError,
    NotEnoughReplicasError, NotEnoughReplicasAfterAppendError,
)  # fmt: skip
#: What `check` tries to write: no customer's and no org's key begins with a zero byte.
CHECK_KEY = b"\0ownership"
_FENCED = (InvalidProducerEpoch, ProducerFenced)


class FencedError(Exception):
    """Another worker owns the partition now; what this one wanted to write was refused."""


class OwnershipError(Exception):
    """The broker takes what an earlier owner of a partition writes; the message is one clear line."""

    def __init__(self, topic: str) -> None:
        super().__init__(
            f"{topic}: this Kafka takes records of a producer whose epoch is over; two workers could write one "
            "partition's decisions. Apache Kafka 2.8 or newer is needed"
        )


class Fences:
    """Asks the broker for ownership, by transactional ids that nobody else uses."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._coordinators = Coordinators(cluster, "ownership")
        self._away = Ongoing(log, "partitions cannot be taken over yet", after_s=NEWS_S)
        self._places: dict[str, tuple[Owner, list[Place]]] = {}

    async def stop(self) -> None:
        """Close the connections."""
        await self._coordinators.stop()

    async def take(self, transactional_id: str, places: list[Place]) -> Owner:
        """Become the owner of these partitions of topics: when this returns, no earlier owner can write there.

        Waits for brokers that are away. Raises FencedError if another worker takes it at the same time, and KafkaError
        for what asking again does not mend.
        """
        while True:
            began = time.monotonic()
            try:
                first = await self._begin(transactional_id)
                await self._mark(transactional_id, first, places)
                # Begun anew only when all markers are written: that is what this waits for.
                owner = await self._begin(transactional_id)
            except FencedError:
                # A transaction that took too long is ended by its coordinator, under a higher epoch of its own: a
                # broker that was away has held us up, nobody has overtaken us.
                if time.monotonic() - began < TRANSACTION_MS / 1000:
                    raise
                log.warning("%s: its transaction timed out, it is begun anew", transactional_id)
            except InvalidTxnState:
                log.warning("%s: its coordinator has lost its transaction, it is begun anew", transactional_id)
            else:
                self._places[transactional_id] = (owner, places)
                return owner

    async def check(self, transactional_id: str, place: Place) -> None:
        """Make sure that a write under an older epoch is refused. Raises OwnershipError if it is not.

        What is written for it is a tombstone of a key that nobody uses.
        """
        first = await self.take(transactional_id, [place])
        # The marker must have a later epoch than a write that is possible: that of the first owner may be 0.
        await self.take(transactional_id, [place])
        producer = Producer(self._cluster, "ownership-check")
        try:
            batch = RecordBatch(1_000)
            batch.add(CHECK_KEY, None)
            sent = Sent(*place, batch, Numbers(first))
            await producer.hand_over([sent]).done
        finally:
            await producer.stop()
            self._places.pop(transactional_id, None)
        if not isinstance(sent.error, _FENCED):
            raise OwnershipError(place[0])

    async def renew(self) -> None:
        """Keep the broker from forgetting the ids, which it does after a week. Raises FencedError."""
        for transactional_id, (owner, places) in list(self._places.items()):
            await self._mark(transactional_id, owner, places)

    def forget(self) -> None:
        """Nothing is owned any more."""
        self._places.clear()

    async def _begin(self, transactional_id: str) -> Owner:
        answer = await self._asked(
            transactional_id,
            lambda: InitProducerIdRequest(transactional_id, TRANSACTION_MS),
            lambda found: [found.error_code],
        )
        return Owner(answer.producer_id, answer.producer_epoch)

    async def _mark(self, transactional_id: str, owner: Owner, places: list[Place]) -> None:
        """Leave a marker with the owner's epoch in each place."""
        by_topic: dict[str, list[int]] = {}
        for topic, partition in places:
            by_topic.setdefault(topic, []).append(partition)
        await self._asked(
            transactional_id,
            lambda: AddPartitionsToTxnRequest(transactional_id, *owner, list(by_topic.items())),
            lambda found: [code for _, partitions in found.errors for _, code in partitions],
        )
        await self._asked(
            transactional_id,
            lambda: EndTxnRequest(transactional_id, *owner, False),
            lambda found: [found.error_code],
        )

    async def _asked(
        self, transactional_id: str, request: Callable[[], Any], codes_of: Callable[[Any], Iterable[int]]
    ) -> Any:
        """The coordinator's answer. Raises FencedError or another KafkaError that asking again does not mend."""
        while True:
            try:
                answer = await self._coordinators.send(transactional_id, request())
            except TransactionalIdAuthorizationFailed:
                raise
            except KafkaError as exc:
                self._away.happens(exc)
                await asyncio.sleep(RETRY_S)
                continue
            errors = {for_code(code) for code in codes_of(answer) if code}
            if not errors:
                self._away.over()
                return answer
            if any(issubclass(error, _FENCED) for error in errors):
                raise FencedError(f"{transactional_id}: another worker owns this partition now")
            refused = [error for error in errors if not issubclass(error, _PASSING)]
            if refused:
                raise refused[0](transactional_id)
            if any(issubclass(error, _BUSY) for error in errors):
                await asyncio.sleep(BUSY_S)
            else:
                self._coordinators.forget(transactional_id)
                await asyncio.sleep(RETRY_S)
