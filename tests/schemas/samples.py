"""Literal records as the contract shows or describes them: what other systems send today must be read tomorrow."""

from __future__ import annotations

from typing import Any

Doc = dict[str, Any]

CHANGED: Doc = {
    "event": "consent.changed", "event_id": "e-1", "org_id": 100, "customer_id": "565039505", "source": "INSTORE",
    "account_id": "01", "channel": "EMAIL", "priority": "BULK", "type": "OPTIN", "org_unit_id": 200031782,
    "occurred_at": "2026-11-21T10:00:00.000Z",
}  # fmt: skip
CHANGED_IN_FULL: Doc = CHANGED | {
    "origin": "EMAIL_LINK", "language": "en", "reason": "asked for it", "campaign_id": "k-1",
    "communication_id": "m-1", "batch_id": "b-1", "proof": {"ip": "192.0.2.1", "form": {"version": 3}},
}  # fmt: skip
VERIFIED: Doc = {
    "event": "consent.verified", "event_id": "e-2", "org_id": 100, "customer_id": "565039505", "source": "WEB_ENGAGE",
    "account_id": "01", "channel": "EMAIL", "priority": "BULK", "org_unit_id": -1, "verifies": "e-1",
    "occurred_at": "2026-11-21T10:05:00.000Z",
}  # fmt: skip
BATCH_REVERTED: Doc = {
    "event": "consent.batch_reverted", "event_id": "e-6", "org_id": 100, "customer_id": "565039505",
    "batch_id": "b-1", "occurred_at": "2026-11-21T12:00:00.000Z",
}  # fmt: skip
REGISTERED: Doc = {
    "event": "customer.registered", "event_id": "e-3", "org_id": 100, "customer_id": "565039505",
    "occurred_at": "2026-11-21T09:00:00.000Z", "language": "hi",
    "identifiers": {"mobile": "+919812345678", "email": "a@example.org", "external_id": "x-1"},
}  # fmt: skip
ERASED: Doc = {
    "event": "customer.erased", "event_id": "e-4", "org_id": 100, "customer_id": "565039505",
    "occurred_at": "2026-11-21T11:00:00.000Z",
}  # fmt: skip
SETTINGS: Doc = {
    "org_id": 100, "version": 1, "name": "Example Retail", "default_language": "en", "require_registration": True,
    "repeat_opt_in": "ignore", "org_units": [{"id": 200031782, "name": "North"}, {"id": 200031783, "name": "South"}],
    "ou_sync": {"opt_in": False, "opt_out": "none"},
    "accounts": [
        {"source": "INSTORE", "account_id": "01", "channels": ["MOBILE", "EMAIL"], "active": True},
        {"source": "WEB_ENGAGE", "account_id": "01", "channels": ["EMAIL", "MOBILE"]},
    ],
    "opt_in_types": [
        {"source": "INSTORE", "account_id": "01", "channel": "EMAIL", "org_unit_id": 200031782, "type": "RESTRICTED"}
    ],
    "unified": {
        "enabled": True, "policy": "recent", "org_units": {"200031783": {"enabled": True, "policy": "strict"}}
    },
    "messages": [
        {"kind": "confirm_opt_in", "channel": "EMAIL", "texts": {"en": "Welcome to {org_unit}", "hi": "स्वागत"}},
        {"kind": "verify", "channel": "MOBILE", "texts": {"en": "{org_unit}: reply {keyword} to hear from us"}},
    ],
    "mobile": [],
}  # fmt: skip
SETTINGS_CHANGED: Doc = {
    "event": "settings.changed", "event_id": "e-5", "org_id": 100, "occurred_at": "2026-11-21T08:00:00.000Z",
    "settings": SETTINGS,
}  # fmt: skip
REQUEST: Doc = {
    "request_id": "r-1", "org_id": 100, "customer_id": "565039505", "channel": "EMAIL", "priority": "BULK",
    "org_unit_id": 200031782, "source": "INSTORE", "account_id": "01", "requested_at": "2026-11-21T10:10:00.000Z",
    "campaign_id": "k-1", "communication_id": "m-1", "min_position": {"partition": 3, "offset": 17},
    "max_wait_ms": 5000,
}  # fmt: skip
SHORTEST_REQUEST: Doc = {
    "request_id": "r-2", "org_id": 100, "customer_id": "565039505", "channel": "EMAIL", "priority": "TRANS",
}  # fmt: skip
DECISION: Doc = {
    "request_id": "r-1", "decision_id": "r-1/3/4", "org_id": 100, "customer_id": "565039505", "channel": "EMAIL",
    "priority": "BULK", "org_unit_id": 200031782, "eligible": True, "reason": "recent_opt_in", "policy": "recent",
    "opt_in_type": None, "as_of": {"partition": 3, "offset": 18}, "settings_version": 1, "campaign_id": "k-1",
    "communication_id": "m-1",
}  # fmt: skip
CHANGE_AUDIT: Doc = {
    "record": "change", "position": {"partition": 3, "offset": 17}, "settings_version": 1, "outcome": "applied",
    "outcome_reason": None, "input": CHANGED,
    "cells": [
        {
            "source": "INSTORE", "account_id": "01", "channel": "EMAIL", "priority": "BULK", "org_unit_id": 200031782,
            "before": "NOT_SET", "after": "OPTIN", "synced": False,
        }
    ],
}  # fmt: skip
DECISION_AUDIT: Doc = {
    "record": "decision", "position": {"partition": 3, "offset": 4}, "settings_version": 1, "decision": DECISION,
    "inputs": [
        {
            "source": "INSTORE", "account_id": "01", "opt_in_type": "RESTRICTED", "status": "OPTIN", "pending": False,
            "since": "2026-11-21T10:00:00.000Z", "event_id": "e-1", "org_unit_id": 200031782,
        },
        {
            "source": "WEB_ENGAGE", "account_id": "01", "opt_in_type": "SINGLE", "status": "NOT_SET", "pending": False,
            "since": None, "event_id": None, "org_unit_id": None,
        },
    ],
}  # fmt: skip
NOTIFICATION: Doc = {
    "notification_id": "d3debb4a2ff0aee9f980dda3a49b314d", "kind": "verify", "org_id": 100, "customer_id": "565039505",
    "channel": "MOBILE", "source": "WEB_ENGAGE", "account_id": "01", "priority": "BULK", "org_unit_id": 200031782,
    "language": "en", "text": "North: reply VKPD64 to hear from us", "event_id": "e-1",
    "position": {"partition": 3, "offset": 17}, "token": "WzEsMTAwXQ.c2ln",
    "link": "https://consent.example/u/WzEsMTAwXQ.c2ln", "keyword": "VKPD64", "expires_at": "2026-11-28T10:00:00.000Z",
}  # fmt: skip
CONFIRMATION: Doc = NOTIFICATION | {
    "notification_id": "a3ab0f35c2f0aee9f980dda3a49b314d", "kind": "confirm_opt_in", "text": "Welcome to North",
    "token": None, "link": None, "keyword": None, "expires_at": None,
}  # fmt: skip

#: By the name of the schema file.
BY_SCHEMA: list[tuple[str, Doc]] = [
    ("consent.changed", CHANGED),
    ("consent.changed", CHANGED_IN_FULL),
    ("consent.verified", VERIFIED),
    ("consent.batch_reverted", BATCH_REVERTED),
    ("customer.registered", REGISTERED),
    ("customer.erased", ERASED),
    ("settings.changed", SETTINGS_CHANGED),
    ("settings", SETTINGS),
    ("eligibility.request", REQUEST),
    ("eligibility.request", SHORTEST_REQUEST),
    ("eligibility.decision", DECISION),
    ("consent.audit.change", CHANGE_AUDIT),
    ("consent.audit.decision", DECISION_AUDIT),
    ("consent.notification", NOTIFICATION),
    ("consent.notification", CONFIRMATION),
]
