"""The release of Kafka by the features that a broker supports."""

from __future__ import annotations

import pytest

from streams.kafka.release import named


def features(**most: int) -> bytes:
    """Supported features as a broker sends them: compact array, compact strings, no tags."""
    found = bytes([len(most) + 1])
    for name, level in most.items():
        key = name.replace("_", ".").encode()
        found += bytes([len(key) + 1]) + key + b"\x00\x01" + level.to_bytes(2, "big") + b"\x00"
    return found


@pytest.mark.parametrize(
    ("level", "release"),
    [(1, "older than 3.3"), (7, "3.3"), (9, "3.4"), (25, "4.0"), (30, "4.3"), (31, "4.3 or newer")],
)
def test_the_newest_metadata_version_names_the_release(level: int, release: str) -> None:
    assert named(features(group_version=1, metadata_version=level)) == release


def test_without_a_metadata_version_it_is_old() -> None:
    assert named(b"\x01") == "older than 3.3, or with ZooKeeper"
    assert named(features(group_version=1)) == "older than 3.3, or with ZooKeeper"
