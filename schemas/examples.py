"""Literal examples of every record, for the published documents. Taken together they tell one customer's story."""

from __future__ import annotations

from typing import Any

Doc = dict[str, Any]

_PLACE: Doc = {"source": "WEB_ENGAGE", "account_id": "01", "priority": "BULK", "org_unit_id": 200031782}
_CUSTOMER: Doc = {"org_id": 100, "customer_id": "565039505"}
_POSITION: Doc = {"partition": 3, "offset": 17}
_CHANGES: Doc = {
    "consent.changed": {
        "event": "consent.changed", "event_id": "e-2", **_CUSTOMER, **_PLACE, "channel": "MOBILE", "type": "OPTIN",
        "origin": "PRODUCER", "occurred_at": "2026-11-21T10:00:00.000Z",
    },
    "consent.verified": {
        "event": "consent.verified", "event_id": "e-3", **_CUSTOMER, **_PLACE, "channel": "MOBILE", "verifies": "e-2",
        "occurred_at": "2026-11-21T10:05:00.000Z",
    },
    "consent.batch_reverted": {
        "event": "consent.batch_reverted", "event_id": "e-4", **_CUSTOMER, "batch_id": "fair-2026",
        "occurred_at": "2026-11-22T10:00:00.000Z",
    },
    "customer.registered": {
        "event": "customer.registered", "event_id": "e-1", **_CUSTOMER, "language": "en",
        "identifiers": {"mobile": "+15550100505", "email": "ana@example.com", "external_id": "crm-505"},
        "occurred_at": "2026-11-21T09:00:00.000Z",
    },
    "customer.erased": {
        "event": "customer.erased", "event_id": "e-9", **_CUSTOMER, "occurred_at": "2026-12-24T09:00:00.000Z",
    },
}  # fmt: skip
_SETTINGS: Doc = {
    "org_id": 100, "version": 1, "name": "Example Retail", "default_language": "en",
    "org_units": [{"id": 200031782, "name": "North"}, {"id": 200031783, "name": "South"}],
    "accounts": [
        {"source": "INSTORE", "account_id": "01", "channels": ["MOBILE", "EMAIL"]},
        {"source": "WEB_ENGAGE", "account_id": "01", "channels": ["EMAIL", "MOBILE"]},
    ],
    "opt_in_types": [{"source": "WEB_ENGAGE", "account_id": "01", "channel": "MOBILE", "type": "DOUBLE"}],
    "unified": {
        "enabled": True, "policy": "recent", "org_units": {"200031783": {"enabled": True, "policy": "strict"}}
    },
    "messages": [
        {"kind": "verify", "channel": "MOBILE", "texts": {"en": "{org_unit}: reply {keyword} to hear from us"}}
    ],
    "mobile": [
        {
            "source": "INSTORE", "account_id": "01", "org_unit_id": 200031782, "priority": "BULK", "mode": "SMS",
            "number": "1234", "commands": {"OPTIN": "START", "OPTOUT": "STOP"},
        }
    ],
}  # fmt: skip
_SETTINGS_CHANGED: Doc = {
    "event": "settings.changed", "event_id": "e-0", "org_id": 100, "settings": _SETTINGS,
    "occurred_at": "2026-11-21T08:00:00.000Z",
}  # fmt: skip
_SMS: Doc = {
    "event": "sms.received", "org_id": 100, "to": "1234", "from": "+15550100505", "text": "STOP",
    "received_at": "2026-11-21T11:00:00.000Z", "message_id": "m-1",
}  # fmt: skip
_CALL: Doc = {
    "event": "call.missed", "org_id": 100, "to": "+15550100900", "from": "+15550100505",
    "received_at": "2026-11-21T11:00:00.000Z", "call_id": "k-1",
}  # fmt: skip
_REQUEST: Doc = {
    "request_id": "r-1", **_CUSTOMER, "channel": "MOBILE", "priority": "BULK", "org_unit_id": 200031782,
    "source": "WEB_ENGAGE", "account_id": "01", "requested_at": "2026-11-21T10:10:00.000Z", "campaign_id": "k-1",
    "communication_id": "m-1", "min_position": _POSITION, "max_wait_ms": 5000,
}  # fmt: skip
_DECISION: Doc = {
    "request_id": "r-1", "decision_id": "r-1/3/4", **_CUSTOMER, "channel": "MOBILE", "priority": "BULK",
    "org_unit_id": 200031782, "eligible": True, "reason": "recent_opt_in", "policy": "recent", "opt_in_type": None,
    "as_of": {"partition": 3, "offset": 19}, "settings_version": 1, "campaign_id": "k-1", "communication_id": "m-1",
}  # fmt: skip
_VERIFIED_CELL: Doc = _PLACE | {"channel": "MOBILE", "before": "NOT_SET", "after": "OPTIN", "synced": False}
_AUDITS: Doc = {
    "consent.audit.change": {
        "record": "change", "position": {"partition": 3, "offset": 18}, "settings_version": 1, "outcome": "applied",
        "outcome_reason": None, "cells": [_VERIFIED_CELL], "input": _CHANGES["consent.verified"],
    },
    "consent.audit.decision": {
        "record": "decision", "position": {"partition": 3, "offset": 4}, "settings_version": 1, "decision": _DECISION,
        "inputs": [
            {
                "source": "INSTORE", "account_id": "01", "opt_in_type": "SINGLE", "status": "NOT_SET",
                "pending": False, "since": None, "event_id": None, "org_unit_id": None,
            },
            {
                "source": "WEB_ENGAGE", "account_id": "01", "opt_in_type": "DOUBLE", "status": "OPTIN",
                "pending": False, "since": "2026-11-21T10:05:00.000Z", "event_id": "e-3", "org_unit_id": 200031782,
            },
        ],
    },
    "consent.audit.inbound": {
        "record": "inbound", "position": {"partition": 1, "offset": 5}, "settings_version": 1, "outcome": "taken",
        "outcome_reason": None,
        "events": [{"event_id": "sms-5d41402a", "event": "consent.changed", "customer_id": "565039505"}],
        "input": {name: said for name, said in _SMS.items() if name not in {"from", "text"}},
    },
}  # fmt: skip
_NOTIFICATION: Doc = {
    "notification_id": "d3debb4a2ff0aee9f980dda3a49b314d", "kind": "verify", **_CUSTOMER, **_PLACE,
    "channel": "MOBILE", "language": "en", "text": "North: reply VKPD64 to hear from us", "event_id": "e-2",
    "position": _POSITION, "token": "WzEsMTAwXQ.c2ln", "link": "https://consent.example/u/WzEsMTAwXQ.c2ln",
    "keyword": "VKPD64", "expires_at": "2026-11-28T10:00:00.000Z",
}  # fmt: skip

#: One of each, by the names of `schemas.export.RECORDS`; a union's is that of one of its parts.
EXAMPLES: dict[str, Doc] = {
    **_CHANGES,
    "settings.changed": _SETTINGS_CHANGED,
    "settings": _SETTINGS,
    "sms.received": _SMS,
    "call.missed": _CALL,
    "eligibility.request": _REQUEST,
    "eligibility.decision": _DECISION,
    **_AUDITS,
    "consent.notification": _NOTIFICATION,
}
