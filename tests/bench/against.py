"""Two checkouts on one broker, in turns: `--against FOLDER`.

In each turn each side gets new topics and a new state, and the same input: changes, decisions, a restore, lone requests
and half load. The side that begins changes from turn to turn. Only the worker is started from its checkout, by
`.venv/bin/python -m streams worker` in that folder; broker, topics, load and reader are those of this checkout. The
half load is the same for both sides in all turns: half of what short loads of the other checkout suggest in the first
turn (`scout`), unless `--rate` says it.

How far the ratios of a turn are apart says how finely this machine can tell. A comparison of a checkout with itself
(`--against .`) shows it without any difference of the code.
"""

from __future__ import annotations

from tests.bench.checkout import HERE, Checkout
from tests.bench.figures import CHANGES, DECISIONS, HALF_P50, HALF_P99, LONE_P50, RESTORE, Comparison, Figure
from tests.bench.kafka import Kafka
from tests.bench.latency import product_session
from tests.bench.plan import CUSTOMERS, LEAST_OF_RATE, LOAD, Plan
from tests.bench.reference import Expected, expected
from tests.bench.restore import run_restore
from tests.bench.stages import say
from tests.bench.systems import introduce, product
from tests.bench.throughput import run_changes, run_decisions

OURS, THEIRS = "ours", "theirs"


def run_against(plan: Plan, kafka: Kafka, other: Checkout, found: Comparison) -> None:
    """Fill in the comparison, which keeps what was measured when a turn fails."""
    right = expected(plan.events, CUSTOMERS, full_rules=True)
    found.rate = plan.rate or 0.0
    for turn in range(1, plan.rounds + 1):
        sides = [(THEIRS, other), (OURS, HERE)]
        for side, checkout in sides if turn % 2 else reversed(sides):
            say(f"turn {turn} of {plan.rounds}: {side}")
            numbers = _turn(plan, kafka, checkout, f"{side}-{turn}", right, found)
            for compared in found.figures:
                getattr(compared, side).append(numbers[compared.figure])


def _turn(
    plan: Plan, kafka: Kafka, checkout: Checkout, role: str, right: Expected, found: Comparison
) -> dict[Figure, float]:
    """Every figure of one side."""
    system = product(kafka, plan.folder, role, checkout)
    introduce(system, CUSTOMERS)
    changes = run_changes(system, plan.events, right)
    decisions = run_decisions(system, plan.events, right)
    restored = run_restore(system)
    with product_session(system) as session:
        if not found.rate:
            found.rate = session.scout(decisions.per_second, plan.latency_seconds) * LOAD
        lone = session.lone()
        half = session.load(found.rate, plan.latency_seconds)
    if half.kept is not None and half.kept < LEAST_OF_RATE:
        say(f"{role}: only {half.kept:.0%} of {found.rate:.0f} records per second were worked off while they came")
    return {
        CHANGES: changes.per_cpu_second,
        DECISIONS: decisions.per_cpu_second,
        RESTORE: restored.per_second,
        LONE_P50: lone.p50,
        HALF_P50: half.p50,
        HALF_P99: half.p99,
    }
