"""The states that two installations came to, customer by customer."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from streams import topics
from streams.config import Config
from streams.domain.identities import MOST_AWAITED
from streams.domain.keys import is_settings_key
from streams.engine.partition import META_KEY

from .reading import records_of

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
    settings: list[dict[bytes, bytes]] = [{} for _ in range(config.partitions)]
    async for number, records in records_of(config, topics.CHANGELOG):
        for record in records:
            if record.key != META_KEY:
                _put(settings[number] if is_settings_key(record.key) else customers, record, _digest)
    identifiers: dict[bytes, bytes] = {}
    async for _, records in records_of(config, topics.IDENTITIES_CHANGELOG):
        for record in records:
            if record.key != META_KEY:
                _put(identifiers, record, _digest_of_holders)
    by_org: dict[bytes, set[bytes]] = defaultdict(set)
    for own in settings:
        for key, digest in own.items():
            by_org[key].add(digest)
    return States(customers, dict(by_org), identifiers)


def _put(digests: dict[bytes, bytes], record: Any, digest_of: Callable[[bytes], bytes]) -> None:
    if record.value is None:
        digests.pop(record.key, None)
    else:
        digests[record.key] = digest_of(record.value)


def _digest(value: bytes) -> bytes:
    return hashlib.blake2b(value, digest_size=_DIGEST_BYTES).digest()


def _digest_of_holders(value: bytes) -> bytes:
    """Who has the identifier; the order in which they came to it, and where that was said, is the partitions' own.

    Where more replies were awaited than are kept, that order says which are.
    """
    document = orjson.loads(value)
    awaited = sorted(map(repr, document["a"])) if len(document["a"]) < MOST_AWAITED else []
    return _digest(repr((sorted(document["c"]), awaited)).encode())
