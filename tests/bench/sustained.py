"""The highest rate that is sustained.

Definition. A rate is *sustained* when records that come at it for a minute (`PROBE_SECONDS`; ten seconds with --quick)
are worked off without a backlog that grows. The backlog at a moment is the number of records that were sent up to then
and not answered by then; it is sampled every `BACKLOG_STEP_S`, after a warm-up. A probe of a rate holds when
- the generator sent the rate, to within `LEAST_OF_PROBE`;
- the backlog at the end is at most what comes in one second;
- the straight line through the samples (least squares) does not rise beyond noise: from the beginning to the end it
  gains at most twice the standard deviation of the samples around it, or what comes in `LEAST_GROWTH_S` where that is
  more.

The bound of two deviations is where one line in forty would lie by chance if a dozen of the samples were independent.

The search begins with what short loads of more than can be done suggest (`scout`). From a rate that holds it goes up
by `STEP`, and by a step more each time that the next one holds too; from one that does not hold it goes down by `STEP`,
or to what was worked off where that is less. Between a rate that holds and one that does not it goes on by `STEP`, then
by `HALF_STEP`. It ends when these two are no more than that apart, or after so many probes. The highest rate that held
below the lowest that did not is the result.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from statistics import linear_regression, pstdev

#: The generator must have sent this share of the rate: below it the rate was not probed.
LEAST_OF_PROBE = 0.98
#: Seconds of the rate: the largest backlog at the end.
MOST_AT_END_S = 1.0
#: Seconds of the rate: a line that gains less over a whole probe does not count as rising, however quiet the samples.
LEAST_GROWTH_S = 0.05
DEVIATIONS = 2
STEP, HALF_STEP = 1.1, 1.05
#: A short probe of which this share is worked off is near what can be done.
MOST_OF_SCOUT = 0.95
#: One step down never halves the rate: what a machine does while it is hindered by others is no guide.
LEAST_STEP = 0.5
#: Rates that differ by less than this share are the same rate.
SAME = 0.001


def backlog(sent_at: Iterable[int], answered_at: Iterable[int], moments: Iterable[int]) -> list[int]:
    """How many requests were sent and not answered at each moment."""
    sent, answered = sorted(sent_at), sorted(answered_at)
    return [bisect_right(sent, moment) - bisect_right(answered, moment) for moment in moments]


@dataclass(frozen=True, slots=True)
class Probe:
    """One rate, records per second, and what came of it for `seconds`."""

    rate: float
    seconds: float
    #: Records per second as sent, and as worked off meanwhile; zero where the load could not be sent at all.
    sent: float = 0.0
    worked_off: float = 0.0
    #: Records sent and not answered, at equal distances from the beginning to the end.
    backlog: Sequence[float] = field(default=(), repr=False)
    #: Why the load could not be sent or answered at all.
    failure: str | None = None

    @property
    def end(self) -> float:
        """The backlog at the end."""
        return self.backlog[-1] if self.backlog else 0.0

    @property
    def growth(self) -> float:
        """By how many records the straight line through the backlog rises from the beginning to the end."""
        return self._line()[0]

    @property
    def noise(self) -> float:
        """The growth up to which the line does not count as rising."""
        return max(DEVIATIONS * self._line()[1], self.rate * LEAST_GROWTH_S)

    @property
    def why_not(self) -> str | None:
        """Why the rate does not hold, or None if it does."""
        if self.failure:
            return self.failure
        if self.sent < self.rate * LEAST_OF_PROBE:
            return f"only {self.sent:,.0f}/s could be sent"
        if self.end > self.rate * MOST_AT_END_S:
            return f"a backlog of {self.end / self.rate:.1f} s is left"
        if self.growth > self.noise:
            return "the backlog grows"
        return None

    @property
    def holds(self) -> bool:
        """Whether the rate is sustained."""
        return self.why_not is None

    def _line(self) -> tuple[float, float]:
        """How much the line gains from the first sample to the last, and the deviation of the samples around it."""
        if len(self.backlog) < 2:
            return 0.0, 0.0
        places = range(len(self.backlog))
        slope, start = linear_regression(places, self.backlog)
        around = (many - start - slope * place for place, many in enumerate(self.backlog))
        return slope * (len(self.backlog) - 1), pstdev(around)


@dataclass(slots=True)
class Sustained:
    """The probes of one search, in their order."""

    probes: list[Probe] = field(default_factory=list)

    @property
    def rate(self) -> float | None:
        """The highest rate that held, records per second; None while none did."""
        return max((probe.rate for probe in self.probes if probe.holds), default=None)

    @property
    def complete(self) -> bool:
        """Whether the search came to its end; otherwise a higher rate may be sustained as well."""
        return bool(self.probes) and self.next_rate is None

    @property
    def bounded(self) -> bool:
        """Whether a higher rate than the result was seen to fail."""
        return any(not probe.holds for probe in self.probes)

    @property
    def next_rate(self) -> float | None:
        """What to probe next; None when the search is over. At least one probe must have been made."""
        failed = min((probe for probe in self.probes if not probe.holds), key=lambda probe: probe.rate, default=None)
        held = self.rate
        if failed is None:
            return None if held is None else held * STEP ** len(self.probes)
        if held is None:
            return max(min(failed.rate / STEP, failed.worked_off or failed.rate), failed.rate * LEAST_STEP)
        for step in (STEP, HALF_STEP):
            if failed.rate > held * step * (1 + SAME):
                return held * step
        return None


def scout(asked: float, probe: Callable[[float], Probe], most: int) -> float | None:
    """A rate for the search to begin with, from short probes that begin with more than can be done.

    Under an overload the generator takes from the worker what both need, and less is worked off than could be. So the
    next probe is the geometric mean of what was sent and what was worked off, until most of it is worked off; after a
    load that could not be sent at all it is half of that. Returns the most that was worked off, or None.
    """
    best = 0.0
    for _ in range(most):
        found = probe(asked)
        best = max(best, found.worked_off)
        if found.worked_off >= asked * MOST_OF_SCOUT:
            break
        asked = math.sqrt(asked * found.worked_off) if found.worked_off else asked / 2
    return best or None


def search(start: float, probe: Callable[[float], Probe], most: int, found: Sustained) -> None:
    """Probe rates from `start` on, at most so many, and keep each probe in `found` as soon as it is made."""
    rate: float | None = start
    while rate is not None and len(found.probes) < most:
        found.probes.append(probe(rate))
        rate = found.next_rate
