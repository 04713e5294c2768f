"""Dead letters as records: where they came from, why, and what they hold (contract section 6)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from schemas.base import format_instant
from streams import topics
from streams.config import Config
from streams.kafka.client import Header, Reader, Record

CONNECT = "__connect.errors."
CODE = "consent.error"
SHOWN = 120  # of a value, in characters


@dataclass(frozen=True, slots=True)
class Letter:
    """One dead letter: the record as it stands in `consent.deadletter`."""

    record: Record

    @property
    def place(self) -> str:
        """`partition/offset` in `consent.deadletter`."""
        return f"{self.record.partition}/{self.record.offset}"

    @property
    def code(self) -> str:
        """Why it is one; the codes of contract section 6."""
        return self.record.header(CODE) or "unknown"

    @property
    def message(self) -> str:
        """What was wrong, with the field's name."""
        return self.record.header(CONNECT + "exception.message") or ""

    @property
    def topic(self) -> str | None:
        """The topic that it came from, in full."""
        return self.record.header(CONNECT + "topic")

    @property
    def origin(self) -> str:
        """`topic-partition@offset` of the original."""
        header = self.record.header
        return f"{self.topic or '?'}-{header(CONNECT + 'partition') or '?'}@{header(CONNECT + 'offset') or '?'}"

    @property
    def own_headers(self) -> list[Header]:
        """The original's headers, without what made it a dead letter."""
        return [(k, v) for k, v in self.record.headers if k != CODE and not k.startswith(CONNECT)]

    def as_json(self) -> dict[str, Any]:
        """For `--json`; bytes that are not UTF-8 are shown with replacement characters."""
        header = self.record.header
        return {
            "partition": self.record.partition,
            "offset": self.record.offset,
            "time": format_instant(max(self.record.timestamp, 0)),
            "code": self.code,
            "message": self.message,
            "stage": header(CONNECT + "stage"),
            "exception": header(CONNECT + "exception.class.name"),
            "topic": self.topic,
            "topic_partition": _number(header(CONNECT + "partition")),
            "topic_offset": _number(header(CONNECT + "offset")),
            "key": _text(self.record.key),
            "value": _text(self.record.value),
        }

    def line(self) -> str:
        """For people: where, why, whence, key, message and the beginning of the value."""
        value = " ".join((_text(self.record.value) or "(no value)").split())
        shown = value if len(value) <= SHOWN else value[: SHOWN - 3] + "..."
        key = "(no key)" if self.record.key is None else _text(self.record.key)
        return f"{self.place} {self.code} {self.origin} {key}: {self.message or 'no message'} | {shown}"


async def read_letters(
    config: Config, code: str | None, partition: int | None = None, offset: int | None = None
) -> list[Letter]:
    """All dead letters that fit, by partition and offset."""
    partitions = None if partition is None else [partition]
    start = None if partition is None or offset is None else {partition: offset}
    found = []
    async with Reader(config, config.topic(topics.DEADLETTER.name), partitions) as reader:
        async for bundle in reader.bundles(start, follow=False):
            letters = [Letter(record) for record in bundle if offset is None or record.offset == offset]
            found += [letter for letter in letters if code is None or letter.code == code]
            if offset is not None and bundle[-1].offset >= offset:
                break
    return sorted(found, key=lambda letter: (letter.record.partition, letter.record.offset))


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode(errors="replace")


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isdecimal() else None
