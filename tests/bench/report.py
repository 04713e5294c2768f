"""The tables: what was measured, the ratios, and the targets beside them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.bench.measure import Measured
from tests.bench.plan import INTAKE_P99_MS, PRODUCT
from tests.bench.stages import HEAVY, Results

TITLES = {PRODUCT: "consent-streams", "kstreams": "Kafka Streams", "quix": "Quix Streams"}
TITLES |= {"faust": "plain Faust", "echo": "bare Kafka echo", HEAVY: "consent-streams, at 90 %"}
MIB = 1 << 20
WIDTH = 110  # the table is pasted into the README, whatever the terminal


@dataclass(frozen=True, slots=True)
class Target:
    """One ratio of the product to something else, or a measure with a `unit` of its own, and its limit."""

    what: str
    ratio: float
    limit: float
    at_most: bool = False
    unit: str = "x"

    @property
    def met(self) -> bool:
        """Whether the ratio is on the right side of its limit."""
        return self.ratio <= self.limit if self.at_most else self.ratio >= self.limit


def targets(results: Results) -> Iterator[Target]:
    """The targets that this run can speak about."""
    for stage, least in (("changes", {"quix": 1.0, "faust": 10.0}), ("decisions", {"quix": 1.5, "faust": 10.0})):
        measured: dict[str, Measured] = getattr(results, stage)
        for peer, limit in least.items():
            if PRODUCT in measured and peer in measured:
                ratio = measured[PRODUCT].per_cpu_second / measured[peer].per_cpu_second
                yield Target(f"{stage} per CPU second, to {TITLES[peer]}", ratio, limit)
    if {PRODUCT, "faust"} <= results.restore.keys():
        ratio = results.restore[PRODUCT].per_second / results.restore["faust"].per_second
        yield Target("restore, to plain Faust", ratio, 8.0)
    if {PRODUCT, "echo"} <= results.latency.keys():
        ours, floor = results.latency[PRODUCT], results.latency["echo"]
        yield Target("produce to decision p50, to the echo", ours.p50 / floor.p50, 2.0, at_most=True)
        yield Target("produce to decision p99, to the echo", ours.p99 / floor.p99, 4.0, at_most=True)
    if len(results.footprint) > 1:
        small, large = results.footprint
        ratio = large.resident_bytes / small.resident_bytes
        yield Target(f"resident memory, {large.customers} to {small.customers} customers", ratio, 1.3, at_most=True)
    for it in results.intake:
        yield Target(f"v2 writes at {it.rate:.0f}/s, p99", it.p99, INTAKE_P99_MS, at_most=True, unit=" ms")


def as_json(machine: dict[str, str], results: Results) -> dict[str, Any]:
    """Everything as plain values, rates included."""
    rates: dict[str, Any] = {
        stage: {
            name: {"per_second": m.per_second, "per_cpu_second": m.per_cpu_second}
            for name, m in getattr(results, stage).items()
        }
        for stage in ("changes", "decisions")
    }
    rates["restore"] = {name: {"per_second": r.per_second} for name, r in results.restore.items()}
    found = [{**asdict(t), "met": t.met} for t in targets(results)]
    return {"machine": machine, "measured": asdict(results), "rates": rates, "targets": found}


def show(machine: dict[str, str], results: Results, console: Console | None = None) -> None:
    """Print whatever has been measured."""
    out = console or Console(width=WIDTH)
    for label, text in machine.items():
        out.print(f"[bold]{label}[/bold]: {text}", highlight=False)
    tables = (_throughput, _latency, _restore, _footprint, _intake, _targets)
    for table in (make(results) for make in tables):
        if table.row_count:
            out.print(table)


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column(columns[0])
    for column in columns[1:]:
        table.add_column(column, justify="right")
    return table


def _throughput(results: Results) -> Table:
    columns = ("events", "changes/s", "per CPU s", "decisions/s", "per CPU s")
    table = _table("Throughput of one worker", "", *columns)
    for name, changes in results.changes.items():
        decisions = results.decisions.get(name)
        cells = [f"{changes.events:,}", f"{changes.per_second:,.0f}", f"{changes.per_cpu_second:,.0f}"]
        cells += [f"{decisions.per_second:,.0f}", f"{decisions.per_cpu_second:,.0f}"] if decisions else ["", ""]
        table.add_row(TITLES[name], *cells)
    for name in ("kstreams", "quix", "faust"):
        if {PRODUCT, name} <= results.changes.keys():
            table.add_row(f"ratio to {TITLES[name]}", "", *_ratios(results, name))
    return table


def _ratios(results: Results, peer: str) -> Iterator[str]:
    for measured in (results.changes, results.decisions):
        if {PRODUCT, peer} <= measured.keys():
            ours, theirs = measured[PRODUCT], measured[peer]
            yield f"{ours.per_second / theirs.per_second:.1f}x"
            yield f"{ours.per_cpu_second / theirs.per_cpu_second:.1f}x"


def _latency(results: Results) -> Table:
    columns = ("records/s", "worked off", "p50", "p99", "lone p50", "opt-outs enforced, p50", "p99")
    table = _table("Produce to output, milliseconds", "", *columns)
    for name, it in results.latency.items():
        times = (it.p50, it.p99, it.lone_p50)
        enforced = ("" if bound is None else f"< {bound:g}" for bound in (it.enforced_p50, it.enforced_p99))
        load = (f"{it.rate:,.0f}", f"{it.kept:.0%}")
        table.add_row(TITLES[name], *load, *(f"{time:.1f}" for time in times), *enforced)
    if {PRODUCT, "echo"} <= results.latency.keys():
        ours, floor = results.latency[PRODUCT], results.latency["echo"]
        ratios = (ours.p50 / floor.p50, ours.p99 / floor.p99, ours.lone_p50 / floor.lone_p50)
        table.add_row(f"ratio to {TITLES['echo']}", "", "", *(f"{ratio:.1f}x" for ratio in ratios))
    return table


def _restore(results: Results) -> Table:
    table = _table("Restore of an empty worker", "", "records", "seconds", "records/s")
    for name, it in results.restore.items():
        table.add_row(TITLES[name], f"{it.records:,}", f"{it.seconds:.1f}", f"{it.per_second:,.0f}")
    if {PRODUCT, "faust"} <= results.restore.keys():
        ratio = results.restore[PRODUCT].per_second / results.restore["faust"].per_second
        table.add_row(f"ratio to {TITLES['faust']}", "", "", f"{ratio:.1f}x")
    return table


def _footprint(results: Results) -> Table:
    table = _table("Footprint of consent-streams", "customers", "bytes on disk per customer", "resident memory, MiB")
    for it in results.footprint:
        table.add_row(f"{it.customers:,}", f"{it.bytes_per_customer:,.0f}", f"{it.resident_bytes / MIB:,.0f}")
    return table


def _intake(results: Results) -> Table:
    table = _table("Writes of the v2 API, milliseconds until answered", "requests/s", "p50", "p99")
    for it in results.intake:
        table.add_row(f"{it.rate:,.0f}", f"{it.p50:.1f}", f"{it.p99:.1f}")
    return table


def _targets(results: Results) -> Table:
    table = _table("Targets", "", "ratio", "target", "")
    for it in targets(results):
        sign = "at most" if it.at_most else "at least"
        verdict = "met" if it.met else "[bold]missed[/bold]"
        table.add_row(it.what, f"{it.ratio:.2f}{it.unit}", f"{sign} {it.limit:g}{it.unit}", verdict)
    return table
