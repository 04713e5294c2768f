"""The v2 subscription API: opt-ins and opt-outs of one customer, each accepted or refused by itself."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from typing import Any
from urllib.parse import quote, urlencode

import orjson
from fastapi import APIRouter, Request, Response
from pydantic import TypeAdapter, ValidationError

from schemas.base import format_instant
from schemas.settings import faults_of
from schemas.subscriptions import SubscriptionHead
from streams.agents.reading import UnreadableError, check_nesting
from streams.domain.keys import customer_key
from streams.domain.orgs import Org
from streams.domain.state import REGISTERED, State, decode_state
from streams.engine.outputs import RefusedError
from streams.engine.partition import Partition
from streams.http.acting import UnclearError, org_of
from streams.http.customers import customer_document
from streams.http.entries import NOT_FOUND, Entry, Fault, check, said_of_all
from streams.http.identifiers import Identifiers, UnknownError
from streams.http.intake import Intake, Written, not_written
from streams.http.owners import BehindError, Owners, as_json
from streams.http.paths import CUSTOMER, is_id
from streams.http.repeats import FINGERPRINT, MOST_CHARACTERS, Answered, Place, Repeats, event_id_of, fingerprint_of
from streams.http.replies import accepted, not_found, refused, together

_HEAD = TypeAdapter(SubscriptionHead)
#: Positions are found by reading back so many records of a partition at a time, and not more than so many in all.
LOOK_BACK, MOST_LOOK_BACK = 20_000, 1_000_000


class Subscriptions:
    """Answers for the customers whose partitions are here, and passes the rest on."""

    def __init__(
        self, owners: Owners, intake: Intake, identifiers: Identifiers, now: Callable[[], float] = time.time
    ) -> None:
        self._owners = owners
        self._intake = intake
        self._identifiers = identifiers
        self._repeats = Repeats()
        self._now = now

    def routes(self) -> APIRouter:
        router = APIRouter(prefix="/v2/customers")

        @router.post("/lookup/subscriptions", summary="Opt-ins and opt-outs of whoever has an identifier")
        async def look_up(request: Request) -> Response:
            return await _answered(self._look_up(request))

        @router.post("/" + CUSTOMER + "/subscriptions", summary="Opt-ins and opt-outs of one customer")
        async def post(customer_id: str, request: Request) -> Response:
            return await _answered(self._post(customer_id, request))

        @router.get("/" + CUSTOMER + "/subscriptions", summary="A customer's statuses")
        async def get(customer_id: str, request: Request) -> Response:
            return await _answered(self._get(customer_id, request))

        return router

    async def _get(self, customer_id: str, request: Request) -> Response:
        org_id = _place_of(customer_id, request, self._owners)
        found = await self._owners.caught_up(customer_key(org_id, customer_id))
        if isinstance(found, int):
            return await self._owners.pass_on(found, request)
        org = _org(found, org_id)
        document = customer_document(found, org, org_id, customer_id)
        if document is None or (org.require_registration and not document["registered"]):
            return refused(404, [not_found(customer_id)])
        statuses = [
            {
                "channel": cell["channel"],
                "accountId": cell["account_id"],
                "priority": cell["priority"],
                "type": cell["status"],
                "orgUnitId": cell["org_unit_id"],
                "sourceName": cell["source"],
                "since": cell["since"],
                "pending": cell["pending"] is not None,
            }
            for cell in document["cells"]
        ]
        return as_json({"customerId": customer_id, "subscriptions": statuses})

    async def _look_up(self, request: Request) -> Response:
        """The request for each customer who has the identifier; the answers together."""
        org_id = org_of(request, self._owners)
        query = request.query_params
        kind, value = query.get("identifierName"), query.get("identifierValue")
        if not kind or not value:
            raise UnclearError(400, "identifierName, identifierValue: required in the query")
        try:
            customers = await self._identifiers.customers(org_id, kind, value, request)
        except UnknownError as exc:
            raise UnclearError(400, f"identifierName: {exc}") from None
        if isinstance(customers, Response):
            raise UnclearError(customers.status_code, orjson.loads(customers.body)["detail"])
        if not customers:
            return refused(404, [Fault(NOT_FOUND, f"customer not found: nobody has this {kind}")])
        passed = {"org_id": str(org_id)} | {name: query[name] for name in ("source",) if name in query}
        answers = []
        for customer_id in customers:
            number = self._owners.number_of(customer_key(org_id, customer_id))
            if self._owners.here(number) is not None:
                answers.append(await _answered(self._write(org_id, customer_id, request)))
            else:
                path = f"/v2/customers/{quote(customer_id, safe='')}/subscriptions?{urlencode(passed)}"
                answers.append(await self._owners.send_on(number, path, request))
        return answers[0] if len(answers) == 1 else together(answers, len(customers))

    async def _post(self, customer_id: str, request: Request) -> Response:
        org_id = _place_of(customer_id, request, self._owners)
        number = self._owners.number_of(customer_key(org_id, customer_id))
        if self._owners.here(number) is None:
            return await self._owners.pass_on(number, request)
        return await self._write(org_id, customer_id, request)

    async def _write(self, org_id: int, customer_id: str, request: Request) -> Response:
        body = await request.body()
        given, head = _read(body)
        key = request.headers.get("idempotency-key")
        if key is None:
            return await self._add(org_id, customer_id, (given, head), request, None)
        if not 1 <= len(key) <= MOST_CHARACTERS:
            raise UnclearError(400, f"Idempotency-Key: 1 to {MOST_CHARACTERS} characters")
        place: Place = (org_id, customer_id, key)
        fingerprint = fingerprint_of(body)
        async with self._repeats.one_at_a_time(place):
            before = self._repeats.find(place)
            if before is not None:
                return _repeated(before, fingerprint)
            answer = await self._add(org_id, customer_id, (given, head), request, (place, fingerprint))
            if answer.status_code < 500:
                # A copy, see Holders.encode.
                kept = bytes(memoryview(answer.body))
                self._repeats.remember(place, Answered(fingerprint, answer.status_code, kept))
            return answer

    async def _add(
        self,
        org_id: int,
        customer_id: str,
        asked: tuple[dict[str, Any], SubscriptionHead],
        request: Request,
        once: tuple[Place, str] | None,
    ) -> Response:
        given, head = asked
        key = customer_key(org_id, customer_id)
        partition = await self._owners.caught_up(key)
        if isinstance(partition, int):
            return await self._owners.pass_on(partition, request)
        org = _org(partition, org_id)
        state: State | None = decode_state(partition.states([key])[key])
        if org.require_registration and (state is None or state.registration != REGISTERED):
            return refused(404, [not_found(customer_id)])
        entries, faults = check(head.subscriptions, org, request.query_params.get("source"))
        if not entries:
            return refused(500, faults)
        written: dict[int, tuple[str, Written]] = {}
        if once is not None and state is not None:
            written = await self._written_before(partition.number, key, state, entries, once)
        if not written:
            written = await self._publish(org_id, customer_id, entries, said_of_all(head), once)
        return accepted(given, customer_id, [e for e in entries if e.index in written], written, faults)

    async def _publish(
        self,
        org_id: int,
        customer_id: str,
        entries: list[Entry],
        said: dict[str, Any],
        once: tuple[Place, str] | None,
    ) -> dict[int, tuple[str, Written]]:
        """The events of all entries, in one batch; the id and position of each by its index."""
        ids = [event_id_of(once[0], e.index) if once else f"api-{uuid.uuid4().hex}" for e in entries]
        common = {"event": "consent.changed", "org_id": org_id, "customer_id": customer_id, "origin": "API"}
        common |= {"occurred_at": format_instant(int(self._now() * 1000)), **said}
        if once is not None:
            common[FINGERPRINT] = once[1]
        events = [common | {"event_id": own} | e.fields for e, own in zip(entries, ids, strict=True)]
        positions = await self._intake.publish(org_id, customer_id, events)
        return {e.index: (own, at) for e, own, at in zip(entries, ids, positions, strict=True)}

    async def _written_before(
        self, number: int, key: bytes, state: State, entries: list[Entry], once: tuple[Place, str]
    ) -> dict[int, tuple[str, Written]]:
        """What an earlier request of the same key wrote, before this worker can remember; from the log."""
        place, fingerprint = once
        ids = {event_id_of(place, entry.index): entry.index for entry in entries}
        if not ids.keys() & set(state.ids()):
            return {}
        found: dict[int, tuple[str, Written]] = {}
        async for events in self._owners.read_back(number, key, LOOK_BACK, MOST_LOOK_BACK):
            ours = [(offset, event) for offset, event in events if event.get("event_id") in ids]
            if any(event.get(FINGERPRINT) != fingerprint for _, event in ours):
                raise UnclearError(422, _REUSED)
            found |= {ids[event["event_id"]]: (event["event_id"], Written(number, at)) for at, event in ours}
            # They were written together, so they are among these records and the next at most.
            if found and (not ours or len(found) == len(entries)):
                break
        return found


_REUSED = "Idempotency-Key: it came with another request before"


async def _answered(answer: Any) -> Response:
    """The answer, or what the request lacks, in the form of this API."""
    try:
        response: Response = await answer
    except UnclearError as exc:
        return refused(exc.status, [Fault(exc.status, str(exc))])
    except BehindError as exc:
        return refused(503, [Fault(503, str(exc))])
    except RefusedError as exc:
        return not_written(exc)
    return response


def _place_of(customer_id: str, request: Request, owners: Owners) -> int:
    """The org of a request about this customer. Raises UnclearError."""
    if not is_id(customer_id):
        raise UnclearError(400, "customer_id: 1 to 128 characters")
    return org_of(request, owners)


def _org(partition: Partition, org_id: int) -> Org:
    org = partition.org(org_id)
    if org is None:
        raise UnclearError(404, f"no settings are in force for org {org_id}")
    return org


def _read(body: bytes) -> tuple[dict[str, Any], SubscriptionHead]:
    """The request as it was given, and what it says of all entries. Raises UnclearError."""
    try:
        given = orjson.loads(body)
    except orjson.JSONDecodeError as exc:
        raise UnclearError(400, f"the body is not JSON: {exc}") from None
    try:
        head = _HEAD.validate_python(given)
        check_nesting(given)
    except ValidationError as exc:
        raise UnclearError(400, "; ".join(faults_of(exc))) from None
    except UnreadableError as exc:
        raise UnclearError(400, str(exc)) from None
    return given, head


def _repeated(before: Answered, fingerprint: str) -> Response:
    if before.fingerprint != fingerprint:
        raise UnclearError(422, _REUSED)
    return Response(before.body, before.status, media_type="application/json")
