"""Figures of two checkouts that took turns, and whether ours are worse than theirs by more than they may."""

from __future__ import annotations

from dataclasses import dataclass, field

from tests.bench.plan import MOST_WORSE
from tests.bench.spread import Spread, ratios, worse_by


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured quantity."""

    name: str
    more_is_better: bool
    #: How its numbers are written.
    form: str


CHANGES = Figure("changes per CPU s", True, ",.0f")
DECISIONS = Figure("decisions per CPU s", True, ",.0f")
RESTORE = Figure("restored records/s", True, ",.0f")
LONE_P50 = Figure("lone request p50, ms", False, ".2f")
HALF_P50 = Figure("half load p50, ms", False, ".2f")
HALF_P99 = Figure("half load p99, ms", False, ".2f")
FIGURES = (CHANGES, DECISIONS, RESTORE, LONE_P50, HALF_P50, HALF_P99)


@dataclass(slots=True)
class Compared:
    """One figure of both sides, a number for each turn."""

    figure: Figure
    ours: list[float] = field(default_factory=list)
    theirs: list[float] = field(default_factory=list)

    @property
    def ratio(self) -> Spread | None:
        """Ours to theirs, pair by pair; None without a whole pair."""
        return ratios(self.ours, self.theirs)

    @property
    def met(self) -> bool:
        """Whether the median of the ratios is worse by no more than it may."""
        return (ratio := self.ratio) is not None and self._within(ratio.median)

    @property
    def clear(self) -> bool:
        """Whether all pairs say the same: the spread does not cross the limit."""
        return (ratio := self.ratio) is not None and self._within(ratio.least) == self._within(ratio.most)

    @property
    def verdict(self) -> str:
        """For the table."""
        return ("met" if self.met else "missed") + ("" if self.clear else ", unclear")

    def _within(self, ratio: float) -> bool:
        return worse_by(ratio, more_is_better=self.figure.more_is_better) <= MOST_WORSE


@dataclass(slots=True)
class Comparison:
    """All figures of two checkouts."""

    ours: str
    theirs: str
    #: Records per second of the half load, the same for both; zero until it is known.
    rate: float = 0.0
    figures: list[Compared] = field(default_factory=lambda: [Compared(figure) for figure in FIGURES])
