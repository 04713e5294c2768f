"""The bodies of audit records and decisions: the fields of the schemas, in their order.

Structs, because they are written as JSON in half the time that dictionaries take.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import orjson

from schemas.base import WHOLE_ORG, format_instant
from streams.domain.decisions import Verdict
from streams.domain.orgs import Unset, Weighed

#: Fields of an input that its audit record leaves out (contract section 3).
PRIVATE = frozenset({"identifiers", "proof"})

#: The same of what came by phone: the audit is kept for ever, and has nobody's number.
PRIVATE_INBOUND = frozenset({"from", "text"})

_encode = msgspec.json.Encoder().encode


class _Position(msgspec.Struct, gc=False):
    partition: int
    offset: int


class _ChangeAudit(msgspec.Struct, gc=False, tag_field="record", tag="change"):
    position: _Position
    settings_version: int | None
    outcome: str
    outcome_reason: str | None
    cells: list[dict[str, Any]]
    input: msgspec.Raw


class _Caused(msgspec.Struct, gc=False):
    event_id: str
    event: str
    customer_id: str


class _InboundAudit(msgspec.Struct, gc=False, tag_field="record", tag="inbound"):
    position: _Position
    settings_version: int
    outcome: str
    outcome_reason: str | None
    events: list[_Caused]
    input: dict[str, Any]


class _Input(msgspec.Struct, gc=False):
    source: str
    account_id: str
    opt_in_type: str
    status: str
    pending: bool
    since: str | None
    event_id: str | None
    org_unit_id: int | None


class _DecisionAudit(msgspec.Struct, gc=False, tag_field="record", tag="decision"):
    position: _Position
    settings_version: int | None
    decision: msgspec.Raw
    inputs: list[_Input | msgspec.Raw] | msgspec.Raw


class _Decision(msgspec.Struct, gc=False):
    request_id: str
    decision_id: str
    org_id: int | None
    customer_id: str | None
    channel: str | None
    priority: str | None
    org_unit_id: int | None
    eligible: bool
    reason: str
    policy: str | None
    opt_in_type: str | None
    as_of: _Position
    settings_version: int | None
    campaign_id: int | str | None
    communication_id: int | str | None


def change_audit(
    partition: int,
    offset: int,
    raw: bytes,
    version: int | None,
    outcome: tuple[str, str | None, list[dict[str, Any]]],
) -> bytes:
    """The body of a change's audit record; `raw` is the input, put in as it is (see `must_rewrite`)."""
    what, why, cells = outcome
    return _encode(_ChangeAudit(_Position(partition, offset), version, what, why, cells, msgspec.Raw(raw)))


def inbound_audit(
    partition: int,
    offset: int,
    version: int,
    outcome: tuple[str, str | None],
    document: dict[str, Any],
    caused: list[dict[str, Any]],
) -> bytes:
    """The body of the audit record of what came by phone; neither the caller's number nor the text is in it."""
    what, why = outcome
    events = [_Caused(event["event_id"], event["event"], event["customer_id"]) for event in caused]
    shown = {name: field for name, field in document.items() if name not in PRIVATE_INBOUND}
    return _encode(_InboundAudit(_Position(partition, offset), version, what, why, events, shown))


def must_rewrite(raw: bytes) -> bool:
    """Whether an input cannot stand in its audit record as it came: it may have private fields, or several lines."""
    return b'"proof"' in raw or b'"identifiers"' in raw or b"\\u" in raw or b"\n" in raw or b"\r" in raw


def rewritten(document: dict[str, Any]) -> bytes:
    """An input without its private fields, in one line."""
    return orjson.dumps({name: field for name, field in document.items() if name not in PRIVATE})


def decision_audit(partition: int, offset: int, version: int | None, body: bytes, inputs: Sequence[Weighed]) -> bytes:
    """The body of a decision's audit record: the decision as it is published, and what was weighed."""
    weighed: Any
    if type(inputs) is Unset:
        weighed = inputs.explained
        if weighed is None:
            weighed = inputs.explained = msgspec.Raw(_encode([_weighed(one) for one in inputs]))
    else:
        weighed = [_weighed(one) for one in inputs]
    return _encode(_DecisionAudit(_Position(partition, offset), version, msgspec.Raw(body), weighed))


def _weighed(one: Weighed) -> _Input | msgspec.Raw:
    place, status, pending, dated, org_unit_id = one
    if one is place.unset and place.explained is not None:
        explained: msgspec.Raw = place.explained
        return explained
    document = _Input(
        place.source,
        place.account_id,
        place.opt_in_type,
        status,
        pending,
        None if dated is None else format_instant(dated[0]),
        None if dated is None else dated[2],
        org_unit_id,
    )
    if one is place.unset:
        place.explained = msgspec.Raw(_encode(document))
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
    return _encode(
        _Decision(
            request_id,
            f"{request_id}/{partition}/{offset}",
            known("org_id"),
            known("customer_id"),
            known("channel"),
            known("priority"),
            known("org_unit_id", WHOLE_ORG),
            eligible,
            reason,
            policy,
            opt_in_type,
            _Position(partition, applied),
            version,
            known("campaign_id"),
            known("communication_id"),
        )
    )
