"""Records of `eligibility.requests` and `eligibility.decisions`."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Required

from pydantic import Field, TypeAdapter
from typing_extensions import TypedDict

from schemas.base import RECORD, Channel, Id, Instant, Int64, Offset, OptInType, Policy, Priority, Source
from schemas.events import Reference

Reason = Literal[
    "opted_in", "opted_out", "not_set_allowed", "not_set_denied", "verification_pending", "recent_opt_in",
    "recent_opt_out", "liberal_opt_in", "liberal_not_set_allowed", "liberal_denied", "strict_opt_in",
    "strict_opt_out", "strict_missing_opt_in", "not_registered", "unknown_org", "unknown_org_unit",
    "unknown_account", "channel_not_mapped", "source_required", "state_behind", "invalid_request",
]  # fmt: skip

MAX_WAIT_MS = 60_000


class Position(TypedDict):
    """A place in a topic: `offset` within `partition`."""

    __pydantic_config__ = RECORD  # type: ignore[misc]
    partition: Annotated[int, Field(ge=0, le=2**31 - 1)]
    offset: Offset


class EligibilityRequest(TypedDict, total=False):
    """May a message be sent? (domain section 5)"""

    __pydantic_config__ = RECORD  # type: ignore[misc]
    request_id: Required[Id]
    org_id: Required[Int64]
    customer_id: Required[Id]
    channel: Required[Channel]
    priority: Required[Priority]
    org_unit_id: Int64
    source: Source | None
    account_id: Id | None
    requested_at: Instant | None
    campaign_id: Reference | None
    communication_id: Reference | None
    min_position: Position | None
    max_wait_ms: Annotated[int, Field(ge=0, le=MAX_WAIT_MS)] | None


class Decision(TypedDict):
    """The answer. Its body holds nothing that differs on a second computation at the same `as_of`."""

    request_id: str
    decision_id: str
    org_id: int | None
    customer_id: str | None
    channel: Channel | None
    priority: Priority | None
    org_unit_id: int | None
    eligible: bool
    reason: Reason
    policy: Policy | None
    opt_in_type: OptInType | None
    as_of: Position
    settings_version: int | None
    campaign_id: Reference | None
    communication_id: Reference | None


REQUEST: TypeAdapter[EligibilityRequest] = TypeAdapter(EligibilityRequest)
#: What a decision gives back of its request, each field by itself: for requests that cannot be read as a whole.
ECHOED: dict[str, TypeAdapter[Any]] = {
    "request_id": TypeAdapter(Id),
    "org_id": TypeAdapter(Int64),
    "customer_id": TypeAdapter(Id),
    "channel": TypeAdapter(Channel),
    "priority": TypeAdapter(Priority),
    "org_unit_id": TypeAdapter(Int64),
    "campaign_id": TypeAdapter(Reference),
    "communication_id": TypeAdapter(Reference),
}
DECISION: TypeAdapter[Decision] = TypeAdapter(Decision)
