"""Writing: ready-made batches, each acknowledgement awaited."""

from __future__ import annotations

from collections.abc import Awaitable, Iterable, Mapping

from streams.kafka.cluster import Cluster
from streams.kafka.errors import InvalidProducerEpoch, ProducerFenced
from streams.kafka.ownership import FencedError
from streams.kafka.producer import Delivery, Numbers, Producer, Sent
from streams.kafka.record_batch import NO_HEADERS, Owner, RecordBatch, batch_of
from streams.kafka.records import Place
from streams.topics import CHANGELOG_BYTES

#: A batch of outputs is closed at this size, well below what a broker accepts by default.
OUTPUT_BATCH_BYTES = 768 << 10
#: Room for a batch's own header and the last record's lengths within max.message.bytes.
BATCH_OVERHEAD = 1_024

#: A record's lengths, times and empty headers take less than this.
RECORD_OVERHEAD = 64

Values = Iterable[tuple[bytes, bytes | None]]
Group = list[tuple[bytes, bytes]]


class RefusedError(Exception):
    """The broker refused a record for good; nothing after it may be acknowledged."""


class Outputs:
    """Records to be written, in batches that a topic accepts, each place's in order."""

    __slots__ = ("_open", "batches")

    def __init__(self) -> None:
        self._open: dict[tuple[str, int, int | None], RecordBatch] = {}
        #: Topic, partition and records, in the order in which they were begun.
        self.batches: list[tuple[str, int, RecordBatch]] = []

    def add(
        self,
        topic: str,
        partition: int,
        key: bytes | None,
        value: bytes | None,
        headers: Iterable[bytes] = NO_HEADERS,
        by: int | None = None,
    ) -> None:
        """One more record for a topic's partition; `headers` as `RecordBatch.add` takes them.

        `by` is the partition as whose owner it is written, where it goes to one that nobody owns.
        """
        place = (topic, partition, by)
        batch = self._open.get(place)
        if batch is None or not batch.add(key, value, headers):
            batch = self._open[place] = RecordBatch(OUTPUT_BATCH_BYTES)
            batch.by = by
            # A batch takes its first record whatever its size; the broker refuses what is too large.
            batch.add(key, value, headers)
            self.batches.append((topic, partition, batch))


class Writer:
    """An idempotent producer (acks=all) that writes whole batches and returns when all of them are acknowledged.

    What it writes to partitions that it owns is refused once another owner has taken them: FencedError. What it writes
    elsewhere as their owner is refused there once the other owner has written there too.
    """

    def __init__(self, cluster: Cluster, purpose: str) -> None:
        self._producer = Producer(cluster, purpose)
        self._own = Numbers()
        self._owners: dict[int, Numbers] = {}
        self._owned: dict[Place, Numbers] = {}

    def own(self, number: int, places: Iterable[Place], owner: Owner) -> None:
        """Write to these places, and for this partition elsewhere, as the owner; nothing may be under way there."""
        self._owners[number] = Numbers(owner)
        self._owned.update(dict.fromkeys(places, self._owners[number]))

    async def stop(self) -> None:
        await self._producer.stop()

    async def write(self, outputs: Outputs) -> None:
        """Write everything. Raises RefusedError if the broker refuses any of it.

        What goes to partitions that nobody owns goes last, and not at all if another worker has taken ours.
        """
        for owned in (True, False):
            batches = [one for one in outputs.batches if (one[2].by is None) is owned]
            if batches:
                await self._write(batches)

    def begin(self, outputs: Outputs) -> Awaitable[object]:
        """Hand over outputs for our own partitions now; what it returns is to be awaited, as `write`."""
        return self._write(outputs.batches)

    async def append(self, topic: str, partition: int, key: bytes, value: bytes) -> int:
        """Write one record; returns its offset. Raises RefusedError."""
        (offset,) = await self.append_each(topic, [(partition, [(key, value)])])
        return offset

    async def append_each(self, topic: str, groups: Iterable[tuple[int, Group]]) -> list[int]:
        """Write groups of records to partitions, each group in the log whole or not at all.

        Returns the offset of each group's first record. Raises RefusedError.
        """
        batches: dict[int, list[RecordBatch]] = {}
        places: list[tuple[int, int, int]] = []
        for partition, records in groups:
            own = batches.setdefault(partition, [])
            size = sum(len(key) + len(value) + RECORD_OVERHEAD for key, value in records)
            if not own or own[-1].size() + size > OUTPUT_BATCH_BYTES:
                own.append(RecordBatch(CHANGELOG_BYTES))
            places.append((partition, len(own) - 1, own[-1].record_count()))
            if not all(own[-1].add(key, value) for key, value in records):
                raise RefusedError(f"{topic}-{partition}: records of {size} bytes exceed one batch")
        handed = [(partition, at) for partition, own in batches.items() for at in range(len(own))]
        written = await self._write([(topic, partition, batches[partition][at]) for partition, at in handed])
        first = dict(zip(handed, written, strict=True))
        return [first[partition, batch] + within for partition, batch, within in places]

    async def write_atomically(self, topic: str, values: Mapping[int, Values]) -> dict[int, int]:
        """Write each partition's values in one record batch, in the log whole or not at all.

        Returns the offset of each partition's first value. Raises RefusedError.
        """
        batches = []
        for partition, pairs in values.items():
            batch = batch_of(pairs, CHANGELOG_BYTES - BATCH_OVERHEAD)
            if batch is None:
                raise RefusedError(f"{topic}-{partition}: one checkpoint's changes exceed {CHANGELOG_BYTES} bytes")
            batches.append((topic, partition, batch))
        return dict(zip(values, await self._write(batches), strict=True))

    def _write(self, batches: Iterable[tuple[str, int, RecordBatch]]) -> Awaitable[list[int]]:
        """Hand over batches, which travel together, now; to be awaited is the offset of each one's first record."""
        sents = []
        for topic, partition, batch in batches:
            numbers = self._owned.get((topic, partition), self._own) if batch.by is None else self._owners[batch.by]
            sents.append(Sent(topic, partition, batch, numbers))
        return self._written(self._producer.hand_over(sents))

    async def _written(self, delivery: Delivery) -> list[int]:
        await delivery.done
        return [self._offset(sent) for sent in delivery.sents]

    def _offset(self, sent: Sent) -> int:
        error = sent.error
        if error is None and sent.offset is not None:
            return sent.offset
        if isinstance(error, ProducerFenced | InvalidProducerEpoch):
            raise FencedError(f"{sent.place[0]}: another worker owns this partition now") from error
        self._producer.forget_own_id()
        raise RefusedError(f"{sent.place[0]}: the broker refused a record: {error!r}") from error
