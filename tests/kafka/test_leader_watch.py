"""Other replicas are asked whether they know a newer leader: one small request to each broker, once a second."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from aiokafka.errors import KafkaConnectionError

from streams.kafka.cluster import Leader
from streams.kafka.leader_watch import EVERY_S, LeaderWatch
from streams.kafka.protocol import Found
from streams.kafka.read_barrier import FENCED_LEADER_EPOCH, NOWHERE, OFFSET_OUT_OF_RANGE, ROUND_S, UNKNOWN_LEADER_EPOCH
from streams.kafka.records import Place
from tests.kafka.wire import Wire, asked, never, places
from tests.virtual import now, run, turns

TOPIC = "p-changes"


class World:
    """A watch over the partitions of three brokers."""

    def __init__(self, leaders: dict[int, Leader]) -> None:
        self.codes: dict[tuple[int, Place], int] = {}
        self.silent: set[int] = set()
        self.away: set[int] = set()
        self.wire = Wire(self._answer, {(TOPIC, number): leader for number, leader in leaders.items()})
        self.watched = places(TOPIC, leaders)
        cluster: Any = self.wire
        self.watch = LeaderWatch(cluster, lambda: self.watched)

    async def _answer(self, node: int, request: Any) -> Any:
        if node in self.silent:
            await never()
        if node in self.away:
            raise KafkaConnectionError("away")
        codes = {place: self.codes.get((node, place), OFFSET_OUT_OF_RANGE) for place in asked(request)}
        return {place: Found(code, -1, -1, [], b"") for place, code in codes.items()}


def in_a_world(leaders: dict[int, Leader]) -> Callable[[Callable[[World], Awaitable[None]]], None]:
    """Run a scenario at once."""
    return lambda scenario: run(lambda: scenario(World(leaders)))


THREE = {0: Leader(1, 5, (1, 2, 3)), 1: Leader(2, 6, (2, 3, 1)), 2: Leader(3, 7, (3, 1))}


def test_each_broker_is_asked_once_for_all_that_it_follows() -> None:
    @in_a_world(THREE)
    async def scenario(world: World) -> None:
        await world.watch.look()
        assert {sent.node: sent.asked for sent in world.wire.fetches()} == {
            1: {(TOPIC, 1): (6, NOWHERE, 1), (TOPIC, 2): (7, NOWHERE, 1)},
            2: {(TOPIC, 0): (5, NOWHERE, 1)},
            3: {(TOPIC, 0): (5, NOWHERE, 1), (TOPIC, 1): (6, NOWHERE, 1)},
        }
        assert len(world.wire.sent) == 3
        assert world.wire.doubts == []
        assert world.wire.timeouts == {"watch": ROUND_S}


def test_what_a_leader_does_not_answer_is_looked_at_though_it_is_not_read_any_more() -> None:
    """Partitions that are given up are written to until that is done."""

    @in_a_world(THREE)
    async def scenario(world: World) -> None:
        world.watched = []
        world.wire.hanging = {(TOPIC, 1)}
        world.codes[3, (TOPIC, 1)] = FENCED_LEADER_EPOCH
        await world.watch.look()
        assert {sent.node: sent.asked for sent in world.wire.fetches()} == {
            node: {(TOPIC, 1): (6, NOWHERE, 1)} for node in (1, 3)
        }
        assert len(world.wire.doubts) == 1


def test_where_there_is_one_replica_nobody_is_asked() -> None:
    @in_a_world({0: Leader(1, 5, (1,)), 1: Leader(2, 5)})
    async def scenario(world: World) -> None:
        await world.watch.look()
        assert (world.wire.sent, world.wire.doubts) == ([], [])


@pytest.mark.parametrize(
    ("code", "is_doubt"),
    [
        (0, False), (OFFSET_OUT_OF_RANGE, False), (UNKNOWN_LEADER_EPOCH, False), (6, False), (3, False), (-1, False),
        (FENCED_LEADER_EPOCH, True),
    ],
)  # fmt: skip
def test_a_replica_that_knows_a_newer_epoch_raises_a_doubt_and_nothing_else_does(code: int, is_doubt: bool) -> None:
    @in_a_world(THREE)
    async def scenario(world: World) -> None:
        world.codes[3, (TOPIC, 1)] = code
        await world.watch.look()
        assert bool(world.wire.doubts) == is_doubt


def test_a_partition_without_a_leader_raises_a_doubt_and_holds_up_no_other() -> None:
    @in_a_world(THREE)
    async def scenario(world: World) -> None:
        del world.wire.leaders[TOPIC, 0]
        await world.watch.look()
        assert len(world.wire.doubts) == 1
        assert {place for sent in world.wire.sent for place in sent.asked} == {(TOPIC, 1), (TOPIC, 2)}


def test_a_broker_that_does_not_answer_keeps_no_other_from_telling() -> None:
    @in_a_world(THREE)
    async def scenario(world: World) -> None:
        world.silent, world.away = {1}, {2}
        world.codes[3, (TOPIC, 0)] = FENCED_LEADER_EPOCH
        looking = asyncio.create_task(world.watch.look())
        await turns()
        assert len(world.wire.doubts) == 1
        looking.cancel()


def test_they_are_asked_once_a_second_for_what_is_watched_then_until_it_is_stopped() -> None:
    @in_a_world(THREE)
    async def scenario(world: World) -> None:
        world.watch.start()
        await asyncio.sleep(10.5 * EVERY_S)
        assert [round(sent.at) for sent in world.wire.sent if sent.node == 2] == list(range(1, 11))
        world.watched = places(TOPIC, [2])
        world.wire.forget()
        await asyncio.sleep(EVERY_S)
        assert [sent.asked for sent in world.wire.sent] == [{(TOPIC, 2): (7, NOWHERE, 1)}]
        world.watched = []
        world.wire.forget()
        await asyncio.sleep(5 * EVERY_S)
        await world.watch.stop()
        await asyncio.sleep(5 * EVERY_S)
        assert (world.wire.sent, world.wire.closed) == ([], 1)


def test_what_is_away_is_asked_again() -> None:
    @in_a_world(THREE)
    async def scenario(world: World) -> None:
        world.away = {1, 2, 3}
        world.watch.start()
        await asyncio.sleep(3.5 * EVERY_S)
        world.away = set()
        world.codes[2, (TOPIC, 0)] = FENCED_LEADER_EPOCH
        await asyncio.sleep(EVERY_S)
        assert [round(at) for at in world.wire.doubts] == [4]
        await world.watch.stop()


def test_stopping_what_was_not_started_is_no_error() -> None:
    @in_a_world(THREE)
    async def scenario(world: World) -> None:
        await world.watch.stop()
        assert now() == 0
