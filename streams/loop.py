"""The worker's event loop: uvloop's, whose own part of the work on a record takes a fraction of asyncio's time."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

import uvloop

T = TypeVar("T")

#: How long the end of a TLS connection waits for the other side's farewell. Kafka sends none, and uvloop's 30 seconds
#: would go by at every connection that is closed; whatever was sent over it is answered by then.
FAREWELL_S = 0.2


class Loop(uvloop.Loop):
    """uvloop's, with connections that end soon."""

    async def create_connection(self, *args: Any, **options: Any) -> Any:
        if options.get("ssl"):
            options.setdefault("ssl_shutdown_timeout", FAREWELL_S)
        return await super().create_connection(*args, **options)


def run(main: Coroutine[Any, Any, T]) -> T:
    """What `asyncio.run` does, on such a loop."""
    with asyncio.Runner(loop_factory=Loop) as runner:
        return runner.run(main)
