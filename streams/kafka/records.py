"""What a record of Kafka is here, and where one lies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from aiokafka.structs import OffsetAndMetadata, TopicPartition

__all__ = ["Headers", "OffsetAndMetadata", "Place", "Record", "TopicPartition"]

Headers = Sequence[tuple[str, bytes]]

#: A topic's full name and a partition's number.
Place = tuple[str, int]


class Record(NamedTuple):
    """One record as it stands in its topic; `timestamp` in milliseconds. aiokafka's own records look the same."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Headers
