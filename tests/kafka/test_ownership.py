"""Becoming the owner of partitions, against answers that a coordinator may give."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import pytest
from aiokafka.errors import (
    ConcurrentTransactions,
    CoordinatorNotAvailableError,
    InvalidProducerEpoch,
    InvalidTxnState,
    KafkaConnectionError,
    KafkaError,
    NotCoordinatorError,
    NotEnoughReplicasError,
    RequestTimedOutError,
    TransactionalIdAuthorizationFailed,
    UnknownTopicOrPartitionError,
)
from aiokafka.protocol.transaction import AddPartitionsToTxnRequest, EndTxnRequest, InitProducerIdRequest

from streams.kafka import ownership
from streams.kafka.ownership import TRANSACTION_MS, FencedError, Fences
from streams.kafka.record_batch import Owner
from tests.virtual import now, run

ID, PLACES = "an id", [("audit", 0), ("audit", 1), ("decisions", 0)]
PRODUCER = 7


class Coordinator:
    """Gives one epoch after the other; says first what is in `said`, by kind of request: a code or an error."""

    def __init__(self) -> None:
        self.epoch = -1
        self.asked: list[type] = []
        self.said: dict[type, list[Any]] = {}
        self.forgotten = 0

    async def send(self, name: str, request: Any) -> Any:
        assert name == ID
        kind = type(request)
        self.asked.append(kind)
        told = self.said[kind].pop(0) if self.said.get(kind) else 0
        if isinstance(told, KafkaError):
            raise told
        if kind is InitProducerIdRequest:
            self.epoch += not told
            return SimpleNamespace(error_code=told, producer_id=PRODUCER, producer_epoch=self.epoch)
        if kind is AddPartitionsToTxnRequest:
            return SimpleNamespace(errors=[("audit", [(0, 0), (1, told)]), ("decisions", [(0, 0)])])
        return SimpleNamespace(error_code=told)

    def forget(self, _: str) -> None:
        self.forgotten += 1


class World:
    """Who takes partitions, and the coordinator."""

    def __init__(self) -> None:
        self.coordinator = Coordinator()
        cluster: Any = SimpleNamespace(connections=lambda *_: None)
        self.fences = Fences(cluster)
        self.fences._coordinators = self.coordinator  # type: ignore[assignment]

    async def take(self) -> Owner:
        return await self.fences.take(ID, PLACES)


def in_a_world(scenario: Callable[[World], Awaitable[None]]) -> None:
    async def whole() -> None:
        clock = SimpleNamespace(monotonic=asyncio.get_running_loop().time)
        with patch.object(ownership, "time", clock):
            await scenario(World())

    run(whole)


IN_ORDER = [InitProducerIdRequest, AddPartitionsToTxnRequest, EndTxnRequest, InitProducerIdRequest]


def test_an_owner_has_a_later_epoch_than_its_markers() -> None:
    @in_a_world
    async def scenario(world: World) -> None:
        assert await world.take() == Owner(PRODUCER, 1)
        assert world.coordinator.asked == IN_ORDER
        assert await world.take() == Owner(PRODUCER, 3)


@pytest.mark.parametrize("kind", [InitProducerIdRequest, AddPartitionsToTxnRequest, EndTxnRequest])
@pytest.mark.parametrize(
    "passing",
    [
        KafkaConnectionError("away"), RequestTimedOutError(), CoordinatorNotAvailableError(ID),
        ConcurrentTransactions.errno, NotCoordinatorError.errno, CoordinatorNotAvailableError.errno,
        RequestTimedOutError.errno, NotEnoughReplicasError.errno, UnknownTopicOrPartitionError.errno,
    ],
    ids=str,
)  # fmt: skip
def test_what_passes_is_asked_again_until_it_has(kind: type, passing: Any) -> None:
    @in_a_world
    async def scenario(world: World) -> None:
        world.coordinator.said = {kind: [passing] * 20}
        assert await world.take() == Owner(PRODUCER, 1)
        assert world.coordinator.asked.count(kind) == IN_ORDER.count(kind) + 20


@pytest.mark.parametrize("kind", [AddPartitionsToTxnRequest, EndTxnRequest])
def test_whoever_is_overtaken_is_told(kind: type) -> None:
    @in_a_world
    async def scenario(world: World) -> None:
        world.coordinator.said = {kind: [InvalidProducerEpoch.errno]}
        with pytest.raises(FencedError, match="another worker owns this partition now"):
            await world.take()
        assert now() < 1


def test_a_transaction_that_its_coordinator_timed_out_while_a_broker_was_away_is_begun_anew() -> None:
    """The coordinator ends it under an epoch of its own: that looks as if another worker had come."""

    @in_a_world
    async def scenario(world: World) -> None:
        away = [KafkaConnectionError("away")] * int(TRANSACTION_MS / 1000 / ownership.RETRY_S + 1)
        world.coordinator.said = {EndTxnRequest: [*away, InvalidProducerEpoch.errno]}
        assert await world.take() == Owner(PRODUCER, 2)
        assert now() > TRANSACTION_MS / 1000


def test_a_transaction_that_a_new_coordinator_does_not_know_is_begun_anew() -> None:
    @in_a_world
    async def scenario(world: World) -> None:
        world.coordinator.said = {EndTxnRequest: [InvalidTxnState.errno]}
        assert await world.take() == Owner(PRODUCER, 2)


@pytest.mark.parametrize("told", [TransactionalIdAuthorizationFailed(ID), TransactionalIdAuthorizationFailed.errno])
def test_a_right_that_is_missing_is_told(told: Any) -> None:
    @in_a_world
    async def scenario(world: World) -> None:
        world.coordinator.said = {InitProducerIdRequest: [told]}
        with pytest.raises(TransactionalIdAuthorizationFailed):
            await world.take()


def test_ids_are_renewed_as_long_as_they_are_owned() -> None:
    @in_a_world
    async def scenario(world: World) -> None:
        await world.fences.renew()
        assert world.coordinator.asked == []
        await world.take()
        world.coordinator.asked.clear()
        await world.fences.renew()
        assert world.coordinator.asked == [AddPartitionsToTxnRequest, EndTxnRequest]
        world.coordinator.said = {AddPartitionsToTxnRequest: [InvalidProducerEpoch.errno]}
        with pytest.raises(FencedError):
            await world.fences.renew()
        world.coordinator.asked.clear()
        world.fences.forget()
        await world.fences.renew()
        assert world.coordinator.asked == []
