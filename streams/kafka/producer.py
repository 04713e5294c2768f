"""Sending record batches to the brokers that lead their partitions, until each is taken or refused."""

from __future__ import annotations

import asyncio
import logging
import random
from collections import Counter
from collections.abc import Awaitable, Coroutine, Iterable
from itertools import chain
from typing import Any

from aiokafka.errors import (
    DuplicateSequenceNumber,
    KafkaConnectionError,
    KafkaError,
    OutOfOrderSequenceNumber,
    TopicAuthorizationFailedError,
    for_code,
)
from aiokafka.protocol.transaction import InitProducerIdRequest

from streams.kafka.cluster import Cluster
from streams.kafka.protocol import Produce, Produced
from streams.kafka.record_batch import Owner, RecordBatch
from streams.kafka.records import Place

log = logging.getLogger(__name__)

#: How long the broker may take to have a batch replicated before it says that it could not.
TIMEOUT_MS = 30_000
#: Pause before what did not get through is sent again.
PAUSE_S = 0.1
#: So many batches of a partition are sent before the first is answered. The broker knows the last five again.
MOST_UNDER_WAY = 3
#: Records are numbered with 31 bits, round and round.
_LAST_NUMBER = (1 << 31) - 1


class Numbers:
    """Numbers the records that are written under one producer id to each partition of a topic.

    The broker takes the records of an id and epoch from 0 on, in order, without a gap.
    """

    def __init__(self, owner: Owner | None = None) -> None:
        #: None: the producer's own, which may become another one.
        self._owner = owner
        self._next: dict[tuple[Place, Owner], int] = {}

    @property
    def is_own(self) -> bool:
        """Whether they are given under the producer's own id."""
        return self._owner is None

    def number(self, place: Place, own: Owner | None, batch: RecordBatch) -> None:
        """Give a batch the next numbers of its place; `own` is the producer's own id."""
        owner = self._owner or own
        if owner is None:
            raise ValueError("there is no producer id yet")
        first = self._next.get((place, owner), 0)
        self._next[place, owner] = (first + batch.record_count()) & _LAST_NUMBER
        batch.sign(owner, first)


class Sent:
    """A batch on its way: in the end it has the offset of its first record, or why the broker refused it."""

    __slots__ = ("batch", "error", "is_under_way", "numbers", "offset", "place", "told")

    def __init__(self, topic: str, partition: int, batch: RecordBatch, numbers: Numbers) -> None:
        self.place: Place = (topic, partition)
        self.batch = batch
        self.numbers = numbers
        self.is_under_way = False
        self.offset: int | None = None
        self.error: Exception | None = None
        #: Who is told when it is done; nobody after that.
        self.told: Delivery | None = None

    @property
    def is_done(self) -> bool:
        """Whether the broker has taken or refused it."""
        return self.offset is not None or self.error is not None

    def end(self, result: int | Exception) -> None:
        """The broker has taken it, at this offset, or refused it."""
        if isinstance(result, int):
            self.offset = result
        else:
            self.error = result
        # What knows each other in a ring waits for the garbage collector, which stops everything for a tenth of a
        # second when there are enough of them.
        told, self.told = self.told, None
        if told is not None:
            told.tell()


class Delivery:
    """Batches that are waited for together; `done` once each of them is."""

    __slots__ = ("_left", "done", "sents")

    def __init__(self, sents: list[Sent]) -> None:
        self.sents = sents
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._left = len(sents)
        for sent in sents:
            sent.told = self
        if not sents:
            self.done.set_result(None)

    def tell(self) -> None:
        """One of them is done."""
        self._left -= 1
        if not self._left and not self.done.done():
            self.done.set_result(None)


class Producer:
    """An idempotent producer of ready-made batches (acks=all).

    Batches of a partition go out in the order in which they came, each in a request of its own, with those of other
    partitions; the next one does not wait for the answer. That is so as long as all goes well. What did not get through
    is sent again as it was, with its numbers, by which the broker knows it if it did: once all that is under way is
    answered, one batch of a partition at a time, until nothing is left of that. A broker that is away is waited for.
    """

    def __init__(self, cluster: Cluster, purpose: str) -> None:
        self._cluster = cluster
        self._connections = cluster.connections(purpose)
        #: Batches that are not done, in the order in which they came.
        self._waiting: list[Sent] = []
        self._under_way: set[asyncio.Task[bool]] = set()
        self._mending: asyncio.Task[None] | None = None
        #: The producer's own id; None until it is needed, and when it is used up.
        self._own: Owner | None = None

    async def stop(self) -> None:
        """Give up what is under way, and close the connections."""
        tasks = {*self._under_way, *([self._mending] if self._mending else [])}
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        await self._connections.close()

    def forget_own_id(self) -> None:
        """Go on under another producer id.

        The broker takes nothing behind a number that it did not take, and the number cannot be given again: if the
        refused records are in the log all the same, others with their number would be taken for them.
        """
        self._own = None

    def hand_over(self, sents: list[Sent]) -> Delivery:
        """Send these behind all others of their partitions."""
        delivery = Delivery(sents)
        self._waiting += sents
        if self._mending is None:
            self._go_on()
        return delivery

    def _go_on(self) -> None:
        """Send what waits and may be sent now."""
        first: dict[Place, Sent] = {}
        count: Counter[Place] = Counter()
        for sent in self._waiting:
            if sent.is_under_way:
                count[sent.place] += 1
            elif count[sent.place] < MOST_UNDER_WAY:
                first.setdefault(sent.place, sent)
        by_leader = self._by_leader(first.values())
        if by_leader is None:
            self._mend()
            return
        for node, sents in by_leader.items():
            task = asyncio.create_task(self._send_to(node, sents), name="produce")
            self._under_way.add(task)
            task.add_done_callback(self._answered)
            for sent in sents:
                sent.is_under_way = True

    def _by_leader(self, sents: Iterable[Sent]) -> dict[int, list[Sent]] | None:
        """Batches by the broker that they go to, numbered; None if that is not known of one, or who writes it."""
        found: dict[int, list[Sent]] = {}
        complete = True
        for sent in sents:
            leader = self._cluster.leader(*sent.place)
            if leader is None:
                self._cluster.follow(sent.place[0])
                complete = False
            elif sent.batch.is_signed or self._own is not None or not sent.numbers.is_own:
                found.setdefault(leader.node, []).append(sent)
            else:
                complete = False
        if complete:
            for sent in chain.from_iterable(found.values()):
                if not sent.batch.is_signed:
                    sent.numbers.number(sent.place, self._own, sent.batch)
        return found if complete else None

    def _answered(self, task: asyncio.Task[bool]) -> None:
        self._under_way.discard(task)
        if task.cancelled():
            return
        self._waiting = [sent for sent in self._waiting if not sent.is_done]
        if self._mending is not None:
            return
        if not task.result():
            self._mend()
        elif not all(sent.is_under_way for sent in self._waiting):
            self._go_on()

    def _mend(self) -> None:
        if self._mending is None:
            self._mending = asyncio.create_task(self._send_again(), name="produce again")

    async def _send_again(self) -> None:
        """Send all that waits now, a batch of a partition at a time, until it is done."""
        if self._under_way:
            await asyncio.wait(set(self._under_way))
        waiting = list(self._waiting)
        await self._refresh()
        while not all(sent.is_done for sent in waiting):
            await self._send_first()
        self._mending = None
        for sent in self._waiting:
            sent.is_under_way = False
        if self._waiting:
            self._go_on()

    async def _refresh(self) -> None:
        """Ask who leads; whoever does not let us in, or is away, is asked again."""
        try:
            await self._cluster.refresh()
        except KafkaError as exc:
            log.warning("nobody says who leads: %r", exc)

    async def _send_first(self) -> None:
        first: dict[Place, Sent] = {}
        for sent in self._waiting:
            first.setdefault(sent.place, sent)
        passed = False
        try:
            if self._own is None and any(sent.numbers.is_own for sent in first.values()):
                self._own = await self._identify()
            by_leader = self._by_leader(first.values())
            if by_leader is not None:
                passed = all(await asyncio.gather(*(self._send_to(*one) for one in by_leader.items())))
        except Exception as exc:
            if _is_retriable(exc):
                log.debug("nothing can be written yet: %r", exc)
            else:
                self._refuse(first.values(), exc)
                passed = True
        self._waiting = [sent for sent in self._waiting if not sent.is_done]
        if not passed:
            await self._refresh()
            await asyncio.sleep(PAUSE_S)

    def _send_to(self, node: int, sents: list[Sent]) -> Coroutine[Any, Any, bool]:
        """Send batches to their leader; what it returns is to be awaited: False if some must be sent again."""
        request = Produce(((*sent.place, sent.batch.build()) for sent in sents), TIMEOUT_MS)
        leaders = {sent.place: leader for sent in sents if (leader := self._cluster.leader(*sent.place)) is not None}
        return self._outcome(sents, self._connections.send_to_leader(node, request, leaders))

    async def _outcome(self, sents: list[Sent], answer: Awaitable[list[Produced]]) -> bool:
        try:
            answers = await answer
        except Exception as exc:
            if _is_retriable(exc):
                log.debug("not written yet: %r", exc)
                return False
            self._refuse(sents, exc)
            return True
        by_place = {sent.place: sent for sent in sents}
        passed = len(answers) == len(by_place)
        for topic, partition, code, offset in answers:
            sent = by_place[topic, partition]
            error = for_code(code)
            if not code or error is DuplicateSequenceNumber:
                if self._cluster.not_written:
                    self._cluster.not_written.over(sent.place)
                sent.end(offset)
            elif error.retriable or (error is OutOfOrderSequenceNumber and not self._is_first(sent)):
                # That a partition has moved is no news, nor is what stood behind what did not get through.
                if not error.invalid_metadata and error is not OutOfOrderSequenceNumber:
                    self._cluster.not_written.happens(sent.place, error.__name__)
                passed = False
            else:
                self._refuse([sent], error(topic) if error is TopicAuthorizationFailedError else error())
        return passed

    def _is_first(self, sent: Sent) -> bool:
        """Whether no batch before it waits for the same partition: then nothing but itself is out of order."""
        return next(one for one in self._waiting if one.place == sent.place and not one.is_done) is sent

    @staticmethod
    def _refuse(sents: Iterable[Sent], error: Exception) -> None:
        for sent in sents:
            sent.end(error)

    async def _identify(self) -> Owner:
        nodes = self._cluster.nodes()
        if not nodes:
            raise KafkaConnectionError("no broker is known")
        (node,) = random.sample(nodes, 1)
        answer = await self._connections.send(node, InitProducerIdRequest(None, -1))
        if answer.error_code:
            raise for_code(answer.error_code)()
        return Owner(answer.producer_id, answer.producer_epoch)


def _is_retriable(exc: Exception) -> bool:
    return isinstance(exc, KafkaError) and bool(exc.retriable)
