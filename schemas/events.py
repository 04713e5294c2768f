"""Records of `consent.changes`: everything that happens to a customer, in one order.

These are typed dictionaries, not model classes: pydantic checks them in place, at a third of the cost per record.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Required

from pydantic import Field, TypeAdapter
from typing_extensions import TypedDict

from schemas.base import (
    RECORD,
    ChangeType,
    Channel,
    Id,
    Instant,
    Int64,
    JsonObject,
    Language,
    Origin,
    Priority,
    Source,
    Text,
)
from schemas.settings import OrgSettings

#: Campaigns and communications are numbered by some platforms and named by others.
Reference = Int64 | Annotated[str, Field(max_length=128)]


class CustomerEvent(TypedDict, total=False):
    """Fields that every event of a customer has."""

    event_id: Required[Id]
    org_id: Required[Int64]
    customer_id: Required[Id]
    occurred_at: Required[Instant]


class ConsentChanged(CustomerEvent, total=False):
    """An opt-in or opt-out on one cell (domain section 2)."""

    __pydantic_config__ = RECORD  # type: ignore[misc]
    event: Required[Literal["consent.changed"]]
    source: Required[Source]
    account_id: Required[Id]
    channel: Required[Channel]
    priority: Required[Priority]
    type: Required[ChangeType]
    org_unit_id: Required[Int64]
    origin: Origin
    language: Language | None
    reason: Text | None
    campaign_id: Reference | None
    communication_id: Reference | None
    batch_id: Id | None
    proof: JsonObject | None


class ConsentVerified(CustomerEvent, total=False):
    """The verification of a pending double opt-in (domain section 1)."""

    __pydantic_config__ = RECORD  # type: ignore[misc]
    event: Required[Literal["consent.verified"]]
    source: Required[Source]
    account_id: Required[Id]
    channel: Required[Channel]
    priority: Required[Priority]
    org_unit_id: Required[Int64]
    verifies: Required[Id]


class BatchReverted(CustomerEvent, total=False):
    """Everything that a batch of imported changes did to this customer is taken out again (domain section 9)."""

    __pydantic_config__ = RECORD  # type: ignore[misc]
    event: Required[Literal["consent.batch_reverted"]]
    batch_id: Required[Id]


class Identifiers(TypedDict, total=False):
    """How a customer can be found: mobile number, e-mail address, the platform's own id."""

    __pydantic_config__ = RECORD  # type: ignore[misc]
    mobile: Annotated[str, Field(min_length=1, max_length=64)] | None
    email: Annotated[str, Field(min_length=1, max_length=320)] | None
    external_id: Id | None


class CustomerRegistered(CustomerEvent, total=False):
    """A customer becomes known (domain section 6)."""

    __pydantic_config__ = RECORD  # type: ignore[misc]
    event: Required[Literal["customer.registered"]]
    identifiers: Identifiers | None
    language: Language | None


class CustomerErased(CustomerEvent, total=False):
    """A customer's state is removed for good (domain section 6)."""

    __pydantic_config__ = RECORD  # type: ignore[misc]
    event: Required[Literal["customer.erased"]]


class SettingsChanged(TypedDict, total=False):
    """An org's settings change from this offset on; written to every partition (domain section 5)."""

    __pydantic_config__ = RECORD  # type: ignore[misc]
    event: Required[Literal["settings.changed"]]
    event_id: Required[Id]
    org_id: Required[Int64]
    occurred_at: Required[Instant]
    settings: Required[OrgSettings]


Event = ConsentChanged | ConsentVerified | BatchReverted | CustomerRegistered | CustomerErased | SettingsChanged

#: The validator of each kind of event, by the value of its field `event`.
EVENTS: dict[str, TypeAdapter[Any]] = {
    "consent.changed": TypeAdapter(ConsentChanged),
    "consent.verified": TypeAdapter(ConsentVerified),
    "consent.batch_reverted": TypeAdapter(BatchReverted),
    "customer.registered": TypeAdapter(CustomerRegistered),
    "customer.erased": TypeAdapter(CustomerErased),
    "settings.changed": TypeAdapter(SettingsChanged),
}
