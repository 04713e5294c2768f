"""What came by HTTP, on its way into the log. Nothing changes state by another way."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import orjson

from streams import topics
from streams.config import Config
from streams.domain.keys import customer_key, partition_of
from streams.engine.outputs import Writer
from streams.http.gathering import Gathering

#: So many requests' events are written together.
MOST_AT_ONCE = 64


class Written(NamedTuple):
    """Where an acknowledged event lies; a request's `min_position` can name it."""

    partition: int
    offset: int


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

        Returns their positions, in their order. Raises RefusedError if the broker refuses them.
        """
        key = customer_key(org_id, customer_id)
        partition = partition_of(key, self._config.partitions)
        first = await self._append((partition, [(key, orjson.dumps(event)) for event in events]))
        return [Written(partition, first + at) for at in range(len(events))]

    async def publish_inbound(self, key: bytes, value: bytes) -> Written:
        """Write one record of `consent.inbound` under its key. Raises RefusedError."""
        partition = partition_of(key, self._config.partitions)
        return Written(partition, await self._writer.append(self._inbound, partition, key, value))
