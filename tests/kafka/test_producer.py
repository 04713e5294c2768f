"""What is sent when, in which order, and again: the producer, against answers that a broker may give."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import Awaitable, Callable, Mapping
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.errors import (
    InvalidProducerEpoch,
    KafkaConnectionError,
    KafkaError,
    MessageSizeTooLargeError,
    NotLeaderForPartitionError,
    OutOfOrderSequenceNumber,
    SaslAuthenticationFailed,
    TopicAuthorizationFailedError,
)
from aiokafka.protocol.transaction import InitProducerIdRequest

from streams.kafka import producer as producing
from streams.kafka.cluster import Leader
from streams.kafka.producer import MOST_UNDER_WAY, Delivery, Numbers, Producer, Sent
from streams.kafka.protocol import Produced
from streams.kafka.record_batch import Owner, RecordBatch
from streams.kafka.records import Place
from streams.logs import OngoingBy
from tests.engine.waiting import until

OWNER = Owner(7, 3)
LEADER, OTHER, EPOCH = 1, 2, 5


class Broker:
    """A cluster of one broker, which notes what it is asked to write, and answers when and as it is told to."""

    def __init__(self) -> None:
        #: Requests that are not answered: what they write, as (partition, number), and who waits for the answer.
        self.asked: list[tuple[list[tuple[int, int]], asyncio.Future[Any]]] = []
        self.ids = 0
        self.updates = 0
        #: What asking who leads comes to, as often as there is something.
        self.refusals: list[KafkaError] = []
        #: Instead of LEADER in EPOCH.
        self.leaders: dict[int, Leader | None] = {}
        #: Which broker was sent each request, and who led its partitions.
        self.sent_to: list[tuple[int, dict[Place, Leader]]] = []
        self.followed: set[str] = set()
        self.known = [LEADER]
        self.is_closed = False
        self.not_written = OngoingBy(logging.getLogger(__name__), "%s-%d is not written to yet")

    def connections(self, _: str) -> Broker:
        return self

    def leader(self, _: str, partition: int) -> Leader | None:
        return self.leaders.get(partition, Leader(LEADER, EPOCH))

    async def send(self, node: int, request: Any) -> Any:
        assert isinstance(request, InitProducerIdRequest)
        assert node in self.known
        self.ids += 1
        return SimpleNamespace(error_code=0, producer_id=100 + self.ids, producer_epoch=0)

    async def send_to_leader(self, node: int, request: Any, leaders: Mapping[Place, Leader]) -> Any:
        self.sent_to.append((node, dict(leaders)))
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        raw = [part for parts in request._topics.values() for part in parts]
        # The partition stands in the part before its batch, the first record's number at byte 53 of the batch.
        number = [int.from_bytes(batch[53:57], "big") for batch in raw[1::2]]
        self.asked.append(([(int.from_bytes(raw[2 * at][:4], "big"), n) for at, n in enumerate(number)], answer))
        return await answer

    def answer(self, *codes: type[KafkaError] | None) -> list[tuple[int, int]]:
        """Answer the oldest request, each batch with an error or None; one answer is for every batch."""
        written, answer = self.asked.pop(0)
        each = codes * len(written) if len(codes) == 1 else codes
        answer.set_result(
            [
                Produced("t", partition, 0 if code is None else code.errno, -1 if code else 1_000 + number)
                for (partition, number), code in zip(written, each, strict=True)
            ]
        )
        return written

    def nodes(self) -> list[int]:
        return self.known

    def follow(self, topic: str) -> None:
        self.followed.add(topic)

    async def refresh(self) -> bool:
        self.updates += 1
        await asyncio.sleep(0)
        if self.refusals:
            raise self.refusals.pop()
        return True

    async def close(self) -> None:
        self.is_closed = True


class World:
    """A producer, its broker, and what it writes to partitions of one topic as their owner, or under its own id."""

    def __init__(self) -> None:
        self.broker = Broker()
        self.producer = Producer(self.broker, "test")  # type: ignore[arg-type]
        self.numbers = Numbers(OWNER)
        self.own = Numbers()

    def send(self, *partitions: int, numbers: Numbers | None = None) -> Delivery:
        return self.producer.hand_over([self.sent(partition, numbers or self.numbers) for partition in partitions])

    @staticmethod
    def sent(partition: int, numbers: Numbers) -> Sent:
        batch = RecordBatch(1_000)
        batch.add(b"k", b"v")
        return Sent("t", partition, batch, numbers)

    async def requests(self, count: int) -> None:
        await until(lambda: len(self.broker.asked) == count)


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(producing, "PAUSE_S", 0)


def in_a_world(scenario: Callable[[World], Awaitable[None]]) -> None:
    async def run() -> None:
        await asyncio.wait_for(scenario(World()), 20)

    asyncio.run(run())


def test_batches_of_several_partitions_travel_together_and_are_told_when_all_are_written() -> None:
    async def scenario(world: World) -> None:
        delivery = world.send(0, 1, 2)
        await world.requests(1)
        assert not delivery.done.done()
        assert world.broker.answer(None) == [(0, 0), (1, 0), (2, 0)]
        await delivery.done
        assert [sent.offset for sent in delivery.sents] == [1_000] * 3
        assert world.send().done.done(), "nothing to write is written"

    in_a_world(scenario)


def test_what_is_written_or_refused_is_gone_without_the_garbage_collector() -> None:
    async def scenario(world: World) -> None:
        for error in (None, MessageSizeTooLargeError):
            delivery = world.send(0, 1)
            await world.requests(1)
            world.broker.answer(error)
            await delivery.done
            del delivery
            await until(lambda: not world.producer._waiting)
        assert not [one for one in gc.get_objects() if isinstance(one, Sent | Delivery)]

    gc.collect()
    gc.disable()
    try:
        in_a_world(scenario)
    finally:
        gc.enable()


def test_the_next_batches_do_not_wait_for_the_answer_but_for_one_of_many() -> None:
    async def scenario(world: World) -> None:
        deliveries = [world.send(0) for _ in range(MOST_UNDER_WAY + 2)]
        await world.requests(MOST_UNDER_WAY)
        for number in range(MOST_UNDER_WAY + 2):
            await until(lambda: bool(world.broker.asked))
            assert world.broker.answer(None) == [(0, number)]
        for delivery in deliveries:
            await delivery.done
        assert [one.sents[0].offset for one in deliveries] == [1_000 + n for n in range(MOST_UNDER_WAY + 2)]

    in_a_world(scenario)


@pytest.mark.parametrize("fault", [NotLeaderForPartitionError, KafkaConnectionError])
def test_what_did_not_get_through_is_sent_again_in_order_with_its_numbers(fault: type[KafkaError]) -> None:
    async def scenario(world: World) -> None:
        first, second, third = world.send(0), world.send(0, 1), world.send(0)
        await world.requests(3)
        if fault is KafkaConnectionError:
            for _, answer in world.broker.asked:
                answer.set_exception(KafkaConnectionError())
            world.broker.asked.clear()
        else:
            # What follows a batch that was not taken is out of order, and no fault of its own.
            world.broker.answer(fault)
            world.broker.answer(OutOfOrderSequenceNumber, None)
            world.broker.answer(OutOfOrderSequenceNumber)
        late = world.send(0)
        sent: list[tuple[int, int]] = []
        while not late.done.done():
            await until(lambda: bool(world.broker.asked) or late.done.done())
            if world.broker.asked:
                assert len(world.broker.asked) == 1 or sent[-1] == (0, 2), "one at a time until all is mended"
                sent += world.broker.answer(None)
        assert [one for one in sent if one[0] == 0] == [(0, 0), (0, 1), (0, 2), (0, 3)]
        assert sent.count((1, 0)) == (1 if fault is KafkaConnectionError else 0)
        assert all(sent.offset is not None for one in (first, second, third, late) for sent in one.sents)
        assert world.broker.updates >= 1

    in_a_world(scenario)


@pytest.mark.parametrize(
    "fault",
    [MessageSizeTooLargeError, InvalidProducerEpoch, OutOfOrderSequenceNumber, TopicAuthorizationFailedError],
)
def test_what_the_broker_refuses_for_good_is_told(fault: type[KafkaError]) -> None:
    async def scenario(world: World) -> None:
        delivery = world.send(0, 1)
        await world.requests(1)
        world.broker.answer(fault, None)
        await delivery.done
        refused, written = delivery.sents
        assert isinstance(refused.error, fault)
        assert (refused.offset, written.offset, written.error) == (None, 1_000, None)

    in_a_world(scenario)


def test_an_answer_that_nobody_expects_is_told_and_not_waited_for() -> None:
    async def scenario(world: World) -> None:
        delivery = world.send(0)
        await world.requests(1)
        world.broker.asked.pop()[1].set_exception(ValueError("no answer of this version"))
        await delivery.done
        assert isinstance(delivery.sents[0].error, ValueError)

    in_a_world(scenario)


def test_a_partition_without_a_leader_is_waited_for_and_holds_up_no_other_for_good() -> None:
    async def scenario(world: World) -> None:
        world.broker.leaders[0] = None
        waiting = world.send(0)
        await until(lambda: world.broker.updates > 3)
        assert not world.broker.asked
        assert world.broker.followed == {"t"}, "the cluster may not have been asked for this topic"
        world.broker.leaders.clear()
        await world.requests(1)
        world.broker.answer(None)
        await waiting.done
        assert waiting.sents[0].offset == 1_000

    in_a_world(scenario)


def test_what_a_replaced_leader_does_not_take_is_sent_to_the_next_one_with_its_numbers() -> None:
    """Each request is given up once one of the leaders that it is about is replaced: it says who they are."""

    async def scenario(world: World) -> None:
        waiting = world.send(0, 1)
        await world.requests(1)
        world.broker.leaders[1] = Leader(OTHER, EPOCH + 1)
        world.broker.asked.pop()[1].set_exception(KafkaConnectionError("replaced"))
        await world.requests(2)
        assert sorted(world.broker.answer(None) + world.broker.answer(None)) == [(0, 0), (1, 0)]
        await waiting.done
        old = Leader(LEADER, EPOCH)
        assert world.broker.sent_to[0] == (LEADER, {("t", 0): old, ("t", 1): old})
        assert sorted(world.broker.sent_to[1:]) == [
            (LEADER, {("t", 0): old}), (OTHER, {("t", 1): Leader(OTHER, EPOCH + 1)})
        ]  # fmt: skip

    in_a_world(scenario)


def test_brokers_that_let_nobody_in_for_a_moment_are_asked_again_who_leads() -> None:
    """One that has just started may not know the users yet."""

    async def scenario(world: World) -> None:
        waiting = world.send(0)
        await world.requests(1)
        world.broker.refusals = [SaslAuthenticationFailed("not yet")] * 2
        world.broker.asked.pop()[1].set_exception(KafkaConnectionError("away"))
        await world.requests(1)
        world.broker.answer(NotLeaderForPartitionError)
        await world.requests(1)
        world.broker.answer(None)
        await waiting.done
        assert world.broker.refusals == []

    in_a_world(scenario)


def test_while_no_broker_is_known_the_producer_has_no_id_and_writes_nothing_of_its_own() -> None:
    async def scenario(world: World) -> None:
        world.broker.known = []
        waiting = world.send(0, numbers=world.own)
        await until(lambda: world.broker.updates > 3)
        assert (world.broker.ids, world.broker.asked) == (0, [])
        world.broker.known = [OTHER]
        await world.requests(1)
        world.broker.answer(None)
        await waiting.done

    in_a_world(scenario)


def test_stopping_gives_up_what_is_under_way_and_what_is_sent_again() -> None:
    async def scenario(world: World) -> None:
        sent, waiting = world.send(0), world.send(1, numbers=world.own)
        await world.requests(1)
        await asyncio.wait_for(world.producer.stop(), 5)
        assert world.broker.is_closed
        assert not sent.done.done()
        assert not waiting.done.done()

    in_a_world(scenario)


def test_the_producers_own_id_is_asked_for_once_and_anew_when_it_is_used_up() -> None:
    async def scenario(world: World) -> None:
        for ids, numbers in enumerate(([0, 1], [0, 1]), start=1):
            for number in numbers:
                delivery = world.send(0, numbers=world.own)
                await world.requests(1)
                assert world.broker.answer(None) == [(0, number)]
                await delivery.done
            assert world.broker.ids == ids
            world.producer.forget_own_id()

    in_a_world(scenario)


def test_who_gives_up_waiting_takes_nothing_back() -> None:
    async def scenario(world: World) -> None:
        delivery = world.send(0)
        await world.requests(1)
        delivery.done.cancel()
        world.broker.answer(None)
        await until(lambda: delivery.sents[0].offset == 1_000)
        after = world.send(0)
        await world.requests(1)
        assert world.broker.answer(None) == [(0, 1)]
        await after.done

    in_a_world(scenario)
