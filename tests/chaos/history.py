"""What happened in a round: what is in the topics, what producers were told, what is on the workers' disks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

from streams import topics
from streams.config import Config
from streams.engine.table import TIME_KEY, _RocksOptions
from tests.integration.compare import forwarded, origin_of
from tests.integration.harness import Place, Record

#: A producer that gave a record up while the broker is away could not say whether it is in the log.
BATCH_PATIENCE_S = 7 * 86_400
OFFSET_KEY = b"__faust\0offset__"
#: What the checker reads.
TOPICS = (topics.CHANGES, topics.REQUESTS, topics.DECISIONS, topics.AUDIT, topics.NOTIFICATIONS, topics.DEADLETTER,
          topics.IDENTITIES, topics.CHANGELOG, topics.IDENTITIES_CHANGELOG)  # fmt: skip
CHANGELOG_OF = {table: spec.name for table, spec in topics.CHANGELOGS.items()}


@dataclass
class Topic:
    """All committed records of one topic."""

    records: list[Record]

    def of(self, partition: int) -> list[Record]:
        """Those of one partition, in order."""
        return [record for record in self.records if record.partition == partition]


class Sent(NamedTuple):
    """A record that was acknowledged, and where; what it was is kept as a digest, for there can be a million."""

    topic: str
    place: Place
    digest: bytes

    @classmethod
    def of(cls, topic: str, place: Place, key: bytes | None, value: bytes | None) -> Sent:
        return cls(topic, place, blake2b(repr((key, value)).encode(), digest_size=8).digest())


@dataclass(frozen=True)
class Stored:
    """One partition's RocksDB in some worker's folder: what it holds, and up to which offset of the changelog."""

    worker: str
    table: str
    partition: int
    offset: int
    items: Mapping[bytes, bytes]


@dataclass(frozen=True)
class Exit:
    """How a worker ended, how it was allowed to, and the last line that it said."""

    worker: str
    code: int
    allowed: frozenset[int]
    last_line: str = ""
    traceback: bool = False


@dataclass
class History:
    """A round or a part of it. It can be read as a `World` is, so the comparison with the slow model works on it.

    `numbers` are the partitions that it is about; `copies` were forwarded from them to others.
    """

    config: Config
    topics: dict[str, Topic] = field(default_factory=dict)
    numbers: Sequence[int] = ()
    copies: Sequence[tuple[str, Record]] = ()
    #: By request id, the end of its partition of the changes that was acknowledged before it was written.
    ends: Mapping[str, int] = field(default_factory=dict)
    sent: Sequence[Sent] = ()
    stores: Sequence[Stored] = ()
    exits: Sequence[Exit] = ()
    #: What was not worked off when the time was up, by topic and partition: committed and end.
    unsettled: Mapping[tuple[str, int], tuple[int, int]] = field(default_factory=dict)
    #: Seconds from the last fault until all was worked off, and how many it may be.
    settled_s: float = 0.0
    allowed_s: float = 0.0
    #: Whether a decision may be `state_behind` though the request did not ask for haste.
    late: bool = False

    def read(self, topic: str) -> list[Record]:
        return self.topics[topic].records

    def log(self, topic: str) -> Topic:
        return self.topics[topic]


    def of(self, number: int) -> History:
        """What is about one of its partitions."""
        return replace(
            self,
            topics={name: Topic(topic.of(number)) for name, topic in self.topics.items()},
            numbers=[number],
            copies=[(t, r) for t, r in forwarded(self) if origin_of(r).partition == number != r.partition],
            sent=[sent for sent in self.sent if sent.place.partition == number],
            stores=[stored for stored in self.stores if stored.partition == number],
        )


def stores_in(datadir: Path, worker: str, numbers: Sequence[int]) -> Iterable[Stored]:
    """Those of these partitions that are in the data folder of a worker that does not run."""
    options = _RocksOptions()
    for path in sorted((datadir / "state").glob("**/*.db")):
        table, _, number = path.stem.rpartition("-")
        if int(number) not in numbers:
            continue
        db = options.open(path, read_only=True)
        items = dict(db.items())
        db.close()
        offset = int(items.pop(OFFSET_KEY, b"-1"))
        items.pop(TIME_KEY, None)
        yield Stored(worker, table, int(number), offset, items)
