"""A cluster of which a broker is away: who is asked first, whom a client leaves out, and what is asked again."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import (
    KafkaConnectionError,
    NodeNotReadyError,
    NotEnoughReplicasError,
    RequestTimedOutError,
    TopicAuthorizationFailedError,
)

from streams.config import Config
from streams.kafka import reaching
from streams.kafka.faults import KafkaFault, plain_faults
from streams.kafka.patience import PATIENCE_S, wait_at_most
from streams.kafka.reaching import answering, persistently, steady

CONFIG = Config(bootstrap_servers="b1:1,b2:2,b3:3")


@pytest.fixture(autouse=True)
def short_patience() -> Iterator[None]:
    wait_at_most(0.5)
    yield
    wait_at_most(PATIENCE_S)


def failing(*errors: BaseException) -> tuple[Callable[[], Awaitable[str]], list[int]]:
    """A question that fails with these, one after the other, before it is answered; and how often it was asked."""
    count = [0]

    async def ask() -> str:
        count[0] += 1
        if count[0] <= len(errors):
            raise errors[count[0] - 1]
        return "answer"

    return ask, count


# --- who answers first -------------------------------------------------------------------------------


def answers(monkeypatch: pytest.MonkeyPatch, by_host: dict[str, float | BaseException]) -> None:
    """After how many seconds each broker answers, or how it fails."""

    async def fake(host: str, port: int, arguments: dict[str, Any]) -> None:
        assert "bootstrap_servers" not in arguments
        after = by_host[host]
        if isinstance(after, BaseException):
            raise after
        await asyncio.sleep(after)

    monkeypatch.setattr(reaching, "_answers", fake)


def test_all_are_asked_at_once_and_the_first_that_answers_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    answers(monkeypatch, {"b1": 60.0, "b2": ConnectionRefusedError(), "b3": 0.05})
    began = time.monotonic()
    assert asyncio.run(answering(CONFIG)).bootstrap_servers == "b3:3"
    assert time.monotonic() - began < 1


def test_an_address_of_ipv6_keeps_its_brackets(monkeypatch: pytest.MonkeyPatch) -> None:
    answers(monkeypatch, {"::1": 0.0})
    assert asyncio.run(answering(Config(bootstrap_servers="[::1]:9092"))).bootstrap_servers == "[::1]:9092"


def test_nobody_is_one_line_at_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as one:
        port = one.getsockname()[1]
    config = Config(bootstrap_servers=f"127.0.0.1:{port},127.0.0.1:{port}")
    began = time.monotonic()
    with pytest.raises(KafkaFault, match=f"Kafka does not answer at 127.0.0.1:{port},127.0.0.1:{port}: "):
        asyncio.run(answering(config))
    assert time.monotonic() - began < 1


def test_silence_is_one_line_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reaching, "CONNECT_S", 0.3)
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        pytest.raises(KafkaFault, match=r"Kafka does not answer at 127\.0\.0\.1:"),
    ):
        asyncio.run(answering(Config(bootstrap_servers=f"127.0.0.1:{silent.getsockname()[1]}")))


# --- asked again -------------------------------------------------------------------------------------


def test_what_passes_is_asked_again_and_what_does_not_is_raised_at_once() -> None:
    wait_at_most(20)
    ask, count = failing(NodeNotReadyError(), RequestTimedOutError(), TimeoutError(), NotEnoughReplicasError())
    assert asyncio.run(persistently(ask)) == "answer"
    assert count == [5]
    ask, count = failing(NodeNotReadyError(), TopicAuthorizationFailedError("t"))
    with pytest.raises(TopicAuthorizationFailedError):
        asyncio.run(persistently(ask))
    assert count == [2]


def test_once_the_time_is_up_the_last_failure_says_why() -> None:
    ask, count = failing(*[NotEnoughReplicasError()] * 1000)
    began = time.monotonic()
    with pytest.raises(KafkaFault, match=r"Kafka refused it: .*NotEnoughReplicas"), plain_faults(CONFIG):
        asyncio.run(persistently(ask))
    assert 0.3 < time.monotonic() - began < 1
    assert count[0] > 2


def test_a_question_that_hangs_ends_with_the_time_and_the_failure_before_it() -> None:
    count = [0]

    async def ask() -> None:
        count[0] += 1
        if count[0] == 1:
            raise NotEnoughReplicasError
        await asyncio.sleep(60)

    with pytest.raises(NotEnoughReplicasError):
        asyncio.run(persistently(ask))


def test_a_question_may_have_more_time() -> None:
    ask, _ = failing(*[NodeNotReadyError()] * 7)
    assert asyncio.run(persistently(ask, times=10)) == "answer"


def test_that_nobody_is_there_passes_only_if_somebody_was() -> None:
    def gone() -> KafkaFault:
        fault = KafkaFault("Kafka does not answer")
        fault.__cause__ = KafkaConnectionError()
        return fault

    ask, count = failing(gone())
    with pytest.raises(KafkaFault):
        asyncio.run(persistently(ask))
    assert count == [1]
    wait_at_most(20)
    ask, count = failing(NodeNotReadyError(), gone(), gone())
    assert asyncio.run(persistently(ask)) == "answer"
    ask, count = failing(NodeNotReadyError(), KafkaFault("Kafka refuses the user"))
    with pytest.raises(KafkaFault, match="refuses"):
        asyncio.run(persistently(ask))


# --- a client that leaves out whom it could not reach ------------------------------------------------


class Client(AIOKafkaClient):  # type: ignore[misc]
    """One that knows brokers by name, of which some cannot be connected to, or do not answer."""

    def __init__(self, brokers: int, unreachable: set[int], silent: set[int]) -> None:
        super().__init__()
        self._unreachable, self._silent = unreachable, silent
        self.tried: list[int] = []
        self.refreshed = 0
        there = [(node, f"b{node}", node, None) for node in range(brokers)]
        self.cluster.update_metadata(SimpleNamespace(API_VERSION=1, brokers=there, controller_id=0, topics=[]))

    def force_metadata_update(self) -> Any:
        self.refreshed += 1

    async def _get_conn(self, node_id: Any, **how: Any) -> Any:
        self.tried.append(node_id)
        return None if node_id in self._unreachable else object()

    async def send(self, node_id: Any, request: Any, *, group: Any = None) -> Any:
        if not await self.ready(node_id):
            raise NodeNotReadyError
        if node_id in self._silent:
            raise RequestTimedOutError
        if request == "break":
            raise KafkaConnectionError
        return "answer"


async def tried(client: Client, times: int = 30) -> set[Any]:
    """Those that are chosen, once each has been asked."""
    steady(client)
    for node in [broker.nodeId for broker in client.cluster.brokers()]:
        with suppress(NodeNotReadyError, RequestTimedOutError):
            await client.send(node, "x")
    return {client.get_random_node() for _ in range(times)}


def test_any_of_those_that_answer_is_asked() -> None:
    async def run() -> None:
        assert await tried(Client(3, set(), set())) == {0, 1, 2}
        assert await tried(Client(3, {0}, set())) == {1, 2}
        assert await tried(Client(3, {0}, {2})) == {1}

    asyncio.run(run())


def test_the_one_that_answered_first_is_asked_until_it_does_not() -> None:
    async def run() -> None:
        client = Client(3, set(), set())
        client._bootstrap_servers = "b1:1"
        assert await tried(client) == {1}
        client._silent.add(1)
        with pytest.raises(RequestTimedOutError):
            await client.send(1, "x")
        assert {client.get_random_node() for _ in range(30)} == {0, 2}

    asyncio.run(run())


def test_one_that_hangs_is_not_connected_to_again_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reaching, "AWAY_S", 0.2)

    async def run() -> None:
        client = Client(2, set(), {1})
        await tried(client)
        count = client.tried.count(1)
        with pytest.raises(NodeNotReadyError):
            await client.send(1, "x")
        assert client.tried.count(1) == count
        assert client.refreshed == 1, "others may lead now"
        await asyncio.sleep(0.25)
        client._silent.clear()
        assert await client.send(1, "x") == "answer"

    asyncio.run(run())


def test_the_only_broker_is_asked_whatever_it_did() -> None:
    async def run() -> None:
        client = Client(1, set(), {0})
        assert await tried(client) == {0}
        client._silent.clear()
        assert await client.send(0, "x") == "answer"

    asyncio.run(run())


def test_a_connection_that_breaks_is_a_broker_that_is_not_ready() -> None:
    async def run() -> None:
        client = Client(2, set(), set())
        steady(client)
        with pytest.raises(NodeNotReadyError):
            await client.send(0, "break")

    asyncio.run(run())
