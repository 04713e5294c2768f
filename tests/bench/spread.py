"""What several runs of one measurement say together: the median, and the spread from the least to the most."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True, slots=True)
class Spread:
    """The median of some numbers, and the least and the most of them."""

    median: float
    least: float
    most: float

    def text(self, form: str = ".1f", unit: str = "") -> str:
        """For a table: `3.5 (3.1-4.2)`; the unit follows the median."""
        return f"{self.median:{form}}{unit} ({self.least:{form}}-{self.most:{form}})"


def spread(numbers: Sequence[float]) -> Spread:
    """Median, least and most of at least one number."""
    return Spread(median(numbers), min(numbers), max(numbers))


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> Spread | None:
    """The ratios of two measurements that took turns, pair by pair; None without a whole pair.

    Both halves of a pair were measured one right after the other. What changes on the machine from one pair to the
    next is in both of them and not in their ratio.
    """
    pairs = list(zip(ours, theirs, strict=False))  # the last turn may have failed after its first half
    return spread([one / other for one, other in pairs]) if pairs else None


def worse_by(ratio: float, *, more_is_better: bool) -> float:
    """By which share of theirs a figure of ours is worse; below zero it is better."""
    return 1 - ratio if more_is_better else ratio - 1
