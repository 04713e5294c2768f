"""Undoing an import: who had something of the batch is found in the log, and told so by an event each."""

from __future__ import annotations

import asyncio
import hashlib
import time

import orjson

from schemas.base import format_instant
from streams import topics
from streams.config import Config
from streams.domain.keys import customer_key
from streams.kafka.client import Producer, Reader, Record, Sent

WINDOW = 2_000


class Undoing:
    """One undo, of one org or of all: `read` records so far, the `customers` found, events `published`."""

    def __init__(self, config: Config, org_id: int | None, batch_id: str) -> None:
        self.read = 0
        self.published = 0
        #: Org and customer to the position of the batch's last event.
        self.customers: dict[tuple[int, str], tuple[int, int]] = {}
        self._config = config
        self._org_id = org_id
        self._batch_id = batch_id
        self._topic = config.topic(topics.CHANGES.name)

    async def find(self) -> None:
        """Read `consent.changes` for customers with rows of the batch that no undo stands behind."""
        async with Reader(self._config, self._topic) as reader:
            async for bundle in reader.bundles(follow=False):
                for record in bundle:
                    self._look_at(record)
                self.read += len(bundle)

    def _look_at(self, record: Record) -> None:
        if record.value is None or b'"batch_id"' not in record.value:
            return
        try:
            event = orjson.loads(record.value)
        except orjson.JSONDecodeError:
            return
        if not isinstance(event, dict) or event.get("batch_id") != self._batch_id:
            return
        org_id, customer = event.get("org_id"), event.get("customer_id")
        if type(org_id) is not int or not isinstance(customer, str) or self._org_id not in {None, org_id}:
            return
        if event.get("event") == "consent.changed":
            self.customers[org_id, customer] = (record.partition, record.offset)
        elif event.get("event") == "consent.batch_reverted":
            self.customers.pop((org_id, customer), None)

    async def publish(self) -> None:
        """One `consent.batch_reverted` for each customer. Raises KafkaFault."""
        now = format_instant(time.time_ns() // 1_000_000)
        async with Producer(self._config) as producer:
            sent: list[asyncio.Future[Sent]] = []
            for (org_id, customer), position in self.customers.items():
                event = {
                    "event": "consent.batch_reverted", "event_id": self._id(org_id, customer, position),
                    "org_id": org_id, "customer_id": customer, "batch_id": self._batch_id, "occurred_at": now,
                }  # fmt: skip
                key = customer_key(org_id, customer)
                sent.append(await producer.send(self._topic, key, orjson.dumps(event)))
                if len(sent) >= WINDOW:
                    await self._acknowledged(sent)
            await self._acknowledged(sent)

    async def _acknowledged(self, sent: list[asyncio.Future[Sent]]) -> None:
        await asyncio.gather(*sent)
        self.published += len(sent)
        sent.clear()

    def _id(self, org_id: int, customer: str, position: tuple[int, int]) -> str:
        """The same for the same rows, whoever runs the undo again; another for rows imported after an undo."""
        said = orjson.dumps([org_id, self._batch_id, customer, *position])
        return f"undo-{hashlib.sha256(said).hexdigest()[:32]}"
