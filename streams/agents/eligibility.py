"""The eligibility agent: every request gets one decision, and every decision its audit."""

from __future__ import annotations

from collections import Counter
from typing import Any

import orjson

from schemas.eligibility import ECHOED, REQUEST
from streams import metrics, topics
from streams.agents.reading import UnreadableError, checked_size, parse, read_fast, validate
from streams.agents.writing import Scribe, decision_audit, decision_body
from streams.domain.decisions import Verdict, decide
from streams.domain.keys import customer_key, partition_of
from streams.domain.state import State, decode_state
from streams.engine.outputs import Outputs
from streams.engine.partition import Partition
from streams.engine.records import Record, was_forwarded
from streams.engine.requests import Parked, Progress

_NAME = topics.REQUESTS.name
#: A wait for what can never come: a position of a partition that this customer's changes are not in.
NEVER = 2**63 - 1


class Unread:
    """A request of which only the id could be read, so that it can be answered all the same."""

    __slots__ = ("document",)

    def __init__(self, document: dict[str, Any]) -> None:
        self.document = document


Question = dict[str, Any] | Unread


class Eligibility:
    """Answers the requests of one partition among `partitions`."""

    def __init__(self, scribe: Scribe, partitions: int, max_bytes: int, max_wait_ms: int) -> None:
        self._scribe = scribe
        self._partitions = partitions
        self._max_bytes = max_bytes
        self._max_wait_ms = max_wait_ms

    def read(self, record: Record, out: Outputs) -> Question | None:
        """The question; None if there is none to answer here: it went home, or is a dead letter without an id."""
        try:
            return self._read(record)
        except UnreadableError as exc:
            if record.key and self._sent_home(record, out):
                return None
            return self._unreadable(record, exc, out)

    def _read(self, record: Record) -> dict[str, Any]:
        key = record.key
        if not key:
            raise UnreadableError("missing_key", "the record has no key; it must be {org_id}:{customer_id}")
        value = checked_size(record, self._max_bytes)
        request = read_fast(value, REQUEST)
        if request is None:
            request = validate(parse(record, self._max_bytes), REQUEST)
        own = customer_key(request["org_id"], request["customer_id"])
        if own != key:
            raise UnreadableError("key_mismatch", f"key: {key!r:.300} is not the record's own {own!r:.300}", request)
        if record.headers and was_forwarded(record) and not self._is_home(key):
            raise UnreadableError("key_mismatch", "key: not its partition, and it was sent home before", request)
        return request

    def _is_home(self, key: bytes) -> bool:
        return partition_of(key, self._partitions) == self._scribe.partition

    def _sent_home(self, record: Record, out: Outputs) -> bool:
        """Send a record home if this is not its partition and it was not sent before (contract section 1)."""
        home = partition_of(record.key or b"", self._partitions)
        if home == self._scribe.partition or was_forwarded(record):
            return False
        metrics.RECORDS.labels(_NAME, "misrouted").inc()
        self._scribe.forward(out, record, home)
        return True

    def _unreadable(self, record: Record, error: UnreadableError, out: Outputs) -> Question | None:
        """A dead letter; and, where the request can be named, a decision all the same (domain section 5)."""
        self._scribe.dead_letter(out, record, error.code, str(error))
        document = error.document
        if document is None and record.value is not None and error.code == "missing_key":
            document = _document_of(record)
        request_id = None if document is None else document.get("request_id")
        if document is None or not isinstance(request_id, str) or not 1 <= len(request_id) <= 128:
            metrics.RECORDS.labels(_NAME, "dead_letter").inc()
            return None
        return Unread(document)

    def limits(self, question: Question) -> tuple[int | None, float]:
        """The least position the request asks for, and how long it may wait, in seconds."""
        if isinstance(question, Unread):
            return None, self._max_wait_ms / 1000
        asked = question.get("min_position")
        wait = question.get("max_wait_ms")
        seconds = (self._max_wait_ms if wait is None else wait) / 1000
        if asked is None:
            return None, seconds
        if asked["partition"] != self._scribe.partition:
            return NEVER, 0.0
        return asked["offset"] + 1, seconds

    def decide(
        self, partition: Partition, ready: list[Parked], progress: Progress
    ) -> tuple[Outputs, Outputs]:
        """Audit records and decisions of all the ready requests, at one position of the state."""
        audits, decisions = Outputs(), Outputs()
        mark = progress.header()
        states = _States(partition, ready)
        reasons: Counter[str] = Counter()
        number, applied = self._scribe.partition, partition.applied
        for parked in ready:
            record, question = parked.record, parked.question
            if progress.promised and record.offset in progress.promised:
                body = progress.promised[record.offset]
            elif self._is_foreign(states, record, question) and self._sent_home(record, audits):
                continue
            else:
                verdict, version = self._verdict(partition, states, parked)
                request = _echo(question.document) if isinstance(question, Unread) else question
                body = decision_body(request, number, record.offset, applied, verdict, version)
                reasons[verdict.reason] += 1
                self._scribe.audit(audits, record, decision_audit(number, record, version, body, verdict.inputs), mark)
            self._scribe.decision(decisions, record, body, mark)
            parked.answer = body
        metrics.RECORDS.labels(_NAME, "decided").inc(reasons.total())
        for reason, count in reasons.items():
            metrics.DECISIONS.labels(reason).inc(count)
        return audits, decisions

    def _is_foreign(self, states: _States, record: Record, question: Question) -> bool:
        """Whether the request may belong elsewhere. A key with a state here is at home, which saves hashing it."""
        key = record.key
        return bool(key) and not isinstance(question, Unread) and not states.knows(key)

    @staticmethod
    def _verdict(partition: Partition, states: _States, parked: Parked) -> tuple[Verdict, int | None]:
        request: Question = parked.question
        if isinstance(request, Unread):
            return Verdict(False, "invalid_request", None, None, []), None
        org = partition.org(request["org_id"])
        version = None if org is None else org.version
        if parked.needs > partition.applied:
            return Verdict(False, "state_behind", None, None, []), version
        return decide(org, states[parked.record.key or b""], request), version


class _States:
    """The states that a group of requests asks about: read in one go, decoded once each."""

    def __init__(self, partition: Partition, ready: list[Parked]) -> None:
        keys = {p.record.key for p in ready if p.record.key and type(p.question) is not Unread}
        self._raw = partition.states(list(keys)) if keys else {}
        self._decoded: dict[bytes, State | None] = {}

    def knows(self, key: bytes | None) -> bool:
        """Whether there is a state under this key."""
        return self._raw.get(key or b"") is not None

    def __getitem__(self, key: bytes) -> State | None:
        if key not in self._decoded:
            self._decoded[key] = decode_state(self._raw[key])
        return self._decoded[key]


def _echo(document: dict[str, Any]) -> dict[str, Any]:
    """What can be given back of a request that did not pass: the fields that by themselves are right."""
    return {
        name: document[name]
        for name, schema in ECHOED.items()
        if name in document and schema.validator.isinstance_python(document[name], strict=True)
    }


def _document_of(record: Record) -> dict[str, Any] | None:
    try:
        document = orjson.loads(record.value or b"")
    except orjson.JSONDecodeError:
        return None
    return document if isinstance(document, dict) else None
