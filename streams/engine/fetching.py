"""Fetches of the worker's consumer, sent when what the last one brought has been taken.

aiokafka fetches ahead, by tasks that one more task waits for. To what is handed out as soon as it is there that adds
but the turns that each of them has to wait for, and what lies ready is older than what could be asked for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from time import monotonic
from typing import Any

from aiokafka import AIOKafkaConsumer
from aiokafka.structs import TopicPartition

from streams.engine.protocol import Fetch

#: Pause between two looks at whether there is something to fetch again.
LOOK_S = 0.02

#: Told who was asked for the ends of partitions of `consent.changes`, when, and the answers; says which of them count.
OnEnds = Callable[[int, float, Mapping[int, int | None]], Mapping[int, int]]


class Fetches:
    """What a consumer has under way. It puts what comes where aiokafka's fetcher would.

    `changes` and `requests` are the topics of the changes and of the requests for a decision, with their prefix.
    """

    def __init__(self, consumer: AIOKafkaConsumer, changes: str, requests: str, on_ends: OnEnds) -> None:
        self._fetcher = consumer._fetcher
        self._changes = changes
        self._requests = requests
        self._on_ends = on_ends
        #: By the leader that they are sent to; not those that are waited for where they are sent.
        self._under_way: dict[int, asyncio.Task[None]] = {}
        self._actions = self._fetcher._get_actions_per_node
        self._fetcher._get_actions_per_node = self._resets

    def cancel(self) -> None:
        """Wait for no more answers."""
        for fetch in self._under_way.values():
            fetch.cancel()

    def _resets(self, assignment: Any) -> tuple[Any, ...]:
        """What is left to aiokafka's own task: to find out where to begin, for partitions without a position."""
        if all(assignment.state_value(tp).has_valid_position for tp in assignment.tps):
            return [], {}, self._fetcher._fetcher_timeout, False, []
        return [], *self._actions(assignment)[1:]

    async def wait(self, assignment: Any, timeout_s: float) -> None:
        """Fetch what can be fetched of an assignment (None: nothing), until some of it is there or the time is up."""
        requests = []
        if assignment is not None:
            requests, _, _, has_unknown_leaders, _ = self._actions(assignment)
            if has_unknown_leaders:
                self._fetcher._client.force_metadata_update()
        if len(requests) == 1 and not self._under_way:
            await self._fetch(assignment, *requests[0])
            return
        for leader, request in requests:
            self._under_way[leader] = asyncio.create_task(self._fetch(assignment, leader, request), name="fetch")
            self._fetcher._in_flight.add(leader)
        if self._under_way:
            tasks = self._under_way.values()
            await asyncio.wait(tasks, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        else:
            # Whoever holds a partition back no more says so; of what else may have changed nobody does.
            with suppress(TimeoutError):
                await asyncio.wait_for(self._fetcher._create_fetch_waiter(), min(timeout_s, LOOK_S))
        for leader in [leader for leader, fetch in self._under_way.items() if fetch.done()]:
            self._fetcher._in_flight.discard(leader)
            self._under_way.pop(leader).result()

    async def _fetch(self, assignment: Any, leader: int, request: Any) -> None:
        """One fetch; and what it tells of the ends of the partitions of `consent.changes`.

        They stand last in the request, and Kafka reads partitions in the order of a request (it says so of version 3
        and all later ones): what it says of them is no older than the requests for a decision that it read before.
        """
        lean = Fetch(
            sorted(request.topics, key=lambda one: one[0] == self._changes),
            max_wait_ms=request._max_wait_ms,
            min_bytes=request._min_bytes,
            max_bytes=request._max_bytes,
            isolation_level=request._isolation_level,
        )
        sent = monotonic()
        await self._fetcher._proc_fetch_request(assignment, leader, lean)
        if (task := asyncio.current_task()) is not None and task.cancelling():
            # aiokafka takes this for the end of a task of its own.
            raise asyncio.CancelledError
        self._note(lean, assignment, leader, sent)

    def _note(self, request: Fetch, assignment: Any, leader: int, sent: float) -> None:
        """Take over from an answer what aiokafka has not seen of it, and what it says of the changes."""
        ends: dict[int, int | None] = {}
        asked = set()
        for topic, partitions in request.topics:
            for number, offset, _ in partitions:
                end = request.ends.get((topic, number))
                if topic == self._changes:
                    ends[number] = None if end is None else end[0]
                elif topic == self._requests:
                    asked.add(number)
                if end is not None and assignment.active:
                    state = assignment.state_value(TopicPartition(topic, number))
                    if state.has_valid_position and state.position == offset:
                        state.highwater, state.lso = end
        if ends:
            for number, sure in self._on_ends(leader, sent, ends).items():
                # Requests that another leader brought meanwhile may be younger than what this one says.
                result = self._fetcher._records.get(TopicPartition(self._requests, number)) if number in asked else None
                if result is not None:
                    result.end = sure
