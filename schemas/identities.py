"""Records of the internal topic between registrations and the identity table."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Required

from pydantic import Field, TypeAdapter
from typing_extensions import TypedDict

from schemas.base import RECORD, Id, Instant, Int64, Priority, Source
from schemas.eligibility import Position

Kind = Literal["mobile", "email", "external_id"]


class IdentityEvent(TypedDict, total=False):
    """Fields that all of them have; `position` is that of the record of `consent.changes` that says so."""

    org_id: Required[Int64]
    customer_id: Required[Id]
    position: Required[Position]


class IdentityLinked(IdentityEvent, total=False):
    """The customer has the identifier that is the record's key."""

    __pydantic_config__ = RECORD  # type: ignore[misc]
    event: Required[Literal["identity.linked"]]


class IdentityUnlinked(IdentityEvent, total=False):
    """The customer has it no more: another one was registered, or the customer is erased."""

    __pydantic_config__ = RECORD  # type: ignore[misc]
    event: Required[Literal["identity.unlinked"]]


class ReplyAwaited(IdentityEvent, total=False):
    """A message from this number that says `keyword` verifies the pending entry `verifies`, until `expires_at`."""

    __pydantic_config__ = RECORD  # type: ignore[misc]
    event: Required[Literal["reply.awaited"]]
    keyword: Required[str]
    source: Required[Source]
    account_id: Required[Id]
    priority: Required[Priority]
    org_unit_id: Required[Int64]
    verifies: Required[Id]
    expires_at: Required[Instant]


IDENTITY: TypeAdapter[Any] = TypeAdapter(
    Annotated[IdentityLinked | IdentityUnlinked | ReplyAwaited, Field(discriminator="event")]
)
