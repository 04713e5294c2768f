"""Webhooks of SMS and call gateways: what they receive is written to `consent.inbound`."""

from __future__ import annotations

from typing import Any

import orjson
from fastapi import APIRouter, Request, Response

from schemas.inbound import INBOUND
from streams.agents.reading import UnreadableError, check_nesting, parse, validate
from streams.domain.identities import identity_key, normal
from streams.http.access import forbidden, may_act_for
from streams.http.intake import Intake
from streams.http.owners import BehindError, Owners, as_json, problem, retry
from streams.kafka.records import Record


class Webhooks:
    """Takes records under the key of the number that they come from; acting on them is the stream's work."""

    def __init__(self, owners: Owners, intake: Intake, max_bytes: int) -> None:
        self._owners = owners
        self._intake = intake
        self._max_bytes = max_bytes

    def routes(self) -> APIRouter:
        router = APIRouter(prefix="/v1/inbound")

        @router.post("/sms", status_code=202, summary="An SMS was received")
        async def sms(request: Request) -> Response:
            return await self._take("sms.received", request)

        @router.post("/call", status_code=202, summary="A call was missed")
        async def call(request: Request) -> Response:
            return await self._take("call.missed", request)

        return router

    async def _take(self, event: str, request: Request) -> Response:
        try:
            document = parse(Record(0, 0, None, await request.body(), ()), self._max_bytes)
            check_nesting(document)
            document.setdefault("event", event)
            said = validate(document, INBOUND[event])
        except UnreadableError as exc:
            return problem(413 if exc.code == "too_large" else 422, str(exc), code=exc.code)
        org_id: int = said["org_id"]
        if not may_act_for(request, org_id):
            return forbidden(org_id)
        return await self._write(org_id, said, document)

    async def _write(self, org_id: int, said: dict[str, Any], document: dict[str, Any]) -> Response:
        try:
            org = await self._owners.org(org_id)
        except BehindError as exc:
            return retry(str(exc))
        if org is None:
            return problem(404, f"no settings are in force for org {org_id}")
        key = identity_key(org_id, "mobile", normal("mobile", said["from"], org.default_region))
        written = await self._intake.publish_inbound(key, orjson.dumps(document))
        return as_json({"position": written._asdict()}, 202)
