"""The v1.1 subscription API: one opt-in or opt-out per item, on the org's default profile, for the whole org."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import orjson
from fastapi import APIRouter, Request, Response
from pydantic import TypeAdapter, ValidationError

from schemas.base import WHOLE_ORG, format_instant
from schemas.settings import faults_of
from schemas.subscriptions import MOST_ENTRIES, LegacyItem
from streams.agents.reading import UnreadableError, check_nesting
from streams.domain.keys import customer_key
from streams.domain.orgs import Org
from streams.domain.state import REGISTERED, decode_state
from streams.engine.outputs import RefusedError
from streams.http.acting import UnclearError, org_of
from streams.http.entries import MALFORMED, NOT_ADDED, NOT_FOUND, default_profile, misplaced
from streams.http.identifiers import Identifiers
from streams.http.intake import Intake
from streams.http.owners import BehindError, Owners, as_json

_ITEM = TypeAdapter(LegacyItem)
_NAMES = ("id", "mobile", "email", "external_id")
_CHANNELS = {"sms": "MOBILE", "email": "EMAIL"}
_SUCCESS = (True, 1000, "accepted")

Status = tuple[bool, int, str]


class LegacySubscriptions:
    """Takes items one by one; each is accepted or refused by itself."""

    def __init__(
        self, owners: Owners, intake: Intake, identifiers: Identifiers, now: Callable[[], float] = time.time
    ) -> None:
        self._owners = owners
        self._intake = intake
        self._identifiers = identifiers
        self._now = now

    def routes(self) -> APIRouter:
        router = APIRouter(prefix="/v1.1/customer")

        @router.post("/subscriptions", summary="Opt-ins and opt-outs on the default profile")
        async def post(request: Request) -> Response:
            try:
                org_id = org_of(request, self._owners)
                items = _items(await request.body())
                org = await self._org(org_id)
            except UnclearError as exc:
                return _answer([], [(False, exc.status, str(exc))], exc.status)
            statuses = [await self._take(item, org, request) for item in items]
            return _answer(items, statuses, None)

        return router

    async def _org(self, org_id: int) -> Org:
        try:
            org = await self._owners.org(org_id)
        except BehindError as exc:
            raise UnclearError(503, str(exc)) from None
        if org is None:
            raise UnclearError(404, f"no settings are in force for org {org_id}")
        return org

    async def _take(self, given: Any, org: Org, request: Request) -> Status:
        """Write the events of one item."""
        try:
            item = _ITEM.validate_python(given)
        except ValidationError as exc:
            return False, MALFORMED, "; ".join(faults_of(exc))
        named = [(name, getattr(item, name)) for name in _NAMES if getattr(item, name) is not None]
        if len(named) != 1:
            return False, MALFORMED, f"exactly one of {', '.join(_NAMES)} is needed"
        channel = _CHANNELS[item.channel]
        profile = default_profile(org)
        if profile is None:
            return False, NOT_ADDED, "the org has no default profile"
        fault = misplaced(org, *profile, channel, WHOLE_ORG)
        if fault:
            return False, NOT_ADDED, fault
        (name, value) = named[0]
        try:
            customers = await self._customers(org, name, value, request)
        except BehindError as exc:
            return False, 503, str(exc)
        if isinstance(customers, Response):
            return False, customers.status_code, "the customers cannot be looked up now, try again in a second"
        if not customers:
            return False, NOT_FOUND, f"customer not found: nobody has this {name}"
        place = {"source": profile[0], "account_id": profile[1], "channel": channel, "priority": item.priority}
        kind = "OPTIN" if item.is_subscribed else "OPTOUT"
        try:
            for customer_id in customers:
                await self._publish(org.settings.org_id, customer_id, {**place, "type": kind})
        except RefusedError as exc:
            return False, 503, f"not written: {exc}"
        return _SUCCESS

    async def _publish(self, org_id: int, customer_id: str, place: dict[str, object]) -> None:
        event = {
            "event": "consent.changed",
            "event_id": f"api-{uuid.uuid4().hex}",
            "org_id": org_id,
            "customer_id": customer_id,
            **place,
            "org_unit_id": WHOLE_ORG,
            "occurred_at": format_instant(int(self._now() * 1000)),
            "origin": "API",
        }
        await self._intake.publish(org_id, customer_id, [event])

    async def _customers(self, org: Org, name: str, value: str, request: Request) -> list[str] | Response:
        """Registered customers only: the identity table has no others, and an id is looked up."""
        org_id = org.settings.org_id
        if name != "id":
            return await self._identifiers.customers(org_id, name, value, request)
        if not org.require_registration:
            return [value]
        key = customer_key(org_id, value)
        found = await self._owners.caught_up(key)
        if not isinstance(found, int):
            state = decode_state(found.states([key])[key])
            return [value] if state is not None and state.registration == REGISTERED else []
        answer = await self._owners.ask_for(found, f"/v1/customers/{org_id}/{quote(value, safe='')}", request)
        if answer.status_code not in {200, 404}:
            return answer
        return [value] if answer.status_code == 200 and orjson.loads(answer.body)["registered"] else []


def _items(body: bytes) -> list[Any]:
    """The items as they were given. Raises UnclearError."""
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as exc:
        raise UnclearError(400, f"the body is not JSON: {exc}") from None
    if isinstance(document, dict):
        try:
            check_nesting(document)
        except UnreadableError as exc:
            raise UnclearError(400, str(exc)) from None
    root = document.get("root") if isinstance(document, dict) else None
    items = root.get("subscription") if isinstance(root, dict) else None
    if not isinstance(items, list) or not 1 <= len(items) <= MOST_ENTRIES:
        raise UnclearError(400, f"root.subscription: a list of 1 to {MOST_ENTRIES} items is required")
    return items


def _answer(items: list[Any], statuses: list[Status], failed: int | None) -> Response:
    """What became of each item, and of all: 200 if all were accepted, 201 if some, 500 if none.

    `failed` is the status of a request that could not be taken at all, for the one reason in `statuses`.
    """
    accepted = sum(success for success, _, _ in statuses)
    code = failed or (200 if accepted == len(statuses) else 201 if accepted else 500)
    message = statuses[0][2] if failed else f"{accepted} of {len(statuses)} accepted"
    told = [
        {**(item if isinstance(item, dict) else {"item": item}), "item_status": _status(one)}
        for item, one in zip(items, statuses, strict=False)
    ]
    whole = {"success": code == 200, "code": code, "message": message}
    whole |= {"total": len(items), "success_count": accepted}
    return as_json({"response": {"status": whole, "subscriptions": {"subscription": told}}}, code)


def _status(status: Status) -> dict[str, Any]:
    success, code, message = status
    return {"success": success, "code": code, "message": message}
