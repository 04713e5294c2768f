"""Everything that one run measures, as plain data: the stages fill it in, the report tells it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.bench.spread import Spread, ratios, spread
from tests.bench.sustained import Sustained

if TYPE_CHECKING:
    from tests.bench.footprint import Footprint
    from tests.bench.intake import Intake
    from tests.bench.measure import Measured
    from tests.bench.restore import Restored

#: The loads of the latency stage: one request at a time, half of what is sustained, nine tenths of it.
LONE, HALF, HEAVY = "lone", "half", "heavy"
LOADS = (LONE, HALF, HEAVY)


@dataclass(frozen=True, slots=True)
class Times:
    """One run under one load: milliseconds from produce to output, and until opt-outs were enforced."""

    p50: float
    p99: float
    #: Records per second, and the share of them that was worked off while they came (1 is all); none for lone requests.
    rate: float | None = None
    kept: float | None = None
    #: The least bound of the metric's buckets that half, and 99 of 100, did not exceed.
    enforced_p50: float | None = None
    enforced_p99: float | None = None


@dataclass(slots=True)
class Turns:
    """The runs of echo and product under one load, in turns."""

    echo: list[Times] = field(default_factory=list)
    product: list[Times] = field(default_factory=list)

    def ratio(self, number: Callable[[Times], float]) -> Spread | None:
        """Product to echo, pair by pair; None without a whole pair."""
        return ratios(list(map(number, self.product)), list(map(number, self.echo)))


@dataclass(slots=True)
class Latency:
    """The stage `latency` on so many brokers."""

    brokers: int
    sustained: Sustained = field(default_factory=Sustained)
    turns: dict[str, Turns] = field(default_factory=lambda: {load: Turns() for load in LOADS})


@dataclass(slots=True)
class Results:
    """Everything measured so far, by system (footprint: small, then large)."""

    changes: dict[str, Measured] = field(default_factory=dict)
    decisions: dict[str, Measured] = field(default_factory=dict)
    latency: list[Latency] = field(default_factory=list)
    restore: dict[str, Restored] = field(default_factory=dict)
    footprint: list[Footprint] = field(default_factory=list)
    intake: list[Intake] = field(default_factory=list)


def present(runs: list[Times], name: str) -> Spread | None:
    """The spread of one number of the runs that have it."""
    numbers = [number for run in runs if (number := getattr(run, name)) is not None]
    return spread(numbers) if numbers else None
