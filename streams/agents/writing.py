"""The records that the agents write, with their headers: audit, decisions, notifications, dead letters, forwards."""

from __future__ import annotations

import logging

from schemas.messages import MessageKind
from streams import metrics, topics
from streams.engine.outputs import Outputs
from streams.engine.records import FORWARDED, POSITION, PROGRESS
from streams.kafka.record_batch import encode_header, encode_headers, header_prefix, varint
from streams.kafka.records import Record
from streams.logs import about
from streams.topics import TopicSpec

log = logging.getLogger(__name__)

_SPEC = ("ce_specversion", b"1.0")
_JSON = ("content-type", b"application/json")
ERROR = "consent.error"

_AUDIT_TYPES = {
    topics.CHANGES.name: b"consent.audit.change",
    topics.REQUESTS.name: b"consent.audit.decision",
    topics.INBOUND.name: b"consent.audit.inbound",
    topics.IDENTITIES.name: b"",  # has no audit: what it says is in that of the change which it comes from
}
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
        self._place_head = f"{source}/{partition}/".encode()
        self._read_from = f"{prefix}{source}"
        self._audit = prefix + topics.AUDIT.name
        self._decisions = prefix + topics.DECISIONS.name
        self._notifications = prefix + topics.NOTIFICATIONS.name
        self._dead = prefix + topics.DEADLETTER.name
        self._prefix = prefix
        audit = [_SPEC, ("ce_type", _AUDIT_TYPES[source]), ("ce_source", b"consent-streams/audit"), _JSON]
        decision = [
            _SPEC,
            ("ce_type", b"eligibility.decision"),
            ("ce_source", b"consent-streams/decisions"),
            _JSON,
        ]
        notification = [
            _SPEC,
            ("ce_type", b"consent.notification"),
            ("ce_source", b"consent-streams/notifications"),
            _JSON,
        ]
        # The audit of a decision, and the decision, end with the progress; other audits with the position before it.
        self._audit_head = header_prefix(audit, POSITION, more=1 if source == topics.REQUESTS.name else 0)
        self._decision_head = header_prefix(decision, POSITION, more=1)
        self._notification_head = header_prefix(notification, POSITION, more=0)
        self.written: dict[str, set[int]] = {}

    def _is_written(self, topic: str, offset: int) -> bool:
        if offset in self.written.get(topic, ()):
            metrics.REPEATED.labels(topic).inc()
            return True
        return False

    def _place_of(self, record: Record) -> bytes:
        """Where the input stands, `{topic}/{partition}/{offset}`."""
        return b"%b%d" % (self._place_head, record.offset)

    def audit(self, out: Outputs, record: Record, body: bytes, *, key: bytes | None = None) -> None:
        """The audit record of an input, under the input's key or another one."""
        if self.written and self._is_written(topics.AUDIT.name, record.offset):
            return
        place = self._place_of(record)
        out.add(self._audit, self.partition, key or record.key, body, (self._audit_head, varint(len(place)), place))

    def decision(
        self, out: Outputs, record: Record, audit: bytes | None, body: bytes | None, progress: bytes
    ) -> None:
        """A decision and its audit record, for the request's own key and partition; None is written already.

        Both have the `progress` of the partition (`progress_header`).
        """
        place = self._place_of(record)
        tail = (varint(len(place)), place, progress)
        if audit is not None:
            out.add(self._audit, self.partition, record.key, audit, (self._audit_head, *tail))
        if body is not None:
            out.add(self._decisions, self.partition, record.key, body, (self._decision_head, *tail))

    def caused(self, out: Outputs, spec: TopicSpec, place: tuple[bytes, int], body: bytes, record: Record) -> None:
        """An event that the record causes in another of our topics, at a place there: a key and its home partition."""
        key, home = place
        headers = [_SPEC, ("ce_type", spec.name.encode()), ("ce_source", self._place_head[:-1]), _JSON]
        headers.append((POSITION, self._place_of(record)))
        out.add(self._prefix + spec.name, home, key, body, (encode_headers(headers),), by=self.partition)

    def notification(self, out: Outputs, record: Record, kind: MessageKind, body: bytes) -> None:
        """The one message that a change causes, for the change's own key and partition."""
        if self.written and self._is_written(topics.NOTIFICATIONS.name, record.offset):
            return
        metrics.of(metrics.NOTIFICATIONS, kind).inc()
        place = self._place_of(record)
        headers = (self._notification_head, varint(len(place)), place)
        out.add(self._notifications, self.partition, record.key, body, headers)

    def dead_letter(self, out: Outputs, record: Record, code: str, message: str) -> None:
        """The record as it came, with Kafka Connect's error headers and our code (contract section 6)."""
        metrics.DEAD_LETTERS.labels(code).inc()
        log.debug("dead letter: %s", code, extra=about(self._source, self.partition, record.offset))
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
        out.add(self._dead, self.partition, record.key, record.value, (encode_headers(headers),))

    def forward(self, out: Outputs, record: Record, home: int) -> None:
        """The record as it came, to its home partition of the same topic."""
        if self.written and self._is_written(self._source, record.offset):
            return
        metrics.MISROUTED.labels(self._source).inc()
        log.debug("sent home, to partition %d", home, extra=about(self._source, self.partition, record.offset))
        headers = encode_headers([*record.headers, (FORWARDED, self._place_of(record))])
        out.add(self._read_from, home, record.key, record.value, (headers,), by=self.partition)


def progress_header(progress: bytes) -> bytes:
    """The header that says how far the requests of a partition are answered, as `audit` and `decision` take it."""
    return encode_header(PROGRESS, progress)
