"""Requests that came by HTTP go through the log like all others; here they wait for their decision."""

from __future__ import annotations

import asyncio
from collections import Counter

from streams import topics
from streams.config import Config
from streams.engine.core import Engine
from streams.engine.requests import Answered


class Answers:
    """Writes requests to `eligibility.requests` and hands back what the requests lane of this worker answers."""

    def __init__(self, config: Config) -> None:
        self._topic = config.topic(topics.REQUESTS.name)
        self._pending: Counter[int] = Counter()
        self._early: dict[tuple[int, int], bytes | None] = {}
        self._waiting: dict[tuple[int, int], asyncio.Future[bytes | None]] = {}

    def on_answers(self, partition: int, answers: list[Answered]) -> None:
        """Requests are answered; it may be before their writer was told their offsets."""
        if not self._waiting and not self._pending[partition]:
            return
        for offset, body in answers:
            future = self._waiting.pop((partition, offset), None)
            if future is not None:
                if not future.done():
                    future.set_result(body)
            elif self._pending[partition]:
                self._early[partition, offset] = body

    async def ask(self, engine: Engine, partition: int, key: bytes, value: bytes, patience_s: float) -> bytes | None:
        """The decision on one request.

        Raises TimeoutError after `patience_s`, the time that writing it takes included; what is in the log by then, or
        gets there, will be answered there.
        """
        async with asyncio.timeout(patience_s):
            self._pending[partition] += 1
            try:
                offset = await engine.requests_writer.append(self._topic, partition, key, value)
            finally:
                self._pending[partition] -= 1
                early, self._early = self._early, ({} if not +self._pending else self._early)
            if (partition, offset) in early:
                return early.pop((partition, offset))
            future: asyncio.Future[bytes | None] = asyncio.get_running_loop().create_future()
            self._waiting[partition, offset] = future
            try:
                return await future
            finally:
                self._waiting.pop((partition, offset), None)

