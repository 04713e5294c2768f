"""What is in outputs, read back from the bytes that would go to the broker, by aiokafka's own reader."""

from __future__ import annotations

from typing import Any

from aiokafka.record.memory_records import MemoryRecords

from streams.engine.outputs import Outputs

Message = tuple[bytes | None, bytes | None, list[tuple[str, bytes | None]]]


def by_place(outputs: Outputs) -> dict[tuple[str, int], list[Message]]:
    """Key, value and headers of every record, by topic and partition, in order."""
    found: dict[tuple[str, int], list[Message]] = {}
    for topic, partition, batch in outputs.batches:
        found.setdefault((topic, partition), []).extend(messages(batch))
    return found


def messages(batch: Any) -> list[Message]:
    """Key, value and headers of every record of a batch."""
    records = MemoryRecords(bytes(batch._build()))
    found: list[Message] = []
    while records.has_next():
        one = records.next_batch()
        assert one.validate_crc()
        found += [(record.key, record.value, list(record.headers)) for record in one]
    return found
