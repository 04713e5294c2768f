"""A run: which stages are done for which system, in which order, and what comes of each."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field

from tests.bench import kstreams
from tests.bench.footprint import Footprint, run_footprint
from tests.bench.intake import Intake, run_intake
from tests.bench.kafka import Kafka
from tests.bench.latency import Latency, echo_latency, middle, product_latency, sustained
from tests.bench.measure import Measured
from tests.bench.plan import CUSTOMERS, HEAVY_LOAD, INTAKE_RATE, LATENCY_ROUNDS, LOAD, PRODUCT, BenchError, Plan
from tests.bench.reference import Expected, expected
from tests.bench.restore import Restored, run_restore
from tests.bench.systems import System, introduce, peer, product
from tests.bench.throughput import run_changes, run_decisions

#: In the table of latencies, the product under the heavier of its loads.
HEAVY = "heavy"


@dataclass(slots=True)
class Results:
    """Everything measured so far, by system (latency: by route; footprint: small, then large)."""

    changes: dict[str, Measured] = field(default_factory=dict)
    decisions: dict[str, Measured] = field(default_factory=dict)
    latency: dict[str, Latency] = field(default_factory=dict)
    restore: dict[str, Restored] = field(default_factory=dict)
    footprint: list[Footprint] = field(default_factory=list)
    intake: list[Intake] = field(default_factory=list)


def say(text: str) -> None:
    """A progress line; the tables alone go to stdout."""
    print(f"bench: {text}", file=sys.stderr, flush=True)


def run(plan: Plan, kafka: Kafka, results: Results) -> None:
    """Do the stages of the plan and fill in `results`, which keeps what was measured when one of them fails."""
    systems: dict[str, System] = {}
    if "changes" in plan.stages:
        for name in plan.systems:
            if name == "kstreams" and (why := kstreams.missing()):
                say(f"{name}: left out, {why}")
                continue
            systems[name] = _throughput(plan, kafka, results, name)
    if "latency" in plan.stages and PRODUCT in systems:
        _latency(plan, systems[PRODUCT], results)
    if "restore" in plan.stages:
        for name in ("faust", PRODUCT):
            if name in systems:
                say(f"{name}: restore from the changelog")
                results.restore[name] = run_restore(systems[name])
    if "footprint" in plan.stages and PRODUCT in plan.systems:
        for customers in plan.footprint:
            say(f"{PRODUCT}: footprint of {customers} customers")
            results.footprint.append(run_footprint(kafka, plan.folder, customers))
    if "intake" in plan.stages and PRODUCT in plan.systems:
        say(f"{PRODUCT}: {INTAKE_RATE} writes per second of the v2 API")
        results.intake.append(run_intake(kafka, plan.folder, 2 * plan.latency_seconds))


def _throughput(plan: Plan, kafka: Kafka, results: Results, name: str) -> System:
    events = plan.events_of(name)
    right: Expected = expected(events, CUSTOMERS, full_rules=name == PRODUCT)
    if name == PRODUCT:
        system = product(kafka, plan.folder, "main")
        say(f"{name}: {CUSTOMERS} customers register")
        introduce(system, CUSTOMERS)
    else:
        system = peer(name, kafka, plan.folder)
    say(f"{name}: {events} changes")
    results.changes[name] = run_changes(system, events, right)
    # Who only asks for `restore` needs the changes of every system, but the decisions of none.
    if "decisions" in plan.stages:
        say(f"{name}: {events} decisions")
        results.decisions[name] = run_decisions(system, events, right)
    return system


def _latency(plan: Plan, system: System, results: Results) -> None:
    seconds = plan.latency_seconds
    if plan.rate is not None and plan.rate <= 0:
        raise BenchError(f"--rate {plan.rate}: must be above zero")
    whole = plan.rate / LOAD if plan.rate else _sustained(results.decisions[PRODUCT].per_second, system, seconds)
    rate = whole * LOAD
    floor: list[Latency] = []
    ours: list[Latency] = []
    for turn in range(1, LATENCY_ROUNDS + 1):
        say(f"latency at {rate:.0f} records per second, {turn} of {LATENCY_ROUNDS}: bare echo, then {PRODUCT}")
        floor.append(echo_latency(system.kafka, plan.folder / f"echo-{turn}", rate, seconds))
        ours.append(product_latency(system, rate, seconds))
    results.latency = {"echo": middle(floor), PRODUCT: middle(ours)}
    say(f"latency at {whole * HEAVY_LOAD:.0f} records per second: {PRODUCT}")
    # What is sustained was measured once: where the machine is slower now, that is told and the other stages go on.
    results.latency[HEAVY] = product_latency(system, whole * HEAVY_LOAD, seconds, must_keep=False)


def _sustained(asked: float, system: System, seconds: float) -> float:
    say(f"latency: what {PRODUCT} sustains, of {asked:.0f} records per second")
    return sustained(system, asked, seconds)
