"""One record to every partition of a topic, in one transaction: in all of them or in none, and once."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress

from aiokafka import AIOKafkaProducer
from aiokafka.errors import InvalidProducerEpoch, KafkaError, ProducerFenced

from streams.config import Config
from streams.kafka.admin import partitions_of
from streams.kafka.client import TRANSACTION_MS, Header, Reader, Sent, know, started_producer, stopped
from streams.kafka.faults import ABSENT, KafkaFault, plain_faults
from streams.kafka.patience import patience_s
from streams.kafka.reaching import persistently

#: At least so long it is looked for what became of a transaction, once it was to be committed.
LOOK_S = 10.0
POLL_S = 0.1
ABORT_S = 3.0


class OutcomeUnknown(KafkaFault):
    """The transaction was to be committed, and nobody could be asked whether it is."""


async def send_settings(
    config: Config, topic: str, org_id: int, key: bytes, value: bytes, headers: Sequence[Header] = ()
) -> list[Sent]:
    """Write an org's `settings.changed` to every partition in one transaction; one writer per org at a time.

    Returns where it lies, once it is committed. While a broker is away it is tried again, for `patience_s`: what an
    attempt that failed may have committed is looked for before the next one. Raises KafkaFault if nothing is written,
    OutcomeUnknown if that is not known.
    """
    writing = _Writing(config, topic, org_id, key, value, headers)
    with plain_faults(config):
        return await writing.run()


class _Writing:
    def __init__(
        self, config: Config, topic: str, org_id: int, key: bytes, value: bytes, headers: Sequence[Header]
    ) -> None:
        self._config = config
        self._topic = topic
        self._org_id = org_id
        self._record = (value, key)
        self._headers = list(headers)
        #: What an attempt wrote that was to be committed, until it is known that it was not.
        self._undecided: list[Sent] = []

    async def run(self) -> list[Sent]:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + patience_s()
        partitions = await partitions_of(self._config, self._topic)
        looking = False
        while True:
            began = loop.time()
            try:
                async with asyncio.timeout_at(deadline):
                    return await self._attempt(partitions)
            except (KafkaError, KafkaFault, TimeoutError) as error:
                if self._undecided and not looking:
                    looking = True
                    deadline = max(deadline, loop.time() + LOOK_S)
                if loop.time() + POLL_S >= deadline or not _passes(error, loop.time() - began):
                    if self._undecided:
                        raise self._unknown() from error
                    raise
            await asyncio.sleep(POLL_S)

    async def _attempt(self, partitions: int) -> list[Sent]:
        name = self._config.settings_writer(self._org_id)
        # Kafka lets a producer of the same name in once the transactions of those before it are decided.
        producer = await persistently(lambda: started_producer(self._config, name, TRANSACTION_MS))
        try:
            if self._undecided and await self._is_committed(self._undecided[0]):
                return self._undecided
            self._undecided = []
            # A transaction that waits for a leader would hold up the readers of all the other partitions.
            async with Reader(self._config, self._topic) as reader:
                await reader.ends()
            return await self._write(producer, partitions)
        finally:
            await stopped(producer.stop())

    async def _is_committed(self, sent: Sent) -> bool:
        async with Reader(self._config, self._topic, [sent.partition]) as reader:
            # Others' transactions that are open hide what lies behind their beginning.
            while (await reader.ends())[sent.partition] <= sent.offset:  # noqa: ASYNC110 - only asked
                await asyncio.sleep(POLL_S)
            async for bundle in reader.bundles({sent.partition: sent.offset}, follow=False):
                if any(record.offset == sent.offset for record in bundle):
                    return True
        return False

    async def _write(self, producer: AIOKafkaProducer, partitions: int) -> list[Sent]:
        await know(producer, self._topic)
        try:
            await producer.begin_transaction()
            pending = [
                await producer.send(self._topic, *self._record, partition, headers=self._headers)
                for partition in range(partitions)
            ]
            sent = [Sent(meta.topic, meta.partition, meta.offset) for meta in await asyncio.gather(*pending)]
            self._undecided = sent
            await producer.commit_transaction()
        except BaseException:
            if not self._undecided:
                await _abort(producer)
            raise
        self._undecided = []
        return sent

    def _unknown(self) -> OutcomeUnknown:
        return OutcomeUnknown(
            f"Kafka at {self._config.bootstrap_servers} does not say whether it was written to all partitions or to "
            f"none: `consent-streams settings show {self._org_id}` tells which version is in force, "
            "and to apply the same version again does no harm"
        )


def _passes(error: BaseException, after_s: float) -> bool:
    if isinstance(error, (ProducerFenced, InvalidProducerEpoch)):
        # Kafka gave the transaction up, or another command took over.
        return after_s * 1000 >= TRANSACTION_MS
    if isinstance(error, KafkaFault):
        return isinstance(error.__cause__, ABSENT)
    # That is what aiokafka makes of all that it did not expect of a coordinator.
    return isinstance(error, ABSENT) or type(error) is KafkaError or bool(getattr(error, "retriable", False))


async def _abort(producer: AIOKafkaProducer) -> None:
    # Without a broker this never ends; the broker aborts by itself after TRANSACTION_MS.
    with suppress(TimeoutError, KafkaError, AssertionError):
        async with asyncio.timeout(ABORT_S):
            await producer.abort_transaction()
