"""Record batches as Kafka stores them (message format 2), written in one go.

aiokafka builds a batch record by record in a buffer that it enlarges as it goes, header by header, and sums it up in
software. Here a record is one join of bytes, headers that never change are encoded once, and the checksum is the
processor's own: a third of the time for the records that the worker writes.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from struct import Struct
from typing import NamedTuple

from crc32c import crc32c

from streams.kafka.records import Headers

#: baseOffset, batchLength, partitionLeaderEpoch, magic, crc
_PREFIX = Struct(">qiibI")
#: attributes, lastOffsetDelta, baseTimestamp, maxTimestamp, producerId, producerEpoch, baseSequence, recordsCount
_SUMMED = Struct(">hiqqqhii")
_LENGTH_FROM = 12
_MAGIC = 2
_NO_EPOCH = -1
_HOLD_GIL = 0

BATCH_HEADER_BYTES = _PREFIX.size + _SUMMED.size


def _varint(number: int) -> bytes:
    """A signed number in Kafka's zigzag form, seven bits to a byte."""
    left = (number << 1) ^ (number >> 63)
    out = bytearray()
    while left >= 0x80:
        out.append(left & 0x7F | 0x80)
        left >>= 7
    out.append(left)
    return bytes(out)


_READY = [_varint(number) for number in range(1 << 13)]
_NULL = _varint(-1)


def varint(number: int) -> bytes:
    """A number, not negative, as Kafka writes lengths."""
    return _READY[number] if number < len(_READY) else _varint(number)


def _sized(content: bytes | None) -> bytes:
    return _NULL if content is None else varint(len(content)) + content


_join = b"".join


def encode_header(name: str, value: bytes | None) -> bytes:
    """One header as it stands in a record."""
    return _sized(name.encode()) + _sized(value)


def encode_headers(headers: Headers) -> bytes:
    """All headers of a record, their number before them."""
    return varint(len(headers)) + b"".join(encode_header(name, value) for name, value in headers)


def header_prefix(headers: Headers, name: str, more: int) -> bytes:
    """`encode_headers` up to the value of one more header, which is `name`; behind that `more` others follow."""
    encoded = name.encode()
    known = b"".join(encode_header(*header) for header in headers)
    return b"".join((varint(len(headers) + 1 + more), known, varint(len(encoded)), encoded))


NO_HEADERS = (encode_headers(()),)


class Owner(NamedTuple):
    """Who writes: the broker refuses the same producer id with a lower epoch."""

    producer_id: int
    epoch: int


class RecordBatch:
    """A batch under construction.

    Takes its first record whatever its size, and more up to `limit` bytes in all. All records bear the time at which
    the batch was begun.
    """

    __slots__ = ("_built", "_count", "_limit", "_parts", "_signature", "_size", "by", "timestamp")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        #: Milliseconds since the epoch.
        self.timestamp = int(time.time() * 1000)
        self._parts: list[bytes] = []
        self._size = BATCH_HEADER_BYTES
        self._count = 0
        #: Producer id, epoch and number of the first record.
        self._signature: tuple[int, int, int] | None = None
        #: The partition as whose owner it is written, where it goes to one that nobody owns.
        self.by: int | None = None
        self._built: bytes | None = None

    def add(self, key: bytes | None, value: bytes | None, headers: Iterable[bytes] = NO_HEADERS) -> bool:
        """Append a record; False if there is no room for it. `headers` are parts of what `encode_headers` gives."""
        count = self._count
        try:
            # Attributes, time after the batch's own, place in the batch; then key, value, headers.
            body = _join((b"\0\0", _READY[count], _READY[len(key)], key, _READY[len(value)], value, *headers))  # type: ignore[arg-type]
            length = _READY[len(body)]
        except (IndexError, TypeError):
            body = _join((b"\0\0", varint(count), _sized(key), _sized(value), *headers))
            length = varint(len(body))
        size = self._size + len(length) + len(body)
        if size > self._limit and count:
            return False
        self._size = size
        self._count = count + 1
        self._parts += (length, body)
        return True

    def record_count(self) -> int:
        """How many records it has."""
        return self._count

    def size(self) -> int:
        """Bytes of the whole batch."""
        return self._size

    @property
    def is_signed(self) -> bool:
        """Whether its records are numbered: from then on it is always the same bytes."""
        return self._signature is not None

    def sign(self, owner: Owner, first: int) -> None:
        """Who writes it, and the number of its first record."""
        self._signature = (*owner, first)

    def build(self) -> bytes:
        """The batch's bytes, once it is signed; nothing can be added any more."""
        if self._built is None:
            if self._signature is None:
                raise ValueError("a batch must be signed before it is built")
            records = b"".join(self._parts)
            self._parts.clear()
            summed = _SUMMED.pack(0, self._count - 1, self.timestamp, self.timestamp, *self._signature, self._count)
            crc = crc32c(records, crc32c(summed), _HOLD_GIL)
            prefix = _PREFIX.pack(0, self._size - _LENGTH_FROM, _NO_EPOCH, _MAGIC, crc)
            self._built = b"".join((prefix, summed, records))
        return self._built


def batch_of(records: Iterable[tuple[bytes, bytes | None]], limit: int) -> RecordBatch | None:
    """One batch of all these keys and values; None if they exceed `limit` bytes."""
    batch = RecordBatch(limit)
    return batch if all(batch.add(key, value) for key, value in records) and batch.size() <= limit else None
