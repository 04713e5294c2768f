"""The sample org of `up`: its settings, what its customers said, and what is then asked."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import yaml

from schemas.base import format_instant

SETTINGS = """
org_id: 100
version: 1
name: Example Retail
default_language: en
org_units: [{id: 200031782, name: North}, {id: 200031783, name: South}]
accounts:
  - {source: INSTORE, account_id: "01", channels: [MOBILE, EMAIL]}
  - {source: WEB_ENGAGE, account_id: "01", channels: [EMAIL, MOBILE]}
  - {source: ECOMMERCE, account_id: shop, channels: [EMAIL]}
opt_in_types:
  - {source: WEB_ENGAGE, account_id: "01", channel: EMAIL, org_unit_id: 200031782, type: RESTRICTED}
unified: {enabled: true, policy: recent, org_units: {200031783: {enabled: true, policy: strict}}}
"""

#: Who is registered. The last customer that is asked about is not.
CUSTOMERS = """
- {customer_id: "565039505", identifiers: {mobile: "+15550100505", email: ana@example.com}, language: en}
- {customer_id: "565039506", identifiers: {email: ben@example.com}}
- {customer_id: "565039507", identifiers: {email: cleo@example.com}}
- {customer_id: "565039508"}
"""

#: `hours`: how long before now it was said.
CHANGES = """
- {customer_id: "565039505", hours: 72, source: INSTORE,    account_id: "01", org_unit_id: 200031782, type: OPTIN}
- {customer_id: "565039505", hours: 24, source: WEB_ENGAGE, account_id: "01", org_unit_id: 200031782, type: OPTOUT}
- {customer_id: "565039506", hours: 72, source: WEB_ENGAGE, account_id: "01", org_unit_id: 200031782, type: OPTOUT}
- {customer_id: "565039506", hours: 24, source: INSTORE,    account_id: "01", org_unit_id: 200031782, type: OPTIN}
- {customer_id: "565039506", hours: 24, source: INSTORE,    account_id: "01", org_unit_id: 200031783, type: OPTIN}
- {customer_id: "565039508", hours: 48, source: INSTORE,    account_id: "01", org_unit_id: 200031783, type: OPTIN}
- {customer_id: "565039508", hours: 47, source: WEB_ENGAGE, account_id: "01", org_unit_id: 200031783, type: OPTIN}
- {customer_id: "565039508", hours: 46, source: ECOMMERCE,  account_id: shop, org_unit_id: 200031783, type: OPTIN}
"""

REQUESTS = """
- {customer_id: "565039505", channel: EMAIL,  priority: BULK,  org_unit_id: 200031782}
- {customer_id: "565039506", channel: EMAIL,  priority: BULK,  org_unit_id: 200031782}
- {customer_id: "565039506", channel: EMAIL,  priority: BULK,  org_unit_id: 200031783}
- {customer_id: "565039508", channel: EMAIL,  priority: BULK,  org_unit_id: 200031783}
- {customer_id: "565039507", channel: EMAIL,  priority: BULK,  org_unit_id: 200031782}
- {customer_id: "565039507", channel: MOBILE, priority: BULK,  org_unit_id: 200031782}
- {customer_id: "565039505", channel: EMAIL,  priority: TRANS, org_unit_id: 200031782}
- {customer_id: "999999999", channel: EMAIL,  priority: BULK,  org_unit_id: 200031782}
"""

ORG_ID = 100


def settings() -> dict[str, Any]:
    """The org's settings document, with text as keys as JSON has it."""
    document: dict[str, Any] = yaml.safe_load(SETTINGS)
    units = document["unified"]["org_units"]
    document["unified"]["org_units"] = {str(unit): own for unit, own in units.items()}
    return document


def unit_names() -> dict[int, str]:
    """Name of each org unit."""
    return {unit["id"]: unit["name"] for unit in yaml.safe_load(SETTINGS)["org_units"]}


def events(now: datetime | None = None) -> list[dict[str, Any]]:
    """Registrations and changes, dated back from now, with ids of their own in every run."""
    now = now or datetime.now(UTC)
    run = uuid.uuid4().hex[:8]
    said = [{"event": "customer.registered", "hours": 96, **customer} for customer in yaml.safe_load(CUSTOMERS)]
    said += [
        {"event": "consent.changed", "channel": "EMAIL", "priority": "BULK", **change}
        for change in yaml.safe_load(CHANGES)
    ]
    return [_event(said_then, f"sample-{run}-{i}", now) for i, said_then in enumerate(said, 1)]


def _event(fields: dict[str, Any], event_id: str, now: datetime) -> dict[str, Any]:
    hours = fields.pop("hours")
    occurred_at = int((now - timedelta(hours=hours)).timestamp() * 1000)
    head = {"event": fields.pop("event"), "event_id": event_id, "org_id": ORG_ID}
    return {**head, **fields, "occurred_at": format_instant(occurred_at)}


def requests() -> list[dict[str, Any]]:
    """What is asked, each with a new id."""
    asked = yaml.safe_load(REQUESTS)
    return [{"request_id": f"sample-{uuid.uuid4().hex[:12]}", "org_id": ORG_ID, **fields} for fields in asked]
