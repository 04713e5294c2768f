"""The command line of the bench; the package's docstring says what it measures."""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from pathlib import Path

import orjson
from confluent_kafka import KafkaException

from tests.bench.broker import broker
from tests.bench.kafka import Kafka
from tests.bench.machine import describe
from tests.bench.plan import EVENTS, PARTITIONS, QUICK_EVENTS, STAGES, SYSTEMS, BenchError, Plan, with_needs
from tests.bench.report import as_json, show
from tests.bench.stages import Results, run, say


def _names(text: str, known: tuple[str, ...]) -> tuple[str, ...]:
    chosen = tuple(name for name in text.split(",") if name)
    unknown = set(chosen) - set(known)
    if unknown:
        raise argparse.ArgumentTypeError(f"{', '.join(sorted(unknown))}: not one of {', '.join(known)}")
    return chosen


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description="Measure consent-streams and its peers.")
    parser.add_argument("--events", type=int, help=f"changes, and requests (default {EVENTS}; --quick {QUICK_EVENTS})")
    parser.add_argument("--partitions", type=int, default=PARTITIONS)
    parser.add_argument("--quick", action="store_true", help="fewer events, shorter load, at most 100 000 customers")
    parser.add_argument(
        "--only", type=lambda text: _names(text, STAGES), default=STAGES, help=f"{','.join(STAGES)}; adds their needs"
    )
    parser.add_argument(
        "--skip", type=lambda text: _names(text, SYSTEMS), default=(), help=f"systems to leave out: {','.join(SYSTEMS)}"
    )
    parser.add_argument("--rate", type=float, help="records per second of the latency stage (default: half load)")
    parser.add_argument("--bootstrap", help="a Kafka to use instead of the embedded one")
    parser.add_argument("--folder", type=Path, help="keep logs and state here (default: a temporary folder)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything measured here too")
    return parser.parse_args()


def _bench(args: argparse.Namespace, folder: Path) -> int:
    plan = Plan(
        stages=with_needs(args.only),
        systems=tuple(name for name in SYSTEMS if name not in args.skip),
        events=args.events or (QUICK_EVENTS if args.quick else EVENTS),
        partitions=args.partitions,
        quick=args.quick,
        folder=folder,
        rate=args.rate,
    )
    results = Results()
    code = 0
    with broker(folder / "kafka", args.bootstrap) as (bootstrap, kafka_version):
        machine = describe(kafka_version)
        machine["run"] = f"{plan.events:,} events, {plan.partitions} partitions, {', '.join(plan.stages)}"
        try:
            run(plan, Kafka(bootstrap, plan.partitions), results)
        except (BenchError, KafkaException) as error:
            say(f"FAILED: {error}")
            code = 1
    show(machine, results)
    if args.json:
        args.json.write_bytes(orjson.dumps(as_json(machine, results), option=orjson.OPT_INDENT_2))
    return code


def main() -> int:
    """Run; 0 when everything was measured, 1 when something failed (what was measured is printed all the same)."""
    args = _arguments()
    # A terminated bench must end its workers and its broker: let SIGTERM unwind like Ctrl-C does.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        if args.folder:
            args.folder.mkdir(parents=True, exist_ok=True)
            return _bench(args, args.folder.absolute())
        with tempfile.TemporaryDirectory(prefix="consent-bench-") as folder:
            return _bench(args, Path(folder))
    except BenchError as error:
        say(f"FAILED: {error}")
        return 1


if __name__ == "__main__":
    sys.exit(main())
