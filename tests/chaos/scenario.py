"""A scenario without an end: that of the model, with new customers from time to time.

A customer's exact history is 32 entries for each cell and 128 event ids, as the README says; the slow model keeps all.
New customers keep rounds of any length within that. Batches are imported but not undone: what that leaves of a double
opt-in is not what chaos is about.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from tests.model.generate import ORGS, Step, _Maker

CUSTOMERS = 12
#: After so many steps the customers are others.
GENERATION = 600


class _Endless(_Maker):
    def undone(self) -> None:
        """Not here."""

    def new_customers(self, generation: int) -> None:
        """Nobody known so far is met again, but for what is sent twice."""
        for org_id in ORGS:
            self.names[org_id] = [f"c{generation}-{org_id}-{n}" for n in range(CUSTOMERS)]
            for customer in self.names[org_id]:
                if self.rng.random() < 0.9:
                    self.registered(org_id, customer)


def endless(seed: int, base_ms: int, partitions: int) -> Iterator[Step]:
    """The same steps for the same arguments; settings first."""
    maker = _Endless(random.Random(seed), CUSTOMERS, base_ms, partitions)
    for org_id in ORGS:
        maker.new_settings(org_id)
    generation = 0
    while True:
        maker.new_customers(generation)
        left = GENERATION
        while left > 0:
            while not maker.steps:
                maker.something(edges=False)
            left -= len(maker.steps)
            yield from maker.steps
            maker.steps.clear()
        generation += 1
