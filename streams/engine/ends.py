"""The ends of partitions, as the consumer's own fetches tell them: a fence that costs no request of its own.

A fetch tells the high watermark of each partition it asks for, whether there are records or not. One that was sent
after a request had arrived was answered after everything that was acknowledged before that request. Under load the next
fetch is under way already; without load it waits for data, and it is quicker to ask the broker.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from math import inf
from time import monotonic

#: The share of the newest among the times that are looked back at, and the most that one of them counts for.
NEWEST = 0.25
MOST_S = 0.05


class FetchedEnds:
    """When each partition's end was last asked for by a fetch (monotonic seconds), and what it was."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[float, int]] = {}
        self._told = asyncio.Event()
        #: Since when fetches are waited for, or would have been.
        self._wanted_at: float | None = None
        #: How long the next fetch takes to tell, and the broker to answer, as of late.
        self._told_after_s = MOST_S
        self._answered_after_s = 0.0

    def tell(self, asked_at: float, ends: Mapping[int, int]) -> None:
        """A fetch that was sent at this time has these ends."""
        for partition, end in ends.items():
            self._known[partition] = (asked_at, end)
        if self._wanted_at is not None:
            self._told_after_s = _later(self._told_after_s, monotonic() - self._wanted_at)
            self._wanted_at = None
        self._told.set()
        self._told = asyncio.Event()

    def since(self, times: Mapping[int, float]) -> dict[int, int]:
        """The ends of those partitions for which a fetch asked after the given time."""
        found = {partition: self._known.get(partition, (-inf, 0)) for partition in times}
        return {partition: end for partition, (asked_at, end) in found.items() if asked_at > times[partition]}

    async def next(self) -> None:
        """Wait for the next fetch to tell, if that has been quicker of late than to ask, and no longer than that."""
        self._wanted_at = self._wanted_at or monotonic()
        if self._told_after_s <= self._answered_after_s:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._told.wait(), self._answered_after_s)

    def answered(self, asked_at: float) -> None:
        """The broker has answered what it was asked at this time."""
        self._answered_after_s = _later(self._answered_after_s, monotonic() - asked_at)


def _later(before: float, now: float) -> float:
    return before + NEWEST * (min(now, MOST_S) - before)
