"""The input: one sequence of contract records, the same for every system in every run (the seed is fixed)."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson

ORG = 100
ORG_UNITS = (1, 2, 3, 4)
SOURCES = ("INSTORE", "WEB_ENGAGE", "FACEBOOK")
CHANNELS = ("EMAIL", "MOBILE")
PRIORITIES = ("BULK", "TRANS")
TYPES = ("OPTIN", "OPTOUT")
#: What every request asks about, as in the peers' job; with the unified layer on all three profiles are weighed.
ASKED_CHANNEL, ASKED_PRIORITY, ASKED_UNIT = "EMAIL", "BULK", 1
#: In the past, so that no record is ever ahead of the broker's clock.
START = datetime(2025, 1, 1, tzinfo=UTC)
SEED = 1
YEAR_MS = 365 * 86_400_000
UUID_BITS, ADDRESS_BITS = 128, 48

Keyed = tuple[bytes, bytes]


@dataclass(frozen=True, slots=True)
class Change:
    """One consent change before it becomes JSON; the references work on these."""

    number: int
    customer: int
    channel: str
    priority: str
    type: str
    org_unit_id: int
    source: str


def instant(number: int) -> str:
    """`occurred_at` of the n-th event: one millisecond after the one before."""
    return (START + timedelta(milliseconds=number)).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def key_of(customer: int) -> bytes:
    """The contract's key."""
    return f"{ORG}:{customer}".encode()


def changes(count: int, customers: int) -> Iterator[Change]:
    """The first `count` changes, uniform over customers and all cells."""
    pick = random.Random(SEED)
    for number in range(count):
        customer = pick.randrange(customers)
        channel, priority, kind = pick.choice(CHANNELS), pick.choice(PRIORITIES), pick.choice(TYPES)
        yield Change(number, customer, channel, priority, kind, pick.choice(ORG_UNITS), pick.choice(SOURCES))


def asked(count: int, customers: int) -> Iterator[int]:
    """The customer of each of the first `count` requests."""
    pick = random.Random(SEED + 1)
    return (pick.randrange(customers) for _ in range(count))


def change_record(change: Change, event_id: str | None = None) -> Keyed:
    """Key and value of a `consent.changed`; its `event_id` is made from its number unless given."""
    return key_of(change.customer), orjson.dumps(
        {
            "event": "consent.changed",
            "event_id": event_id or f"e{change.number}",
            "org_id": ORG,
            "customer_id": str(change.customer),
            "source": change.source,
            "account_id": "01",
            "channel": change.channel,
            "priority": change.priority,
            "type": change.type,
            "org_unit_id": change.org_unit_id,
            "occurred_at": instant(change.number),
            "reason": "bench",
        }
    )


def request_record(request_id: str, customer: int) -> Keyed:
    """Key and value of an eligibility request."""
    return key_of(customer), orjson.dumps(
        {
            "request_id": request_id,
            "org_id": ORG,
            "customer_id": str(customer),
            "source": "INSTORE",
            "account_id": "01",
            "channel": ASKED_CHANNEL,
            "priority": ASKED_PRIORITY,
            "org_unit_id": ASKED_UNIT,
            "requested_at": instant(0),
        }
    )


def request_records(count: int, customers: int) -> Iterator[Keyed]:
    """The requests `r0`, `r1`, ..."""
    return (request_record(f"r{n}", customer) for n, customer in enumerate(asked(count, customers)))


def settings_record() -> Keyed:
    """The one org: four units, three accounts on both channels, unified and recent; the rest is default."""
    settings: dict[str, Any] = {
        "org_id": ORG,
        "version": 1,
        "name": "Bench",
        "org_units": [{"id": unit, "name": f"Unit {unit}"} for unit in ORG_UNITS],
        "accounts": [{"source": source, "account_id": "01", "channels": list(CHANNELS)} for source in SOURCES],
        "unified": {"enabled": True, "policy": "recent"},
    }
    body = {"event": "settings.changed", "event_id": "s1", "org_id": ORG, "occurred_at": instant(0)}
    return f"{ORG}:".encode(), orjson.dumps({**body, "settings": settings})


def registration_records(customers: int) -> Iterator[Keyed]:
    """One `customer.registered` for everybody, with an e-mail address as a feed would send it."""
    head = b'{"event":"customer.registered","event_id":"c%d","org_id":%d,"customer_id":"%d",'
    tail = b'"occurred_at":"%s","identifiers":{"email":"%x@example.com"}}'
    pick = random.Random(SEED)
    at = instant(0).encode()
    for n in range(customers):
        yield key_of(n), head % (n, ORG, n) + tail % (at, pick.getrandbits(ADDRESS_BITS))


def opt_in_records(customers: int) -> Iterator[Keyed]:
    """One opt-in for everybody, for the cell that requests ask about.

    Ids as random as UUIDs and times spread over a year: what compresses better than real consents would make the folder
    look smaller than it will be.
    """
    pick = random.Random(SEED)
    for n in range(customers):
        change = Change(pick.randrange(YEAR_MS), n, ASKED_CHANNEL, ASKED_PRIORITY, "OPTIN", ASKED_UNIT, "INSTORE")
        yield change_record(change, f"{pick.getrandbits(UUID_BITS):032x}")
