"""An import under way: rows to events to `consent.changes`, with a journal; and the same asked beforehand."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Iterator
from typing import Any

from streams import topics
from streams.config import Config
from streams.domain.keys import partition_of
from streams.kafka.admin import partitions_of
from streams.kafka.client import Producer, Sent

from .http import post
from .journal import Journal
from .mapping import Event, Mapping, RowError
from .rejects import Rejects
from .rows import Table

WINDOW = 2_000  # events under way; enough to fill the producer's batches
MOST_EVENTS = 1_000  # of one preview
MOST_BYTES = 500_000
PREVIEW_S = 30.0


class Importing:
    """One run over one file. `rows` are all rows seen, `published` those acknowledged in this run."""

    def __init__(self, config: Config, table: Table, mapping: Mapping, rejects: Rejects) -> None:
        self.rows = 0
        self.published = 0
        self._config = config
        self._table = table
        self._mapping = mapping
        self._rejects = rejects

    async def publish(self, journal: Journal) -> None:
        """Publish every row behind those that the journal has as acknowledged. Raises KafkaFault."""
        topic = self._config.topic(topics.CHANGES.name)
        done = journal.rows
        under_way: deque[tuple[int, asyncio.Future[Sent]]] = deque()

        async def acknowledge() -> None:
            row, sent = under_way.popleft()
            await sent
            self.published += 1
            journal.acknowledged(row)

        async with Producer(self._config) as producer:
            try:
                for event in self._events():
                    if self.rows <= done:
                        continue
                    if len(under_way) >= WINDOW:
                        await acknowledge()
                    under_way.append((self.rows, await producer.send(topic, event.key, event.value)))
                while under_way:
                    await acknowledge()
            finally:
                journal.save()
        journal.remove()

    def _events(self) -> Iterator[Event]:
        """The good rows; the others go into the report."""
        for row in self._table:
            self.rows += 1
            try:
                event = self._mapping.event(row)
                if len(event.value) + len(event.key) > self._config.max_record_bytes:
                    raise RowError(f"the event has {len(event.value)} bytes, too many (CONSENT_MAX_RECORD_BYTES)")
            except RowError as error:
                self._rejects.add(row, str(error))
                continue
            yield event

    def preview(self) -> dict[str, Any]:
        """What an import would do, as the workers say; nothing is published. Holds the file's events in memory.

        Counts by outcome, dead letters by code, and opt-ins that a newer opt-out in force contradicts.
        """
        partitions = asyncio.run(partitions_of(self._config, self._config.topic(topics.CHANGES.name)))
        homes: dict[int, dict[bytes, list[bytes]]] = {}
        for event in self._events():
            home = homes.setdefault(partition_of(event.key, partitions), {})
            home.setdefault(event.key, []).append(event.value)
        outcomes: Counter[str] = Counter()
        dead: Counter[str] = Counter()
        contradictions = 0
        for home in homes.values():
            for chunk in _chunks(home):
                body = b"[%b]" % b",".join(chunk)
                path = ("v1", "orgs", self._mapping.org_id, "preview")
                for found in post(self._config, *path, body=body, timeout_s=PREVIEW_S)["outcomes"]:
                    counts = dead if found["outcome"] == "dead_letter" else outcomes
                    counts[found["outcome_reason"] or found["outcome"]] += 1
                    contradictions += found["contradicts_newer_opt_out"]
                    self.published += 1
        return {
            "outcomes": dict(sorted(outcomes.items())),
            "dead_letters": dict(sorted(dead.items())),
            "contradicts_newer_opt_out": contradictions,
        }


def _chunks(customers: dict[bytes, list[bytes]]) -> Iterator[list[bytes]]:
    """Events for one preview each, in their order; a customer's stay together, for they depend on each other."""
    chunk: list[bytes] = []
    size = 0
    for events in customers.values():
        for at in range(0, len(events), MOST_EVENTS):
            part = events[at : at + MOST_EVENTS]
            more = sum(map(len, part)) + len(part)
            if chunk and (len(chunk) + len(part) > MOST_EVENTS or size + more > MOST_BYTES):
                yield chunk
                chunk, size = [], 0
            chunk += part
            size += more
    if chunk:
        yield chunk
