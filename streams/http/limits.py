"""How much may be asked: so often by one asker, and so large a body."""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

Clock = Callable[[], float]

_NS = 1_000_000_000


class Limiter:
    """A token bucket for each key: `burst` at once, then `per_second`.

    What is kept of a bucket is when it will be full again. At most `keys` buckets are kept; the one that was not taken
    from for the longest time is forgotten first, and so is full. `clock` gives seconds.
    """

    def __init__(self, per_second: float, burst: int, keys: int, clock: Clock = time.monotonic) -> None:
        # Whole nanoseconds: sums of fractions would let a little less or more through.
        self._interval = int(_NS / per_second)
        self._ahead = (burst - 1) * self._interval
        self._keys = keys
        self._clock = clock
        self._full_at: OrderedDict[str, int] = OrderedDict()

    def wait_s(self, key: str) -> float:
        """Seconds until there is something to take; 0: there is."""
        return max(0, self._full_at.get(key, 0) - self._ahead - self._now()) / _NS

    def take(self, key: str) -> float:
        """Take one, if there is one; else nothing changes. Returns `wait_s` from before."""
        wait_s = self.wait_s(key)
        if wait_s == 0:
            self._full_at[key] = max(self._full_at.get(key, 0), self._now()) + self._interval
            self._full_at.move_to_end(key)
            if len(self._full_at) > self._keys:
                self._full_at.popitem(last=False)
        return wait_s

    def _now(self) -> int:
        return round(self._clock() * _NS)


def retry_after(wait_s: float) -> dict[str, str]:
    """The header that says when to ask again, in whole seconds."""
    return {"Retry-After": str(max(1, math.ceil(wait_s)))}


class BodyLimit:
    """Middleware that answers 413 to a body of more than `max_bytes`, and hangs up instead of reading the rest.

    A body that says its length is refused unread; one that does not is read up to the limit.
    """

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._detail = f"the body is larger than {max_bytes} bytes (max_body_bytes)"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        length = Headers(scope=scope).get("content-length", "")
        if length.isdecimal() and int(length) > self._max_bytes:
            response = JSONResponse({"detail": self._detail}, 413, headers={"Connection": "close"})
            await response(scope, receive, send)
            return
        left = self._max_bytes

        async def limited() -> Message:
            nonlocal left
            message = await receive()
            left -= len(message.get("body", b""))
            if left < 0:
                # The one exception that FastAPI lets through from where it reads a body.
                raise HTTPException(413, self._detail, headers={"Connection": "close"})
            return message

        await self._app(scope, limited, send)
