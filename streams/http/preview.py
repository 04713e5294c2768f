"""What events would do, if they were published now: for the dry run of an import. Nothing is written."""

from __future__ import annotations

import time
from typing import Any, NamedTuple

import orjson
from fastapi import APIRouter, Request, Response

from schemas.events import EVENTS
from streams.agents.reading import UnreadableError, validate
from streams.domain.batches import newer_opt_out
from streams.domain.changes import RejectedError, apply_event
from streams.domain.keys import customer_key
from streams.domain.orgs import Org
from streams.domain.state import State
from streams.engine.partition import View
from streams.http.access import forbidden, may_act_for
from streams.http.owners import Owners, as_json, problem

#: Applying so many takes less than a tenth of a second, in which the worker does nothing else.
MOST_EVENTS = 1_000


class PreviewError(ValueError):
    """The list cannot be weighed; the message says which element is at fault."""


class _Event(NamedTuple):
    """An event's key, and the event itself or the code and message of its dead letter."""

    key: bytes
    read: dict[str, Any] | tuple[str, str]


class Preview:
    """`POST /v1/orgs/{org}/preview`: a list of events of customers of one partition; one outcome for each."""

    def __init__(self, owners: Owners) -> None:
        self._owners = owners

    def routes(self) -> APIRouter:
        """The one route."""
        router = APIRouter()

        @router.post("/v1/orgs/{org_id}/preview", summary="What events of customers of one partition would do")
        async def preview(org_id: int, request: Request) -> Response:
            if not may_act_for(request, org_id):
                return forbidden(org_id)
            return await self._preview(org_id, request)

        return router

    async def _preview(self, org_id: int, request: Request) -> Response:
        try:
            events = _read(await request.body(), org_id)
            number = self._home_of(events)
        except PreviewError as exc:
            return problem(422, str(exc))
        if number is None:
            return as_json({"outcomes": []})
        partition = self._owners.here(number)
        if partition is None:
            return await self._owners.pass_on(number, request)
        await self._owners.catch_up(partition)
        # A view that is never published: what is applied to it stays here.
        view = View(partition, list({event.key for event in events}))
        now = time.time_ns() // 1_000_000
        outcomes = [_outcome(view, org_id, event, now) for event in events]
        return as_json({"as_of": {"partition": number, "offset": view.applied}, "outcomes": outcomes})

    def _home_of(self, events: list[_Event]) -> int | None:
        """The one partition of all events; None for no events. Raises PreviewError."""
        homes = {self._owners.number_of(event.key): event.key.decode() for event in events}
        if len(homes) > 1:
            one, other, *_ = homes.values()
            raise PreviewError(f"the customers {one} and {other} are of different partitions: ask for each apart")
        return next(iter(homes), None)


def _read(body: bytes, org_id: int) -> list[_Event]:
    """The events with their keys. Raises PreviewError."""
    try:
        documents = orjson.loads(body)
    except orjson.JSONDecodeError as exc:
        raise PreviewError(f"the body is not JSON: {exc}") from None
    if not isinstance(documents, list):
        raise PreviewError("the body must be a list of events")
    if len(documents) > MOST_EVENTS:
        raise PreviewError(f"{len(documents)} events are too many at once: at most {MOST_EVENTS}")
    return [_event(at, document, org_id) for at, document in enumerate(documents)]


def _event(at: int, document: Any, org_id: int) -> _Event:
    if not isinstance(document, dict):
        raise PreviewError(f"[{at}]: not an object")
    customer_id = document.get("customer_id")
    if document.get("org_id") != org_id or not isinstance(customer_id, str) or not customer_id:
        raise PreviewError(f"[{at}]: org_id must be {org_id}, as in the path, and customer_id a text")
    key = customer_key(org_id, customer_id)
    kind = document.get("event")
    if not isinstance(kind, str) or kind not in EVENTS:
        return _Event(key, ("unknown_event", f"event: {kind!r:.80} is none of {', '.join(EVENTS)}"))
    if kind == "settings.changed":
        raise PreviewError(f"[{at}]: settings.changed is no event of a customer")
    try:
        return _Event(key, validate(document, EVENTS[kind]))
    except UnreadableError as exc:
        return _Event(key, (exc.code, str(exc)))


def _outcome(view: View, org_id: int, event: _Event, now: int) -> dict[str, Any]:
    """What becomes of one event, after those before it. The fields of its audit record, or of its dead letter."""
    org = view.org(org_id)
    if org is None:
        return _dead("unknown_org", f"org_id: no settings are in force for org {org_id}")
    key, read = event
    if isinstance(read, tuple):
        return _dead(*read)
    state = view.state(key)
    contradicts = _contradicts(org, state, read)
    try:
        outcome, reason, _, after = apply_event(org, state, read, now)
    except RejectedError as exc:
        return _dead(exc.code, str(exc))
    if after is not None and reason != "not_registered":
        view.put(key, after)
    counts = contradicts and reason not in {"not_registered", "duplicate"}
    return {"outcome": outcome, "outcome_reason": reason, "contradicts_newer_opt_out": counts}


def _dead(code: str, message: str) -> dict[str, Any]:
    return {
        "outcome": "dead_letter", "outcome_reason": code, "message": message, "contradicts_newer_opt_out": False,
    }  # fmt: skip


def _contradicts(org: Org, state: State | None, event: dict[str, Any]) -> bool:
    if event["event"] != "consent.changed":
        return False
    fields = (event["source"], event["account_id"], event["channel"], event["priority"], event["org_unit_id"])
    place = org.place(*fields)
    return newer_opt_out(state, place.key, place.org_key, event)
