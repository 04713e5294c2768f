"""Answers over HTTP, other than those of the subscription APIs."""

from __future__ import annotations

from typing import Annotated, Literal, NotRequired

from pydantic import Field
from typing_extensions import TypedDict

from schemas.audit import Outcome, OutcomeReason
from schemas.base import Channel, Id, Instant, Int64, Language, Origin, Priority, Source, Status
from schemas.deadletter import Code
from schemas.eligibility import Position
from schemas.events import Identifiers
from schemas.settings import OrgSettings


class Problem(TypedDict):
    """What is wrong, in one line; `code` where a record could not be read."""

    detail: str
    code: NotRequired[Code]


class Pending(TypedDict):
    """A double opt-in that waits for its verification, which names `event_id`."""

    event_id: Id
    since: Instant


class StateCell(TypedDict):
    """One cell. `since` dates the consent, `event_id` and `origin` tell its newest entry, null: there is none."""

    source: Source
    account_id: Id
    channel: Channel
    priority: Priority
    org_unit_id: Int64
    status: Status
    since: Instant | None
    event_id: Id | None
    origin: Origin | None
    synced_from: Annotated[Int64 | None, Field(description="the org unit that it was synced from")]
    batch_id: Annotated[Id | None, Field(description="the batch that it came with, by whose undo it goes")]
    pending: Pending | None


class CustomerState(TypedDict):
    """A customer as a worker holds them; every change of the partition below `as_of` is in it, none at or above."""

    org_id: Int64
    customer_id: Id
    registered: bool
    erased: bool
    identifiers: Identifiers
    language: Language | None
    as_of: Position
    settings_version: int
    cells: list[StateCell]


class SettingsInForce(TypedDict):
    """An org's newest settings, and the version that each partition of the answering worker has, by its number."""

    org_id: Int64
    version: int
    partitions: dict[str, int]
    settings: OrgSettings


class CustomersFound(TypedDict):
    """Ids of the customers who have an identifier."""

    customers: list[Id]


class Taken(TypedDict):
    """A record is in `consent.inbound`, at this position."""

    position: Position


class PreviewOutcome(TypedDict):
    """What would become of one event, after those before it: as in its audit record, or the code of its dead letter.

    `contradicts_newer_opt_out`: the customer has opted out of this place since the event.
    """

    outcome: Outcome | Literal["dead_letter"]
    outcome_reason: OutcomeReason | Code | None
    message: NotRequired[str]
    contradicts_newer_opt_out: bool


class Previewed(TypedDict):
    """One outcome for each event, in their order, with the position that it was weighed at (not for no events)."""

    as_of: NotRequired[Position]
    outcomes: list[PreviewOutcome]
