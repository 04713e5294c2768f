"""Writing: ready-made batches, each acknowledgement awaited."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from streams.config import Config
from streams.engine.records import Headers
from streams.topics import CHANGELOG_BYTES

#: A batch of outputs is closed at this size, well below what a broker accepts by default.
OUTPUT_BATCH_BYTES = 768 << 10
#: Room for a batch's own header and the last record's lengths within max.message.bytes.
BATCH_OVERHEAD = 1_024
#: Lengths, offset and time of a record and its headers take less than this.
RECORD_OVERHEAD = 128
#: A broker that is away is waited for: a batch is given up only after this long.
BATCH_PATIENCE_S = 7 * 86_400

Message = tuple[bytes | None, bytes | None, Headers]


class RefusedError(Exception):
    """The broker refused a record for good; nothing after it may be acknowledged."""


class Outputs:
    """Records to be written, by topic and partition, in order."""

    __slots__ = ("by_place",)

    def __init__(self) -> None:
        self.by_place: dict[tuple[str, int], list[Message]] = {}

    def add(self, topic: str, partition: int, key: bytes | None, value: bytes | None, headers: Headers) -> None:
        """One more record for a topic's partition."""
        place = (topic, partition)
        messages = self.by_place.get(place)
        if messages is None:
            messages = self.by_place[place] = []
        messages.append((key, value, headers))


class Writer:
    """An idempotent producer (acks=all) that writes whole batches and returns when all of them are acknowledged."""

    def __init__(self, config: Config) -> None:
        self._producer = AIOKafkaProducer(
            bootstrap_servers=config.bootstrap_servers,
            client_id=f"{config.group}-writer",
            acks="all",
            enable_idempotence=True,
            max_batch_size=CHANGELOG_BYTES - BATCH_OVERHEAD,
            max_request_size=2 * CHANGELOG_BYTES,
            linger_ms=0,
        )

    async def start(self) -> None:
        await self._producer.start()
        # aiokafka has one option for the patience with a request and with a batch; we want them apart.
        self._producer._message_accumulator._batch_ttl = BATCH_PATIENCE_S

    async def stop(self) -> None:
        await self._producer.stop()

    async def write(self, outputs: Outputs) -> None:
        """Write everything. Raises RefusedError if the broker refuses any of it."""
        pending: list[tuple[str, Any]] = []
        for (topic, partition), messages in outputs.by_place.items():
            for batch in self._batches(messages):
                future = await self._producer.send_batch(batch, topic, partition=partition)
                pending.append((topic, future))
        for topic, future in pending:
            await self._acknowledged(topic, future)

    async def append(self, topic: str, partition: int, key: bytes, value: bytes) -> int:
        """Write one record; returns its offset. Raises RefusedError."""
        batch = self._producer.create_batch()
        batch.append(key=key, value=value, timestamp=int(time.time() * 1000))
        future = await self._producer.send_batch(batch, topic, partition=partition)
        return int((await self._acknowledged(topic, future)).offset)

    async def write_atomically(self, topic: str, partition: int, values: Iterable[tuple[bytes, bytes | None]]) -> int:
        """Write all values in one record batch, in the log whole or not at all; returns the last one's offset."""
        batch = self._producer.create_batch()
        now = int(time.time() * 1000)
        count = 0
        for key, value in values:
            if batch.append(key=key, value=value, timestamp=now) is None:
                raise RefusedError(f"{topic}-{partition}: one checkpoint's changes exceed {CHANGELOG_BYTES} bytes")
            count += 1
        future = await self._producer.send_batch(batch, topic, partition=partition)
        metadata = await self._acknowledged(topic, future)
        return int(metadata.offset) + count - 1

    def _batches(self, messages: list[Message]) -> Iterable[Any]:
        now = int(time.time() * 1000)
        batch = self._producer.create_batch()
        size = 0
        for key, value, headers in messages:
            length = RECORD_OVERHEAD + (len(value) if value else 0) + (len(key) if key else 0)
            for name, content in headers:
                length += len(name) + len(content or b"")
            if size and size + length > OUTPUT_BATCH_BYTES:
                yield batch
                batch, size = self._producer.create_batch(), 0
            if batch.append(key=key, value=value, timestamp=now, headers=headers) is None:
                raise RefusedError(f"a record of {length} bytes is too large to be written")
            size += length
        yield batch

    @staticmethod
    async def _acknowledged(topic: str, future: asyncio.Future[Any]) -> Any:
        try:
            return await future
        except KafkaError as exc:
            raise RefusedError(f"{topic}: the broker refused a record: {exc!r}") from exc
