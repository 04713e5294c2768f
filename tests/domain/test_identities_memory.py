"""What is kept of an identifier takes the room of its bytes."""

from __future__ import annotations

import tracemalloc

from streams.domain.identities import Holders


def test_a_value_takes_hardly_more_memory_than_its_bytes() -> None:
    holders = Holders({"565039505": [3, 17]})
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        values = [holders.encode() for _ in range(1_000)]
        taken = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert taken / 1_000 < len(values[0] or b"") + 100
