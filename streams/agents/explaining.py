"""Explaining decisions that a crash left without their audit: computed again, from the log alone."""

from __future__ import annotations

import logging
from typing import Any

import orjson

from streams import topics
from streams.agents.changes import Changes
from streams.agents.eligibility import Eligibility
from streams.agents.writing import Scribe
from streams.config import Config
from streams.domain.keys import is_settings_key
from streams.engine.outputs import Outputs
from streams.engine.partition import Partition, View
from streams.engine.records import keys_of
from streams.engine.requests import Progress
from streams.engine.table import BytesStore
from streams.kafka.log_reader import LogReader
from streams.kafka.records import Headers, Record
from streams.logs import about

log = logging.getLogger(__name__)


class Nothing(BytesStore):
    """A store that holds nothing: what is replayed stays in the partition's memory."""

    def __init__(self) -> None:
        """Nothing to open."""

    def get_many(self, partition: int, keys: list[bytes]) -> list[bytes | None]:  # noqa: ARG002 - a store's signature
        return [None] * len(keys)


class Silent(Scribe):
    """Writes nothing: the records that are replayed have had their outputs."""

    def audit(self, *_: Any, **__: Any) -> None:
        """Nothing."""

    def dead_letter(self, *_: Any, **__: Any) -> None:
        """Nothing."""

    def forward(self, *_: Any, **__: Any) -> None:
        """Nothing."""


async def explain(reader: LogReader, config: Config, clerk: Eligibility, number: int, progress: Progress) -> Outputs:
    """Audit records of the partition's decisions that have none.

    The customers' changes are applied anew up to each decision's `as_of`, which takes reading the partition from its
    beginning. Only a crash in the middle of a write that the broker took in part makes that necessary.
    """
    out = Outputs()
    wanted = progress.unexplained
    if not wanted:
        return out
    place = about(topics.REQUESTS.name, number, min(wanted))
    log.warning("%d decisions from here on have no audit yet, they are computed again", len(wanted), extra=place)
    requests = config.topic(topics.REQUESTS.name)
    asked: list[tuple[int, Record]] = []
    async for records in reader.scan(requests, number, min(wanted), max(wanted) + 1):
        asked += ((_as_of(wanted[r.offset]), _record(r)) for r in records if r.offset in wanted)
    asked.sort(key=lambda one: (one[0], one[1].offset))
    replayed = _Replayed(reader, config, number, {record.key or b"" for _, record in asked})
    for as_of, record in asked:
        await replayed.go_to(as_of)
        clerk.explain(replayed.partition, record, wanted[record.offset], progress, out)
    return out


class _Replayed:
    """A partition of `consent.changes` as it was at an offset, as far as some customers are concerned."""

    def __init__(self, reader: LogReader, config: Config, number: int, keys: set[bytes]) -> None:
        self.partition = Partition(number, Nothing())
        self._reader = reader
        self._topic = config.topic(topics.CHANGES.name)
        self._keys = keys
        scribe = Silent(topics.CHANGES.name, number, config.topic_prefix)
        self._changes = Changes(scribe, config.partitions, config.max_record_bytes)

    async def go_to(self, offset: int) -> None:
        """Apply what is below the offset and was not applied yet."""
        number = self.partition.number
        first = max(self.partition.applied, await self._reader.beginning(self._topic, number))
        async for fetched in self._reader.scan(self._topic, number, first, offset, committed=True):
            ours = [_record(r) for r in fetched if r.key and (r.key in self._keys or is_settings_key(r.key))]
            view = View(self.partition, keys_of(ours))
            for record in ours:
                self._changes.apply(view, record, Outputs())
            self.partition.publish(view)
        self.partition.advance(offset)


def _record(found: Any) -> Record:
    headers: Headers = found.headers
    return Record(found.offset, found.timestamp, found.key, found.value, headers)


def _as_of(body: bytes) -> int:
    return int(orjson.loads(body)["as_of"]["offset"])
