"""The tables: what was measured, the ratios, and the targets beside them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from tests.bench.figures import Comparison
from tests.bench.plan import INTAKE_P99_MS, LEAST_OF_RATE, MOST_WORSE, PRODUCT
from tests.bench.results import HALF, HEAVY, LONE, Latency, Results, Times, Turns, present
from tests.bench.spread import Spread, spread

if TYPE_CHECKING:
    from tests.bench.measure import Measured

TITLES = {PRODUCT: "consent-streams", "kstreams": "Kafka Streams", "quix": "Quix Streams"}
TITLES |= {"faust": "plain Faust"}
LOAD_TITLES = {LONE: "lone requests", HALF: "half load", HEAVY: "90 % load"}
#: Product to echo at most, by brokers and load: p50, and p99 where there is a target for it.
MOST_P50 = {1: {HALF: 2.0, HEAVY: 5.0}, 3: {LONE: 2.2, HALF: 2.5, HEAVY: 5.0}}
MOST_P99 = {1: {HALF: 4.0}}
MIB = 1 << 20
WIDTH = 110  # the table is pasted into the README, whatever the terminal
COMPARISON_WIDTH = 140  # two sides and their ratio, each with its spread


@dataclass(frozen=True, slots=True)
class Target:
    """One ratio of the product to something else, or a measure with a `unit` of its own, and its limit."""

    what: str
    ratio: float
    limit: float
    at_most: bool = False
    unit: str = "x"
    #: Of the runs whose median the ratio is.
    spread: Spread | None = None
    #: Why the ratio says nothing, if it does not.
    void: str | None = None

    @property
    def met(self) -> bool:
        """Whether the ratio is on the right side of its limit."""
        return self.void is None and (self.ratio <= self.limit if self.at_most else self.ratio >= self.limit)


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
    for latency in results.latency:
        yield from _latency_targets(latency)
    if len(results.footprint) > 1:
        small, large = results.footprint
        ratio = large.resident_bytes / small.resident_bytes
        yield Target(f"resident memory, {large.customers} to {small.customers} customers", ratio, 1.3, at_most=True)
    for it in results.intake:
        yield Target(f"v2 writes at {it.rate:.0f}/s, p99", it.p99, INTAKE_P99_MS, at_most=True, unit=" ms")


def _latency_targets(latency: Latency) -> Iterator[Target]:
    for load, turns in latency.turns.items():
        what = f"{_brokers(latency)}: {LOAD_TITLES[load]}"
        for name, limits in (("p50", MOST_P50), ("p99", MOST_P99)):
            limit, ratio = limits.get(latency.brokers, {}).get(load), turns.ratio(attrgetter(name))
            if limit is not None and ratio is not None:
                void = _void(turns)
                if load == HEAVY and latency.sustained.probes and not latency.sustained.bounded:
                    void = "void: no rate failed"
                yield Target(f"{what}, {name}, to the echo", ratio.median, limit, True, spread=ratio, void=void)


def _void(turns: Turns) -> str | None:
    """An echo that falls behind is no floor: its times are long, and the ratio to them is small."""
    kept = present(turns.echo, "kept")
    return f"void: the echo kept {kept.median:.0%}" if kept and kept.median < LEAST_OF_RATE else None


def _brokers(latency: Latency) -> str:
    return "1 broker" if latency.brokers == 1 else f"{latency.brokers} brokers"


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
    rates["sustained"] = {str(it.brokers): it.sustained.rate for it in results.latency}
    found = [{**asdict(t), "met": t.met} for t in targets(results)]
    return {"machine": machine, "measured": asdict(results), "rates": rates, "targets": found}


def comparison_as_json(machine: dict[str, str], found: Comparison) -> dict[str, Any]:
    """Every number of every turn, the ratios and the verdicts."""
    figures = [
        {
            "name": it.figure.name,
            "ours": it.ours,
            "theirs": it.theirs,
            "ratio": asdict(it.ratio) if it.ratio else None,
            "met": it.met,
            "clear": it.clear,
        }
        for it in found.figures
    ]
    return {"machine": machine, "ours": found.ours, "theirs": found.theirs, "rate": found.rate, "figures": figures}


def show(machine: dict[str, str], results: Results, console: Console | None = None) -> None:
    """Print whatever has been measured."""
    tables = [_throughput(results), _restore(results)]
    for latency in results.latency:
        tables += [_probes(latency), _latency(latency)]
    tables += [_footprint(results), _intake(results), _targets(results)]
    _print(machine, tables, console)


def show_comparison(machine: dict[str, str], found: Comparison, console: Console | None = None) -> None:
    """Print the figures of both checkouts."""
    _print(machine, [_comparison(found)], console or Console(width=COMPARISON_WIDTH))


def _print(machine: dict[str, str], tables: list[Table], console: Console | None) -> None:
    out = console or Console(width=WIDTH)
    for label, text in machine.items():
        out.print(f"[bold]{label}[/bold]: {text}", highlight=False)
    for table in tables:
        if table.row_count:
            # Below each table, because tables are copied one by one.
            table.caption = f"commit {machine['commit']}, {machine['command']}"
            table.caption_justify = "left"
            out.print(table)


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column(columns[0], no_wrap=True)
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
        table.add_row(TITLES.get(name, name), *cells)
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


def _probes(latency: Latency) -> Table:
    found = latency.sustained
    rate = "none" if found.rate is None else f"{'' if found.complete else 'at least '}{found.rate:,.0f} records/s"
    title = f"Sustained on {_brokers(latency)}: {rate}"
    table = _table(title, "probe", "records/s", "seconds", "worked off", "backlog at the end", "growth", "noise", "")
    for number, it in enumerate(found.probes, 1):
        worked_off = f"{min(it.worked_off / it.sent, 1.0):.0%}" if it.sent else ""
        backlog = (f"{records:,.0f}" for records in (it.end, it.growth, it.noise))
        table.add_row(str(number), f"{it.rate:,.0f}", f"{it.seconds:.0f}", worked_off, *backlog, it.why_not or "holds")
    return table


def _latency(latency: Latency) -> Table:
    runs = max(len(turns.product) for turns in latency.turns.values())
    title = f"Produce to output on {_brokers(latency)}, milliseconds: median of {runs} turns (least-most)"
    table = _table(title, "", "records/s", "worked off", "p50", "p99")
    for load, turns in latency.turns.items():
        for name, times in (("bare echo", turns.echo), (PRODUCT, turns.product)):
            if times:
                table.add_row(f"{LOAD_TITLES[load]}, {name}", *_load(times), *_numbers(times))
        _latency_ratios(table, turns)
        enforced = [present(turns.product, name) for name in ("enforced_p50", "enforced_p99")]
        if any(enforced):
            table.add_row("  opt-outs enforced within", "", "", *(it.text(".0f") if it else "" for it in enforced))
    return table


def _load(times: list[Times]) -> Iterator[str]:
    rate, kept = present(times, "rate"), present(times, "kept")
    yield f"{rate.median:,.0f}" if rate else ""
    yield f"{kept.median:.0%} ({kept.least:.0%})" if kept else ""


def _numbers(times: list[Times]) -> Iterator[str]:
    for name in ("p50", "p99"):
        found = present(times, name)
        yield found.text(".2f") if found else ""


def _latency_ratios(table: Table, turns: Turns) -> None:
    found = [turns.ratio(attrgetter(name)) for name in ("p50", "p99")]
    if any(found):
        table.add_row("  ratio to the echo", "", "", *(it.text(".2f", "x") if it else "" for it in found))


def _comparison(found: Comparison) -> Table:
    turns = min(len(it.theirs) for it in found.figures)
    title = f"Ours ({found.ours}) and theirs ({found.theirs}), median of {turns} turns (least-most), "
    title += f"half load {found.rate:,.0f} records/s"
    table = _table(title, "", "theirs", "ours", "ours to theirs", "target", "")
    for it in found.figures:
        if it.ratio is None:
            continue
        limit = f"at least {1 - MOST_WORSE:g}x" if it.figure.more_is_better else f"at most {1 + MOST_WORSE:g}x"
        sides = (spread(numbers).text(it.figure.form) for numbers in (it.theirs, it.ours))
        table.add_row(it.figure.name, *sides, it.ratio.text(".3f", "x"), limit, it.verdict)
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
        verdict = it.void or ("met" if it.met else "[bold]missed[/bold]")
        ratio = it.spread.text(".2f", it.unit) if it.spread else f"{it.ratio:.2f}{it.unit}"
        table.add_row(it.what, ratio, f"{sign} {it.limit:g}{it.unit}", verdict)
    return table
