"""The changes agent: every record of `consent.changes`, in its order, into the customers' state."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import orjson

from schemas.base import format_instant
from schemas.events import EVENTS, ConsentChanged
from schemas.settings import OrgSettings
from streams import metrics, topics
from streams.agents.bodies import PRIVATE, change_audit, must_rewrite, rewritten
from streams.agents.fast import reader
from streams.agents.notices import Notices
from streams.agents.reading import UnreadableError, check_nesting, checked_size, parse, validate
from streams.agents.writing import Scribe
from streams.domain.changes import RejectedError, apply_event
from streams.domain.identities import identity_key
from streams.domain.keys import customer_key, is_settings_key, partition_of, settings_key
from streams.domain.messages import keyword_of, message_of
from streams.domain.state import identifiers_of
from streams.engine.outputs import Outputs
from streams.engine.partition import View
from streams.engine.records import was_forwarded
from streams.kafka.records import Record

_NAME = topics.CHANGES.name
_NEWLINE, _RETURN = b"\n\r"
_OF_IDENTITY = frozenset({"customer.registered", "customer.erased"})
_IDENTIFIES = frozenset({"registered", "erased"})
_read_changed = reader(ConsentChanged, leave=PRIVATE)


class Changes:
    """Applies the records of one partition among `partitions`; without `notices` customers are told nothing."""

    def __init__(self, scribe: Scribe, partitions: int, max_bytes: int, notices: Notices | None = None) -> None:
        self._scribe = scribe
        self._notices = notices
        self._partitions = partitions
        self._max_bytes = max_bytes
        #: Broker timestamps of the opt-outs, and outcomes of the records, that no checkpoint has taken yet.
        self._opt_outs: list[int] = []
        self._outcomes: Counter[str] = Counter()

    def apply(self, view: View, record: Record, out: Outputs) -> None:
        """One record: into the state with its audit, home if it is misrouted, or a dead letter."""
        key = record.key
        try:
            if not key:
                raise UnreadableError("missing_key", "the record has no key; it must be {org_id}:{customer_id}")
            if not (view.knows(key) or is_settings_key(key) or self._is_home(record, key, out)):
                return
            event, raw = self._read(record, key)
            if event["event"] == "settings.changed":
                self._apply_settings(view, record, event, raw, out)
            else:
                self._apply_event(view, record, event, raw, out)
        except (UnreadableError, RejectedError) as exc:
            self._outcomes["dead_letter"] += 1
            self._scribe.dead_letter(out, record, exc.code, str(exc))

    def _is_home(self, record: Record, key: bytes, out: Outputs) -> bool:
        """Whether the record is in its key's partition; if not it is sent there, once (contract section 1)."""
        home = partition_of(key, self._partitions)
        if home == self._scribe.partition:
            return True
        if was_forwarded(record):
            raise UnreadableError("key_mismatch", f"key: its home is partition {home}, and it was sent home before")
        self._outcomes["misrouted"] += 1
        self._scribe.forward(out, record, home)
        return False

    def checkpoint(self) -> Callable[[], None]:
        """Everything applied since the last call is being made to last; what this returns is called when it is."""
        counted = partial(_count, self._opt_outs, self._outcomes)
        self._opt_outs, self._outcomes = [], Counter()
        return counted

    def _read(self, record: Record, key: bytes) -> tuple[dict[str, Any], bytes]:
        """The event, and the input as its audit record holds it. Raises UnreadableError."""
        raw = checked_size(record, self._max_bytes)
        # Nearly every record is a change in one line without private fields: read in one step, audited as it came.
        event = None if _NEWLINE in raw or _RETURN in raw else _read_changed(raw)
        if event is None:
            document = parse(record, self._max_bytes)
            event = self._read_slowly(document)
            if must_rewrite(raw):
                check_nesting(document)
                raw = rewritten(document)
        is_settings = event["event"] == "settings.changed"
        own = settings_key(event["org_id"]) if is_settings else customer_key(event["org_id"], event["customer_id"])
        if own != key:
            raise UnreadableError("key_mismatch", f"key: {key!r:.300} is not the record's own {own!r:.300}")
        return event, raw

    @staticmethod
    def _read_slowly(document: dict[str, Any]) -> dict[str, Any]:
        name = document.get("event")
        if not isinstance(name, str):
            raise UnreadableError("invalid_field", "event: a text is required", document)
        schema = EVENTS.get(name)
        if schema is None:
            raise UnreadableError("unknown_event", f"event: {name!r:.80} is none of {', '.join(EVENTS)}", document)
        if name == "settings.changed":
            check_nesting(document)
        return validate(document, schema)

    def _apply_event(
        self, view: View, record: Record, event: dict[str, Any], raw: bytes, out: Outputs
    ) -> None:
        org = view.org(event["org_id"])
        if org is None:
            raise RejectedError("unknown_org", f"org_id: no settings are in force for org {event['org_id']}")
        key = record.key or b""
        before = view.state(key)
        had = identifiers_of(before) if event["event"] in _OF_IDENTITY else {}
        applied = apply_event(org, before, event, record.timestamp)
        outcome, reason, cells, state = applied
        if state is not None and reason != "not_registered":
            view.put(key, state)
        if outcome in _IDENTIFIES:
            self._identify(out, record, event, had, identifiers_of(state))
        elif outcome == "pending" and event["channel"] == "MOBILE":
            expires_at = record.timestamp + org.settings.verification_ttl_ms
            self._await_reply(out, record, event, identifiers_of(state).get("mobile"), expires_at)
        self._outcomes[reason or outcome] += 1
        if outcome == "applied" and event.get("type") == "OPTOUT":
            self._opt_outs.append(record.timestamp)
        body = change_audit(self._scribe.partition, record.offset, raw, org.version, (outcome, reason, cells))
        self._scribe.audit(out, record, body)
        if self._notices is not None and (org.has_messages or outcome == "pending"):
            message = message_of(org, event, applied)
            if message is not None:
                notice = self._notices.body(message, org, event, self._scribe.partition, record)
                self._scribe.notification(out, record, message.kind, notice)

    def _identify(
        self, out: Outputs, record: Record, event: dict[str, Any], had: dict[str, str], has: dict[str, str]
    ) -> None:
        """Tell the identity table which identifiers the customer has, and has no more (domain section 6)."""
        gone = [("identity.unlinked", kind, value) for kind, value in had.items() if has.get(kind) != value]
        new = [("identity.linked", kind, value) for kind, value in has.items() if had.get(kind) != value]
        for name, kind, value in gone + new:
            self._tell_identity(out, record, event, (kind, value), {"event": name})

    def _await_reply(
        self, out: Outputs, record: Record, event: dict[str, Any], mobile: str | None, expires_at: int
    ) -> None:
        """Tell the identity table which reply from the customer's number verifies the pending opt-in."""
        if mobile is None:
            return
        place = {name: event[name] for name in ("source", "account_id", "priority", "org_unit_id")}
        keyword = keyword_of(event["org_id"], event["customer_id"], event["event_id"])
        told = {"event": "reply.awaited", "keyword": keyword, **place, "verifies": event["event_id"]}
        told["expires_at"] = format_instant(expires_at)
        self._tell_identity(out, record, event, ("mobile", mobile), told)

    def _tell_identity(
        self, out: Outputs, record: Record, event: dict[str, Any], identifier: tuple[str, str], told: dict[str, Any]
    ) -> None:
        key = identity_key(event["org_id"], *identifier)
        position = {"partition": self._scribe.partition, "offset": record.offset}
        common = {"org_id": event["org_id"], "customer_id": event["customer_id"], "position": position}
        place = (key, partition_of(key, self._partitions))
        self._scribe.caused(out, topics.IDENTITIES, place, orjson.dumps({**told, **common}), record)

    def _apply_settings(
        self, view: View, record: Record, event: dict[str, Any], raw: bytes, out: Outputs
    ) -> None:
        """Domain section 5 of the contract: a document that is not newer than the one in force is ignored."""
        settings: OrgSettings = event["settings"]
        org_id = event["org_id"]
        if settings.org_id != org_id:
            raise UnreadableError("invalid_field", f"settings.org_id: {settings.org_id} is not the record's {org_id}")
        current = view.org(org_id)
        version = settings.version
        if current is not None and version <= current.version:
            outcome, reason, version = "ignored", "stale_settings", current.version
        else:
            view.put_org(org_id, settings)
            outcome, reason = "settings_applied", None
        self._outcomes[reason or outcome] += 1
        metrics.SETTINGS.labels(org_id, self._scribe.partition).set(version)
        body = change_audit(self._scribe.partition, record.offset, raw, version, (outcome, reason, []))
        self._scribe.audit(out, record, body)


def _count(opt_outs: list[int], outcomes: Counter[str]) -> None:
    """What was applied is in force for good: count it, and time its opt-outs from the broker's timestamp to here."""
    now = time.time()
    for written_at in opt_outs:
        metrics.ENFORCEMENT.observe(max(0.0, now - written_at / 1000))
    metrics.count_records(_NAME, outcomes)
