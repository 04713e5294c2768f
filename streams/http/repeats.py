"""Requests that are sent again under the same Idempotency-Key: the same answer, and no second event."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from hashlib import sha256
from typing import NamedTuple

import orjson

#: Answers that are remembered; an older one is found again in the log.
MOST_REMEMBERED = 10_000
MOST_CHARACTERS = 255
#: Field of the events that says which request they came with.
FINGERPRINT = "request_fingerprint"
_ID_CHARACTERS = 32

Place = tuple[int, str, str]


class Answered(NamedTuple):
    """What was answered, and to which request."""

    fingerprint: str
    status: int
    body: bytes


class Repeats:
    """The answers of this worker by org, customer and key. Requests of one key are taken one after the other."""

    def __init__(self) -> None:
        self._answers: OrderedDict[Place, Answered] = OrderedDict()
        self._locks: dict[Place, tuple[asyncio.Lock, int]] = {}

    @asynccontextmanager
    async def one_at_a_time(self, place: Place) -> AsyncIterator[None]:
        """A block that no other request of the same key is in."""
        lock, waiting = self._locks.get(place, (asyncio.Lock(), 0))
        self._locks[place] = (lock, waiting + 1)
        try:
            async with lock:
                yield
        finally:
            lock, waiting = self._locks.pop(place)
            if waiting > 1:
                self._locks[place] = (lock, waiting - 1)

    def find(self, place: Place) -> Answered | None:
        """What was answered before, if it is remembered."""
        return self._answers.get(place)

    def remember(self, place: Place, answered: Answered) -> None:
        """Give this answer again."""
        self._answers[place] = answered
        if len(self._answers) > MOST_REMEMBERED:
            self._answers.popitem(last=False)


def event_id_of(place: Place, index: int) -> str:
    """The id of the event that an entry of such a request becomes: the same whenever it is sent."""
    return "api-" + sha256(orjson.dumps([*place, index])).hexdigest()[:_ID_CHARACTERS]


def fingerprint_of(body: bytes) -> str:
    """Tells requests apart."""
    return sha256(body).hexdigest()[:_ID_CHARACTERS]
