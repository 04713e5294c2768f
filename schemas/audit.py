"""Records of `consent.audit`: one per readable change and one per decision."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import TypeAdapter
from typing_extensions import TypedDict

from schemas.base import Channel, Instant, Int64, OptInType, Priority, Source, Status
from schemas.eligibility import Decision, Position

Outcome = Literal["applied", "pending", "ignored", "registered", "erased", "settings_applied"]
OutcomeReason = Literal[
    "not_registered", "already_opted_in", "superseded", "duplicate", "verification_superseded",
    "verification_unknown", "batch_unknown", "stale_settings",
]  # fmt: skip


class CellChange(TypedDict):
    """One cell that changed, with its status before and after; `synced` if another org unit's change did it."""

    source: Source
    account_id: str
    channel: Channel
    priority: Priority
    org_unit_id: Int64
    before: Status
    after: Status
    synced: bool


class ChangeAudit(TypedDict):
    """What became of one record of `consent.changes`; `input` is that record without `identifiers` and `proof`."""

    record: Literal["change"]
    position: Position
    settings_version: int | None
    outcome: Outcome
    outcome_reason: OutcomeReason | None
    cells: list[CellChange]
    input: dict[str, Any]


class Weighed(TypedDict):
    """One profile as it was weighed. `since` dates the consent; `event_id` and `org_unit_id` name its entry."""

    source: Source
    account_id: str
    opt_in_type: OptInType
    status: Status
    pending: bool
    since: Instant | None
    event_id: str | None
    org_unit_id: int | None


class DecisionAudit(TypedDict):
    """One decision with everything that it was made from."""

    record: Literal["decision"]
    position: Position
    settings_version: int | None
    decision: Decision
    inputs: list[Weighed]


class CausedEvent(TypedDict):
    """An event of `consent.changes` that something else caused."""

    event_id: str
    event: Literal["consent.changed", "consent.verified"]
    customer_id: str


class InboundAudit(TypedDict):
    """What became of one record of `consent.inbound`; `input` is that record without `from` and `text`."""

    record: Literal["inbound"]
    position: Position
    settings_version: int
    outcome: Literal["taken", "ignored"]
    outcome_reason: Literal["unknown_number", "unknown_command", "unknown_identifier"] | None
    events: list[CausedEvent]
    input: dict[str, Any]


AUDIT: TypeAdapter[ChangeAudit | DecisionAudit | InboundAudit] = TypeAdapter(ChangeAudit | DecisionAudit | InboundAudit)
