"""The eligibility agent: every request gets one decision, and every decision its audit."""

from __future__ import annotations

import logging
from collections import Counter
from typing import Any

import orjson

from schemas.eligibility import ECHOED, REQUEST, EligibilityRequest
from streams import metrics, topics
from streams.agents.bodies import decision_audit, decision_body
from streams.agents.fast import reader
from streams.agents.reading import UnreadableError, parse, size_of, validate
from streams.agents.writing import Scribe, progress_header
from streams.domain.decisions import Verdict, decide
from streams.domain.keys import customer_key, partition_of
from streams.domain.state import decode_state
from streams.engine.outputs import Outputs
from streams.engine.partition import Partition
from streams.engine.records import Arrivals, was_forwarded
from streams.engine.requests import Answered, Asked, Progress
from streams.kafka.records import Record
from streams.logs import about

log = logging.getLogger(__name__)

_NAME = topics.REQUESTS.name
_read_request = reader(EligibilityRequest)
#: A wait for what can never come: a position of a partition that this customer's changes are not in.
NEVER = 2**63 - 1


class Unread:
    """A request of which only the id could be read, so that it can be answered all the same."""

    __slots__ = ("document",)

    def __init__(self, document: dict[str, Any]) -> None:
        self.document = document


Question = dict[str, Any] | Unread


class Eligibility:
    """Answers the requests of one partition among `partitions`. `arrived` were sent home to it."""

    def __init__(
        self, scribe: Scribe, arrived: Arrivals, partitions: int, max_bytes: int, max_wait_ms: int
    ) -> None:
        self._scribe = scribe
        self._arrived = arrived
        self._partitions = partitions
        self._max_bytes = max_bytes
        self._max_wait_ms = max_wait_ms

    def read(self, records: list[Record], aside: Outputs) -> list[Asked]:
        """The questions among the records, and the least position that each asks for itself.

        There is none in a record that goes home, or that came home before, or that is a dead letter and has no id to be
        answered by.
        """
        asked: list[Asked] = []
        for record in records:
            _, _, key, value, headers = record
            # Nearly every record is like this; what is not is looked at again, to say what is wrong.
            if key and value and (not headers or not was_forwarded(record)) and size_of(record) <= self._max_bytes:
                request = _read_request(value)
                if request is not None and customer_key(request["org_id"], request["customer_id"]) == key:
                    asked.append((record, request, self._least(request)))
                    continue
            question = self._read_slowly(record, aside)
            if question is not None:
                asked.append((record, question, self._least(question)))
        return asked

    def _read_slowly(self, record: Record, aside: Outputs) -> Question | None:
        if self._arrived.is_repeated(record):
            metrics.of(metrics.RECORDS, _NAME, "repeated").inc()
            return None
        try:
            return self._read(record)
        except UnreadableError as exc:
            if record.key and self._sent_home(record, aside):
                return None
            return self._unreadable(record, exc, aside)

    def _read(self, record: Record) -> dict[str, Any]:
        key = record.key
        if not key:
            raise UnreadableError("missing_key", "the record has no key; it must be {org_id}:{customer_id}")
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
        metrics.of(metrics.RECORDS, _NAME, "misrouted").inc()
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
            metrics.of(metrics.RECORDS, _NAME, "dead_letter").inc()
            return None
        return Unread(document)

    def _least(self, question: Question) -> int:
        """Everything below this must have been weighed, says the request."""
        asked = None if isinstance(question, Unread) else question.get("min_position")
        if asked is None:
            return 0
        return asked["offset"] + 1 if asked["partition"] == self._scribe.partition else NEVER

    def patience(self, question: Question) -> float:
        """How long the request may wait for the state, in seconds; not at all for what never comes."""
        if isinstance(question, Unread):
            return self._max_wait_ms / 1000
        wait = question.get("max_wait_ms")
        if self._least(question) == NEVER:
            return 0.0
        return (self._max_wait_ms if wait is None else wait) / 1000

    def decide(
        self,
        partition: Partition,
        asked: list[Asked],
        progress: Progress,
        out: Outputs,
        aside: Outputs,
        *,
        behind: bool,
    ) -> list[Answered]:
        """Audit records and decisions of all that is asked, at one position of the state."""
        mark = progress_header(progress.header())
        states = partition.states(list({record.key for record, _, _ in asked if record.key}))
        promised = progress.promised
        reasons: Counter[str] = Counter()
        number = self._scribe.partition
        answers: list[Answered] = []
        for record, question, _ in asked:
            offset, _, key, _, _ = record
            if offset in promised:
                audit, body = None, promised[offset]
            else:
                state = states.get(key or b"")
                # A key with a state here is at home, which saves hashing it.
                if state is None and not isinstance(question, Unread) and self._sent_home(record, aside):
                    answers.append((offset, None))
                    continue
                verdict, version = self._verdict(partition, state, question, behind)
                body = self._body(partition, offset, question, verdict, version)
                reasons[verdict.reason] += 1
                audit = decision_audit(number, offset, version, body, verdict.inputs)
            self._scribe.decision(out, record, audit, body, mark)
            answers.append((offset, body))
        metrics.count_records(_NAME, {"decided": reasons.total()})
        for reason, count in reasons.items():
            metrics.count(metrics.of(metrics.DECISIONS, reason), count)
        return answers

    def explain(self, partition: Partition, record: Record, published: bytes, progress: Progress, out: Outputs) -> None:
        """The audit record of a decision that was published without, from the state at its `as_of`."""
        question = self._read_slowly(record, Outputs())
        if question is None:
            return
        key = record.key or b""
        behind = orjson.loads(published)["reason"] == "state_behind"
        verdict, version = self._verdict(partition, partition.states([key])[key], question, behind)
        again = self._body(partition, record.offset, question, verdict, version)
        if again != published:
            place = about(_NAME, partition.number, record.offset)
            log.warning("computed again, the decision is another one", extra=place)
        audit = decision_audit(partition.number, record.offset, version, published, verdict.inputs)
        self._scribe.decision(out, record, audit, None, progress_header(progress.header()))

    @staticmethod
    def _verdict(
        partition: Partition, state: bytes | None, question: Question, behind: bool
    ) -> tuple[Verdict, int | None]:
        if isinstance(question, Unread):
            return Verdict(False, "invalid_request", None, None, []), None
        org = partition.org(question["org_id"])
        version = None if org is None else org.version
        if behind:
            return Verdict(False, "state_behind", None, None, []), version
        return decide(org, decode_state(state), question), version

    @staticmethod
    def _body(partition: Partition, offset: int, question: Question, verdict: Verdict, version: int | None) -> bytes:
        request = _echo(question.document) if isinstance(question, Unread) else question
        return decision_body(request, partition.number, offset, partition.applied, verdict, version)


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
