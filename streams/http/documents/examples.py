"""Examples of bodies over HTTP that are no records, for the OpenAPI document."""

from __future__ import annotations

from typing import Any

from schemas.examples import EXAMPLES

Doc = dict[str, Any]

_ENTRY: Doc = {"channel": "EMAIL", "accountId": "01", "priority": "BULK", "type": "OPTOUT", "orgUnitId": 200031782,
               "sourceName": "FACEBOOK"}  # fmt: skip
_POSITION: Doc = {"partition": 3, "offset": 20}
SUBSCRIPTIONS: Doc = {
    "communicationId": "c-7", "campaignId": -1, "reason": "preference centre",
    "scope": {"scope": "ORG", "subScope": "NORTH"},
    "subscriptions": [_ENTRY, _ENTRY | {"channel": "MOBILE", "priority": "TRANS", "type": "OPTIN"}],
}  # fmt: skip
ACCEPTED: Doc = SUBSCRIPTIONS | {
    "subscriptions": [
        _ENTRY | {"index": 0, "customerId": "565039505", "eventId": "api-9f86d081884c7d65", "position": _POSITION}
    ],
    "warnings": [],
    "errors": [
        {"status": False, "code": 1000, "message": "subscriptions[1].channel: FACEBOOK '01' is not mapped to MOBILE"}
    ],
    "positions": [_POSITION],
}
STATUSES: Doc = {
    "customerId": "565039505",
    "subscriptions": [_ENTRY | {"since": "2026-11-21T10:05:00.000Z", "pending": False}],
}
LEGACY: Doc = {
    "root": {
        "subscription": [
            {"email": "ana@example.com", "priority": "BULK", "scope": "all", "channel": "email", "is_subscribed": 0},
            {"mobile": "+15550100505", "priority": "TRANS", "scope": "all", "channel": "sms", "is_subscribed": 1},
        ]
    }
}
STATE: Doc = {
    "org_id": 100, "customer_id": "565039505", "registered": True, "erased": False,
    "identifiers": EXAMPLES["customer.registered"]["identifiers"], "language": "en",
    "as_of": {"partition": 3, "offset": 21}, "settings_version": 1,
    "cells": [
        {
            "source": "WEB_ENGAGE", "account_id": "01", "channel": "MOBILE", "priority": "BULK",
            "org_unit_id": 200031782, "status": "OPTIN", "since": "2026-11-21T10:05:00.000Z", "event_id": "e-3",
            "origin": "PRODUCER", "synced_from": None, "batch_id": None, "pending": None,
        }
    ],
}  # fmt: skip
PREVIEWED: Doc = {
    "as_of": {"partition": 3, "offset": 21},
    "outcomes": [{"outcome": "pending", "outcome_reason": None, "contradicts_newer_opt_out": False}],
}
IN_FORCE: Doc = {"org_id": 100, "version": 1, "partitions": {"0": 1, "3": 1}, "settings": EXAMPLES["settings"]}
PAGE = '<!doctype html><html lang="en"> ... <button>Unsubscribe</button> ... </html>'
FAULT_PAGE = '<!doctype html><html lang="en"> ... <h1>This link cannot be used</h1> ... </html>'


def refusal(code: int, message: str) -> Doc:
    """What v2 answers where nothing was accepted."""
    return {"subscriptions": [], "warnings": [], "errors": [{"status": False, "code": code, "message": message}]}


def legacy(code: int, message: str = "") -> Doc:
    """What v1.1 answers with this status; `message`: why it could not be taken at all."""
    items = [] if message else LEGACY["root"]["subscription"]
    accepted = {200: 2, 201: 1}.get(code, 0)
    taken = {"success": True, "code": 1000, "message": "accepted"}
    missed = {"success": False, "code": 1012, "message": "customer not found: nobody has this mobile"}
    told = [item | {"item_status": taken if n < accepted else missed} for n, item in enumerate(items)]
    whole = {"success": code == 200, "code": code, "message": message or f"{accepted} of {len(items)} accepted"}
    whole |= {"total": len(items), "success_count": accepted}
    return {"response": {"status": whole, "subscriptions": {"subscription": told}}}
