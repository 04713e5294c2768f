"""Faults by name."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from streams.broker import EmbeddedBroker
from tests.chaos.driver import Kafka, Round
from tests.cluster import Cluster

Do = Callable[[Round], None]


@dataclass(frozen=True)
class Fault:
    """What is done, and the workers it wants; `long`: it takes so long that only `make chaos` does it.

    `alone`: no other fault may be in the same round. `late`, `large`: see `Round.finish`. `on`: the one kind of Kafka
    that it belongs to, if there is one.
    """

    name: str
    do: Do
    workers: int = 2
    env: Mapping[str, str] = field(default_factory=dict)
    long: bool = False
    alone: bool = False
    late: bool = False
    large: bool = False
    on: type[Kafka] | None = None


FAULTS: dict[str, Fault] = {}
#: How often each comes up beside the others; a kill is what happens most.
WEIGHTS = {"kill -9 of a worker": 4}


def faults_on(kafka: Kafka | type[Kafka]) -> list[Fault]:
    """What can be done on one broker, or on several."""
    kind = kafka if isinstance(kafka, type) else type(kafka)
    return [fault for fault in FAULTS.values() if fault.on in (None, kind)]


class Deck:
    """Faults to be drawn at random: each comes up as often as its weight says before any comes up again."""

    def __init__(self, rng: random.Random, faults: Iterable[Fault]) -> None:
        self._rng = rng
        self._faults = [fault for fault in faults for _ in range(WEIGHTS.get(fault.name, 1))]
        self._left: list[Fault] = []

    def draw(self) -> Fault:
        """The next one."""
        if not self._left:
            self._left = self._rng.sample(self._faults, len(self._faults))
        return self._left.pop()

    def draw_together(self, most: int) -> list[Fault]:
        """One that must be alone, or at most so many that follow each other."""
        drawn = [self.draw()]
        wanted = 0 if drawn[0].alone else self._rng.randrange(most)
        for fault in [one for one in self._left if not one.alone][:wanted]:
            self._left.remove(fault)
            drawn.append(fault)
        return drawn


def fault(name: str, **about: Any) -> Callable[[Do], Do]:
    """Enter a function under a name."""

    def enter(do: Do) -> Do:
        FAULTS[name] = Fault(name, do, **about)
        return do

    return enter


#: Those that belong to the one broker, or to several.
one_broker_fault = partial(fault, on=EmbeddedBroker)
cluster_fault = partial(fault, on=Cluster)
