"""What travels between the transport, the lanes and the agents."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from streams.kafka.read_barrier import Confirmation
from streams.kafka.records import Record

#: CloudEvents id of an output: where its input stands, `{topic}/{partition}/{offset}`. A restart knows its own by it.
POSITION = "ce_id"
#: Header of a record that was sent to its home partition: where it was found. It is sent only once.
FORWARDED = "consent.forwarded_from"
#: Header of a decision and its audit: how far the requests of the partition are answered, `{floor}/{high}`.
PROGRESS = "consent.progress"

#: So many records that were sent home to a partition are remembered.
MOST_ARRIVALS = 16_000


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


class LostError(Exception):
    """Records were lost on their way through this process: it must not go on, and a restart reads them again."""


class Joints:
    """Holds each partition's batches to follow one another without a gap, from where they are to start.

    Between the consumer and the engine they pass queues that Faust empties when it sees fit.
    """

    def __init__(self, starts: Mapping[tuple[str, int], int]) -> None:
        self._next = dict(starts)

    def check(self, topic: str, batch: Batch) -> None:
        """The next batch of a topic's partition. Raises LostError if it does not join what came before."""
        expected = self._next[topic, batch.partition]
        if batch.first_offset > expected:
            gap = f"{topic}-{batch.partition}: what lies from {expected} to {batch.first_offset} was lost in the worker"
            raise LostError(f"{gap}; a restart reads it again")
        self._next[topic, batch.partition] = max(expected, batch.next_offset)


@dataclass(slots=True)
class Batch:
    """Records of one partition, in order, as one fetch brought them.

    `first_offset` and `next_offset` are the consumer's positions before and behind them: every record below the latter
    is in this batch or an earlier one, transaction markers and compacted gaps included. `at` is a moment, in monotonic
    seconds, at which it had arrived. `on_done` is told when all of it is done. `end` is where the partition's changes
    ended when the broker had read these records, or later; None if it is not known. It counts once `confirmation` says
    so of the changes; where that is None, it counts.
    """

    partition: int
    records: list[Record]
    first_offset: int
    next_offset: int
    at: float
    on_done: Callable[[], None] = field(default=lambda: None, repr=False)
    end: int | None = None
    confirmation: Confirmation | None = None

    def done(self) -> None:
        """All of it is done and may be committed; its records are let go."""
        self.records = []
        self.on_done()
