"""The requests that are sent all the time, in Kafka's binary form: Fetch, Produce and ListOffsets.

aiokafka puts a request together field by field, and takes an answer apart the same way: for every partition that the
worker reads, with every fetch, that is more work than what is done with a few records. These do it in one go. They have
what aiokafka's connection asks of a request and of the type of its answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from io import BytesIO
from struct import Struct
from typing import Any, ClassVar, NamedTuple

from aiokafka.errors import IncompatibleBrokerVersion

_I16, _I32 = Struct(">h"), Struct(">i")
#: api key, api version, correlation id
_HEADER = Struct(">hhi")


def _text(text: str) -> bytes:
    encoded = text.encode()
    return _I16.pack(len(encoded)) + encoded


class _Encoded(bytes):
    def encode(self) -> bytes:
        return self


class _Answered(NamedTuple):
    correlation_id: int


class _Request:
    """What aiokafka's connection calls of a request; it is the type of its own answer, too."""

    API_KEY: ClassVar[int]
    API_VERSION: ClassVar[int]

    def prepare(self, versions: Mapping[int, tuple[int, int]]) -> _Request:
        """This request, if the broker takes its version. Raises IncompatibleBrokerVersion."""
        low, high = versions.get(self.API_KEY, (0, -1))
        if not low <= self.API_VERSION <= high:
            raise IncompatibleBrokerVersion(
                f"the broker takes versions {low} to {high} of {type(self).__name__}, not {self.API_VERSION}"
            )
        return self

    def build_request_header(self, correlation_id: int, client_id: str) -> _Encoded:
        """What stands before the request."""
        return _Encoded(_HEADER.pack(self.API_KEY, self.API_VERSION, correlation_id) + _text(client_id))

    def parse_response_header(self, buffer: BytesIO) -> _Answered:
        """What stands before the answer."""
        return _Answered(*_I32.unpack(buffer.read(_I32.size)))

    @property
    def RESPONSE_TYPE(self) -> _Request:  # noqa: N802 - aiokafka's name
        """What decodes the answer."""
        return self

    def encode(self) -> bytes:
        """The request without its header."""
        raise NotImplementedError

    def decode(self, buffer: BytesIO) -> Any:
        """The answer, from behind its header on."""
        raise NotImplementedError


class Produced(NamedTuple):
    """What became of one batch: an error code, 0 if it is written, and the offset of its first record."""

    topic: str
    partition: int
    error: int
    offset: int


class Produce(_Request):
    """Write one batch to each of some partitions, acknowledged by all replicas that are in sync."""

    API_KEY = 0
    API_VERSION = 7
    required_acks = -1

    #: transactional id (none), acks, timeout
    _BEGIN = Struct(">hhi")
    #: partition, size of its batch
    _BATCH = Struct(">ii")
    #: partition, error, offset, time, beginning of the log
    _ANSWER = Struct(">ihqqq")

    def __init__(self, batches: Iterable[tuple[str, int, bytes]], timeout_ms: int) -> None:
        self._topics: dict[str, list[bytes]] = {}
        for topic, partition, batch in batches:
            self._topics.setdefault(topic, []).extend((self._BATCH.pack(partition, len(batch)), batch))
        self._timeout_ms = timeout_ms

    def encode(self) -> bytes:
        parts = [self._BEGIN.pack(-1, self.required_acks, self._timeout_ms), _I32.pack(len(self._topics))]
        for topic, batches in self._topics.items():
            parts += (_text(topic), _I32.pack(len(batches) // 2), *batches)
        return b"".join(parts)

    def decode(self, buffer: BytesIO) -> list[Produced]:
        raw = buffer.read()
        found = []
        (topics,), at = _I32.unpack_from(raw), _I32.size
        for _ in range(topics):
            topic, at = _read_text(raw, at)
            (partitions,) = _I32.unpack_from(raw, at)
            at += _I32.size
            for _ in range(partitions):
                partition, error, offset, _, _ = self._ANSWER.unpack_from(raw, at)
                at += self._ANSWER.size
                found.append(Produced(topic, partition, error, offset))
        return found


class Found(NamedTuple):
    """What the answer to a fetch says of a partition."""

    #: An error code, 0 if it was read.
    error: int
    #: The high watermark, and where the last stable record ends.
    end: int
    stable: int
    #: Transactions among the records that were aborted: producer id and first offset of each.
    aborted: list[tuple[int, int]]
    #: Record batches as they are stored; the last one may be cut off.
    records: bytes


class Fetch(_Request):
    """Read what there is of some partitions, in this order. The answer is what was found of each, by topic and number.

    `topics`: of each topic the partitions, with the leader's epoch, the offset to read from and the most bytes to read.
    Any replica answers that knows this epoch as the newest; one that knows a newer one says FENCED_LEADER_EPOCH.
    """

    API_KEY = 1
    API_VERSION = 11

    #: replica (none), most milliseconds to wait, least and most bytes, isolation level, session and its epoch (none)
    _BEGIN = Struct(">iiiibii")
    #: partition, leader's epoch, offset, the log's beginning (not ours), most bytes
    _PARTITION = Struct(">iiqqi")
    #: forgotten topics (none), rack (none)
    _END = Struct(">ih")
    #: how long we were held up, error, session
    _ANSWER = Struct(">ihi")
    #: partition, error, high watermark, last stable offset, beginning of the log, number of aborted transactions
    _FOUND = Struct(">ihqqqi")
    #: producer id, first offset
    _ABORTED = Struct(">qq")
    #: preferred replica, size of the records
    _RECORDS = Struct(">ii")

    def __init__(
        self,
        topics: list[tuple[str, list[tuple[int, int, int, int]]]],
        *,
        max_wait_ms: int,
        min_bytes: int,
        max_bytes: int,
        isolation_level: int,
    ) -> None:
        self._topics = topics
        self._begin = self._BEGIN.pack(-1, max_wait_ms, min_bytes, max_bytes, isolation_level, 0, -1)

    def encode(self) -> bytes:
        parts = [self._begin, _I32.pack(len(self._topics))]
        pack = self._PARTITION.pack
        for topic, partitions in self._topics:
            parts += (_text(topic), _I32.pack(len(partitions)))
            parts += [pack(number, epoch, offset, -1, most) for number, epoch, offset, most in partitions]
        parts.append(self._END.pack(0, 0))
        return b"".join(parts)

    def decode(self, buffer: BytesIO) -> dict[tuple[str, int], Found]:
        raw = buffer.read()
        answer: dict[tuple[str, int], Found] = {}
        at = self._ANSWER.size
        (topics,) = _I32.unpack_from(raw, at)
        at += _I32.size
        for _ in range(topics):
            topic, at = _read_text(raw, at)
            (partitions,) = _I32.unpack_from(raw, at)
            at += _I32.size
            for _ in range(partitions):
                number, error, end, stable, _, count = self._FOUND.unpack_from(raw, at)
                at += self._FOUND.size
                aborted = []
                for _ in range(count):
                    aborted.append(self._ABORTED.unpack_from(raw, at))
                    at += self._ABORTED.size
                _, size = self._RECORDS.unpack_from(raw, at)
                at += self._RECORDS.size
                behind = at + size if size > 0 else at
                answer[topic, number] = Found(error, end, stable, aborted, raw[at:behind])
                at = behind
        return answer


class Listed(NamedTuple):
    """Where a partition ends or begins: an error code, 0 if the leader knows it, and the offset."""

    error: int
    offset: int


class ListOffsets(_Request):
    """Ask the leader of partitions where they end or begin. The answer is by topic and number.

    `topics`: of each topic the partitions, with the leader's epoch. The end is the high watermark, so that records of
    transactions that are not decided are below it. A leader that was just elected answers only when it knows that its
    high watermark is not below what its predecessor acknowledged (KIP-207).
    """

    API_KEY = 2
    API_VERSION = 5
    END, BEGIN = -1, -2

    #: replica (none), isolation level (read uncommitted)
    _HEAD = Struct(">ib")
    #: partition, leader's epoch, which offset
    _PARTITION = Struct(">iiq")
    #: partition, error, time, offset, epoch
    _LISTED = Struct(">ihqqi")

    def __init__(self, topics: Iterable[tuple[str, list[tuple[int, int]]]], which: int = END) -> None:
        self._topics = list(topics)
        self._which = which

    def encode(self) -> bytes:
        parts = [self._HEAD.pack(-1, 0), _I32.pack(len(self._topics))]
        for topic, partitions in self._topics:
            parts += (_text(topic), _I32.pack(len(partitions)))
            parts += [self._PARTITION.pack(number, epoch, self._which) for number, epoch in partitions]
        return b"".join(parts)

    def decode(self, buffer: BytesIO) -> dict[tuple[str, int], Listed]:
        raw = buffer.read()
        answer: dict[tuple[str, int], Listed] = {}
        at = _I32.size  # how long we were held up
        (topics,) = _I32.unpack_from(raw, at)
        at += _I32.size
        for _ in range(topics):
            topic, at = _read_text(raw, at)
            (partitions,) = _I32.unpack_from(raw, at)
            at += _I32.size
            for _ in range(partitions):
                number, error, _, offset, _ = self._LISTED.unpack_from(raw, at)
                at += self._LISTED.size
                answer[topic, number] = Listed(error, offset)
        return answer


def _read_text(raw: bytes, at: int) -> tuple[str, int]:
    """A text that stands there, and where it ends."""
    (size,) = _I16.unpack_from(raw, at)
    start = at + _I16.size
    return raw[start : start + size].decode(), start + size
