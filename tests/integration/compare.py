"""A world that a worker has worked off, held against the slow model: everything that must hold, fault by fault."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from streams.domain import cells
from streams.domain.state import ERASED, REGISTERED, decode_state, parse_cell_key
from streams.engine.records import FORWARDED, POSITION
from tests.integration.harness import (
    AUDIT,
    CHANGELOG,
    CHANGES,
    DEADLETTER,
    DECISIONS,
    NOTIFICATIONS,
    REQUESTS,
    Doc,
    Place,
    Record,
    World,
)
from tests.model import messages
from tests.model.settings import Doc as Settings
from tests.model.slow import SlowModel

DECIDED = ("eligible", "reason", "policy", "opt_in_type", "settings_version")
AUDITED = ("outcome", "outcome_reason", "settings_version", "cells")
NOT_AUDITED = ("identifiers", "proof")
SHOWN = 20

LOST, REPEATED, INVENTED, WRONG, STALE = "lost", "repeated", "invented", "wrong", "stale"
#: The one repetition that the README allows: a record that was forwarded twice. It counts once all the same: a change
#: by its id, and of a request only the first copy is answered.
FORWARDED_TWICE = "forwarded twice"


class Fault(NamedTuple):
    """A difference: what is broken (`state`, `decisions`, `audit`, `dead letters`, ...), how, and where."""

    about: str
    kind: str
    text: str

    def __str__(self) -> str:
        return f"{self.about}, {self.kind}: {self.text}"


def counted(about: str, found: int, wanted: int, text: str) -> Iterator[Fault]:
    """The fault of finding another number than is wanted, if there is one."""
    if found < wanted:
        yield Fault(about, LOST, f"{text}: {found} of {wanted} {about}")
    elif found > wanted:
        yield Fault(about, REPEATED if wanted else INVENTED, f"{text}: {found} {about}, should be {wanted}")


class Comparison:
    """Reads everything once. `ends`: by request id, the end of its partition acknowledged before it was written.

    `late`: any request may have run out of time; else only those that asked for haste. `numbers`: the partitions to
    look at, if the world has not all; `copies` then are the records that were forwarded from them to others.
    """

    def __init__(
        self,
        world: World,
        ends: Mapping[str, int] | None = None,
        *,
        late: bool = False,
        numbers: Iterable[int] | None = None,
        copies: Iterable[tuple[str, Record]] = (),
    ) -> None:
        self.world = world
        self._copies = copies
        self.late = late
        self.ends = ends or {}
        for topic in (CHANGES, REQUESTS, DECISIONS, AUDIT, NOTIFICATIONS, DEADLETTER, CHANGELOG):
            world.read(topic)
        self._numbers = range(world.config.partitions) if numbers is None else tuple(numbers)
        self.models = [self._model(number) for number in self._numbers]
        self.audits = self._audits()
        self.notifications = self._notifications()
        self.dead = self._dead_letters()
        self.forwards = self._forwards()
        self.decisions = self._decisions()
        self.repetitions = self._repetitions()
        self.seen: Counter[Any] = Counter()

    def _model(self, number: int) -> SlowModel:
        return SlowModel(number, self.world.config.partitions, self.world.config.max_record_bytes)

    def _log(self, topic: str) -> list[Record]:
        return self.world.log(topic).records

    def _audits(self) -> dict[tuple[str, Place], list[Record]]:
        found = defaultdict(list)
        for record in self._log(AUDIT):
            body = record.body
            found[body["record"], Place(**body["position"])].append(record)
        return found

    def _notifications(self) -> dict[Place, list[Record]]:
        found = defaultdict(list)
        for record in self._log(NOTIFICATIONS):
            found[Place(**record.body["position"])].append(record)
        return found

    def _dead_letters(self) -> dict[tuple[str, Place], list[Record]]:
        found = defaultdict(list)
        for record in self._log(DEADLETTER):
            topic, partition, offset = (
                record.header(f"__connect.errors.{name}") or "-1" for name in ("topic", "partition", "offset")
            )
            name = topic.removeprefix(self.world.config.topic_prefix)
            found[name, Place(int(partition), int(offset))].append(record)
        return found

    def _forwards(self) -> dict[tuple[str, Place], list[Record]]:
        found = defaultdict(list)
        for topic, record in (*forwarded(self.world), *self._copies):
            origin = origin_of(record)
            if origin.partition in self._numbers:
                found[topic, origin].append(record)
        return found

    def _repetitions(self) -> set[Place]:
        """Requests that came home before: from the same place, the same record."""
        first: dict[Any, Record] = {}
        copies = [request for request in self._log(REQUESTS) if request.header(FORWARDED) is not None]
        for copy in sorted(copies, key=lambda record: record.offset):
            first.setdefault((copy.partition, copy.header(FORWARDED), copy.key, copy.value), copy)
        return {copy.place for copy in copies} - {copy.place for copy in first.values()}

    def _decisions(self) -> dict[Place, list[Record]]:
        """By the place of the request, which their CloudEvents id names."""
        found = defaultdict(list)
        for record in self._log(DECISIONS):
            _, partition, offset = (record.header(POSITION) or "/-1/-1").split("/")
            found[Place(int(partition), int(offset))].append(record)
        return found

    def faults(self) -> list[Fault]:
        """Every difference from the model and from what is promised; empty: all is well."""
        return [*self._request_faults(), *self._change_faults(), *self._state_faults(), *self._stray_faults()]

    def check(self) -> None:
        """Fail with the faults, one a line."""
        faults = self.faults()
        assert not faults, f"{len(faults)} faults:\n" + "\n".join(map(str, faults[:SHOWN]))

    # -- requests, each at its own position of the changes --

    def _request_faults(self) -> Iterator[Fault]:
        ids = Counter(body["decision_id"] for body in (record.body for record in self._log(DECISIONS)))
        for name, times in ids.items():
            yield from counted("decisions", times, 1, f"decision_id {name}")
        for number in self._numbers:
            model = self._model(number)
            changes = iter([*self.world.log(CHANGES).of(number), None])
            change = next(changes)
            for request, as_of in sorted(self._positions(number), key=lambda found: (found[1], found[0].offset)):
                while change is not None and change.offset < as_of:
                    model.apply(change.offset, change.timestamp, change.key, change.value)
                    change = next(changes)
                model.position = as_of
                yield from self._answer_faults(request, model.answer(request.key, request.value))

    def _positions(self, number: int) -> Iterator[tuple[Record, int]]:
        """The requests of a partition, each with the position that its decision names; 0 where there is none."""
        for request in self.world.log(REQUESTS).of(number):
            found = self.decisions.get(request.place)
            yield request, found[0].body["as_of"]["offset"] if found else 0

    def _answer_faults(self, request: Record, told: Doc) -> Iterator[Fault]:
        at = f"request {request.place}"
        dead, audits = self.dead[REQUESTS, request.place], self.audits["decision", request.place]
        found = self.decisions[request.place]
        if request.place in self.repetitions:
            told = {"kind": "repetition"}
        self.seen["request", told.get("reason") or told.get("code") or told["kind"]] += 1
        if told["kind"] == "forward":
            yield from self._forward_faults(REQUESTS, request, told["to"])
            return
        yield from counted("forwards", len(self.forwards.get((REQUESTS, request.place), ())), 0, at)
        is_bad = told["kind"] == "deadletter" or told.get("reason") == "invalid_request"
        is_answered = told["kind"] not in ("deadletter", "repetition")
        yield from counted("dead letters", len(dead), is_bad, f"{at} ({told})")
        yield from counted("decisions", len(found), is_answered, f"{at} {request.value!r:.200}")
        yield from counted("audit", len(audits), is_answered, f"{at} {request.value!r:.200}")
        if not is_answered or not found or not audits:
            return
        decision, audit = found[0].body, audits[0].body
        if decision["reason"] == "state_behind" and (self.late or "max_wait_ms" in request.body):
            return  # its own time was up; the model knows no time
        yield from self._decision_faults(at, request, decision, told)
        if audit["decision"] != decision:
            yield Fault("audit", WRONG, f"{at}: audited as {audit['decision']}, decided as {decision}")
        if audit["inputs"] != told["inputs"]:
            yield Fault("audit", WRONG, f"{at}: inputs {audit['inputs']}, should be {told['inputs']}")
        if found[0].key != request.key or audits[0].key != request.key:
            yield Fault("decisions", WRONG, f"{at}: keys of decision and audit {found[0].key!r}, {audits[0].key!r}")

    def _decision_faults(self, at: str, request: Record, decision: Doc, told: Doc) -> Iterator[Fault]:
        wrong = {name: (decision[name], told[name]) for name in DECIDED if decision[name] != told[name]}
        if wrong or decision["request_id"] != request.body["request_id"]:
            text = f"{at} as of {decision['as_of']}: (decided, model) {wrong}; {request.value!r:.300}"
            yield Fault("decisions", WRONG, text)
        # Late, never stale: the one answer that may stand below the fence is the one that says so.
        least = 0 if decision["reason"] == "state_behind" else self.ends.get(decision["request_id"], 0)
        if decision["as_of"]["partition"] != request.partition or decision["as_of"]["offset"] < least:
            text = f"{at}: as_of {decision['as_of']}, but {least} was acknowledged before"
            yield Fault("decisions", STALE, text)

    def _forward_faults(self, topic: str, record: Record, home: int) -> Iterator[Fault]:
        at = f"misrouted {topic} {record.place}"
        copies = self.forwards[topic, record.place]
        if len(copies) > 1:
            yield Fault("forwards", FORWARDED_TWICE, f"{at}: sent to {[copy.place for copy in copies]}")
        else:
            yield from counted("forwards", len(copies), 1, at)
        if any(copy.partition != home for copy in copies):
            yield Fault("forwards", WRONG, f"{at}: sent to {[copy.place for copy in copies]}, home is {home}")
        if any((copy.key, copy.value) != (record.key, record.value) for copy in copies):
            yield Fault("forwards", WRONG, f"{at}: changed on its way")
        kind = "change" if topic == CHANGES else "decision"
        if self.audits[kind, record.place] or self.dead[topic, record.place] or (
            topic == REQUESTS and self.decisions[record.place]
        ):  # fmt: skip
            yield Fault("forwards", INVENTED, f"{at}: also worked on in place")

    # -- changes --

    def _change_faults(self) -> Iterator[Fault]:
        for model in self.models:
            for record in self.world.log(CHANGES).of(model.partition):
                told = model.apply(record.offset, record.timestamp, record.key, record.value) or {}
                self.seen["change", told.get("outcome_reason") or told.get("outcome") or told.get("code")] += 1
                yield from self._outcome_faults(record, told)
                yield from self._message_faults(record, model)

    def _outcome_faults(self, record: Record, told: Doc) -> Iterator[Fault]:
        at = f"change {record.place} {record.key!r}"
        if told["kind"] == "forward":
            yield from self._forward_faults(CHANGES, record, told["to"])
            return
        yield from counted("forwards", len(self.forwards.get((CHANGES, record.place), ())), 0, at)
        audits, dead = self.audits["change", record.place], self.dead[CHANGES, record.place]
        is_good = told["kind"] == "audit"
        yield from counted("audit", len(audits), is_good, f"{at} ({told}) {record.value!r:.300}")
        yield from counted("dead letters", len(dead), not is_good, f"{at} ({told}) {record.value!r:.300}")
        if is_good and audits:
            yield from self._audit_faults(at, record, audits[0], told)
        elif dead and not is_good and (dead[0].header("consent.error"), dead[0].value) != (told["code"], record.value):
            yield Fault("dead letters", WRONG, f"{at}: {dead[0].header('consent.error')}, should be {told['code']}")

    @staticmethod
    def _audit_faults(at: str, record: Record, audit: Record, told: Doc) -> Iterator[Fault]:
        body = audit.body
        wrong = {name: (body[name], told[name]) for name in AUDITED if body[name] != told[name]}
        if wrong:
            yield Fault("audit", WRONG, f"{at}: (audited, model) {wrong}; {record.value!r:.300}")
        if body["input"] != {name: field for name, field in record.body.items() if name not in NOT_AUDITED}:
            yield Fault("audit", WRONG, f"{at}: input {body['input']}")
        if (audit.partition, audit.key) != (record.partition, record.key):
            yield Fault("audit", WRONG, f"{at}: audit in {audit.place} under {audit.key!r}")

    def _message_faults(self, record: Record, model: SlowModel) -> Iterator[Fault]:
        at, told, found = f"change {record.place}", model.message, self.notifications[record.place]
        yield from counted("notifications", len(found), told is not None, f"{at} ({told})")
        if told is not None and found:
            event, notification = record.body, found[0]
            self.seen["message", notification.body["kind"]] += 1
            faults = messages.faults(model.settings[event["org_id"]], event, told, notification.body)
            yield from (Fault("notifications", WRONG, f"{at}: {fault}") for fault in faults)
            if (notification.partition, notification.key) != (record.partition, record.key):
                yield Fault("notifications", WRONG, f"{at}: at {notification.place} under {notification.key!r}")

    # -- state --

    def _state_faults(self) -> Iterator[Fault]:
        """The folded changelog, against the models after everything."""
        for model in self.models:
            folded = {record.key: record.value for record in self.world.log(CHANGELOG).of(model.partition)}
            stored = {key: value for key, value in folded.items() if key and value and key[0]}
            orgs = {f"{org_id}:".encode(): doc for org_id, doc in model.settings.items()}
            customers = {f"{org}:{name}".encode(): (org, name) for org, name in model.customers}
            if set(stored) != set(orgs) | set(customers):
                differ = set(stored) ^ (set(orgs) | set(customers))
                yield Fault("state", WRONG, f"partition {model.partition}: keys differ by {differ}")
                continue
            versions = {key: json.loads(stored[key])["version"] for key in orgs}
            stale = [key for key, doc in orgs.items() if versions[key] != doc["version"]]
            yield from (Fault("state", WRONG, f"settings {key!r} in {model.partition}") for key in stale)
            for key, who in customers.items():
                mine, theirs = plain(stored[key]), _model_state(model, *who)
                if mine != theirs:
                    yield Fault("state", WRONG, f"{key!r} in {model.partition}: {mine}, should be {theirs}")

    def _stray_faults(self) -> Iterator[Fault]:
        """Outputs of inputs that are not there."""
        inputs = {(topic, record.place) for topic in (CHANGES, REQUESTS) for record in self._log(topic)}
        causes = {"change": CHANGES, "decision": REQUESTS}
        outputs = [
            *(("audit", (causes[kind], place)) for kind, place in self.audits),
            *(("notifications", (CHANGES, place)) for place in self.notifications),
            *(("dead letters", at) for at in self.dead),
            *(("decisions", (REQUESTS, place)) for place in self.decisions),
            *(("forwards", at) for at in self.forwards),
        ]
        # Looking for what is not there leaves empty lists behind, for inputs that are there.
        for about, at in outputs:
            if at not in inputs:
                yield Fault(about, INVENTED, f"of {at}, which is not there")


def forwarded(world: World) -> Iterator[tuple[str, Record]]:
    """The records that came from another partition, with their topics."""
    for topic in (CHANGES, REQUESTS):
        yield from ((topic, r) for r in world.log(topic).records if r.header(FORWARDED) is not None)


def origin_of(copy: Record) -> Place:
    """Where the record was found that this is a copy of."""
    _, partition, offset = (copy.header(FORWARDED) or "").split("/")
    return Place(int(partition), int(offset))


def plain(value: bytes) -> Doc:
    """A stored state in the model's words."""
    state = decode_state(value)
    assert state is not None
    about, found = state.about, {}
    for key, cell in state.cells().items():
        newest, pending = cells.winner(cell), cell[1]
        if newest is not None or pending is not None:
            found[parse_cell_key(key)] = (
                cells.status(newest),
                newest and (newest[0], newest[2]),
                pending and pending[1],
            )
    return {
        "registered": about["r"] == REGISTERED,
        "erased": about["r"] == ERASED,
        "identifiers": about.get("i", {}),
        "language": about.get("l"),
        "cells": found,
    }


def _model_state(model: SlowModel, org_id: int, customer: str) -> Doc:
    state: Settings = model.state(org_id, customer) or {}
    found = {}
    for place, cell in state["cells"].items():
        newest = cell["entries"][-1] if cell["entries"] else None
        if newest is not None or cell["pending"] is not None:
            found[place] = (cell["status"], newest and (newest[1], newest[2]), cell["pending"])
    return state | {"cells": found}
