"""A store in memory, for tests of what reads and writes a partition's state."""

from __future__ import annotations

from collections.abc import Iterable


class Memory:
    """The values of one partition, and the changelog offset that was written with them."""

    def __init__(self) -> None:
        self.values: dict[bytes, bytes] = {}
        self.offset = -1
        self.upto_s: float | None = None

    def get_many(self, partition: int, keys: list[bytes]) -> list[bytes | None]:
        return [self.values.get(key) for key in keys]

    def write(
        self, partition: int, values: Iterable[tuple[bytes, bytes]], offset: int, *, upto_s: float | None = None
    ) -> None:
        self.values.update(values)
        self.offset = offset
        self.upto_s = upto_s
