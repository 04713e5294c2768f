"""Event loops whose clock jumps to the next timer instead of waiting for it: seconds pass in no time, and exactly."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

from streams.engine import lane, requests
from streams.kafka import cluster, fetcher, group_client, read_barrier

#: A test that is not over by then, in its own time, waits for what never comes.
LIMIT_S = 600.0


class Loop(asyncio.SelectorEventLoop):
    """Its time begins at 1000 seconds."""

    def __init__(self) -> None:
        self._now = 1_000.0
        super().__init__()

    def time(self) -> float:
        return self._now

    def _run_once(self) -> None:
        if not self._ready:  # type: ignore[attr-defined]
            timers = [timer.when() for timer in self._scheduled if not timer.cancelled()]  # type: ignore[attr-defined]
            if not timers:
                raise RuntimeError("nothing will ever happen")
            self._now = max(self._now, min(timers))
        super()._run_once()  # type: ignore[misc]


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    """Run a scenario, with our modules' clocks set to its loop's; what nobody awaits or looks at is an error."""
    unseen: list[dict[str, Any]] = []

    async def whole() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: unseen.append(context))
        await asyncio.wait_for(scenario(), LIMIT_S)

    with ExitStack() as stack, asyncio.Runner(loop_factory=Loop) as runner:
        clock = runner.get_loop().time
        for module in (cluster, fetcher, group_client, read_barrier):
            stack.enter_context(patch.object(module, "monotonic", clock))
        for module in (lane, requests):
            stack.enter_context(patch.object(module, "time", SimpleNamespace(monotonic=clock)))
        runner.run(whole())
    assert not unseen, unseen


def now() -> float:
    """Seconds since the scenario began."""
    return asyncio.get_running_loop().time() - 1_000.0


async def turns(count: int = 20) -> None:
    """Let the loop go on, at this moment."""
    for _ in range(count):
        await asyncio.sleep(0)
