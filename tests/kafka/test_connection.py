"""Requests that are on their way when the call returns."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.conn import CloseReason
from aiokafka.errors import KafkaConnectionError, RequestTimedOutError

from streams.kafka.cluster import Connections
from streams.logs import OngoingBy

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


class Opened(Connections):
    """Connections of which one is there, or none; what is sent on a new one is answered with its name."""

    def __init__(self, connection: Connection | None) -> None:
        cluster: Any = SimpleNamespace(away=OngoingBy(logging.getLogger(__name__), "%s"))
        super().__init__(cluster, "test", 1.0)
        if connection is not None:
            self._open[NODE] = connection  # type: ignore[assignment]

    async def _open_and_send(self, node: int, request: str) -> Any:
        return f"on a new one to {node}: {request}"


def answer_of(connection: Connection | None) -> Any:
    async def ask() -> Any:
        return await Opened(connection).send(NODE, "a request")

    return asyncio.run(ask())


def test_a_request_is_sent_before_its_answer_is_waited_for() -> None:
    async def ask() -> None:
        connection = Connection("an answer")
        waiting = Opened(connection).send(NODE, "a request")
        assert connection.sent == ["a request"]
        assert await waiting == "an answer"

    asyncio.run(ask())


@pytest.mark.parametrize(
    "connection",
    [None, Connection("no", is_open=False), Connection("no", error=KafkaConnectionError("broken just now"))],
    ids=["none yet", "closed", "found broken"],
)
def test_without_a_connection_a_new_one_is_made(connection: Connection | None) -> None:
    assert answer_of(connection) == f"on a new one to {NODE}: a request"


def test_a_connection_that_does_not_answer_in_time_is_closed() -> None:
    connection = Connection(TimeoutError())
    with pytest.raises(RequestTimedOutError):
        answer_of(connection)
    assert connection.closed == [CloseReason.CONNECTION_TIMEOUT]
