"""The inbound agent: what customers say by phone, turned into events of all customers who have the number."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

import orjson

from schemas.base import format_instant
from schemas.inbound import INBOUND
from streams import metrics, topics
from streams.agents.bodies import inbound_audit
from streams.agents.reading import UnreadableError, parse, validate
from streams.agents.writing import Scribe
from streams.domain.identities import Awaited, Holders, identity_key, normal
from streams.domain.keys import customer_key, partition_of, settings_key
from streams.domain.orgs import Action, Org
from streams.engine.outputs import Outputs
from streams.engine.partition import Partition
from streams.engine.records import was_forwarded
from streams.kafka.records import Record

_NAME = topics.INBOUND.name
_ID_CHARACTERS = 32


class Inbound:
    """Handles the records of one partition among `partitions`, whose settings and identifiers are in its tables."""

    def __init__(
        self, scribe: Scribe, customers: Partition, identities: Partition, *, partitions: int, max_bytes: int
    ) -> None:
        self._scribe = scribe
        self._customers = customers
        self._identities = identities
        self._partitions = partitions
        self._max_bytes = max_bytes

    def handle(self, records: list[Record], events: Outputs, aside: Outputs) -> None:
        """The events that records cause; their audit, dead letters and what goes home is written after them: `aside`.

        What an earlier owner has audited is done.
        """
        done = self._scribe.written.get(topics.AUDIT.name, ())
        for record in records:
            if record.offset not in done:
                outcome = self._handle(record, events, aside)
                metrics.of(metrics.RECORDS, _NAME, outcome).inc()

    def _handle(self, record: Record, events: Outputs, aside: Outputs) -> str:
        try:
            document = parse(record, self._max_bytes)
            said, org = self._read(document)
            key = identity_key(said["org_id"], "mobile", normal("mobile", said["from"], org.default_region))
            if not self._is_ours(record, key, org, aside):
                return "misrouted"
        except UnreadableError as exc:
            self._scribe.dead_letter(aside, record, exc.code, str(exc))
            return "dead_letter"
        caused, reason = self._caused(said, org, key)
        for event in caused:
            own = customer_key(event["org_id"], event["customer_id"])
            place = (own, partition_of(own, self._partitions))
            self._scribe.caused(events, topics.CHANGES, place, orjson.dumps(event), record)
        outcome = ("ignored", reason) if reason else ("taken", None)
        audit = inbound_audit(self._scribe.partition, record.offset, org.version, outcome, document, caused)
        self._scribe.audit(aside, record, audit, key=settings_key(org.settings.org_id))
        return reason or "taken"

    def _read(self, document: dict[str, Any]) -> tuple[dict[str, Any], Org]:
        schema = INBOUND.get(str(document.get("event")))
        if schema is None:
            known = ", ".join(INBOUND)
            raise UnreadableError("unknown_event", f"event: {document.get('event')!r:.80} is none of {known}")
        said = validate(document, schema)
        org = self._customers.org(said["org_id"])
        if org is None:
            raise UnreadableError("unknown_org", f"org_id: no settings are in force for org {said['org_id']}")
        return said, org

    def _is_ours(self, record: Record, key: bytes, org: Org, aside: Outputs) -> bool:
        """Whether the number's home is here; if not the record goes there, under the key that it should have had.

        Gateways write numbers in many ways, so a key counts if it names the same number. Raises UnreadableError.
        """
        given = (record.key or b"").decode(errors="replace")
        if not given:
            raise UnreadableError("missing_key", "the record has no key; it must be {org_id}:{kind}:{identifier}")
        head, _, number = given.rpartition(":")
        if f"{head}:{normal('mobile', number, org.default_region)}".encode() != key:
            raise UnreadableError("key_mismatch", f"key: {given!r:.300} is not the record's own {key!r:.300}")
        home = partition_of(key, self._partitions)
        if home == self._scribe.partition:
            return True
        if was_forwarded(record):
            raise UnreadableError("key_mismatch", f"key: its home is partition {home}, and it was sent home before")
        self._scribe.forward(aside, record._replace(key=key), home)
        return False

    def _caused(self, said: dict[str, Any], org: Org, key: bytes) -> tuple[list[dict[str, Any]], str | None]:
        """Events of every customer with the number; or none, and why (domain sections 6 and 7)."""
        holders: Holders | None = self._identities.decode(self._identities.states([key])[key])
        text = said.get("text")
        if text is not None and holders is not None and (reply := holders.awaited(text, said["received_at"])):
            return [_verified(said, reply)], None
        number = normal("mobile", said["to"], org.default_region)
        actions = org.phone_actions.get(number)
        if actions is None:
            return [], "unknown_number"
        action = actions.get(None if text is None else text.strip().casefold())
        if action is None:
            return [], "unknown_command"
        if holders is None or not holders.customers():
            return [], "unknown_identifier"
        return [_changed(said, action, customer_id) for customer_id in holders.customers()], None


def _changed(said: dict[str, Any], action: Action, customer_id: str) -> dict[str, Any]:
    place = {"source": action.source, "account_id": action.account_id, "channel": "MOBILE"}
    return {
        "event": "consent.changed",
        **_common(said, customer_id),
        **place,
        "priority": action.priority,
        "type": action.type,
        "org_unit_id": action.org_unit_id,
        "origin": "SMS" if "text" in said else "MISSED_CALL",
    }


def _verified(said: dict[str, Any], reply: Awaited) -> dict[str, Any]:
    return {
        "event": "consent.verified",
        **_common(said, reply.customer_id),
        "source": reply.source,
        "account_id": reply.account_id,
        "channel": "MOBILE",
        "priority": reply.priority,
        "org_unit_id": reply.org_unit_id,
        "verifies": reply.event_id,
    }


def _common(said: dict[str, Any], customer_id: str) -> dict[str, Any]:
    """The event id is derived, so that a message that is delivered twice counts once."""
    kind, own = ("sms", said["message_id"]) if "text" in said else ("call", said["call_id"])
    digest = sha256(orjson.dumps([said["org_id"], own, customer_id])).hexdigest()[:_ID_CHARACTERS]
    return {
        "event_id": f"{kind}-{digest}",
        "org_id": said["org_id"],
        "customer_id": customer_id,
        "occurred_at": format_instant(said["received_at"]),
    }
