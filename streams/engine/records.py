"""What travels between the transport, the lanes and the agents."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

Headers = Sequence[tuple[str, bytes]]

#: CloudEvents id of an output: where its input stands, `{topic}/{partition}/{offset}`. A restart knows its own by it.
POSITION = "ce_id"
#: Header of a record that was sent to its home partition: where it was found. It is sent only once.
FORWARDED = "consent.forwarded_from"
#: Header of a decision and its audit: how far the requests of the partition are answered, `{floor}/{high}`.
PROGRESS = "consent.progress"

#: So many records that were sent home to a partition are remembered.
MOST_ARRIVALS = 16_000


class Record(NamedTuple):
    """One record as it stands in its topic; `timestamp` in milliseconds. The consumer's own records look the same."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Headers


def keys_of(records: list[Record]) -> list[bytes]:
    """The keys of these records, each once."""
    return list({record.key for record in records if record.key})


def was_forwarded(record: Record) -> bool:
    """Whether the record was found in a foreign partition and sent home once before."""
    return any(name == FORWARDED for name, _ in record.headers)


class Arrivals:
    """Records that came home to one partition. An owner that does not know that one was sent may send it again."""

    def __init__(self, most: int = MOST_ARRIVALS) -> None:
        self._most = most
        self._first: dict[tuple[bytes, int], int] = {}

    def is_repeated(self, record: Record) -> bool:
        """Whether the same record, from the same place, stands in the partition before this one. Remembers it."""
        mark = next((value for name, value in record.headers if name == FORWARDED), None)
        if mark is None:
            return False
        first = self._first.setdefault((mark, hash((record.key, record.value))), record.offset)
        if len(self._first) > self._most:
            del self._first[next(iter(self._first))]
        return first < record.offset


@dataclass(slots=True)
class Batch:
    """Records of one partition, in order, as one fetch brought them.

    `next_offset` is the consumer's position behind them: every record below it is in this batch or an earlier one,
    transaction markers and compacted gaps included. `at` is a moment, in monotonic seconds, at which it had arrived.
    `on_done` is told when all of it is done. `end` is where the partition's changes ended when the broker had read
    these records, or later; None if it is not known.
    """

    partition: int
    records: list[Record]
    next_offset: int
    at: float
    on_done: Callable[[], None] = field(default=lambda: None, repr=False)
    end: int | None = None

    def done(self) -> None:
        """All of it is done and may be committed; its records are let go."""
        self.records = []
        self.on_done()
