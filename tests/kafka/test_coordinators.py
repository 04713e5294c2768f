"""Who coordinates what is asked of whoever may know, and again when it does not answer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.errors import (
    CoordinatorNotAvailableError,
    KafkaConnectionError,
    KafkaError,
    NotCoordinatorError,
    RequestTimedOutError,
)
from aiokafka.protocol.coordination import FindCoordinatorRequest

from streams.kafka.cluster import ANSWER_S
from streams.kafka.coordinators import GROUP, REPLICATED_S, TRANSACTION, Coordinators
from tests.kafka.wire import Wire
from tests.virtual import now, run

NAME = "an id"


class World:
    """Three brokers, one of which coordinates; each names whom it takes for that."""

    def __init__(self, kind: int = TRANSACTION) -> None:
        self.named = dict.fromkeys((1, 2, 3), 2)
        self.errors: dict[int, KafkaError] = {}
        #: Who does not say who coordinates, and how; None: it hangs.
        self.silent: dict[int, KafkaError | None] = {}
        self.code = 0
        self.wire = Wire(self._answer)
        cluster: Any = self.wire
        self.coordinators = Coordinators(cluster, "test", kind)

    async def _answer(self, node: int, request: Any) -> Any:
        if node in self.errors:
            raise self.errors[node]
        if isinstance(request, FindCoordinatorRequest):
            if node in self.silent:
                await self._silence(self.silent[node])
            return SimpleNamespace(error_code=self.code, coordinator_id=self.named[node])
        return f"from {node}: {request}"

    @staticmethod
    async def _silence(error: KafkaError | None) -> None:
        if error is not None:
            raise error
        await asyncio.sleep(1_000)

    def asked(self) -> list[tuple[int, Any]]:
        """Whom what was sent since the last time, without the questions who coordinates."""
        sent = [(one.node, one.request) for one in self.wire.sent]
        self.wire.forget()
        return [one for one in sent if not isinstance(one[1], FindCoordinatorRequest)]

    def finders(self) -> list[int]:
        """Who was asked who coordinates."""
        return [one.node for one in self.wire.sent if isinstance(one.request, FindCoordinatorRequest)]


def in_a_world(scenario: Callable[[World], Awaitable[None]]) -> None:
    run(lambda: scenario(World()))


@pytest.mark.parametrize("kind", [GROUP, TRANSACTION])
def test_a_coordinator_is_looked_for_once_and_asked_from_then_on(kind: int) -> None:
    async def scenario() -> None:
        world = World(kind)
        for request in ("first", "second"):
            assert await world.coordinators.send(NAME, request) == f"from 2: {request}"
        assert sorted(world.finders()) == [1, 2, 3]
        questions = [one.request for one in world.wire.sent if isinstance(one.request, FindCoordinatorRequest)]
        assert {(question._coordinator_key, question._coordinator_type) for question in questions} == {(NAME, kind)}
        assert world.wire.timeouts == {"test": REPLICATED_S, "test-finding": ANSWER_S}
        await world.coordinators.stop()
        assert world.wire.closed == 2

    run(scenario)


def test_each_id_has_a_coordinator_of_its_own() -> None:
    @in_a_world
    async def scenario(world: World) -> None:
        await world.coordinators.send("one", "a request")
        world.named = dict.fromkeys((1, 2, 3), 3)
        await world.coordinators.send("two", "a request")
        await world.coordinators.send("one", "a request")
        assert world.asked() == [(2, "a request"), (3, "a request"), (2, "a request")]


def test_what_is_elsewhere_now_is_looked_for_again() -> None:
    @in_a_world
    async def scenario(world: World) -> None:
        await world.coordinators.send(NAME, "a request")
        world.named = dict.fromkeys((1, 2, 3), 3)
        world.coordinators.forget(NAME)
        world.coordinators.forget("nobody knows it")
        assert await world.coordinators.send(NAME, "again") == "from 3: again"


#: Whom each broker names, and who it is then.
VOTES = {
    "all agree": ({1: 2, 2: 2, 3: 2}, 2),
    "one that is cut off names itself": ({1: 3, 2: 2, 3: 3}, 3),
    "one that is cut off names itself, and the new one itself too": ({1: 1, 2: 2, 3: 1}, 1),
    "one that is cut off names another one that is gone": ({1: 3, 2: 1, 3: 3}, 3),
    "one does not answer": ({1: 2, 2: 2, 3: None}, 2),
    "the one that they name does not answer": ({1: 2, 2: None, 3: 2}, 2),
    "only one answers": ({1: 2, 2: None, 3: None}, 2),
    "only one answers, and names itself": ({1: 1, 2: None, 3: None}, 1),
}


@pytest.mark.parametrize(("named", "coordinator"), VOTES.values(), ids=VOTES)
@pytest.mark.parametrize("silence", [RequestTimedOutError(), KafkaConnectionError("away"), None], ids=str)
def test_the_coordinator_is_whom_most_name(
    named: dict[int, int | None], coordinator: int, silence: KafkaError | None
) -> None:
    """`silence`: how brokers do not answer that name nobody; None: they hang."""

    @in_a_world
    async def scenario(world: World) -> None:
        world.named = {node: one or 0 for node, one in named.items()}
        for node, one in named.items():
            if one is None:
                world.silent[node] = silence
        began = now()
        assert await world.coordinators.find(NAME) == coordinator
        answering = sum(0.5 if one == node else 1.0 for node, one in named.items() if one == coordinator)
        assert now() - began <= (0.1 if answering >= 1.5 or silence else ANSWER_S + 0.1)


def test_whoever_does_not_answer_is_looked_for_again() -> None:
    @in_a_world
    async def scenario(world: World) -> None:
        await world.coordinators.send(NAME, "before")
        world.errors[2] = KafkaConnectionError("away")
        with pytest.raises(KafkaConnectionError):
            await world.coordinators.send(NAME, "a request")
        world.named = {1: 3, 2: 2, 3: 3}
        assert await world.coordinators.send(NAME, "again") == "from 3: again"


def test_the_only_broker_is_asked_again_though_it_did_not_answer() -> None:
    @in_a_world
    async def scenario(world: World) -> None:
        world.wire.known = [2]
        world.errors[2] = RequestTimedOutError()
        for _ in range(2):
            with pytest.raises(RequestTimedOutError):
                await world.coordinators.send(NAME, "a request")
        world.errors.clear()
        assert await world.coordinators.send(NAME, "again") == "from 2: again"


def test_while_nobody_coordinates_that_is_told_and_looked_for_the_next_time() -> None:
    @in_a_world
    async def scenario(world: World) -> None:
        world.code = CoordinatorNotAvailableError.errno
        for _ in range(2):
            with pytest.raises(CoordinatorNotAvailableError, match=NAME):
                await world.coordinators.send(NAME, "a request")
        assert sorted(world.finders()) == [1, 1, 2, 2, 3, 3]
        world.code = 0
        assert await world.coordinators.send(NAME, "again") == "from 2: again"


def test_an_answer_with_an_error_is_an_answer() -> None:
    """What it means is the caller's business, and whether it is to be looked for again."""

    async def scenario() -> None:
        world = World()

        async def refuse(node: int, request: Any) -> Any:
            if isinstance(request, FindCoordinatorRequest):
                return SimpleNamespace(error_code=0, coordinator_id=2)
            return SimpleNamespace(error_code=NotCoordinatorError.errno)

        world.wire.answer = refuse
        assert (await world.coordinators.send(NAME, "a request")).error_code == NotCoordinatorError.errno
        await world.coordinators.send(NAME, "again")
        assert sorted(world.finders()) == [1, 2, 3]

    run(scenario)


def test_where_no_broker_is_known_the_cluster_is_doubted() -> None:
    @in_a_world
    async def scenario(world: World) -> None:
        world.wire.known = []
        with pytest.raises(KafkaConnectionError, match="no broker is known"):
            await world.coordinators.send(NAME, "a request")
        assert len(world.wire.doubts) == 1
