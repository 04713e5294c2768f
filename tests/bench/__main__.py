"""The command line of the bench; the package's docstring says what it measures."""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

import orjson
from confluent_kafka import KafkaException

from tests.bench.against import run_against
from tests.bench.broker import brokers, kafka_version
from tests.bench.checkout import HERE, command_line, other_checkout
from tests.bench.figures import Comparison
from tests.bench.kafka import Kafka
from tests.bench.machine import describe
from tests.bench.plan import (
    BROKERS,
    EVENTS,
    PARTITIONS,
    PRODUCT,
    QUICK_EVENTS,
    STAGES,
    SYSTEMS,
    BenchError,
    Plan,
    with_needs,
)
from tests.bench.report import as_json, comparison_as_json, show, show_comparison
from tests.bench.results import Results
from tests.bench.stages import run, run_replicated, say


def _names(text: str, known: tuple[str, ...]) -> tuple[str, ...]:
    chosen = tuple(name for name in text.split(",") if name)
    unknown = set(chosen) - set(known)
    if unknown:
        raise argparse.ArgumentTypeError(f"{', '.join(sorted(unknown))}: not one of {', '.join(known)}")
    return chosen


def _rate(text: str) -> float:
    try:
        rate = float(text)
    except ValueError:
        rate = 0.0
    if not 0 < rate < float("inf"):
        raise argparse.ArgumentTypeError(f"{text}: must be a number above zero")
    return rate


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description="Measure consent-streams and its peers.")
    parser.add_argument("--events", type=int, help=f"changes, and requests (default {EVENTS}; --quick {QUICK_EVENTS})")
    parser.add_argument("--partitions", type=int, default=PARTITIONS)
    parser.add_argument("--quick", action="store_true", help="fewer events and turns, shorter loads")
    parser.add_argument(
        "--only", type=lambda text: _names(text, STAGES), default=STAGES, help=f"{','.join(STAGES)}; adds their needs"
    )
    parser.add_argument(
        "--skip", type=lambda text: _names(text, SYSTEMS), default=(), help=f"systems to leave out: {','.join(SYSTEMS)}"
    )
    parser.add_argument(
        "--brokers", type=int, choices=BROKERS, help="measure on so many only (default: all on 1, latency on 3 as well)"
    )
    parser.add_argument(
        "--against", type=Path, metavar="FOLDER", help="compare with another checkout, in turns, on one broker"
    )
    parser.add_argument(
        "--rate", type=_rate, help="records per second of half load (default: half of what is sustained)"
    )
    parser.add_argument("--bootstrap", help="a Kafka to use instead of the embedded one; it has as many --brokers (1)")
    parser.add_argument("--folder", type=Path, help="keep logs and state here (default: a temporary folder)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything measured here too")
    args = parser.parse_args()
    if args.against and (args.only != STAGES or args.skip or args.brokers not in (None, 1)):
        parser.error("--against measures figures of its own on one broker: leave out --only, --skip and --brokers")
    if args.brokers not in (None, 1) and "latency" not in args.only:
        parser.error(f"--brokers {args.brokers}: only the stage latency runs on more than one broker")
    return args


def _plan(args: argparse.Namespace, folder: Path) -> Plan:
    return Plan(
        stages=with_needs(args.only),
        systems=tuple(name for name in SYSTEMS if name not in args.skip),
        events=args.events or (QUICK_EVENTS if args.quick else EVENTS),
        partitions=args.partitions,
        quick=args.quick,
        folder=folder,
        rate=args.rate,
    )


def _brokers(args: argparse.Namespace, plan: Plan) -> tuple[int, ...]:
    """On how many brokers to measure, one after the other."""
    if args.brokers:
        return (args.brokers,)
    replicated = not args.bootstrap and "latency" in plan.stages and PRODUCT in plan.systems
    return BROKERS if replicated else BROKERS[:1]


def _bench(args: argparse.Namespace, folder: Path) -> int:
    plan = _plan(args, folder)
    counts = _brokers(args, plan)
    results = Results()
    machine = describe(kafka_version(args.bootstrap), command_line(sys.argv[1:]))
    where = " and ".join(map(str, counts))
    machine["run"] = f"{plan.events:,} events, {plan.partitions} partitions, brokers: {where}, {', '.join(plan.stages)}"
    code = 0
    try:
        for count in counts:
            try:
                with brokers(count, folder / f"kafka-{count}", args.bootstrap) as bootstrap:
                    measure = run if count == 1 else run_replicated
                    measure(plan, Kafka(bootstrap, plan.partitions, count), results)
            except (BenchError, KafkaException) as error:
                say(f"FAILED: {error}")
                code = 1
    finally:
        # A run that is interrupted tells what it has measured, too.
        show(machine, results)
        _write(args.json, as_json(machine, results))
    return code


def _against(args: argparse.Namespace, folder: Path) -> int:
    plan = _plan(args, folder)
    other = other_checkout(args.against)
    found = Comparison(HERE.commit, other.commit)
    machine = describe(kafka_version(args.bootstrap), command_line(sys.argv[1:]))
    machine["run"] = f"{plan.events:,} events, {plan.partitions} partitions, ours {found.ours}, theirs {found.theirs}"
    code = 0
    try:
        with brokers(1, folder / "kafka-1", args.bootstrap) as bootstrap:
            run_against(plan, Kafka(bootstrap, plan.partitions), other, found)
    except (BenchError, KafkaException) as error:
        say(f"FAILED: {error}")
        code = 1
    finally:
        show_comparison(machine, found)
        _write(args.json, comparison_as_json(machine, found))
    return code


def _write(file: Path | None, content: dict[str, Any]) -> None:
    if file:
        file.write_bytes(orjson.dumps(content, option=orjson.OPT_INDENT_2))


def main() -> int:
    """Run; 0 when everything was measured, 1 when something failed (what was measured is printed all the same)."""
    args = _arguments()
    measure = _against if args.against else _bench
    # A terminated bench must end its workers and its broker: let SIGTERM unwind like Ctrl-C does.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        if args.folder:
            args.folder.mkdir(parents=True, exist_ok=True)
            return measure(args, args.folder.absolute())
        with tempfile.TemporaryDirectory(prefix="consent-bench-") as folder:
            return measure(args, Path(folder))
    except BenchError as error:
        say(f"FAILED: {error}")
        return 1


if __name__ == "__main__":
    sys.exit(main())
