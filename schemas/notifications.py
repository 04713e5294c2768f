"""Records of `consent.notifications`: messages to be sent to customers (domain section 8)."""

from __future__ import annotations

from pydantic import TypeAdapter
from typing_extensions import TypedDict

from schemas.base import Channel, Instant, Int64, Priority, Source
from schemas.eligibility import Position
from schemas.messages import MessageKind


class Notification(TypedDict):
    """One message that an opt-in or opt-out causes. Whoever sends it sends each `notification_id` once.

    `position` is that of the causing record, `event_id` its event. `token`, `link`, `keyword` and `expires_at` are for
    `verify` only, and null otherwise: what makes the pending opt-in an opt-in, the keyword on channel MOBILE only.
    """

    notification_id: str
    kind: MessageKind
    org_id: Int64
    customer_id: str
    channel: Channel
    source: Source
    account_id: str
    priority: Priority
    org_unit_id: Int64
    language: str
    text: str
    event_id: str
    position: Position
    token: str | None
    link: str | None
    keyword: str | None
    expires_at: Instant | None


NOTIFICATION: TypeAdapter[Notification] = TypeAdapter(Notification)
