"""What is in outputs, read back from the bytes that would go to the broker, by aiokafka's own reader."""

from __future__ import annotations

from aiokafka.record.memory_records import MemoryRecords

from streams.engine.outputs import Outputs
from streams.kafka.record_batch import Owner, RecordBatch

Message = tuple[bytes | None, bytes | None, list[tuple[str, bytes | None]]]


def by_place(outputs: Outputs) -> dict[tuple[str, int], list[Message]]:
    """Key, value and headers of every record, by topic and partition, in order."""
    found: dict[tuple[str, int], list[Message]] = {}
    for topic, partition, batch in outputs.batches:
        found.setdefault((topic, partition), []).extend(messages(batch))
    return found


def messages(batch: RecordBatch) -> list[Message]:
    """Key, value and headers of every record of a batch."""
    if not batch.is_signed:
        batch.sign(Owner(-1, -1), -1)
    records = MemoryRecords(batch.build())
    found: list[Message] = []
    while records.has_next():
        one = records.next_batch()
        assert one.validate_crc()
        found += [(record.key, record.value, list(record.headers)) for record in one]
    return found
