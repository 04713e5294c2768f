"""A request that came by HTTP, and how long its decision is waited for."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from streams.config import Config
from streams.http.answers import Answers

PARTITION, OFFSET, BODY = 3, 7, b"a decision"


class Asking:
    """One request of a worker whose broker acknowledges it when it is let."""

    def __init__(self, patience_s: float) -> None:
        self.answers = Answers(Config())
        self.acknowledged = asyncio.Event()
        engine: Any = SimpleNamespace(requests_writer=SimpleNamespace(append=self._append))
        ask = self.answers.ask(engine, PARTITION, b"k", b"v", patience_s)
        self.decision: asyncio.Future[bytes | None] = asyncio.ensure_future(ask)

    async def _append(self, *_: Any) -> int:
        await self.acknowledged.wait()
        return OFFSET


@pytest.mark.parametrize("decided_first", [False, True])
def test_the_decision_is_told_whether_it_comes_before_or_after_the_acknowledgement(decided_first: bool) -> None:
    async def scenario() -> None:
        asking = Asking(20.0)
        await asyncio.sleep(0)
        if not decided_first:
            asking.acknowledged.set()
            await asyncio.sleep(0.01)
        asking.answers.on_answers(PARTITION, [(OFFSET - 1, b"another"), (OFFSET, BODY)])
        asking.acknowledged.set()
        assert await asking.decision == BODY

    asyncio.run(scenario())


@pytest.mark.parametrize("is_acknowledged", [False, True])
def test_the_time_that_writing_takes_is_waiting_time_too(is_acknowledged: bool) -> None:
    """A broker that hangs may acknowledge it for as long as it likes."""

    async def scenario() -> None:
        asking = Asking(0.02)
        if is_acknowledged:
            asking.acknowledged.set()
        with pytest.raises(TimeoutError):
            await asking.decision
        # What is decided later is of interest to nobody, and kept by nobody.
        asking.answers.on_answers(PARTITION, [(OFFSET, BODY)])
        assert not asking.answers._waiting
        assert not asking.answers._early

    asyncio.run(scenario())
