"""One worker process, from start-up checks to its exit code."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from contextlib import suppress

from streams.app import App, Lanes, make_app, store_of
from streams.config import Config
from streams.engine.core import Engine

log = logging.getLogger("consent_streams")

#: SIGTERM ends a worker within ten seconds; what is not done by then is left to the partitions' next owners.
STOP_WITHIN_S = 8.0


class StartError(Exception):
    """The worker cannot start; the message is one clear line."""


async def run(config: Config) -> int:
    """Run a worker until a signal or an error ends it; returns the exit code."""
    app: App | None = None
    engine = Engine(config, lambda: store_of(app))  # type: ignore[arg-type]
    app = make_app(config, engine, "http://127.0.0.1:6066")
    engine.opener = Lanes(config, engine, lambda *_: None)
    await engine.start()
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    app.finalize()
    starting = asyncio.create_task(app.start())
    waits = {asyncio.create_task(stop.wait()), asyncio.create_task(app._crashed.wait()), engine.failed}
    await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    print("ending", stop.is_set(), app._crashed.is_set(), engine.failed, file=sys.stderr)
    if engine.failed.done():
        import traceback
        traceback.print_exception(engine.failed.result())
    with suppress(TimeoutError):
        await asyncio.wait_for(engine.stop(), 5)
        await asyncio.wait_for(app.stop(), 5)
    starting.cancel()
    return 0 if stop.is_set() else 1
