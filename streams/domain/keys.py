"""Keys and their home partitions: Kafka's murmur2, as the Java client computes it."""

from __future__ import annotations

import re
from struct import Struct

_SETTINGS_KEY = re.compile(rb"-?[0-9]+:")
_SEED = 0x9747B28C
_M = 0x5BD1E995
_MASK = 0xFFFFFFFF
_BLOCKS = [Struct(f"<{n}I") for n in range(80)]  # keys up to 319 bytes have a ready-made layout


def murmur2(data: bytes) -> int:
    """The 32-bit hash that Kafka's default partitioner uses, as an unsigned number."""
    length = len(data)
    h = _SEED ^ length
    n = length >> 2
    layout = _BLOCKS[n] if n < 80 else Struct(f"<{n}I")
    for k in layout.unpack_from(data):
        k = k * _M & _MASK  # noqa: PLW2901 - the names are the algorithm's own
        h = (h * _M & _MASK) ^ ((k ^ (k >> 24)) * _M & _MASK)
    tail = data[n << 2 :]
    if tail:
        h = (h ^ int.from_bytes(tail, "little")) * _M & _MASK
    h = (h ^ (h >> 13)) * _M & _MASK
    return h ^ (h >> 15)


def partition_of(key: bytes, partitions: int) -> int:
    """Home partition of a key among `partitions`."""
    return (murmur2(key) & 0x7FFFFFFF) % partitions


def customer_key(org_id: int, customer_id: str) -> bytes:
    """`{org_id}:{customer_id}` in UTF-8: key of a customer's records and of the customer's state."""
    return f"{org_id}:{customer_id}".encode()


def settings_key(org_id: int) -> bytes:
    """`{org_id}:`, key of an org's settings. No customer has it: a customer id is never empty."""
    return b"%d:" % org_id


def is_settings_key(key: bytes) -> bool:
    """Whether a key is of the form `{org_id}:`, so that its records belong to every partition."""
    return key[-1:] == b":" and _SETTINGS_KEY.fullmatch(key) is not None
