"""What came by HTTP, on its way into the log. Nothing changes state by another way."""

from __future__ import annotations

import logging
from functools import partial
from typing import NamedTuple

import orjson
from fastapi import Response

from streams import topics
from streams.config import Config
from streams.domain.keys import customer_key, partition_of
from streams.engine.outputs import BATCH_OVERHEAD, RECORD_OVERHEAD, RefusedError, Writer
from streams.http.gathering import Gathering
from streams.http.owners import problem, retry

log = logging.getLogger(__name__)

#: What the events of one request may have together: they are in the log whole or not at all.
MOST_BYTES = topics.INPUT_BYTES - BATCH_OVERHEAD
#: So many requests' events are written together.
MOST_AT_ONCE = 64


class Written(NamedTuple):
    """Where an acknowledged event lies; a request's `min_position` can name it."""

    partition: int
    offset: int


class TooLargeError(RefusedError):
    """The log would not take it, or the stream not apply it; nothing is written. The message says the sizes."""


class Intake:
    """Writes events of customers. Those of one call are in the log whole or not at all; calls share round trips."""

    def __init__(self, config: Config, writer: Writer) -> None:
        self._config = config
        self._topic = config.topic(topics.CHANGES.name)
        self._inbound = config.topic(topics.INBOUND.name)
        self._writer = writer
        self._append = Gathering(partial(writer.append_each, self._topic), MOST_AT_ONCE)

    async def publish(self, org_id: int, customer_id: str, events: list[dict[str, object]]) -> list[Written]:
        """Write events of one customer (times as RFC 3339 text) and wait for the acknowledgement.

        Returns their positions, in their order. Raises TooLargeError, or RefusedError if the broker refuses them.
        """
        key = customer_key(org_id, customer_id)
        partition = partition_of(key, self._config.partitions)
        records = [(key, self._checked(key, orjson.dumps(event))) for event in events]
        size = sum(len(key) + len(value) + RECORD_OVERHEAD for key, value in records)
        if size > MOST_BYTES:
            raise TooLargeError(f"{len(events)} events of {size} bytes, at most {MOST_BYTES} are taken at once")
        first = await self._append((partition, records))
        return [Written(partition, first + at) for at in range(len(events))]

    async def publish_inbound(self, key: bytes, value: bytes) -> Written:
        """Write one record of `consent.inbound` under its key. Raises TooLargeError or RefusedError."""
        self._checked(key, value)
        partition = partition_of(key, self._config.partitions)
        return Written(partition, await self._writer.append(self._inbound, partition, key, value))

    def _checked(self, key: bytes, value: bytes) -> bytes:
        """The value, if it would not be a dead letter for its size. Raises TooLargeError."""
        size, most = len(key) + len(value), self._config.max_record_bytes
        if size > most:
            raise TooLargeError(f"an event of {size} bytes, at most {most} are accepted (max_record_bytes)")
        return value


def not_written(error: RefusedError) -> Response:
    """What is answered where nothing was written."""
    if isinstance(error, TooLargeError):
        return problem(413, str(error))
    log.warning("not written: %s", error)
    return retry("Kafka does not take it now")
