"""Who coordinates what is asked of whoever may know, and again when it does not answer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from itertools import pairwise
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

from streams.kafka.coordinators import ANSWER_S, GROUP, TRANSACTION, Coordinators
from tests.kafka.wire import Wire
from tests.virtual import run

NAME = "an id"


class World:
    """Three brokers, one of which coordinates; each names whom it takes for that."""

    def __init__(self, kind: int = TRANSACTION) -> None:
        self.named = dict.fromkeys((1, 2, 3), 2)
        self.errors: dict[int, KafkaError] = {}
        self.code = 0
        self.wire = Wire(self._answer)
        cluster: Any = self.wire
        self.coordinators = Coordinators(cluster, "test", kind)

    async def _answer(self, node: int, request: Any) -> Any:
        if node in self.errors:
            raise self.errors[node]
        if isinstance(request, FindCoordinatorRequest):
            return SimpleNamespace(error_code=self.code, coordinator_id=self.named[node])
        return f"from {node}: {request}"

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
        assert len(world.finders()) == 1
        (question,) = [one.request for one in world.wire.sent if isinstance(one.request, FindCoordinatorRequest)]
        assert (question._coordinator_key, question._coordinator_type) == (NAME, kind)
        assert world.wire.timeouts == {"test": ANSWER_S}
        await world.coordinators.stop()
        assert world.wire.closed == 1

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


@pytest.mark.parametrize("error", [RequestTimedOutError(), KafkaConnectionError("away")], ids=["silent", "away"])
def test_whoever_does_not_answer_is_not_asked_where_it_is(error: KafkaError) -> None:
    """Cut off from the others, it takes itself for the coordinator of what it had."""

    @in_a_world
    async def scenario(world: World) -> None:
        for _ in range(20):
            world.errors, world.named = {}, {1: 2, 2: 2, 3: 2}
            await world.coordinators.send(NAME, "before")
            world.errors[2] = error
            with pytest.raises(type(error)):
                await world.coordinators.send(NAME, "a request")
            world.wire.forget()
            # It names itself; the others know better by now.
            world.errors, world.named = {}, {1: 3, 2: 2, 3: 3}
            assert await world.coordinators.send(NAME, "again") == "from 3: again"
            assert world.finders()[0] != 2
            world.coordinators.forget(NAME)
            world.wire.forget()


def test_a_broker_that_does_not_say_who_coordinates_is_not_the_next_to_be_asked() -> None:
    @in_a_world
    async def scenario(world: World) -> None:
        world.errors = dict.fromkeys((1, 2, 3), KafkaConnectionError("away"))
        for _ in range(20):
            with pytest.raises(KafkaConnectionError):
                await world.coordinators.send(NAME, "a request")
        finders = world.finders()
        assert len(finders) == 20
        assert all(after != before for before, after in pairwise(finders))
        world.errors.clear()
        assert await world.coordinators.send(NAME, "at last") == "from 2: at last"


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
        assert len(world.finders()) == 2
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
        assert len(world.finders()) == 1

    run(scenario)


def test_where_no_broker_is_known_the_cluster_is_doubted() -> None:
    @in_a_world
    async def scenario(world: World) -> None:
        world.wire.known = []
        with pytest.raises(KafkaConnectionError, match="no broker is known"):
            await world.coordinators.send(NAME, "a request")
        assert len(world.wire.doubts) == 1
