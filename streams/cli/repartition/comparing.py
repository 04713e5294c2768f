"""The states that two installations came to, customer by customer."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

import orjson

from streams import topics
from streams.config import Config
from streams.domain.identities import MOST_AWAITED
from streams.domain.keys import is_settings_key
from streams.engine.partition import META_KEY
from streams.engine.tail import LogReader

_DIGEST_BYTES = 16


@dataclass(frozen=True, slots=True)
class States:
    """Digests by key: of the customers' states, of the settings (of all partitions), of who has an identifier."""

    customers: Mapping[bytes, bytes]
    settings: Mapping[bytes, set[bytes]]
    identifiers: Mapping[bytes, bytes]

    def differences(self, other: States) -> list[dict[str, str]]:
        """What is not the same in both: of what kind it is, its key, and how it differs in the other."""
        return [
            {"kind": kind, "key": key.decode(errors="replace"), "difference": _what(key, ours, theirs)}
            for kind, ours, theirs in (
                ("customer", self.customers, other.customers),
                ("settings", self.settings, other.settings),
                ("identifier", self.identifiers, other.identifiers),
            )
            for key in sorted(ours.keys() | theirs.keys())
            if ours.get(key) != theirs.get(key)
        ]


def _what(key: bytes, ours: Mapping[bytes, object], theirs: Mapping[bytes, object]) -> str:
    return "missing" if key not in theirs else "invented" if key not in ours else "different"


async def states_of(config: Config) -> States:
    """What the workers of an installation hold, by its changelogs."""
    customers: dict[bytes, bytes] = {}
    settings: dict[bytes, set[bytes]] = defaultdict(set)
    identifiers: dict[bytes, bytes] = {}
    reader = LogReader(config)
    await reader.start()
    try:
        for number in range(config.partitions):
            own: dict[bytes, bytes] = {}
            await _fold(reader, config.topic(topics.CHANGELOG.name), number, customers, own)
            for key, digest in own.items():
                settings[key].add(digest)
            await _fold(reader, config.topic(topics.IDENTITIES_CHANGELOG.name), number, identifiers, {})
    finally:
        await reader.stop()
    return States(customers, dict(settings), identifiers)


async def _fold(
    reader: LogReader, topic: str, number: int, into: dict[bytes, bytes], settings: dict[bytes, bytes]
) -> None:
    first, end = await reader.beginning(topic, number), await reader.end(topic, number)
    digest_of = _digest_of_holders if topic.endswith(topics.IDENTITIES_CHANGELOG.name) else _digest
    async for records in reader.scan(topic, number, first, end):
        for record in records:
            if record.key == META_KEY:
                continue
            place = settings if is_settings_key(record.key) else into
            if record.value is None:
                place.pop(record.key, None)
            else:
                place[record.key] = digest_of(record.value)


def _digest(value: bytes) -> bytes:
    return hashlib.blake2b(value, digest_size=_DIGEST_BYTES).digest()


def _digest_of_holders(value: bytes) -> bytes:
    """Who has the identifier; the order in which they came to it, and where that was said, is the partitions' own.

    Where more replies were awaited than are kept, that order says which are.
    """
    document = orjson.loads(value)
    awaited = sorted(map(repr, document["a"])) if len(document["a"]) < MOST_AWAITED else []
    return _digest(repr((sorted(document["c"]), awaited)).encode())
