"""The bare echo: aiokafka consumer to aiokafka producer in one process, whole batches, no work, no group, no commits.

Usage: python -m tests.bench.echo BOOTSTRAP IN OUT. It is built as cheaply as aiokafka allows (`send_batch`), and its
producer gives the same guarantees as the product's (idempotent, all acknowledgements), so that it is a floor, not a
straw man.
"""

from __future__ import annotations

import asyncio
import signal
import sys

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord

BATCH_BYTES = 1 << 19  # below the broker's limit of a megabyte
POLL_MS = 200


async def _send(producer: AIOKafkaProducer, out: str, partition: int, records: list[ConsumerRecord]) -> None:
    batch = producer.create_batch()
    pending = []
    for record in records:
        while batch.append(key=record.key, value=record.value, timestamp=None) is None:
            pending.append(await producer.send_batch(batch, out, partition=partition))
            batch = producer.create_batch()
    pending.append(await producer.send_batch(batch, out, partition=partition))
    for future in pending:
        await future


async def run(bootstrap: str, source: str, out: str) -> None:
    """Echo until SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    # Without a group the consumer takes all partitions itself, and no coordinator is asked for anything.
    consumer = AIOKafkaConsumer(
        source, bootstrap_servers=bootstrap, enable_auto_commit=False, auto_offset_reset="earliest"
    )
    producer = AIOKafkaProducer(
        bootstrap_servers=bootstrap, enable_idempotence=True, acks="all", max_batch_size=BATCH_BYTES
    )
    await consumer.start()
    await producer.start()
    try:
        while not stop.is_set():
            fetched = await consumer.getmany(timeout_ms=POLL_MS)
            await asyncio.gather(*(_send(producer, out, tp.partition, records) for tp, records in fetched.items()))
    finally:
        await consumer.stop()
        await producer.stop()


if __name__ == "__main__":
    asyncio.run(run(*sys.argv[1:4]))
