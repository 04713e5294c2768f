"""Faults at random, and a table: `python -m tests.chaos --minutes 10 --seed 7`, or `--decisions 1000000`.

For so many minutes there are rounds, each of one or a few faults. For so many decisions there is one long round under
a fast load, in which one fault follows the other. With `--brokers 3` they run on a cluster, whose brokers are hurt.
"""

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
from collections.abc import Iterable, Sequence
from pathlib import Path

from streams.broker import EmbeddedBroker
from tests.chaos.bulk import BulkRound, faults_up_to, run_bulk
from tests.chaos.checker import KINDS, Report
from tests.chaos.driver import BROKER, Kafka, Round
from tests.chaos.faults import FAULTS, Deck, Fault, faults_on
from tests.cluster import Cluster
from tests.integration.harness import Loop

#: A round of several faults has at most so many.
MOST_FAULTS = 4


class Tally:
    """What came of the rounds so far, fault by fault. A violation counts for every fault of its round."""

    def __init__(self) -> None:
        self.runs: Counter[str] = Counter()
        self.skipped: Counter[str] = Counter()
        self.found: dict[str, Counter[str]] = {name: Counter() for name in FAULTS}
        self.rounds = self.bad_rounds = self.decisions = self.forwarded_twice = 0

    def add(self, faults: Sequence[tuple[Fault, int]], report: Report) -> None:
        """A round of these faults, each with how many decisions are to be counted as its own."""
        self.rounds += 1
        self.bad_rounds += bool(report.violations)
        self.decisions += report.counts["decisions"]
        self.forwarded_twice += report.forwarded_twice
        for fault, decisions in faults:
            self.runs[fault.name] += 1
            self.found[fault.name]["decisions"] += decisions
        for name in {fault.name for fault, _ in faults}:
            self.found[name] += report.kinds

    def skip(self, faults: Iterable[Fault]) -> None:
        """A round that cannot be had on this machine."""
        self.rounds += 1
        self.skipped.update(fault.name for fault in faults)

    def fail(self) -> None:
        """A round that did not come to its end."""
        self.rounds += 1
        self.bad_rounds += 1

    def table(self) -> str:
        """Markdown, one row for each fault."""
        names = ["fault", "times", *KINDS, "decisions checked"]
        rows = [names, ["---", *["---:"] * (len(names) - 1)]]
        for name in [name for name in FAULTS if self.runs[name] or self.skipped[name]]:
            times = str(self.runs[name]) + (f" ({self.skipped[name]} skipped)" if self.skipped[name] else "")
            rows.append([name, times, *(str(self.found[name][kind]) for kind in (*KINDS, "decisions"))])
        return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def main() -> int:
    """Run rounds until the time is up, or the one until there are enough decisions; 0 if nothing was violated."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--decisions", type=int, default=0, help="one round of so many, instead of the minutes")
    parser.add_argument("--seed", type=int, default=None, help="the same faults in the same order")
    parser.add_argument("--brokers", type=int, default=1, help="more than one: a cluster of so many")
    parser.add_argument("--min-insync", type=int, default=2, help="min.insync.replicas of a cluster's topics")
    parser.add_argument("--only", default="", help="only faults whose names contain this")
    options = parser.parse_args()
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(10**6)
    # Clients of a broker that is hurt say so, hundreds of times.
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    wanted = f"{options.decisions} decisions" if options.decisions else f"{options.minutes:g} minutes"
    several = f", {options.brokers} brokers, min.insync.replicas {options.min_insync}" if options.brokers > 1 else ""
    print(f"chaos: seed {seed}, {wanted}{several}", flush=True)
    tally, rng = Tally(), random.Random(seed)
    with tempfile.TemporaryDirectory(prefix="chaos-") as name, _kafka(options, Path(name)) as kafka:
        deck = Deck(rng, [fault for fault in faults_on(kafka) if _is_meant(fault, options.only)])
        deadline = time.monotonic() + 60 * options.minutes
        runs = Runs(tally, kafka, Loop(), Path(name))
        if options.decisions:
            runs.bulk(seed, options.decisions)
        while not options.decisions and time.monotonic() < deadline:
            runs.round(deck.draw_together(MOST_FAULTS), rng.randrange(10**6), rng.randint(2, 4))
    print(tally.table())
    print(
        f"chaos: seed {seed}: {tally.rounds} rounds, {tally.bad_rounds} with violations; {tally.decisions} decisions "
        f"checked; {tally.forwarded_twice} records forwarded twice"
    )
    return 1 if tally.bad_rounds else 0


def _kafka(options: argparse.Namespace, folder: Path) -> Kafka:
    """What the rounds run on, not started."""
    if options.brokers == 1:
        return EmbeddedBroker(folder, properties=BROKER)
    return Cluster(folder / "cluster", options.brokers, min_insync=options.min_insync, properties=BROKER)


def _is_meant(fault: Fault, only: str) -> bool:
    """What is large takes longer than all others together: it has to be asked for."""
    return only in fault.name and (bool(only) or not fault.large)


class Runs:
    """Rounds on one broker or several, each with a folder of its own, and what came of them."""

    def __init__(self, tally: Tally, kafka: Kafka, loop: Loop, folder: Path) -> None:
        self._tally, self._kafka, self._loop, self._folder = tally, kafka, loop, folder

    def bulk(self, seed: int, decisions: int) -> None:
        """One round of so many decisions. Whatever goes wrong in it ends it."""
        started = time.monotonic()
        done: list[tuple[Fault, int]] = []

        def tell(fault: Fault, decided: int) -> None:
            done.append((fault, decided))
            so_far = sum(decided for _, decided in done)
            print(f"{time.monotonic() - started:.0f} s: {fault.name}; {so_far} decisions so far", flush=True)

        with BulkRound(self._kafka, self._loop, self._folder, seed) as round_:
            report = run_bulk(round_, faults_up_to(round_, decisions), tell)
        self._tally.add(done, report)
        print(f"checked after {time.monotonic() - started:.0f} s: {report}", flush=True)

    def round(self, faults: list[Fault], seed: int, workers: int) -> None:
        """One round of these faults; the next finds the broker as it must be."""
        started = time.monotonic()
        try:
            report = self._report(faults, seed, workers)
            decisions = report.counts["decisions"]
            self._tally.add([(fault, decisions) for fault in faults], report)
            twice = f", {report.forwarded_twice} records forwarded twice" if report.forwarded_twice else ""
            outcome = str(report) if report.violations else f"ok{twice}"
        except unittest.SkipTest as skip:
            self._tally.skip(faults)
            outcome = f"skipped: {skip}"
        except Exception:
            self._tally.fail()
            outcome = traceback.format_exc()
            self._mend()
        names = ", ".join(fault.name for fault in faults)
        took = time.monotonic() - started
        print(f"round {self._tally.rounds} (seed {seed}, {took:.0f} s): {names}: {outcome}", flush=True)

    def _mend(self) -> None:
        """Undo what a round that failed has left."""
        if isinstance(self._kafka, Cluster):
            self._kafka.mend()
            return
        if not self._kafka.running:
            self._kafka.start()
        self._kafka.resume()

    def _report(self, faults: list[Fault], seed: int, workers: int) -> Report:
        with Round(self._kafka, self._loop, self._folder, seed) as round_:
            first = faults[0]
            round_.start(first.workers if first.alone else workers, **first.env)
            round_.load()
            for fault in faults:
                fault.do(round_)
            late, large = any(fault.late for fault in faults), any(fault.large for fault in faults)
            return round_.finish(late=late, large=large)


if __name__ == "__main__":
    sys.exit(main())
