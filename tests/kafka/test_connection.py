"""Requests that are on their way when the call returns."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any

import pytest
from aiokafka.client import ConnectionGroup
from aiokafka.conn import CloseReason
from aiokafka.errors import KafkaConnectionError, RequestTimedOutError

from streams.kafka.connection import send_now

NODE = 3


class Connection:
    """Notes what it is given to send; an answer, or an error in its place, is there at once."""

    def __init__(self, answer: Any, *, is_open: bool = True, error: Exception | None = None) -> None:
        self.sent: list[str] = []
        self.closed: list[Any] = []
        self._answer, self._is_open, self._error = answer, is_open, error

    def connected(self) -> bool:
        return self._is_open

    def send(self, request: str) -> Awaitable[Any]:
        if self._error is not None:
            raise self._error
        self.sent.append(request)

        async def answer() -> Any:
            if isinstance(self._answer, Exception):
                raise self._answer
            return self._answer

        return answer()

    def close(self, reason: CloseReason) -> None:
        self.closed.append(reason)


class Client:
    """With a connection to the node, or without; what it sends itself is answered with its name."""

    def __init__(self, connection: Connection | None) -> None:
        self._conns = {} if connection is None else {(NODE, ConnectionGroup.DEFAULT): connection}

    async def send(self, node_id: int, request: str) -> Any:
        return f"by the client to {node_id}: {request}"


def answer_of(connection: Connection | None) -> Any:
    async def ask() -> Any:
        client: Any = Client(connection)
        return await send_now(client, NODE, "a request")

    return asyncio.run(ask())


def test_a_request_is_sent_before_its_answer_is_waited_for() -> None:
    async def ask() -> None:
        connection = Connection("an answer")
        client: Any = Client(connection)
        waiting = send_now(client, NODE, "a request")
        assert connection.sent == ["a request"]
        assert await waiting == "an answer"

    asyncio.run(ask())


@pytest.mark.parametrize(
    "connection",
    [None, Connection("no", is_open=False), Connection("no", error=KafkaConnectionError("broken just now"))],
    ids=["none yet", "closed", "found broken"],
)
def test_without_a_connection_the_client_makes_one(connection: Connection | None) -> None:
    assert answer_of(connection) == f"by the client to {NODE}: a request"


def test_a_connection_that_does_not_answer_in_time_is_closed() -> None:
    connection = Connection(TimeoutError())
    with pytest.raises(RequestTimedOutError):
        answer_of(connection)
    assert connection.closed == [CloseReason.CONNECTION_TIMEOUT]
