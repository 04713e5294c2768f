"""The domain without the engine, with the slow model's words, so that both can be asked the same."""

from __future__ import annotations

from typing import Any

from schemas.base import format_instant
from schemas.eligibility import REQUEST
from schemas.events import EVENTS
from streams.domain.changes import RejectedError, apply_event
from streams.domain.decisions import Verdict, decide
from streams.domain.orgs import Org
from streams.domain.state import State, decode_state, parse_cell_key

Doc = dict[str, Any]

NORTH, SOUTH, WEST = 1, 2, 3
INSTORE: Doc = {"source": "INSTORE", "account_id": "01"}
WEB: Doc = {"source": "WEB_ENGAGE", "account_id": "01"}
NOW = 1_795_255_200_000  # 2026-11-21T10:00:00Z


def document(**changes: Any) -> Doc:
    """An org with three units and two profiles; customers need no registration."""
    doc: Doc = {
        "org_id": 100,
        "version": 1,
        "require_registration": False,
        "org_units": [{"id": NORTH}, {"id": SOUTH}, {"id": WEST}],
        "accounts": [INSTORE | {"channels": ["MOBILE", "EMAIL"]}, WEB | {"channels": ["MOBILE", "EMAIL"]}],
    }
    return doc | changes


def an_org(**changes: Any) -> Org:
    """The org of `document`, as the product reads it."""
    return Org(settings_of(document(**changes)))


def settings_of(doc: Doc) -> Any:
    """The settings as they arrive: through the event's own validator."""
    event = {"event": "settings.changed", "event_id": "s", "org_id": doc["org_id"], "occurred_at": format_instant(NOW)}
    return EVENTS["settings.changed"].validate_python(event | {"settings": doc})["settings"]


def change(kind: str, event_id: str, at: int, unit: int = NORTH, profile: Doc = INSTORE, **more: Any) -> Doc:
    """A readable `consent.changed`; `at` in milliseconds around NOW."""
    return {
        "event": "consent.changed", "event_id": event_id, "org_id": 100, "customer_id": "c", "occurred_at": NOW + at,
        "channel": "MOBILE", "priority": "BULK", "type": kind, "org_unit_id": unit,
    } | profile | more  # fmt: skip


def verification(verifies: str, event_id: str, at: int, unit: int = NORTH, profile: Doc = INSTORE, **more: Any) -> Doc:
    """A readable `consent.verified`."""
    event = change("OPTIN", event_id, at, unit, profile) | {"event": "consent.verified", "verifies": verifies} | more
    del event["type"]
    return event


def question(unit: int = NORTH, profile: Doc | None = INSTORE, **more: Any) -> Doc:
    """A readable request."""
    base = {"request_id": "r", "org_id": 100, "customer_id": "c", "channel": "MOBILE", "priority": "BULK"}
    return base | {"org_unit_id": unit} | (profile or {}) | more


def applied(org: Org, events: list[Doc], state: State | None = None) -> State | None:
    """The state after the events; it goes through its written form after each, as between two checkpoints."""
    for event in events:
        state = apply_event(org, state, dict(event), NOW).state
        state = decode_state(None if state is None else state.encode())
    return state


def whole(state: State | None) -> Any:
    """Everything in a state but the order in which ids came and cells were made."""
    return None if state is None else (state.about, sorted(state.ids()), state.cells())


def statuses(org: Org, state: State | None) -> dict[tuple[Any, ...], str]:
    """The status of every cell that has one, by place."""
    kinds = ("OPTIN", "OPTOUT")
    cells = {} if state is None else state.cells()
    return {parse_cell_key(key): kinds[cell[0][-1][1]] for key, cell in cells.items() if cell[0]}


def words(verdict: Verdict, version: int | None) -> Doc:
    """A verdict as the slow model puts it."""
    return {
        "eligible": verdict.eligible,
        "reason": verdict.reason,
        "policy": verdict.policy,
        "opt_in_type": verdict.opt_in_type,
        "settings_version": version,
        "inputs": [
            {
                "source": one.place.source,
                "account_id": one.place.account_id,
                "opt_in_type": one.place.opt_in_type,
                "status": one.status,
                "since": None if one.dated is None else format_instant(one.dated[0]),
                "event_id": None if one.dated is None else one.dated[2],
                "org_unit_id": one.org_unit_id,
                "pending": one.pending,
            }
            for one in verdict.inputs
        ],
    }


class FastModel:
    """`streams.domain` fed with readable records; answers in the words of the slow model."""

    def __init__(self) -> None:
        self.orgs: dict[int, Org] = {}
        self.states: dict[tuple[int, str], bytes | None] = {}

    def apply(self, written_at: int, record: Doc) -> Doc:
        """One record of consent.changes, as on the wire but decoded."""
        event = EVENTS[record["event"]].validate_python(record)
        if event["event"] == "settings.changed":
            return self._settings(event)
        org = self.orgs.get(event["org_id"])
        if org is None:
            return {"kind": "deadletter", "code": "unknown_org"}
        who = event["org_id"], event["customer_id"]
        state = decode_state(self.states.get(who))
        try:
            outcome, reason, cells, after = apply_event(org, state, event, written_at)
        except RejectedError as rejected:
            return {"kind": "deadletter", "code": rejected.code}
        self.states[who] = None if after is None else after.encode()
        return self._audit(event, outcome, reason, org.version, cells)

    def _settings(self, event: Doc) -> Doc:
        current = self.orgs.get(event["org_id"])
        if current is not None and event["settings"].version <= current.version:
            return self._audit(event, "ignored", "stale_settings", current.version, [])
        self.orgs[event["org_id"]] = Org(event["settings"])
        return self._audit(event, "settings_applied", None, event["settings"].version, [])

    @staticmethod
    def _audit(event: Doc, outcome: str, reason: str | None, version: int, cells: list[Doc]) -> Doc:
        return {
            "kind": "audit",
            "outcome": outcome,
            "outcome_reason": reason,
            "settings_version": version,
            "cells": cells,
            "event_id": event["event_id"],
        }

    def decide(self, request: Doc) -> Doc:
        """A request, as on the wire but decoded."""
        asked = REQUEST.validate_python(request)
        org = self.orgs.get(asked["org_id"])
        state = decode_state(self.states.get((asked["org_id"], asked["customer_id"])))
        return words(decide(org, state, asked), None if org is None else org.version)
