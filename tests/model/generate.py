"""Seeded random scenarios for the domain: everything that can stand in the two input topics, good and bad.

A scenario is a list of steps `(kind, key, value, partition)`: `kind` is `change` (to `consent.changes`) or `request`
(to `eligibility.requests`); `partition` is None where the key decides (Kafka's murmur2), else the partition that the
record is to be written to whatever its key. The same arguments give the same scenario, in every process.

What the specification leaves open (see `_edge_change`, `_edge_request`) is only generated with `edges=True`.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

from .wire import CHANNELS, partition_of, time_text

Step = tuple[str, bytes | None, bytes | None, int | None]
Doc = dict[str, Any]

BASE_MS = 1_795_255_200_000  # 2026-11-21T10:00:00Z
ORGS = (100, 200)
UNKNOWN_ORG = 999
UNITS = {100: (1001, 1002, 1003), 200: (2001, 2002)}
UNKNOWN_UNIT = 4711
ACCOUNTS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("INSTORE", "01", ("MOBILE", "EMAIL")),
    ("WEB_ENGAGE", "01", ("EMAIL", "MOBILE")),
    ("LINE", "shop", ("LINE", "MOBILE")),
)
UNMAPPED = "WHATSAPP"  # no account ever has it
MINUTE = 60_000
DAY = 24 * 60 * MINUTE


def scenario(
    seed: int,
    customers: int = 12,
    events: int = 400,
    base_ms: int = BASE_MS,
    partitions: int = 8,
    edges: bool = False,
    too_large_bytes: int | None = None,
) -> list[Step]:
    """About `events` records around `base_ms` (which should be near the broker's clock), settings first."""
    maker = _Maker(random.Random(seed), customers, base_ms, partitions)
    for org_id in ORGS:
        maker.new_settings(org_id)
    for org_id in ORGS:
        # Some stay unknown, so that rule 1 has something to do.
        for customer in maker.names[org_id]:
            if maker.rng.random() < 0.9:
                maker.registered(org_id, customer)
    while len(maker.steps) < events:
        maker.something(edges)
    if too_large_bytes is not None:
        maker.too_large(too_large_bytes)
    return maker.steps


class _Maker:
    def __init__(self, rng: random.Random, customers: int, base_ms: int, partitions: int) -> None:
        self.rng = rng
        self.base_ms = base_ms
        self.partitions = partitions
        self.steps: list[Step] = []
        self.count = 0
        self.versions = dict.fromkeys(ORGS, 0)
        self.docs: dict[int, Doc] = {}
        self.names = {org_id: [f"c-{org_id}-{n}" for n in range(customers)] for org_id in ORGS}
        self.names[100][0] = "Zoë: ünïcode|x"  # a key may hold any character, the separator included
        self.opt_ins: list[Doc] = []  # what a verification can name
        self.sent: list[tuple[bytes, bytes]] = []  # what can be sent again
        self.favourites: dict[tuple[int, str], list[Doc]] = {}

    # -- the mixture --

    def something(self, edges: bool) -> None:
        kinds: list[tuple[Callable[[], None], int]] = [
            (self.changed, 46),
            (self.imported, 7),
            (self.undone, 2),
            (self.verified, 12),
            (self.opt_in_everywhere, 2),
            (self.duplicate, 5),
            (self.request, 24),
            (self.bad_change, 4),
            (self.bad_request, 2),
            (self.misrouted, 2),
            (self.any_registered, 2),
            (self.erased, 1),
            (self.settings, 2),
            (self.unknown_customer, 1),
        ]
        if edges:
            kinds += [(self.edge_change, 3), (self.edge_request, 2)]
        makers, weights = zip(*kinds, strict=True)
        self.rng.choices(makers, weights)[0]()

    # -- small parts --

    def next_id(self) -> str:
        """Unique, but not in the order of arrival: the greater id must not always be the later."""
        self.count += 1
        return f"{self.rng.choice('abcdxyz')}-{self.count}"

    def moment(self) -> int:
        """Mostly a few shared seconds (so the same millisecond is frequent), sometimes long ago."""
        where = self.rng.random()
        if where < 0.5:
            return self.base_ms + self.rng.randrange(-6, 6) * 1000
        if where < 0.9:
            return self.base_ms + self.rng.randrange(-MINUTE, MINUTE)
        return self.base_ms - self.rng.randrange(DAY)

    def time(self, ms: int) -> str:
        """The same instant in one of the ways in which RFC 3339 can write it."""
        form = self.rng.random()
        if form < 0.7:
            return time_text(ms)
        if form < 0.8:
            return f"{time_text(ms)[:-1]}9876Z"  # cut off, not rounded
        if form < 0.9:
            return f"{time_text(ms + 330 * MINUTE)[:-1]}+05:30"
        if ms % 1000 == 0:
            return f"{time_text(ms)[:-5]}Z"
        return f"{time_text(ms - 180 * MINUTE)[:-1]}-03:00"

    def org_id(self) -> int:
        return self.rng.choice(ORGS)

    def customer(self, org_id: int) -> str:
        """A few are met much more often than the rest: only then do their cells get a history."""
        names = self.names[org_id]
        return self.rng.choice(names[:4] if self.rng.random() < 0.6 else names)

    def place_of(self, org_id: int, customer: str) -> Doc:
        """Mostly one of three places of this customer, so that cells are written to again and again."""
        known = self.favourites.setdefault((org_id, customer), [self.place(org_id) for _ in range(3)])
        return self.rng.choice(known) if self.rng.random() < 0.7 else self.place(org_id)

    def place(self, org_id: int) -> Doc:
        source, account_id, channels = self.rng.choices(ACCOUNTS, (3, 5, 1))[0]
        return {
            "source": source,
            "account_id": account_id,
            "channel": self.rng.choices(channels, (2, 1))[0],
            "priority": self.rng.choices(("BULK", "TRANS"), (6, 1))[0],
            "org_unit_id": self.rng.choices((UNITS[org_id][0], -1, self.rng.choice(UNITS[org_id])), (4, 1, 2))[0],
        }

    def event(self, name: str, org_id: int, customer: str) -> Doc:
        return {
            "event": name,
            "event_id": self.next_id(),
            "org_id": org_id,
            "customer_id": customer,
            "occurred_at": self.time(self.moment()),
        }

    def change(self, event: Doc) -> None:
        key, value = self.key(event), dump(event)
        self.sent.append((key, value))
        self.steps.append(("change", key, value, None))

    def key(self, event: Doc) -> bytes:
        return f"{event['org_id']}:{event['customer_id']}".encode()

    # -- settings --

    def settings(self) -> None:
        org_id = self.org_id()
        kind = self.rng.random()
        if kind < 0.7:
            self.new_settings(org_id)
        elif kind < 0.85:
            self.write_settings(
                org_id, self.docs[org_id] | {"version": max(1, self.versions[org_id] - 1), "name": "late"}
            )
        else:
            self.write_settings(org_id, self.refused_document(org_id))

    def new_settings(self, org_id: int) -> None:
        self.versions[org_id] += 1
        self.docs[org_id] = self.document(org_id, self.versions[org_id])
        self.write_settings(org_id, self.docs[org_id])

    def write_settings(self, org_id: int, doc: Doc) -> None:
        """The same record to every partition."""
        event = {
            "event": "settings.changed",
            "event_id": self.next_id(),
            "org_id": org_id,
            "occurred_at": self.time(self.moment()),
            "settings": doc,
        }
        value = dump(event)
        self.steps += [("change", f"{org_id}:".encode(), value, number) for number in range(self.partitions)]

    def document(self, org_id: int, version: int) -> Doc:
        rng = self.rng
        units = list(UNITS[org_id])
        if version > 2 and rng.random() < 0.2:
            units = units[:-1]
        doc: Doc = {
            "org_id": org_id,
            "version": version,
            "name": f"Org {org_id}",
            "default_language": rng.choice(("en", "de")),
            "require_registration": org_id == 100 if version < 3 else rng.random() < 0.6,
            "repeat_opt_in": rng.choice(("ignore", "ignore", "refresh")),
            "org_units": [{"id": unit, "name": f"Unit {unit}"} for unit in units],
            "ou_sync": {"opt_in": rng.random() < 0.5, "opt_out": rng.choice(("none", "any", "first"))},
            "accounts": self.account_documents(version),
            "opt_in_types": self.type_documents(units),
            "unified": self.unified_document(units),
            "messages": self.message_documents(org_id, version, units),
            "mobile": [],
        }
        if rng.random() < 0.2:
            doc["max_future_ms"] = rng.choice((120_000, 600_000))
        return doc

    def account_documents(self, version: int) -> list[Doc]:
        found: list[Doc] = []
        for source, account_id, channels in ACCOUNTS:
            account: Doc = {"source": source, "account_id": account_id, "channels": list(channels)}
            if self.rng.random() < 0.4:
                account["active"] = True
            if version > 1 and source == "LINE":
                account["active"] = self.rng.random() < 0.5
            found.append(account)
        # Never active, with a channel that only it has.
        found.append({"source": "WEBSITE", "account_id": "old", "channels": ["WECHAT", "EMAIL"], "active": False})
        return found

    def type_documents(self, units: list[int]) -> list[Doc]:
        """Never so that DOUBLE could reach INSTORE EMAIL: DOUBLE is only asked for by name of another place."""
        rng = self.rng
        found: list[Doc] = [
            {"source": "WEB_ENGAGE", "account_id": "01", "type": rng.choices(("DOUBLE", "RESTRICTED"), (5, 1))[0]},
            {"source": "INSTORE", "channel": "MOBILE", "type": rng.choice(("SINGLE", "RESTRICTED", "DOUBLE"))},
            {"source": "INSTORE", "channel": "EMAIL", "type": rng.choice(("SINGLE", "RESTRICTED"))},
            {"org_unit_id": rng.choice(units), "type": rng.choice(("SINGLE", "RESTRICTED"))},
            {"account_id": "01", "channel": "EMAIL", "org_unit_id": rng.choice(units), "type": "RESTRICTED"},
            {"source": "WEB_ENGAGE", "channel": "EMAIL", "org_unit_id": rng.choice((-1, *units)), "type": "SINGLE"},
        ]
        rng.shuffle(found)
        return found[: rng.randrange(2, len(found) + 1)]

    def message_documents(self, org_id: int, version: int, units: list[int]) -> list[Doc]:
        """Texts of every kind; by chance of their own, so that the rest of a scenario is the same without them."""
        rng = random.Random(f"messages {org_id} {version}")
        found: list[Doc] = [
            {"kind": "confirm_opt_in"},
            {"kind": "confirm_opt_in", "source": "INSTORE", "channel": "MOBILE"},
            {"kind": "confirm_opt_in", "org_unit_id": rng.choice((-1, *units))},
            {"kind": "confirm_opt_out", "channel": rng.choice(("MOBILE", "EMAIL"))},
            {"kind": "confirm_opt_out", "account_id": "01", "org_unit_id": rng.choice(units)},
            {"kind": "verify", "channel": "EMAIL"},
            {"kind": "verify", "source": "WEB_ENGAGE", "channel": "MOBILE", "org_unit_id": rng.choice(units)},
        ]
        rng.shuffle(found)
        found = found[: rng.randrange(len(found) + 1)]
        for number, entry in enumerate(found):
            link = " {link}" if entry["kind"] == "verify" else ""
            tags = ["en", *rng.sample(("de", "hi", "pt-BR"), rng.randrange(4))]
            entry["texts"] = {tag: f"{number} {entry['kind']} {tag} {{org_unit}}{link}" for tag in tags}
        return found

    def unified_document(self, units: list[int]) -> Doc:
        rng = self.rng
        policies = ("recent", "liberal", "strict")
        found: Doc = {"enabled": rng.random() < 0.5}
        if rng.random() < 0.8:
            found["policy"] = rng.choice(policies)
        found["org_units"] = {}
        for unit in units:
            own: Doc = {}
            if rng.random() < 0.5:
                own["enabled"] = rng.random() < 0.6
            if rng.random() < 0.5:
                own["policy"] = rng.choice(policies)
            if rng.random() < 0.7:
                found["org_units"][str(unit)] = own
        return found

    def refused_document(self, org_id: int) -> Doc:
        """A next version with one contradiction that section 5 of the contract names."""
        doc = self.document(org_id, self.versions[org_id] + 1)
        kind = self.rng.randrange(7)
        if kind == 0:
            doc["opt_in_types"] = [{"org_unit_id": UNKNOWN_UNIT, "type": "SINGLE"}]
        elif kind == 1:
            doc["opt_in_types"] = [{"source": "INSTORE", "account_id": "nowhere", "type": "SINGLE"}]
        elif kind == 2:
            doc["opt_in_types"] = [{"source": "INSTORE", "account_id": "01", "channel": "EMAIL", "type": "DOUBLE"}]
        elif kind == 3:
            doc["accounts"].append(doc["accounts"][0])
        elif kind == 4:
            doc["opt_in_types"] = [{"channel": "EMAIL", "type": "SINGLE"}, {"channel": "EMAIL", "type": "RESTRICTED"}]
        elif kind == 5:
            doc["unified"]["org_units"][str(UNKNOWN_UNIT)] = {"enabled": True}
        else:
            doc["org_units"].append(doc["org_units"][0])
        return doc

    # -- customers --

    def registered(self, org_id: int, customer: str) -> None:
        event = self.event("customer.registered", org_id, customer)
        if self.rng.random() < 0.7:
            number = self.person()
            identifiers = {
                "mobile": f"+49170{number:06d}",
                "email": f"p{number}@example.org",
                "external_id": f"x{number}",
            }
            event["identifiers"] = {k: v for k, v in identifiers.items() if self.rng.random() < 0.7}
        if self.rng.random() < 0.5:
            event["language"] = self.rng.choice(("en", "de", "hi"))
        self.change(event)

    def person(self) -> int:
        """Few have an identifier of their own: several customers share one."""
        return self.rng.randrange(5)

    def any_registered(self) -> None:
        org_id = self.org_id()
        self.registered(org_id, self.customer(org_id))

    def erased(self) -> None:
        org_id = self.org_id()
        customer = self.customer(org_id)
        self.change(self.event("customer.erased", org_id, customer))
        if self.rng.random() < 0.4:
            self.changed(org_id, customer)
        if self.rng.random() < 0.8:
            self.registered(org_id, customer)

    # -- consent --

    def changed(self, org_id: int | None = None, customer: str | None = None, batch: str | None = None) -> None:
        org_id = self.org_id() if org_id is None else org_id
        event = self.event("consent.changed", org_id, customer or self.customer(org_id))
        event |= self.place_of(org_id, event["customer_id"])
        event["type"] = self.rng.choices(("OPTIN", "OPTOUT"), (3, 2))[0]
        if self.rng.random() < 0.3:
            event["origin"] = self.rng.choice(("API", "SMS", "EMAIL_LINK", "IMPORT", "CONSOLE"))
        if self.count % 3 == 0:
            event["language"] = ("de", "pt-br", "PT", "hi-Deva-IN")[self.count // 3 % 4]
        if batch is not None:
            event |= {"origin": "IMPORT", "batch_id": batch}
        if self.rng.random() < 0.1:
            event |= {"campaign_id": "k-1", "proof": {"ip": "192.0.2.1", "page": ["/a", {"b": 1}]}, "not_known": [1]}
        if event["type"] == "OPTIN":
            self.opt_ins.append(event)
        self.change(event)

    def imported(self) -> None:
        """One row of one of a few batches, of which each org has several under way."""
        self.changed(batch=f"batch-{self.rng.randrange(3)}")

    def undone(self) -> None:
        org_id = self.org_id()
        customers = self.names[org_id] if self.rng.random() < 0.3 else [self.customer(org_id)]
        batch = f"batch-{self.rng.randrange(4)}"  # one of them never was
        for customer in customers:
            self.change(self.event("consent.batch_reverted", org_id, customer) | {"batch_id": batch})

    def opt_in_everywhere(self) -> None:
        """The only way to a `strict_opt_in`: every profile of a channel says yes, verified where it must be."""
        org_id = self.org_id()
        customer, place = self.customer(org_id), self.place(org_id)
        for source, account_id, channels in ACCOUNTS:
            if place["channel"] in channels:
                event = self.event("consent.changed", org_id, customer) | place
                event |= {
                    "source": source,
                    "account_id": account_id,
                    "type": "OPTIN",
                    "occurred_at": self.time(self.base_ms),
                }
                self.change(event)
                self.verify(event)
        request = self.plain_request(org_id, customer) | place
        self.send_request(request)

    def verify(self, opt_in: Doc) -> None:
        event = self.event("consent.verified", opt_in["org_id"], opt_in["customer_id"])
        event |= {name: opt_in[name] for name in ("source", "account_id", "channel", "priority", "org_unit_id")}
        self.change(event | {"verifies": opt_in["event_id"]})

    def unknown_customer(self) -> None:
        org_id = self.org_id()
        self.changed(org_id, f"stranger-{self.rng.randrange(3)}")

    def verified(self) -> None:
        """Mostly the newest opt-in of some cell, right or too late; sometimes another cell, or an unknown id."""
        if not self.opt_ins:
            return self.changed()
        likely = [opt_in for opt_in in self.opt_ins if opt_in["source"] != "LINE" and opt_in["priority"] == "BULK"]
        opt_in = self.rng.choice((likely or self.opt_ins)[-8:])
        event = self.event("consent.verified", opt_in["org_id"], opt_in["customer_id"])
        event |= {name: opt_in[name] for name in ("source", "account_id", "channel", "priority", "org_unit_id")}
        event["verifies"] = opt_in["event_id"]
        wrong = self.rng.random()
        if wrong < 0.05:
            event["verifies"] = "never-pending"
        elif wrong < 0.1:
            event["org_unit_id"] = -1
        return self.change(event)

    def duplicate(self) -> None:
        key, value = self.rng.choice(self.sent[-60:])
        if self.rng.random() < 0.3:
            event = json.loads(value)
            if event["event"] == "consent.changed":  # the same id with other content is a duplicate all the same
                event["type"] = "OPTOUT" if event["type"] == "OPTIN" else "OPTIN"
                event["occurred_at"] = self.time(self.moment())
                value = dump(event)
        self.steps.append(("change", key, value, None))

    def misrouted(self) -> None:
        if self.partitions == 1:
            return
        kind = self.rng.choice(("change", "request"))
        before = len(self.steps)
        (self.changed if kind == "change" else self.request)()
        step = self.steps[before]
        assert step[1] is not None
        wrong = (partition_of(step[1], self.partitions) + self.rng.randrange(1, self.partitions)) % self.partitions
        self.steps[before] = (*step[:3], wrong)

    # -- bad changes: one for every dead-letter code --

    def bad_change(self) -> None:
        org_id = self.org_id()
        event = self.event("consent.changed", org_id, self.customer(org_id)) | self.place(org_id) | {"type": "OPTOUT"}
        key = self.key(event)
        faults: dict[str, Callable[[], tuple[bytes | None, bytes]]] = {
            "malformed_json": lambda: (key, self.rng.choice((b'{"event":', b"", b"[]", b"null", dump(event)[:-1]))),
            "not_utf8": lambda: (key, dump(event)[:-1] + b',"reason":"\xff"}'),
            "invalid_field": lambda: (key, dump(self.invalid(event))),
            "unknown_event": lambda: (key, dump(event | {"event": "consent.revoked"})),
            "key_mismatch": lambda: (self.other_key(event), dump(event)),
            "missing_key": lambda: (None, dump(event)),
            "occurred_in_future": lambda: (key, dump(self.in_future(event))),
            "unknown_org": lambda: (self.key(event | {"org_id": UNKNOWN_ORG}), dump(event | {"org_id": UNKNOWN_ORG})),
            "unknown_account": lambda: (key, dump(event | self.unknown_account())),
            "unknown_org_unit": lambda: (key, dump(event | {"org_unit_id": UNKNOWN_UNIT})),
            "channel_not_mapped": lambda: (key, dump(event | {"channel": UNMAPPED})),
        }
        bad_key, value = faults[self.rng.choice(list(faults))]()
        # Without a key any partition is as good as another; one is named so that the scenario stays reproducible.
        partition = self.rng.randrange(self.partitions) if bad_key is None else None
        self.steps.append(("change", bad_key, value, partition))

    def invalid(self, event: Doc) -> Doc:
        changes: list[Doc] = [
            {"type": "MAYBE"},
            {"channel": "FAX"},
            {"priority": 1},
            {"source": None},
            {"org_unit_id": "north"},
            {"event_id": ""},
            {"event_id": "e" * 129},
            {"occurred_at": "yesterday"},
            {"occurred_at": "2026-02-30T10:00:00Z"},
            {"occurred_at": "2026-11-21T10:00:00"},
            {"proof": "a text"},
            {"origin": "FAX"},
            {"event": "consent.verified"},  # without `verifies`
            {"event": "customer.registered", "identifiers": "a text"},
        ]
        bad = event | self.rng.choice(changes)
        if self.rng.random() < 0.2:
            bad.pop(self.rng.choice(("occurred_at", "event_id", "type", "org_unit_id")))
            bad["event"] = event["event"]
        return bad

    def in_future(self, event: Doc) -> Doc:
        """Far beyond every `max_future_ms` in use, so that the broker's clock cannot matter."""
        late = event | {"occurred_at": self.time(self.base_ms + 2 * DAY)}
        if self.rng.random() < 0.2:
            late["event"] = self.rng.choice(("customer.registered", "customer.erased"))
        return late

    def unknown_account(self) -> Doc:
        if self.rng.random() < 0.5:
            return {"source": "TMALL", "account_id": "01"}
        return {"source": "WEBSITE", "account_id": "old", "channel": "EMAIL"}  # known, but not active

    def other_key(self, event: Doc) -> bytes:
        names = [name for name in self.names[event["org_id"]] if name != event["customer_id"]]
        return self.key(event | {"customer_id": self.rng.choice(names)}) if names else b"no agreement"

    def too_large(self, size: int) -> None:
        """A change, and a request."""
        org_id = self.org_id()
        event = self.event("consent.changed", org_id, self.customer(org_id)) | self.place(org_id) | {"type": "OPTIN"}
        self.steps.append(("change", self.key(event), dump(event | {"proof": {"page": "x" * size}}), None))
        request = self.plain_request(org_id, event["customer_id"]) | {"page": "x" * size}
        self.steps.append(("request", self.key(request), dump(request), None))

    # -- requests --

    def request(self) -> None:
        rng = self.rng
        org_id = self.org_id()
        request = self.plain_request(org_id, self.customer(org_id))
        kind = rng.random()
        if kind < 0.04:
            request["org_id"] = UNKNOWN_ORG
        elif kind < 0.08:
            request["org_unit_id"] = UNKNOWN_UNIT
        elif kind < 0.12:
            request["customer_id"] = "never-heard-of"
        elif kind < 0.16:
            request["channel"] = rng.choice((UNMAPPED, "WECHAT"))
        elif kind < 0.2:
            request |= self.unknown_account()
        elif kind < 0.26:
            del request["source"]
            if rng.random() < 0.5:
                del request["account_id"]
        elif kind < 0.3:
            del request["org_unit_id"]
        elif kind < 0.33:
            request |= {"min_position": self.own_position(request, 0), "requested_at": self.time(self.base_ms)}
        elif kind < 0.35:
            request |= {"min_position": self.own_position(request, 10**12), "max_wait_ms": 50}
        elif kind < 0.45:
            request |= {"campaign_id": "k-1", "communication_id": "m-1", "not_known": True}
        self.send_request(request)

    def own_position(self, request: Doc, offset: int) -> Doc:
        return {"partition": partition_of(self.key(request), self.partitions), "offset": offset}

    def plain_request(self, org_id: int, customer: str) -> Doc:
        return {"request_id": f"r-{self.next_id()}", "org_id": org_id, "customer_id": customer} | self.place_of(
            org_id, customer
        )

    def send_request(self, request: Doc) -> None:
        self.steps.append(("request", self.key(request), dump(request), None))

    def bad_request(self) -> None:
        rng = self.rng
        org_id = self.org_id()
        request = self.plain_request(org_id, self.customer(org_id))
        key = self.key(request)
        values: list[bytes] = [
            # To be identified, so answered: invalid_request.
            dump(request | {"channel": rng.choice(("FAX", 7, None))}),
            dump(request | {"priority": "URGENT"}),
            dump(request | {"org_unit_id": "north"}),
            dump(request | {"source": "FAX"}),
            dump(request | {"requested_at": "now"}),
            dump(request | {"min_position": 7}),
            dump({name: value for name, value in request.items() if name != "priority"}),
            # Nobody could match an answer to these: dead letters.
            dump({name: value for name, value in request.items() if name != "request_id"}),
            dump(request | {"request_id": ""}),
            dump(request | {"request_id": 5}),
            b"not json",
            b"[]",
            b'{"request_id":"\xff"}',
        ]
        self.steps.append(("request", key, rng.choice(values), None))

    # -- what the specification leaves open --

    def edge_change(self) -> None:
        org_id = self.org_id()
        event = self.event("consent.changed", org_id, self.customer(org_id)) | self.place(org_id) | {"type": "OPTIN"}
        key = self.key(event)
        edges: list[tuple[bytes | None, bytes | None]] = [
            (key, None),
            (key, b""),
            (b"", dump(event)),
            (key, b"\xef\xbb\xbf" + dump(event)),
            (key, b'{"event":NaN}'),
            (key, dump(event)[:-1] + b',"reason":"\\ud800"}'),
            (key, b"[" * 5000),
            (None, b"not json"),
            (f"{org_id}:".encode(), dump(event)),
            (f"0{org_id}:{event['customer_id']}".encode(), dump(event)),
            (b"\xff\xfe", dump(event)),
            (key, dump(event | {"org_id": float(org_id)})),
            (key, dump(event | {"org_id": str(org_id)})),
            (key, dump(event | {"org_unit_id": True})),
            (key, dump(event | {"campaign_id": 17})),
            (key, dump(event | {"language": None, "proof": None})),
            (key, dump(event | {"account_id": ""})),
            (key, dump(event | {"occurred_at": "2020-12-31T23:59:60Z"})),
            (key, dump(event | {"occurred_at": "2020-12-31 23:59:59Z"})),
            (key, dump(event | {"occurred_at": "2020-12-31t23:59:59z"})),
            (key, dump(event | {"occurred_at": "0001-01-01T00:00:00+10:00"})),
            (key, dump(event | {"event": None})),
            (key, dump(event | {"event": "customer.registered", "identifiers": {"mobile": "0170"}})),
            (key, dump(event | {"event": "settings.changed", "settings": {}})),
        ]
        bad_key, value = self.rng.choice(edges)
        partition = None if bad_key else self.rng.randrange(self.partitions)
        self.steps.append(("change", bad_key, value, partition))

    def edge_request(self) -> None:
        org_id = self.org_id()
        request = self.plain_request(org_id, self.customer(org_id))
        key = self.key(request)
        elsewhere = {"partition": (partition_of(key, self.partitions) + 1) % self.partitions, "offset": 0}
        edges: list[tuple[bytes | None, bytes | None]] = [
            (None, dump(request)),
            (key, None),
            (self.other_key(request), dump(request)),
            (key, dump(request | {"source": None, "account_id": None, "org_unit_id": None})),
            (key, dump(request | {"campaign_id": 17})),
            (key, dump(request | {"max_wait_ms": -1})),
            (key, dump(request | {"min_position": elsewhere, "max_wait_ms": 50})),
        ]
        bad_key, value = self.rng.choice(edges)
        self.steps.append(("request", bad_key, value, None if bad_key else self.rng.randrange(self.partitions)))


def dump(event: Any) -> bytes:
    """One line, UTF-8, no needless space."""
    return json.dumps(event, ensure_ascii=False, separators=(",", ":")).encode()


assert UNMAPPED in CHANNELS
