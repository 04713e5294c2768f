"""The records that the agents write: audit, decisions, dead letters, forwarded ones, and their headers."""

from __future__ import annotations

from typing import Any

import orjson

from schemas.base import format_instant
from schemas.settings import WHOLE_ORG
from streams import metrics, topics
from streams.domain.decisions import Verdict
from streams.domain.orgs import Weighed
from streams.engine.outputs import Outputs
from streams.engine.records import FORWARDED, POSITION, PROGRESS, Record

_JSON = ("content-type", b"application/json")
_SPEC = ("ce_specversion", b"1.0")
ERROR = "consent.error"

_STAGES = {
    "missing_key": b"KEY_CONVERTER",
    "key_mismatch": b"KEY_CONVERTER",
    "malformed_json": b"VALUE_CONVERTER",
    "not_utf8": b"VALUE_CONVERTER",
    "too_large": b"VALUE_CONVERTER",
}


class Scribe:
    """Writes the records that one topic's partition causes. `written` are outputs that a restart found in place."""

    def __init__(self, source: str, partition: int, prefix: str) -> None:
        self.partition = partition
        self._source = source
        self._place = f"{source}/{partition}/"
        self._read_from = f"{prefix}{source}"
        self._audit = prefix + topics.AUDIT.name
        self._decisions = prefix + topics.DECISIONS.name
        self._dead = prefix + topics.DEADLETTER.name
        kind = b"change" if source == topics.CHANGES.name else b"decision"
        self._audit_head = [
            _SPEC,
            ("ce_type", b"consent.audit." + kind),
            ("ce_source", b"consent-streams/audit"),
            _JSON,
        ]
        self._decision_head = [
            _SPEC,
            ("ce_type", b"eligibility.decision"),
            ("ce_source", b"consent-streams/decisions"),
            _JSON,
        ]
        self.written: dict[str, set[int]] = {}

    def _is_written(self, topic: str, offset: int) -> bool:
        if offset in self.written.get(topic, ()):
            metrics.REPEATED.labels(topic).inc()
            return True
        return False

    def audit(self, out: Outputs, record: Record, body: bytes, progress: bytes | None = None) -> None:
        """The audit record of a change or of a decision."""
        if self.written and self._is_written(topics.AUDIT.name, record.offset):
            return
        place = (POSITION, f"{self._place}{record.offset}".encode())
        headers = [*self._audit_head, place]
        if progress is not None:
            headers.append((PROGRESS, progress))
        out.add(self._audit, self.partition, record.key, body, headers)

    def decision(self, out: Outputs, record: Record, body: bytes, progress: bytes) -> None:
        """A decision, for the request's own key and partition."""
        place = (POSITION, f"{self._place}{record.offset}".encode())
        headers = [*self._decision_head, place, (PROGRESS, progress)]
        out.add(self._decisions, self.partition, record.key, body, headers)

    def dead_letter(self, out: Outputs, record: Record, code: str, message: str) -> None:
        """The record as it came, with Kafka Connect's error headers and our code (contract section 6)."""
        metrics.DEAD_LETTERS.labels(code).inc()
        if self.written and self._is_written(topics.DEADLETTER.name, record.offset):
            return
        headers = [
            *record.headers,
            ("__connect.errors.topic", self._read_from.encode()),
            ("__connect.errors.partition", b"%d" % self.partition),
            ("__connect.errors.offset", b"%d" % record.offset),
            ("__connect.errors.stage", _STAGES.get(code, b"TRANSFORMATION")),
            ("__connect.errors.exception.class.name", b"consent_streams." + code.encode()),
            ("__connect.errors.exception.message", message.encode()),
            (ERROR, code.encode()),
        ]
        out.add(self._dead, self.partition, record.key, record.value, headers)

    def forward(self, out: Outputs, record: Record, home: int) -> None:
        """The record as it came, to its home partition of the same topic."""
        if self.written and self._is_written(self._source, record.offset):
            return
        metrics.MISROUTED.labels(self._source).inc()
        mark = (FORWARDED, f"{self._place}{record.offset}".encode())
        out.add(self._read_from, home, record.key, record.value, [*record.headers, mark])


def change_audit(
    partition: int,
    offset: int,
    raw: bytes,
    version: int | None,
    outcome: tuple[str, str | None, list[dict[str, Any]]],
) -> bytes:
    """The body of a change's audit record; `raw` is the input, put in as it is (see `must_rewrite`)."""
    return orjson.dumps(
        {
            "record": "change",
            "position": {"partition": partition, "offset": offset},
            "settings_version": version,
            "outcome": outcome[0],
            "outcome_reason": outcome[1],
            "cells": outcome[2],
            "input": orjson.Fragment(raw),
        }
    )


#: Fields of an input that its audit record leaves out (contract section 3).
PRIVATE = frozenset({"identifiers", "proof"})


def must_rewrite(raw: bytes) -> bool:
    """Whether an input cannot stand in its audit record as it came: it may have private fields, or several lines."""
    return b'"proof"' in raw or b'"identifiers"' in raw or b"\\u" in raw or b"\n" in raw or b"\r" in raw


def rewritten(document: dict[str, Any]) -> bytes:
    """An input without its private fields, in one line."""
    return orjson.dumps({name: field for name, field in document.items() if name not in PRIVATE})


def decision_audit(partition: int, record: Record, version: int | None, body: bytes, inputs: list[Weighed]) -> bytes:
    """The body of a decision's audit record: the decision as it is published, and what was weighed."""
    return orjson.dumps(
        {
            "record": "decision",
            "position": {"partition": partition, "offset": record.offset},
            "settings_version": version,
            "decision": orjson.Fragment(body),
            "inputs": [_weighed(one) for one in inputs],
        }
    )


def _weighed(one: Weighed) -> Any:
    place, status, pending, dated, org_unit_id = one
    if one is place.unset and place.explained is not None:
        return place.explained
    document = {
        "source": place.source,
        "account_id": place.account_id,
        "opt_in_type": place.opt_in_type,
        "status": status,
        "pending": pending,
        "since": None if dated is None else format_instant(dated[0]),
        "event_id": None if dated is None else dated[2],
        "org_unit_id": org_unit_id,
    }
    if one is place.unset:
        place.explained = orjson.Fragment(orjson.dumps(document))
    return document


def decision_body(
    request: dict[str, Any], partition: int, offset: int, applied: int, verdict: Verdict, version: int | None
) -> bytes:
    """The body of a decision on the request at an offset, made when everything below `applied` was weighed.

    `request` may lack any field but its id: what is not known is null.
    """
    known = request.get
    request_id = request["request_id"]
    eligible, reason, policy, opt_in_type, _ = verdict
    return orjson.dumps(
        {
            "request_id": request_id,
            "decision_id": f"{request_id}/{partition}/{offset}",
            "org_id": known("org_id"),
            "customer_id": known("customer_id"),
            "channel": known("channel"),
            "priority": known("priority"),
            "org_unit_id": known("org_unit_id", WHOLE_ORG),
            "eligible": eligible,
            "reason": reason,
            "policy": policy,
            "opt_in_type": opt_in_type,
            "as_of": {"partition": partition, "offset": applied},
            "settings_version": version,
            "campaign_id": known("campaign_id"),
            "communication_id": known("communication_id"),
        }
    )
