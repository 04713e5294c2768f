"""The ends of partitions, as the consumer's own fetches tell them: a fence that costs no request of its own.

A fetch tells the high watermark of each partition that it asks for, whether there are records or not. Kafka reads the
partitions in the order of the request, in which the changes are last: so what it tells of them is no older than the
requests for a decision that it brings, and all that was acknowledged before those is below it. For what it does not
tell of those, a later one does, that was sent after they had arrived; or the broker is asked, if that is quicker.

A leader that has just been elected may not know how far its predecessor's acknowledgements went: the high watermark
that it tells in a fetch may be too low for a moment. Asked for the end, it does not answer before it knows (KIP-207).
So fetches count only after the broker was asked once, and as long as one leader is seen without a gap from then on:
after a fetch that a partition's leader did not answer, after another leader or a pause, it must be asked again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from math import inf
from time import monotonic

#: The share of the newest among the times that are looked back at, and the most that one of them counts for.
NEWEST = 0.25
MOST_S = 0.05
#: Between an answer and the next fetch there is at most so much time, or another leader may have come and gone.
GAP_S = 0.2


@dataclass(slots=True)
class _Seen:
    """A partition as a leader's fetches have told without a gap. Times in monotonic seconds."""

    leader: int
    #: When the first of these fetches was sent, and when the last was answered.
    since: float
    until: float
    #: The last of them: when it was sent, and the high watermark.
    asked_at: float
    end: int
    #: From when on the leader surely knows how far acknowledgements went.
    sure_from: float = inf


class FetchedEnds:
    """Where partitions end, by what the consumer's fetches tell.

    `in_order`: whether brokers read a fetch's partitions in the order of the request, as Kafka does. Else what a fetch
    tells counts only for what had arrived before it was sent.
    """

    def __init__(self, *, in_order: bool = True) -> None:
        self._in_order = in_order
        self._seen: dict[int, _Seen] = {}
        self._told = asyncio.Event()
        #: Since when the next fetch is waited for, or would have been.
        self._wanted_at: float | None = None
        #: How long the next fetch takes to tell, and the broker to answer, as of late.
        self._told_after_s = MOST_S
        self._answered_after_s = 0.0

    def tell(self, leader: int, asked_at: float, ends: Mapping[int, int | None]) -> dict[int, int]:
        """A fetch that was sent to a leader at this time has these ends; None where it was not answered.

        Returns those that count for the requests that the same fetch brings.
        """
        now = monotonic()
        sure: dict[int, int] = {}
        for partition, end in ends.items():
            seen = self._seen.get(partition)
            if end is None:
                self._seen.pop(partition, None)
            elif seen is None or seen.leader != leader or asked_at - seen.until > GAP_S:
                self._seen[partition] = _Seen(leader, asked_at, now, asked_at, end)
            else:
                seen.until, seen.asked_at, seen.end = now, asked_at, end
                if asked_at >= seen.sure_from:
                    sure[partition] = end
        if self._wanted_at is not None:
            self._told_after_s = _later(self._told_after_s, now - self._wanted_at)
            self._wanted_at = None
        self._told.set()
        self._told = asyncio.Event()
        return sure if self._in_order else {}

    def since(self, times: Mapping[int, float]) -> dict[int, int]:
        """The ends of those partitions for which a fetch that counts asked after the given time."""
        found = {}
        for partition, at in times.items():
            seen = self._seen.get(partition)
            if seen is not None and seen.asked_at > at and seen.asked_at >= seen.sure_from:
                found[partition] = seen.end
        return found

    async def next(self) -> None:
        """Wait for the next fetch to tell, if that has been quicker of late than to ask, and no longer than that."""
        self._wanted_at = self._wanted_at or monotonic()
        if self._told_after_s <= self._answered_after_s:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._told.wait(), self._answered_after_s)

    def answered(self, asked_at: float, partitions: Iterable[int]) -> None:
        """The broker has said where these end, when it was asked at this time."""
        now = monotonic()
        self._answered_after_s = _later(self._answered_after_s, now - asked_at)
        for partition in partitions:
            seen = self._seen.get(partition)
            if seen is not None and asked_at >= seen.since:
                seen.sure_from = min(seen.sure_from, now)


def _later(before: float, now: float) -> float:
    return before + NEWEST * (min(now, MOST_S) - before)
