"""Scenarios without an end: that of the model, with new customers from time to time, and settings changed all along.

A customer's exact history is 32 entries for each cell and 128 event ids, as the README says; the slow model keeps all.
New customers keep rounds of any length within that. Batches are imported but not undone: what that leaves of a double
opt-in is not what chaos is about.
"""

from __future__ import annotations

import random
from collections import deque

from tests.model.generate import ORGS, Step, _Maker

CUSTOMERS = 12
#: After so many steps the customers are others.
GENERATION = 600
#: So many identifiers are shared by the customers of one time.
PERSONS = 5
#: What can be verified, or sent again, is among so many of the newest.
REMEMBERED = 100
#: So many generations are still asked about, and how often.
ASKED_ABOUT = 50
EARLIER = 0.5


class Endless(_Maker):
    """The same steps, one by one, for the same arguments; settings first. `name` keeps its ids apart from others'."""

    def __init__(self, seed: int, base_ms: int, partitions: int, name: str = "") -> None:
        super().__init__(random.Random(seed), CUSTOMERS, base_ms, partitions)
        self.name = name
        self.generation = -1
        self._left = 0
        for org_id in ORGS:
            self.new_settings(org_id)

    def __iter__(self) -> Endless:
        return self

    def __next__(self) -> Step:
        self.make_some()
        self._left -= 1
        return self.steps.pop(0)

    def make_some(self) -> None:
        """See that there are steps."""
        if self._left <= 0:
            self.new_customers()
            self._left = GENERATION
        while not self.steps:
            self.something(edges=False)

    def new_customers(self) -> None:
        """Nobody known so far is met again, but for what is sent twice."""
        self.generation += 1
        self.opt_ins, self.sent = self.opt_ins[-REMEMBERED:], self.sent[-REMEMBERED:]
        for org_id in ORGS:
            self.names[org_id] = [f"{self.name}c{self.generation}-{org_id}-{n}" for n in range(CUSTOMERS)]
            for customer in self.names[org_id]:
                if self.rng.random() < 0.9:
                    self.registered(org_id, customer)

    def next_id(self) -> str:
        return super().next_id() + self.name

    def person(self) -> int:
        return self.generation * PERSONS + super().person()

    def undone(self) -> None:
        """Not here."""


class Bulk(Endless):
    """The same in batches, with as many requests as are wanted: on the customers of now, and on some from before."""

    def __init__(self, seed: int, base_ms: int, partitions: int) -> None:
        super().__init__(seed, base_ms, partitions, "-bulk")
        self._earlier: deque[dict[int, list[str]]] = deque(maxlen=ASKED_ABOUT)

    def batch(self, changes: int, requests: int) -> tuple[list[Step], list[Step]]:
        """At least so many changes, and at least so many requests to be made behind them."""
        written: list[Step] = []
        asked: list[Step] = []
        while len(written) < changes:
            self.make_some()
            self._left -= len(self.steps)
            for step in self.steps:
                (written if step[0] == "change" else asked).append(step)
            self.steps.clear()
        while len(asked) < requests:
            self.request()
            asked += self.steps
            self.steps.clear()
        return written, asked

    def new_customers(self) -> None:
        self._earlier.append(dict(self.names))
        super().new_customers()

    def request(self) -> None:
        now = self.names
        if self.rng.random() < EARLIER:
            self.names = self.rng.choice(self._earlier)
        super().request()
        self.names = now
