"""Brokers behind our connections to them, for whoever asks them where logs end, or what is in them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from streams.kafka.cluster import Leader
from streams.kafka.protocol import Fetch, ListOffsets
from streams.kafka.records import Place
from tests.virtual import now

Answer = Callable[[int, Any], Awaitable[Any]]


@dataclass
class Sent:
    """A request: when, to whom, and what it asks of each partition."""

    at: float
    node: int
    request: Any

    @property
    def asked(self) -> dict[Place, tuple[int, ...]]:
        """Of a fetch epoch, offset and bytes of each partition; of a question for its end the epoch."""
        return asked(self.request)


def asked(request: Any) -> dict[Place, tuple[int, ...]]:
    """What a Fetch or a ListOffsets asks of each partition."""
    return {(topic, one[0]): tuple(one[1:]) for topic, ones in request._topics for one in ones}


class Wire:
    """A cluster that tells who leads by `leaders`, and connections on which `answer` answers."""

    def __init__(self, answer: Answer, leaders: Mapping[Place, Leader] | None = None) -> None:
        self.answer = answer
        self.leaders: dict[Place, Leader] = dict(leaders or {})
        self.sent: list[Sent] = []
        self.doubts: list[float] = []
        self.timeouts: dict[str, float] = {}
        self.known: list[int] = [1, 2, 3]
        self.closed = 0
        self.denied: set[str] = set()
        #: What requests wait for that their leaders do not answer.
        self.hanging: set[Place] = set()
        #: What is to happen when somebody doubts.
        self.on_doubt: Callable[[], None] = lambda: None

    def connections(self, purpose: str, timeout_s: float = 40.0) -> Wire:
        self.timeouts[purpose] = timeout_s
        return self

    def leader(self, topic: str, partition: int) -> Leader | None:
        return self.leaders.get((topic, partition))

    def partitions(self, topic: str) -> list[int]:
        return [number for name, number in self.leaders if name == topic]

    def nodes(self) -> list[int]:
        return list(self.known)

    async def refresh(self) -> bool:
        self.doubt()
        await asyncio.sleep(0.1)
        return True

    def is_denied(self, topic: str) -> bool:
        return topic in self.denied

    def waiting_for(self) -> set[Place]:
        return self.hanging

    def doubt(self) -> None:
        self.doubts.append(now())
        self.on_doubt()

    def send(self, node: int, request: Any) -> Awaitable[Any]:
        self.sent.append(Sent(now(), node, request))
        return self._answered(node, request)

    def send_to_leader(self, node: int, request: Any, leaders: Mapping[Place, Leader]) -> Awaitable[Any]:
        assert all(leader.node == node for leader in leaders.values())
        return self.send(node, request)

    async def _answered(self, node: int, request: Any) -> Any:
        return await self.answer(node, request)

    async def close(self) -> None:
        self.closed += 1

    def fetches(self) -> list[Sent]:
        return [one for one in self.sent if isinstance(one.request, Fetch)]

    def questions(self) -> list[Sent]:
        """Those for the ends of leaders' logs."""
        return [one for one in self.sent if isinstance(one.request, ListOffsets)]

    def forget(self) -> None:
        """Nothing was sent yet."""
        self.sent.clear()
        self.doubts.clear()


def places(topic: str, numbers: Iterable[int]) -> list[Place]:
    """Partitions of a topic."""
    return [(topic, number) for number in numbers]


async def never() -> Any:
    """No answer at all."""
    await asyncio.Event().wait()
