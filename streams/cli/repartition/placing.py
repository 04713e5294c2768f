"""Where each record of `consent.changes` goes when the number of partitions changes, and after which others."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator

from streams import topics
from streams.agents.changes import Changes
from streams.agents.explaining import Nothing, Silent
from streams.agents.reading import size_of
from streams.domain.keys import is_settings_key, partition_of
from streams.engine.outputs import Outputs
from streams.engine.partition import Partition, View
from streams.engine.records import FORWARDED, keys_of
from streams.kafka.records import Record

from ..root import Failure

#: What the mark of a record that was sent home becomes: its positions are those of the old topic. It has as many
#: letters, so that no record becomes shorter or longer, and with that a dead letter (`too_large`) or none.
FORWARDED_ONCE = "consent.forwarded_once"
#: No worker accepts a larger record, and a producer may not be able to send one that came compressed.
MOST_BYTES = 1_000_000

#: A record and the partition of the new topic that it is written to.
Placed = tuple[int, Record]


class Placing:
    """Sends every record to its key's partition among `after`, which was found in one of `before`.

    A customer's records keep their order, and each is weighed under the settings that it was weighed under. Settings
    stand in every old partition at a place of its own: they are written, to all new partitions, once they were found
    in all old ones. Until then the org's records behind them are held; other orgs' records are not. What is found
    outside of its home is left out, for the worker sent it home: there it is found again.
    """

    def __init__(self, before: int, after: int, max_bytes: int) -> None:
        self._before = before
        self._after = after
        self._in_force = _InForce(max_bytes)
        #: By the org's part of the key, and by old partition: settings that come next, and what stands behind them.
        self._held: dict[bytes, dict[int, deque[Record]]] = {}
        self.left_out: Counter[str] = Counter()

    def know(self, record: Record) -> None:
        """Take note of a record that is in the new topic from an earlier run."""
        view = self._in_force.after(record) if is_settings_key(record.key or b"") else None
        if view is not None:
            self._in_force.enter(view)

    def put(self, partition: int, record: Record) -> Iterator[Placed]:
        """The next record of an old partition; what can be written now. Raises Failure, see `_release`."""
        key = record.key or b""
        org = _org(key)
        queues = self._held.get(org)
        if queues is not None and partition in queues:
            queues[partition].append(record)
        elif is_settings_key(key):
            yield from self._put_settings(org, partition, record)
        elif key and partition_of(key, self._before) != partition:
            self.left_out["misrouted"] += 1
        elif (record.key is None and record.value is None) or size_of(record) > MOST_BYTES:
            self.left_out["unsendable"] += 1
        else:
            yield partition_of(key, self._after) if key else partition % self._after, _without_mark(record)

    def _put_settings(self, org: bytes, partition: int, record: Record) -> Iterator[Placed]:
        if self._in_force.after(record) is None:
            # Stale or unreadable: it changes nothing where it stands, and nothing there.
            yield partition % self._after, _without_mark(record)
            return
        queues = self._held.setdefault(org, {})
        queues[partition] = deque([record])
        if len(queues) == self._before:
            yield from self._release(org)

    def _release(self, org: bytes) -> Iterator[Placed]:
        queues = self._held.pop(org)
        heads = {partition: queue.popleft() for partition, queue in queues.items()}
        first = next(iter(heads.values()))
        view = self._in_force.after(first)
        if view is None or len({head.value for head in heads.values()}) > 1:
            places = ", ".join(f"{partition}@{head.offset}" for partition, head in sorted(heads.items()))
            raise Failure(f"org {org.decode()}: the next settings are not the same in all partitions: {places}")
        self._in_force.enter(view)
        yield from ((number, _without_mark(first)) for number in range(self._after))
        for partition, queue in queues.items():
            for record in queue:
                yield from self.put(partition, record)

    @property
    def held(self) -> str:
        """What is waited for, in a line; empty if nothing is held."""
        return "; ".join(
            f"org {org.decode()}: new settings stand in partitions {sorted(queues)} only"
            for org, queues in self._held.items()
        )


class _InForce:
    """The settings in force, by the rules of the worker itself."""

    def __init__(self, max_bytes: int) -> None:
        self._partition = Partition(0, Nothing())
        self._changes = Changes(Silent(topics.CHANGES.name, 0, ""), 1, max_bytes)

    def after(self, record: Record) -> View | None:
        """What is in force once this record is applied; None if it changes nothing."""
        view = View(self._partition, keys_of([record]))
        self._changes.apply(view, record, Outputs())
        return view if view.orgs else None

    def enter(self, view: View) -> None:
        self._partition.publish(view)


def _org(key: bytes) -> bytes:
    return key.partition(b":")[0]


def _without_mark(record: Record) -> Record:
    return record._replace(
        headers=tuple((FORWARDED_ONCE if name == FORWARDED else name, value) for name, value in record.headers)
    )
