"""What must hold once the dust has settled: lag 0 and all workers stopped.

| | invariant |
|---|---|
| I1 | the slow model folded over the log = the changelog folded = the RocksDB of each partition, up to its own offset |
| I2 | every request has exactly one decision for a `read_committed` consumer, misrouted ones included |
| I3 | every decision is the model's at its `as_of`, which is never below what was acknowledged before the request |
| I4 | every accepted change has exactly one audit record and its messages, and none is invented |
| I5 | every bad record has exactly one dead letter, and none is invented |
| I6 | the lag is 0 within a stated time after the last fault |
| I7 | every worker ends with a code that is documented for what was done to it, and says why in one last line |

What was acknowledged must also still be there, or nothing above would mean anything (I0).

One repetition is documented and counted apart: a record may be forwarded twice; it counts once all the same.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from streams import topics
from streams.domain.identities import decode_holders, identity_key, normal
from tests.chaos.history import CHANGELOG_OF, History, Sent
from tests.integration.compare import FORWARDED_TWICE, INVENTED, LOST, REPEATED, STALE, WRONG, Comparison, Fault
from tests.integration.harness import AUDIT, CHANGES, DEADLETTER, DECISIONS, REQUESTS

#: Which invariant a difference from the model breaks, by what it is about; content of decisions is I3, their number I2.
_INVARIANT = {"state": "I1", "decisions": "I2", "forwards": "I2", "audit": "I4", "notifications": "I4",
              "dead letters": "I5"}  # fmt: skip
#: What a worker says last when it ends by itself.
LAST_LINE = "Error: "
#: So many violations of each invariant and kind are shown.
SHOWN = 5


@dataclass(frozen=True)
class Violation:
    """An invariant that does not hold, how (lost, repeated, ...), and where."""

    invariant: str
    kind: str
    text: str

    def __str__(self) -> str:
        return f"{self.invariant} {self.kind}: {self.text}"


@dataclass
class Report:
    """What was found, and how much there was to look at."""

    violations: list[Violation] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    #: Records that were forwarded twice, which is documented.
    forwarded_twice: int = 0

    @property
    def kinds(self) -> Counter[str]:
        """How many violations of each kind."""
        return Counter(violation.kind for violation in self.violations)

    def __str__(self) -> str:
        looked_at = ", ".join(f"{count} {what}" for what, count in sorted(self.counts.items()))
        lines = [f"{len(self.violations)} violations; looked at {looked_at}"]
        lines += [f"forwarded twice, as documented: {self.forwarded_twice}"] * bool(self.forwarded_twice)
        by_kind: dict[tuple[str, str], list[Violation]] = defaultdict(list)
        for violation in self.violations:
            by_kind[violation.invariant, violation.kind].append(violation)
        lines += [f"  {violation}" for some in by_kind.values() for violation in some[:SHOWN]]
        lines += [f"  ... {kind}: {count}" for kind, count in sorted(self.kinds.items())]
        return "\n".join(lines)


@dataclass
class Part:
    """What some partitions show by themselves, and what only shows with the others: the customers of identifiers."""

    report: Report
    #: As the changelog has them, and as the models have them.
    found: dict[bytes, set[str]]
    wanted: dict[bytes, set[str]]


def check(history: History) -> Report:
    """Hold a round against the invariants."""
    return conclude(history, [check_part(history)])


def conclude(history: History, parts: Iterable[Part]) -> Report:
    """The report on a round of which all partitions were looked at, in as many parts as may be."""
    report = Report(counts=Counter(exits=len(history.exits)))
    found: dict[bytes, set[str]] = {}
    wanted: dict[bytes, set[str]] = defaultdict(set)
    for part in parts:
        report.violations += part.report.violations
        report.counts += part.report.counts
        report.forwarded_twice += part.report.forwarded_twice
        found |= part.found
        for key, customers in part.wanted.items():
            wanted[key] |= customers
    report.violations += [*_identities(found, wanted), *_settled(history), *_exits(history)]
    return report


def check_part(history: History) -> Part:
    """Hold the partitions that a history is about against the invariants."""
    comparison = Comparison(
        history, history.ends, late=history.late, numbers=history.numbers, copies=history.copies
    )
    report = Report(counts=_counts(history))
    for fault in comparison.faults():
        if fault.kind == FORWARDED_TWICE:
            report.forwarded_twice += 1
        else:
            report.violations.append(_violation(fault))
    report.violations += [*_acknowledged(history), *_stores(history)]
    return Part(report, _holders(history), _wanted_holders(comparison))


def _counts(history: History) -> Counter[str]:
    names = {CHANGES: "changes", REQUESTS: "requests", DECISIONS: "decisions", AUDIT: "audits",
             DEADLETTER: "dead letters"}  # fmt: skip
    found = Counter({name: len(history.read(topic)) for topic, name in names.items()})
    return found + Counter(stores=len(history.stores))


def _violation(fault: Fault) -> Violation:
    is_content = fault.about == "decisions" and fault.kind in (WRONG, STALE)
    return Violation("I3" if is_content else _INVARIANT[fault.about], fault.kind, f"{fault.about}: {fault.text}")


def _acknowledged(history: History) -> Iterator[Violation]:
    for topic in (CHANGES, REQUESTS):
        there = {record.place: record for record in history.read(topic)}
        for sent in (one for one in history.sent if one.topic == topic):
            record = there.get(sent.place)
            if record is None or Sent.of(topic, sent.place, record.key, record.value) != sent:
                yield Violation("I0", LOST, f"{topic} {sent.place} was acknowledged and is not there")


def _stores(history: History) -> Iterator[Violation]:
    """Every RocksDB is the changelog up to its own offset, and some worker has all of it."""
    newest: dict[tuple[str, int], int] = defaultdict(lambda: -1)
    for stored in history.stores:
        at = f"{stored.table}-{stored.partition} of {stored.worker}"
        folded: dict[bytes, bytes] = {}
        for record in history.log(CHANGELOG_OF[stored.table]).of(stored.partition):
            if record.offset <= stored.offset:
                folded[record.key or b""] = record.value or b""
        wanted = {key: value for key, value in folded.items() if value}
        if wanted != stored.items:
            differ = [key for key in wanted.keys() | stored.items.keys() if wanted.get(key) != stored.items.get(key)]
            yield Violation("I1", WRONG, f"{at}, at {stored.offset}, differs from the changelog in {differ[:3]}")
        place = (stored.table, stored.partition)
        newest[place] = max(newest[place], stored.offset)
    for table, changelog in CHANGELOG_OF.items():
        for number in history.numbers:
            last = max((record.offset for record in history.log(changelog).of(number)), default=-1)
            if newest[table, number] < last:
                text = f"{table}-{number} ends at {newest[table, number]}, its changelog at {last}"
                yield Violation("I1", LOST, text)


def _holders(history: History) -> dict[bytes, set[str]]:
    """The customers of every identifier that lies in these partitions."""
    found: dict[bytes, set[str]] = {}
    for record in history.read(topics.IDENTITIES_CHANGELOG.name):
        if record.key and record.key[0]:
            holders = decode_holders(record.value)
            found[record.key] = set(holders.customers()) if holders else set()
    return found


def _wanted_holders(comparison: Comparison) -> dict[bytes, set[str]]:
    """The identifiers of all customers of these partitions, wherever they lie."""
    wanted: dict[bytes, set[str]] = defaultdict(set)
    for model in comparison.models:
        for (org_id, customer), state in model.customers.items():
            for kind, identifier in state["identifiers"].items():
                wanted[identity_key(org_id, kind, normal(kind, identifier, None))].add(customer)
    return wanted


def _identities(found: Mapping[bytes, set[str]], wanted: Mapping[bytes, set[str]]) -> Iterator[Violation]:
    for key in found.keys() | wanted.keys():
        if found.get(key, set()) != wanted.get(key, set()):
            text = f"{key!r} is of {sorted(found.get(key, set()))}, should be of {sorted(wanted.get(key, set()))}"
            yield Violation("I1", WRONG, f"identities: {text}")


def _settled(history: History) -> Iterator[Violation]:
    if history.unsettled:
        yield Violation("I6", LOST, f"not worked off after {history.settled_s:.0f} s: {dict(history.unsettled)}")
    elif history.settled_s > history.allowed_s:
        yield Violation("I6", STALE, f"worked off after {history.settled_s:.0f} s, not {history.allowed_s:.0f}")


def _exits(history: History) -> Iterator[Violation]:
    for one in history.exits:
        if one.code not in one.allowed:
            text = f"{one.worker} ended with {one.code}, not with one of {sorted(one.allowed)}: {one.last_line}"
            yield Violation("I7", WRONG, text)
        elif one.code == 1 and not one.last_line.startswith(LAST_LINE):
            yield Violation("I7", WRONG, f"{one.worker} ended with 1 and said last: {one.last_line!r}")
        elif one.traceback and one.code == 0:
            yield Violation("I7", WRONG, f"{one.worker} ended with 0 and a traceback")


#: How a round can go wrong, for tables.
KINDS = (LOST, REPEATED, INVENTED, WRONG, STALE)
