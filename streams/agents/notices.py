"""What customers are told: the bodies of `consent.notifications`."""

from __future__ import annotations

from typing import Any

import orjson

from schemas.base import format_instant
from streams.domain.messages import Message, keyword_of, notification_id, written
from streams.domain.orgs import Org
from streams.kafka.records import Record
from streams.links import Link, Links


class Notices:
    """Writes messages whose links lead to `url`, the address under which customers reach a worker."""

    def __init__(self, links: Links, url: str) -> None:
        self._links = links
        self._url = url.rstrip("/")

    def body(self, message: Message, org: Org, event: dict[str, Any], partition: int, record: Record) -> bytes:
        """The message that a change causes, with what verifies it if that is what it is for.

        `schemas.notifications.Notification`. No clock is in it: a link is valid from the record's broker timestamp on.
        """
        org_id, customer_id, event_id = event["org_id"], event["customer_id"], event["event_id"]
        token = link = keyword = expires = None
        if message.kind == "verify":
            expires_at = record.timestamp + org.settings.verification_ttl_ms
            expires = format_instant(expires_at)
            token = self._links.token(_link(event, expires_at))
            link = f"{self._url}/u/{token}"
            if event["channel"] == "MOBILE":
                keyword = keyword_of(org_id, customer_id, event_id)
        return orjson.dumps(
            {
                "notification_id": notification_id(org_id, customer_id, event_id, message.kind),
                "kind": message.kind,
                "org_id": org_id,
                "customer_id": customer_id,
                "channel": event["channel"],
                "source": event["source"],
                "account_id": event["account_id"],
                "priority": event["priority"],
                "org_unit_id": event["org_unit_id"],
                "language": message.language,
                "text": written(message, org, event, link, keyword),
                "event_id": event_id,
                "position": {"partition": partition, "offset": record.offset},
                "token": token,
                "link": link,
                "keyword": keyword,
                "expires_at": expires,
            }
        )


def _link(event: dict[str, Any], expires_at: int) -> Link:
    return Link(
        org_id=event["org_id"],
        customer_id=event["customer_id"],
        source=event["source"],
        account_id=event["account_id"],
        channel=event["channel"],
        priority=event["priority"],
        org_unit_id=event["org_unit_id"],
        action="VERIFY",
        expires_at=expires_at,
        verifies=event["event_id"],
        language=event.get("language"),
    )
