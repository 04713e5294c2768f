"""An org of a test's own, and short words for what happens to its customers over Kafka."""

from __future__ import annotations

import json
import time
from itertools import count
from typing import Any

from tests.integration.harness import AUDIT, CHANGES, DEADLETTER, DECISIONS, REQUESTS, Doc, Place, Record, World
from tests.model.wire import time_text

NORTH, SOUTH, WEST = 1001, 1002, 1003
INSTORE: Doc = {"source": "INSTORE", "account_id": "01"}
WEB: Doc = {"source": "WEB_ENGAGE", "account_id": "01"}
CELL: Doc = INSTORE | {"channel": "MOBILE", "priority": "BULK", "org_unit_id": NORTH}

#: When the tests' customers act: an hour ago, so that seconds may be added.
BASE_MS = int(time.time()) * 1000 - 3_600_000

_org_ids = count(1000)
_numbers = count(1)


def dump(document: Any) -> bytes:
    """One line of JSON in UTF-8."""
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()


def all_types(name: str) -> list[Doc]:
    """One opt-in type for every profile (MOBILE, because DOUBLE is not offered for INSTORE EMAIL)."""
    return [{"channel": "MOBILE", "type": name}]


def is_from(topic: str, place: Place) -> Any:
    """Whether a dead letter holds the record of this place."""
    wanted = (topic, str(place.partition), str(place.offset))
    names = ("topic", "partition", "offset")
    return lambda record: tuple(record.header(f"__connect.errors.{name}") for name in names) == wanted


class Org:
    """One org with three units and two accounts; customer `c` unless another is named; no registration needed."""

    def __init__(self, world: World, **settings: Any) -> None:
        self.world = world
        self.id = next(_org_ids)
        self.document: Doc = {
            "org_id": self.id,
            "version": 0,
            "require_registration": False,
            "org_units": [{"id": NORTH}, {"id": SOUTH}, {"id": WEST}],
            "accounts": [INSTORE | {"channels": ["MOBILE", "EMAIL"]}, WEB | {"channels": ["EMAIL", "MOBILE"]}],
        }
        self.configure(**settings)

    def configure(self, **settings: Any) -> list[Place]:
        """The next version of the settings, for every partition."""
        self.document = self.document | {"version": self.document["version"] + 1} | settings
        event = self._event("settings.changed", 0) | {"settings": self.document}
        return self.world.send_everywhere(f"{self.id}:".encode(), dump(event))

    def key(self, customer: str = "c") -> bytes:
        return f"{self.id}:{customer}".encode()

    def home(self, customer: str = "c") -> int:
        return self.world.home(self.key(customer))

    def _event(self, name: str, at: int) -> Doc:
        return {
            "event": name,
            "event_id": f"e-{next(_numbers)}",
            "org_id": self.id,
            "occurred_at": time_text(BASE_MS + at),
        }

    def event(self, name: str, at: int = 0, **fields: Any) -> Doc:
        return self._event(name, at) | {"customer_id": "c"} | fields

    def opt_in_event(self, at: int = 0, **fields: Any) -> Doc:
        return self.event("consent.changed", at, **(CELL | {"type": "OPTIN"} | fields))

    def send(self, event: Doc) -> Place:
        return self.world.send(CHANGES, self.key(event["customer_id"]), dump(event))

    def opt_in(self, at: int = 0, **fields: Any) -> Place:
        return self.send(self.opt_in_event(at, **fields))

    def opt_out(self, at: int = 0, **fields: Any) -> Place:
        return self.opt_in(at, **{"type": "OPTOUT"} | fields)

    def verify(self, verifies: str, at: int = 0, **fields: Any) -> Place:
        return self.send(self.event("consent.verified", at, **(CELL | {"verifies": verifies} | fields)))

    def register(self, **fields: Any) -> Place:
        return self.send(self.event("customer.registered", **fields))

    def erase(self, **fields: Any) -> Place:
        return self.send(self.event("customer.erased", **fields))

    def request(self, **fields: Any) -> Doc:
        """A request about the cell that changes go to unless they say otherwise."""
        return {"request_id": f"r-{next(_numbers)}", "org_id": self.id, "customer_id": "c"} | CELL | fields

    def ask(self, **fields: Any) -> Doc:
        """One request, and its decision."""
        return self.decision(self.send_request(self.request(**fields)))

    def send_request(self, request: Doc) -> str:
        self.world.send(REQUESTS, self.key(request["customer_id"]), dump(request))
        found: str = request["request_id"]
        return found

    def decision(self, request_id: str) -> Doc:
        """The decision on a request, when it is there."""
        log = self.world.log(DECISIONS)
        return log.wait(f"the decision on {request_id}", lambda record: record.body["request_id"] == request_id).body

    def verdict(self, **fields: Any) -> tuple[bool, str]:
        """What is answered and why."""
        decision = self.ask(**fields)
        return decision["eligible"], decision["reason"]

    def audit(self, place: Place) -> Doc:
        """The audit of the change at this place, when it is there."""

        def wanted(record: Record) -> bool:
            body = record.body
            return body["record"] == "change" and body["position"] == place._asdict()

        return self.world.log(AUDIT).wait(f"the audit of {place}", wanted).body

    def said(self, place: Place) -> tuple[str, str | None]:
        """Outcome and reason of the change at this place."""
        audit = self.audit(place)
        return audit["outcome"], audit["outcome_reason"]

    def dead_letter(self, place: Place, topic: str = CHANGES) -> Record:
        """The dead letter of the record at this place, when it is there."""
        name = self.world.config.topic(topic)
        return self.world.log(DEADLETTER).wait(f"the dead letter of {topic} {place}", is_from(name, place))
