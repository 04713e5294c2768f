"""Record batches as they stand in a log."""

from __future__ import annotations

from crc32c import crc32c

from streams.kafka.record_batch import Owner, RecordBatch

TRANSACTIONAL, CONTROL = 0x10, 0x20
PRODUCER = 7
ABORT, COMMIT = b"\0\0\0\0", b"\0\0\0\1"


def batch(first: int, *values: bytes, attributes: int = 0, key: bytes = b"k") -> bytes:
    """A record batch as it stands in a log from the offset `first` on."""
    made = RecordBatch(10_000)
    for value in values:
        made.add(key, value)
    made.sign(Owner(PRODUCER, 0), 0)
    raw = bytearray(made.build())
    raw[0:8] = first.to_bytes(8, "big")
    raw[21:23] = attributes.to_bytes(2, "big")
    raw[17:21] = crc32c(bytes(raw[21:])).to_bytes(4, "big")
    return bytes(raw)


def marker(first: int, kind: bytes) -> bytes:
    """The end of a transaction."""
    return batch(first, b"\0\0\0\0\0\0", attributes=TRANSACTIONAL | CONTROL, key=kind)
