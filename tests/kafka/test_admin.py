"""Topics as brokers tell of them that do not all know the same."""

from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.errors import NodeNotReadyError

from streams.kafka import admin

UNKNOWN = 3


class Admin:
    """A client of three brokers, the first of which is asked first; each knows some topics, or does not answer."""

    def __init__(self, *brokers: set[str] | BaseException | float) -> None:
        self._brokers = brokers
        self._client = self
        self.cluster = SimpleNamespace(brokers=lambda: [SimpleNamespace(nodeId=node) for node in range(len(brokers))])
        self.asked: list[int] = []

    async def _send_request(self, request: Any) -> Any:
        return await self.send(0, request)

    async def send(self, node: int, request: Any) -> Any:
        self.asked.append(node)
        known = self._brokers[node]
        if isinstance(known, BaseException):
            raise known
        if isinstance(known, float):
            await asyncio.sleep(known)
            known = set()
        topics = [(0 if name in known else UNKNOWN, name, f"by {node}") for name in request._names]
        return SimpleNamespace(cluster_id="c", topics=topics)


def topics(*brokers: set[str] | BaseException | float) -> tuple[dict[str, str], list[int]]:
    """By whom each of the topics a and b is told of, and who was asked."""
    client = Admin(*brokers)
    cluster_id, found = asyncio.run(admin._topics(client, ["a", "b"]))
    assert cluster_id == "c"
    return {name: by for _, name, by in found}, client.asked


def test_one_broker_is_enough_where_it_knows_all() -> None:
    assert topics({"a", "b"}, {"a"}, {"b"}) == ({"a": "by 0", "b": "by 0"}, [0])


def test_what_one_broker_has_not_heard_of_another_may_tell() -> None:
    found, _ = topics({"a"}, NodeNotReadyError(), {"a", "b"})
    assert found == {"a": "by 0", "b": "by 2"}


def test_what_nobody_knows_is_not_there() -> None:
    assert topics({"a"}, {"a"}, {"a"})[0] == {"a": "by 0"}
    assert topics(set())[0] == {}


def test_a_broker_that_hangs_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admin, "OTHERS_S", 0.1)
    began = time.monotonic()
    assert topics({"a"}, 60.0, {"a", "b"})[0] == {"a": "by 0", "b": "by 2"}
    assert time.monotonic() - began < 5
