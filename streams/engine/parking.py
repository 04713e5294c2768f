"""What waits for the state to reach a position, or for its time to be up."""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from itertools import count
from typing import Any, Generic, Protocol, TypeVar

#: Heaps hold at most so many entries of what does not wait any more, beside as many as of what does.
SPARE = 64


class Waiter(Protocol):
    """What waits: for the position `needs`, at the latest until `deadline` (monotonic seconds)."""

    needs: int
    deadline: float


W = TypeVar("W", bound=Waiter)


class Parking(Generic[W]):
    """Waiters, found by what they wait for: a look costs what it finds, not what there is."""

    def __init__(self) -> None:
        self._numbers = count()
        #: Those that wait, by number.
        self._waiting: dict[int, W] = {}
        #: Their numbers, the lowest position and the earliest deadline first; and those of some that are gone.
        self._by_position: list[tuple[int, int]] = []
        self._by_deadline: list[tuple[float, int]] = []

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, one: W) -> int:
        """Let one wait; returns the number by which `move` knows it."""
        number = next(self._numbers)
        self._waiting[number] = one
        heappush(self._by_position, (one.needs, number))
        heappush(self._by_deadline, (one.deadline, number))
        return number

    def get(self, number: int) -> W | None:
        """The one of this number, if it still waits."""
        return self._waiting.get(number)

    def move(self, number: int, needs: int, deadline: float) -> None:
        """One that still waits shall wait for a lower position, and until an earlier deadline."""
        one = self._waiting.get(number)
        if one is not None:
            one.needs, one.deadline = needs, deadline
            heappush(self._by_position, (needs, number))
            heappush(self._by_deadline, (deadline, number))

    def pop(self, position: int, now: float) -> W | None:
        """One whose wait is over at this position and this moment; the position is looked at first."""
        found = self._first(self._by_position, position)
        return self._first(self._by_deadline, now) if found is None else found

    def _first(self, heap: list[tuple[Any, int]], bound: float) -> W | None:
        if len(heap) > 2 * len(self._waiting) + SPARE:
            heap[:] = [entry for entry in heap if entry[1] in self._waiting]
            heapify(heap)
        while heap and heap[0][0] <= bound:
            one = self._waiting.pop(heappop(heap)[1], None)
            if one is not None:
                return one
        return None

    def first_deadline(self) -> float | None:
        """When the time of the first of them is up; None if none waits."""
        heap = self._by_deadline
        while heap and heap[0][1] not in self._waiting:
            heappop(heap)
        return heap[0][0] if heap else None
