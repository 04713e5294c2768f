"""For which org a request acts, where its path does not say so."""

from __future__ import annotations

from fastapi import Request
from pydantic import TypeAdapter, ValidationError

from schemas.base import Int64
from streams.http.access import asking, may_act_for
from streams.http.owners import Owners

_ORG_ID = TypeAdapter(Int64)


class UnclearError(Exception):
    """The request cannot be taken as it is: HTTP `status`, and what is wrong."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def org_of(request: Request, owners: Owners) -> int:
    """The org named by the query (`org_id`) or the header `X-Org-Id`, else the only one that can be meant.

    That is the user's, who may act for one org only, or the only one that has settings here. Raises UnclearError.
    """
    given = request.query_params.get("org_id") or request.headers.get("x-org-id")
    if given is not None:
        try:
            org_id = _ORG_ID.validate_python(int(given))
        except (ValueError, ValidationError):
            raise UnclearError(400, f"org_id: {given[:40]!r} is not a whole number of 64 bits") from None
        if not may_act_for(request, org_id):
            raise UnclearError(403, f"this user may not act for org {org_id}")
        return org_id
    own = asking(request).orgs
    if own is None:
        here = owners.all_here()
        own = frozenset(here[0].org_ids()) if here else frozenset()
    if len(own) != 1:
        raise UnclearError(400, "org_id: name the org, as org_id in the query or in the header X-Org-Id")
    return next(iter(own))
