"""The records that the agents write, with their headers: audit, decisions, dead letters, forwarded ones."""

from __future__ import annotations

from streams import metrics, topics
from streams.engine.outputs import Outputs
from streams.engine.records import FORWARDED, POSITION, PROGRESS, Record
from streams.engine.wire import encode_header, encode_headers, header_prefix, varint

_SPEC = ("ce_specversion", b"1.0")
_JSON = ("content-type", b"application/json")
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
        self._place_head = f"{source}/{partition}/".encode()
        self._read_from = f"{prefix}{source}"
        self._audit = prefix + topics.AUDIT.name
        self._decisions = prefix + topics.DECISIONS.name
        self._dead = prefix + topics.DEADLETTER.name
        change = source == topics.CHANGES.name
        audit = [
            _SPEC,
            ("ce_type", b"consent.audit.change" if change else b"consent.audit.decision"),
            ("ce_source", b"consent-streams/audit"),
            _JSON,
        ]
        decision = [
            _SPEC,
            ("ce_type", b"eligibility.decision"),
            ("ce_source", b"consent-streams/decisions"),
            _JSON,
        ]
        # The audit of a change ends with its position, everything else with the progress behind it.
        self._audit_head = header_prefix(audit, POSITION, more=0 if change else 1)
        self._decision_head = header_prefix(decision, POSITION, more=1)
        self.written: dict[str, set[int]] = {}

    def _is_written(self, topic: str, offset: int) -> bool:
        if offset in self.written.get(topic, ()):
            metrics.REPEATED.labels(topic).inc()
            return True
        return False

    def _place_of(self, record: Record) -> bytes:
        """Where the input stands, `{topic}/{partition}/{offset}`."""
        return b"%b%d" % (self._place_head, record.offset)

    def audit(self, out: Outputs, record: Record, body: bytes, progress: bytes = b"") -> None:
        """The audit record of a change; or of a decision, with the `progress` of its partition (`progress_header`)."""
        if self.written and self._is_written(topics.AUDIT.name, record.offset):
            return
        place = self._place_of(record)
        out.add(self._audit, self.partition, record.key, body, (self._audit_head, varint(len(place)), place, progress))

    def decision(self, out: Outputs, record: Record, body: bytes, progress: bytes) -> None:
        """A decision, for the request's own key and partition."""
        place = self._place_of(record)
        headers = (self._decision_head, varint(len(place)), place, progress)
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
        out.add(self._dead, self.partition, record.key, record.value, (encode_headers(headers),))

    def forward(self, out: Outputs, record: Record, home: int) -> None:
        """The record as it came, to its home partition of the same topic."""
        if self.written and self._is_written(self._source, record.offset):
            return
        metrics.MISROUTED.labels(self._source).inc()
        mark = (FORWARDED, self._place_of(record))
        out.add(self._read_from, home, record.key, record.value, (encode_headers([*record.headers, mark]),))


def progress_header(progress: bytes) -> bytes:
    """The header that says how far the requests of a partition are answered, as `audit` and `decision` take it."""
    return encode_header(PROGRESS, progress)
