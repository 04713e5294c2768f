"""Customers by an identifier: from the identity table here, or of the worker that has it."""

from __future__ import annotations

from urllib.parse import urlencode

import orjson
from fastapi import APIRouter, Request, Response

from streams.domain.identities import KINDS, Holders, identity_key, normal
from streams.http.access import forbidden, may_act_for
from streams.http.owners import BehindError, Owners, as_json, problem, retry
from streams.http.paths import is_id

#: Names that callers use for our kinds of identifiers, without regard to case.
_NAMES = {kind: kind for kind in KINDS} | {"externalid": "external_id", "phone": "mobile"}
_ID = "id"


class UnknownError(Exception):
    """There is no such kind of identifier."""

    def __init__(self, name: str) -> None:
        super().__init__(f"{name[:40]!r} is none of {_ID}, {', '.join(KINDS)}")


class Identifiers:
    """Finds customers."""

    def __init__(self, owners: Owners) -> None:
        self._owners = owners

    def routes(self) -> APIRouter:
        router = APIRouter(prefix="/v1/orgs")

        @router.get("/{org_id}/customers", summary="The customers who have an identifier")
        async def customers(org_id: int, name: str, value: str, request: Request) -> Response:
            if not may_act_for(request, org_id):
                return forbidden(org_id)
            try:
                found = await self.customers(org_id, name, value, request)
            except UnknownError as exc:
                return problem(422, f"name: {exc}")
            return found if isinstance(found, Response) else as_json({"customers": found})

        return router

    async def customers(self, org_id: int, name: str, value: str, request: Request) -> list[str] | Response:
        """Ids of the customers; or a response that says why they cannot be told. Raises UnknownError."""
        if name.casefold() == _ID:
            return [value] if is_id(value) else []
        kind = _NAMES.get(name.casefold())
        if kind is None:
            raise UnknownError(name)
        try:
            return await self._find(org_id, kind, value, request)
        except BehindError as exc:
            return retry(str(exc))

    async def _find(self, org_id: int, kind: str, value: str, request: Request) -> list[str] | Response:
        org = await self._owners.org(org_id)
        if org is None:
            return problem(404, f"no settings are in force for org {org_id}")
        key = identity_key(org_id, kind, normal(kind, value, org.default_region))
        number = self._owners.number_of(key)
        if self._owners.identities_here(number) is None:
            path = f"/v1/orgs/{org_id}/customers?{urlencode({'name': kind, 'value': value})}"
            answer = await self._owners.ask_for(number, path, request)
            return list(orjson.loads(answer.body)["customers"]) if answer.status_code == 200 else answer
        await self._owners.know_everybody(number)
        table = self._owners.identities_here(number)
        if table is None:
            raise BehindError
        holders: Holders | None = table.decode(table.states([key])[key])
        return [] if holders is None else holders.customers()
