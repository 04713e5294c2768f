"""The right answers, computed once in plain dictionaries: a system that answers otherwise gets no number.

Two rules of the domain are enough for this input (no sync, no `-1`, every type SINGLE, unified and recent): a cell that
is OPTIN ignores another opt-in (2.3, so its consent dates from the first of the run), and the most recent entry over
the three sources decides, nothing set being a yes (4). The reduced job of the peers has the second rule only.
"""

from __future__ import annotations

from dataclasses import dataclass

from tests.bench.events import ASKED_CHANNEL, ASKED_PRIORITY, ASKED_UNIT, Change, asked, changes

Cell = tuple[int, str, str, int, str]
Cells = dict[Cell, tuple[str, int]]


@dataclass(frozen=True, slots=True)
class Expected:
    """How many changes take effect, and the answer to each request `r{n}`."""

    applied: int
    eligible: list[bool]


def _cell(change: Change) -> Cell:
    return change.customer, change.channel, change.priority, change.org_unit_id, change.source


def _eligible(cells: Cells, customer: int, sources: tuple[str, ...]) -> bool:
    found = [
        entry
        for source in sources
        if (entry := cells.get((customer, ASKED_CHANNEL, ASKED_PRIORITY, ASKED_UNIT, source))) is not None
    ]
    return not found or max(found, key=lambda entry: entry[1])[0] == "OPTIN"


def expected(count: int, customers: int, *, full_rules: bool) -> Expected:
    """The answers after the first `count` changes to the first `count` requests."""
    cells: Cells = {}
    applied = 0
    for change in changes(count, customers):
        cell = _cell(change)
        if full_rules and change.type == "OPTIN" and cells.get(cell, ("", 0))[0] == "OPTIN":
            continue
        cells[cell] = change.type, change.number
        applied += 1
    sources = tuple(sorted({cell[4] for cell in cells}))
    return Expected(applied, [_eligible(cells, customer, sources) for customer in asked(count, customers)])
