"""Bodies of the subscription APIs. Their names are in the style of the platforms that call them."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AliasChoices, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from schemas.base import ChangeType, Channel, Id, Int64, Language, Priority, Source, Status, Text
from schemas.eligibility import Position
from schemas.events import Reference

#: Entries of one request; each is an event.
MOST_ENTRIES = 1_000


class _Body(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow", populate_by_name=True)


def _number_of_text(value: object) -> object:
    """Some platforms write ids of org units as text."""
    return int(value) if isinstance(value, str) and re.fullmatch(r"-?[0-9]{1,19}", value) else value


_UNIT_SCHEMA = {"anyOf": [{"type": "integer", "format": "int64"}, {"type": "string", "pattern": "^-?[0-9]{1,19}$"}]}


def _upper(value: object) -> object:
    return value.upper() if isinstance(value, str) else value


class SubscriptionEntry(_Body):
    """One opt-in or opt-out. Without `sourceName`: the lookup's source, else that of the org's default profile."""

    channel: Channel
    account_id: Id = Field(alias="accountId")
    priority: Priority
    type: ChangeType
    org_unit_id: Annotated[Int64, BeforeValidator(_number_of_text), WithJsonSchema(_UNIT_SCHEMA)] = Field(
        alias="orgUnitId", description="-1: all"
    )
    source_name: Source | None = Field(None, alias="sourceName")


class SubscriptionScope(_Body):
    """What the platform that calls says of where the request belongs; given back as it came."""

    scope: str | None = None
    sub_scope: str | None = Field(None, alias="subScope")


class SubscriptionHead(_Body):
    """What a request says of all its entries."""

    communication_id: Reference | None = Field(None, alias="communicationId")
    campaign_id: Reference | None = Field(None, alias="campaignId", description="-1: none")
    reason: Text | None = None
    scope: SubscriptionScope | None = None
    language: Language | None = None
    subscriptions: Annotated[list[Any], Field(min_length=1, max_length=MOST_ENTRIES)]


class SubscriptionRequest(SubscriptionHead):
    """Opt-ins and opt-outs of one customer; each entry is accepted or refused by itself."""

    subscriptions: Annotated[list[SubscriptionEntry], Field(min_length=1, max_length=MOST_ENTRIES)]


class Accepted(SubscriptionEntry):
    """An entry that was accepted: it is in the log at `position`, which a request's `min_position` can name."""

    index: int = Field(description="the entry's place in the request")
    customer_id: Id = Field(alias="customerId")
    event_id: Id = Field(alias="eventId")
    position: Position


class ApiProblem(_Body):
    """What was not done, and why. 1000: an entry could not be added; 1012: customer not found."""

    status: Literal[False] = False
    code: int
    message: str


class SubscriptionAnswer(SubscriptionHead):
    """The request given back, with the entries that were accepted, and where they are."""

    subscriptions: list[Accepted]
    warnings: list[ApiProblem]
    errors: list[ApiProblem]
    positions: list[Position]


class SubscriptionRefusal(_Body):
    """Nothing was accepted; `errors` say why."""

    subscriptions: Annotated[list[Accepted], Field(max_length=0)]
    warnings: list[ApiProblem]
    errors: Annotated[list[ApiProblem], Field(min_length=1)]


class SubscriptionStatus(_Body):
    """The status of one cell."""

    channel: Channel
    account_id: Id = Field(alias="accountId")
    priority: Priority
    type: Status
    org_unit_id: Int64 = Field(alias="orgUnitId")
    source_name: Source = Field(alias="sourceName")
    since: str | None
    pending: bool = Field(description="a double opt-in waits for its verification")


class SubscriptionStatuses(_Body):
    """Every cell of a customer that anything was said of."""

    customer_id: Id = Field(alias="customerId")
    subscriptions: list[SubscriptionStatus]


class LegacyItem(_Body):
    """One opt-in or opt-out on the org's default profile, for the whole org; exactly one of the identifiers."""

    id: Id | None = None
    mobile: Id | None = None
    email: Annotated[str, Field(min_length=1, max_length=320)] | None = None
    external_id: Id | None = Field(None, validation_alias=AliasChoices("external_id", "externalId"))
    priority: Annotated[Priority, BeforeValidator(_upper)]
    scope: Literal["all"] = "all"
    channel: Literal["sms", "email"]
    is_subscribed: Annotated[int, BeforeValidator(_number_of_text), Field(ge=0, le=1)]


class LegacyList(_Body):
    """The items of a v1.1 request."""

    subscription: Annotated[list[LegacyItem], Field(min_length=1, max_length=MOST_ENTRIES)]


class LegacyRequest(_Body):
    """A v1.1 request."""

    root: LegacyList


class LegacyItemStatus(_Body):
    """What became of an item. 1000: accepted; 1012: customer not found; 400: the item cannot be read."""

    success: bool
    code: int
    message: str


class LegacyStatus(LegacyItemStatus):
    """200: all items were accepted; 201: some; 500: none."""

    total: int
    success_count: int


class LegacyTold(_Body):
    """An item given back as it came, with what became of it."""

    item_status: LegacyItemStatus


class LegacyToldList(_Body):
    """The items of the request, in their order."""

    subscription: list[LegacyTold]


class LegacyResponse(_Body):
    """What became of all items, and of each."""

    status: LegacyStatus
    subscriptions: LegacyToldList


class LegacyAnswer(_Body):
    """The answer to a v1.1 request."""

    response: LegacyResponse
