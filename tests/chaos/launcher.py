"""A worker with a fault built in: `CHAOS_AT=outputs.after:3` kills it when it passes that point for the third time.

| variable | what |
|---|---|
| `CHAOS_AT` | a point below and a count: `changelog.after:2` |
| `CHAOS_DO` | `kill` (default; SIGKILL), `stop` (SIGSTOP, until somebody continues it), `raise` (a bug), or |
| | `cancel` (a cancellation that nobody ordered, as libraries let them slip) |
| `CHAOS_LEASE` | `off`: the worker believes the group counts it as a member, however long it slept |
| `CHAOS_BARRIER` | `off`: the worker believes a leader of the changes, whatever other replicas know |

Run as `python -m tests.chaos.launcher worker`, in the place of `python -m streams worker`.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import signal
import threading
from collections.abc import Awaitable, Callable
from typing import Any

from streams.__main__ import main
from streams.agents.changes import Changes
from streams.engine import resume
from streams.engine.core import Engine
from streams.engine.outputs import Outputs, Writer
from streams.engine.records import Batch
from streams.engine.requests import RequestsLane
from streams.engine.table import BytesStore
from streams.engine.transport import Consumer, ConsumerThread
from streams.kafka.cluster import Leader
from streams.kafka.leader_watch import LeaderWatch
from streams.kafka.ownership import Fences
from streams.kafka.read_barrier import ReadBarrier

#: Method by point; each gives the points `NAME.before` and `NAME.after`. Beside them there are `outputs.before`,
#: `outputs.middle` and `outputs.after`.
POINTS: dict[str, tuple[Any, str]] = {
    "take": (Fences, "take"),
    "restore": (Engine, "restore"),
    "apply": (Changes, "apply"),
    "changelog": (Writer, "write_atomically"),
    "store": (BytesStore, "write"),
    "ack": (Batch, "done"),
    "commit": (ConsumerThread, "_commit"),
    "requests": (RequestsLane, "write"),
    "resume": (resume, "progress_of_requests"),
}


class BuiltInBug(Exception):  # noqa: N818 - it is one
    """What a bug in a handler would raise."""


def _act(what: str) -> None:
    if what == "raise":
        raise BuiltInBug("a bug in a handler")
    if what == "cancel":
        raise asyncio.CancelledError
    # The whole process stops at once, whichever thread comes here.
    os.kill(os.getpid(), signal.SIGSTOP if what == "stop" else signal.SIGKILL)


def _passing(point: str, what: str) -> tuple[Callable[[], bool], Callable[[], None]]:
    """Whether it happens now, asked whenever the point is passed; and what then happens."""
    name, _, times = point.partition(":")
    left, lock = int(times or 1), threading.Lock()

    def is_now() -> bool:
        nonlocal left
        with lock:
            left -= 1
            return left == 0

    def happen() -> None:
        print(f"chaos: {what} at {name}", flush=True)
        _act(what)

    return is_now, happen


def _wrap(owner: Any, name: str, before: Callable[[], None], after: Callable[[], None]) -> None:
    real = getattr(owner, name)
    if inspect.iscoroutinefunction(real):

        async def wrapped(*args: Any, **kwargs: Any) -> Any:
            before()
            found = await real(*args, **kwargs)
            after()
            return found
    else:

        def wrapped(*args: Any, **kwargs: Any) -> Any:
            before()
            found = real(*args, **kwargs)
            after()
            return found

    setattr(owner, name, wrapped)


def _wrap_outputs(where: str, is_now: Callable[[], bool], happen: Callable[[], None]) -> None:
    """Where there are some. `middle`: the first of several batches is in the log, the others are not."""
    write, begin = Writer.write, Writer.begin

    def hits(outputs: Outputs) -> bool:
        return len(outputs.batches) >= (2 if where == "middle" else 1) and is_now()

    async def hit(self: Writer, outputs: Outputs) -> None:
        if where == "middle":
            await self._write(outputs.batches[:1])
            happen()
            outputs.batches = outputs.batches[1:]
        await write(self, outputs)
        if where == "after":
            happen()

    def wrapped(real: Callable[[Writer, Outputs], Awaitable[Any]]) -> Callable[[Writer, Outputs], Awaitable[Any]]:
        def call(self: Writer, outputs: Outputs) -> Awaitable[Any]:
            if not hits(outputs):
                return real(self, outputs)
            if where == "before":
                happen()
            return hit(self, outputs)

        return call

    Writer.write, Writer.begin = wrapped(write), wrapped(begin)  # type: ignore[method-assign, assignment]


def _nothing() -> None:
    """At the points that are not asked for."""


def _switch_barrier_off() -> None:
    """Ask no other replica whether there is a newer leader: what a leader says itself counts."""

    def needs_none(self: ReadBarrier, topic: str, leader: Leader) -> int:
        return 0

    async def looks_at_nothing(self: LeaderWatch) -> None:
        """Nobody is asked."""

    ReadBarrier.needed = needs_none  # type: ignore[method-assign]
    LeaderWatch.look = looks_at_nothing  # type: ignore[method-assign]


def install(environ: dict[str, str]) -> None:
    """Build in what the variables ask for. Raises KeyError for a point that there is not."""
    if environ.get("CHAOS_LEASE") == "off":
        Consumer.holds_lease = property(lambda _: True)  # type: ignore[assignment]
    if environ.get("CHAOS_BARRIER") == "off":
        _switch_barrier_off()
    point = environ.get("CHAOS_AT")
    if not point:
        return
    is_now, happen = _passing(point, environ.get("CHAOS_DO", "kill"))
    name, _, where = point.partition(":")[0].partition(".")
    if name == "outputs":
        _wrap_outputs(where, is_now, happen)
        return

    def hit() -> None:
        if is_now():
            happen()

    owner, method = POINTS[name]
    _wrap(owner, method, hit if where == "before" else _nothing, hit if where == "after" else _nothing)


if __name__ == "__main__":
    install(dict(os.environ))
    main()
