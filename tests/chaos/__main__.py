"""Rounds of faults picked at random for so many minutes: `python -m tests.chaos --minutes 10 --seed 7`."""

from __future__ import annotations

import argparse
import logging
import random
import sys
import tempfile
import time
import traceback
import unittest
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from streams.broker import EmbeddedBroker
from tests.chaos.checker import KINDS, Report
from tests.chaos.driver import Round
from tests.chaos.faults import FAULTS, Fault
from tests.integration.harness import Loop

#: A round of several faults has at most so many.
MOST_FAULTS = 4
#: How often each is picked beside the others; a kill is what happens most.
WEIGHTS = {"kill -9 of a worker": 4}


class Tally:
    """What came of the rounds so far, fault by fault. A violation counts for every fault of its round."""

    def __init__(self) -> None:
        self.runs: Counter[str] = Counter()
        self.skipped: Counter[str] = Counter()
        self.found: dict[str, Counter[str]] = {name: Counter() for name in FAULTS}
        self.rounds = self.bad_rounds = self.decisions = self.forwarded_twice = 0

    def add(self, faults: Iterable[Fault], report: Report) -> None:
        self.decisions += report.counts["decisions"]
        self.forwarded_twice += report.forwarded_twice
        for fault in faults:
            self.runs[fault.name] += 1
            self.found[fault.name] += report.kinds + Counter(decisions=report.counts["decisions"])

    def table(self) -> str:
        """Markdown, one row for each fault."""
        names = ["fault", "times", *KINDS, "decisions checked"]
        rows = [names, ["---", *["---:"] * (len(names) - 1)]]
        for name in FAULTS:
            times = str(self.runs[name]) + (f" ({self.skipped[name]} skipped)" if self.skipped[name] else "")
            rows.append([name, times, *(str(self.found[name][kind]) for kind in (*KINDS, "decisions"))])
        return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def main() -> int:
    """Run rounds until the time is up; 0 if nothing was violated."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=None, help="the same faults in the same order")
    parser.add_argument("--only", default="", help="only faults whose names contain this")
    options = parser.parse_args()
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(10**6)
    # Clients of a broker that is hurt say so, hundreds of times.
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    print(f"chaos: seed {seed}, {options.minutes:g} minutes", flush=True)
    tally, rng = Tally(), random.Random(seed)
    deadline = time.monotonic() + 60 * options.minutes
    loop = Loop()
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder, EmbeddedBroker(Path(folder) / "broker") as broker:
        while time.monotonic() < deadline:
            faults = _pick(rng, [fault for fault in FAULTS.values() if options.only in fault.name])
            _round(tally, broker, loop, Path(folder), faults, rng.randrange(10**6), rng.randint(1, 4))
    print(tally.table())
    print(
        f"chaos: seed {seed}: {tally.rounds} rounds, {tally.bad_rounds} with violations; {tally.decisions} decisions "
        f"checked; {tally.forwarded_twice} records forwarded twice"
    )
    return 1 if tally.bad_rounds else 0


def _pick(rng: random.Random, faults: list[Fault]) -> list[Fault]:
    """One that must be alone, or several that follow each other."""
    first = rng.choices(faults, [WEIGHTS.get(fault.name, 1) for fault in faults])[0]
    others = [fault for fault in faults if not fault.alone]
    if first.alone:
        return [first]
    return [first, *rng.choices(others, [WEIGHTS.get(o.name, 1) for o in others], k=rng.randrange(MOST_FAULTS))]


def _round(
    tally: Tally, broker: EmbeddedBroker, loop: Loop, folder: Path, faults: list[Fault], seed: int, workers: int
) -> None:
    started = time.monotonic()
    names = ", ".join(fault.name for fault in faults)
    tally.rounds += 1
    report = Report()
    try:
        with Round(broker, loop, folder, seed) as round_:
            alone = faults[0] if faults[0].alone else None
            round_.start(alone.workers if alone else max(workers, 2), **(alone.env if alone else {}))
            round_.load()
            for fault in faults:
                fault.do(round_)
            report = round_.finish(late=any(fault.late for fault in faults))
        tally.add(faults, report)
        tally.bad_rounds += bool(report.violations)
        twice = f", {report.forwarded_twice} records forwarded twice" if report.forwarded_twice else ""
        outcome = str(report) if report.violations else f"ok{twice}"
    except unittest.SkipTest as skip:
        tally.skipped.update(fault.name for fault in faults)
        outcome = f"skipped: {skip}"
    except Exception:
        tally.bad_rounds += 1
        outcome = traceback.format_exc()
        if not broker.running:
            broker.start()
        broker.resume()
    took = time.monotonic() - started
    print(f"round {tally.rounds} (seed {seed}, {took:.0f} s): {names}: {outcome}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
