"""A run: which stages are done for which system, in which order, and what comes of each."""

from __future__ import annotations

import sys

from tests.bench import kstreams
from tests.bench.footprint import run_footprint
from tests.bench.intake import run_intake
from tests.bench.kafka import Kafka
from tests.bench.latency import Session, echo_session, product_session
from tests.bench.plan import CUSTOMERS, HEAVY_LOAD, INTAKE_RATE, LOAD, PRODUCT, BenchError, Plan
from tests.bench.reference import Expected, expected
from tests.bench.restore import run_restore
from tests.bench.results import HALF, HEAVY, LOADS, LONE, Latency, Results, Times
from tests.bench.sustained import search
from tests.bench.systems import System, introduce, peer, product
from tests.bench.throughput import run_changes, run_decisions


def say(text: str) -> None:
    """A progress line; the tables alone go to stdout."""
    print(f"bench: {text}", file=sys.stderr, flush=True)


def on_brokers(name: str, brokers: int) -> str:
    """What a system is called in the results: on more than one broker it is another one."""
    return name if brokers == 1 else f"{name}, {brokers} brokers"


def run(plan: Plan, kafka: Kafka, results: Results) -> None:
    """Do the stages of the plan and fill in `results`, which keeps what was measured when one of them fails."""
    systems: dict[str, System] = {}
    if "changes" in plan.stages:
        for name in plan.systems:
            if name == "kstreams" and (why := kstreams.missing()):
                say(f"{name}: left out, {why}")
                continue
            systems[name] = _throughput(plan, kafka, results, name)
    if "restore" in plan.stages:
        for name in ("faust", PRODUCT):
            if name in systems:
                say(f"{name}: restore from the changelog")
                results.restore[name] = run_restore(systems[name])
    if "latency" in plan.stages and PRODUCT in systems:
        _latency(plan, systems[PRODUCT], results)
    if "footprint" in plan.stages and PRODUCT in plan.systems:
        for customers in plan.footprint:
            say(f"{PRODUCT}: footprint of {customers} customers")
            results.footprint.append(run_footprint(kafka, plan.folder, customers))
    if "intake" in plan.stages and PRODUCT in plan.systems:
        say(f"{PRODUCT}: {INTAKE_RATE} writes per second of the v2 API")
        results.intake.append(run_intake(kafka, plan.folder, 2 * plan.latency_seconds))


def run_replicated(plan: Plan, kafka: Kafka, results: Results) -> None:
    """On more than one broker: the product's throughput, from which the search starts, and its latency."""
    _latency(plan, _throughput(plan, kafka, results, PRODUCT), results)


def _throughput(plan: Plan, kafka: Kafka, results: Results, name: str) -> System:
    events = plan.events_of(name)
    right: Expected = expected(events, CUSTOMERS, full_rules=name == PRODUCT)
    called = on_brokers(name, kafka.replication)
    if name == PRODUCT:
        system = product(kafka, plan.folder, "main" if kafka.replication == 1 else f"main-{kafka.replication}")
        say(f"{called}: {CUSTOMERS} customers register")
        introduce(system, CUSTOMERS)
    else:
        system = peer(name, kafka, plan.folder)
    say(f"{called}: {events} changes")
    results.changes[called] = run_changes(system, events, right)
    # Who only asks for `restore` needs the changes of every system, but the decisions of none.
    if "decisions" in plan.stages:
        say(f"{called}: {events} decisions")
        results.decisions[called] = run_decisions(system, events, right)
    return system


def _latency(plan: Plan, system: System, results: Results) -> None:
    brokers = system.kafka.replication
    latency = Latency(brokers)
    results.latency.append(latency)
    where = f"latency, {brokers} broker{'s' if brokers > 1 else ''}"
    if plan.rate:
        whole = plan.rate / LOAD
    else:
        _search(plan, system, results.decisions[on_brokers(PRODUCT, brokers)].per_second, latency, where)
        found = latency.sustained.rate
        if found is None:
            tried = latency.sustained.probes
            raise BenchError(f"{where}: none of {len(tried)} rates is sustained, the last one {tried[-1].rate:.0f}")
        whole = found
    rates = {HALF: whole * LOAD, HEAVY: whole * HEAVY_LOAD}
    for turn in range(1, plan.rounds + 1):
        say(f"{where}: turn {turn} of {plan.rounds}, lone, {rates[HALF]:.0f} and {rates[HEAVY]:.0f} records per second")
        with echo_session(system.kafka, plan.folder / f"echo-{brokers}-{turn}") as session:
            for load in LOADS:
                latency.turns[load].echo.append(_under(session, load, rates, plan))
        with product_session(system) as session:
            for load in LOADS:
                latency.turns[load].product.append(_under(session, load, rates, plan))


def _search(plan: Plan, system: System, asked: float, latency: Latency, where: str) -> None:
    with product_session(system) as session:
        say(f"{where}: about how much is worked off, from {asked:.0f} records per second on")
        start = session.scout(asked, plan.latency_seconds)
        say(f"{where}: which rate is sustained, at most {plan.probes} probes of {plan.probe_seconds:.0f} s")
        search(start, lambda rate: session.probe(rate, plan.probe_seconds), plan.probes, latency.sustained)


def _under(session: Session, load: str, rates: dict[str, float], plan: Plan) -> Times:
    if load == LONE:
        return session.lone()
    return session.load(rates[load], plan.latency_seconds)
