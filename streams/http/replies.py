"""Answers of the v2 subscription API."""

from __future__ import annotations

from typing import Any

import orjson
from fastapi import Response

from streams.http.entries import NOT_ADDED, NOT_FOUND, Entry, Fault
from streams.http.intake import Written
from streams.http.owners import as_json

_WAITS = "waits for its verification: the opt-in type of this place is DOUBLE"


def not_found(customer_id: str) -> Fault:
    """Nobody is registered under this id."""
    return Fault(NOT_FOUND, f"customer not found: {customer_id!r:.140} is not registered")


def refused(status: int, faults: list[Fault]) -> Response:
    """Nothing was accepted, and why."""
    errors = [fault.document() for fault in faults]
    answer = as_json({"subscriptions": [], "warnings": [], "errors": errors}, status)
    if status == 503:
        answer.headers["Retry-After"] = "1"
    return answer


def accepted(
    given: dict[str, Any],
    customer_id: str,
    entries: list[Entry],
    written: dict[int, tuple[str, Written]],
    faults: list[Fault],
) -> Response:
    """The request given back, with what was accepted of it and where it is."""
    accepted = [
        {
            **entry.given,
            "index": entry.index,
            "customerId": customer_id,
            "eventId": written[entry.index][0],
            "position": written[entry.index][1]._asdict(),
        }
        for entry in entries
    ]
    warnings = [Fault(NOT_ADDED, f"subscriptions[{e.index}]: {_WAITS}").document() for e in entries if e.waits]
    answer = {**given, "subscriptions": accepted, "warnings": warnings}
    answer["errors"] = [fault.document() for fault in faults]
    answer["positions"] = [one["position"] for one in accepted]
    return as_json(answer)


def together(answers: list[Response], customers: int) -> Response:
    """One answer of several customers' answers. It is as good as the best of them, and says what the others lack."""
    documents = [orjson.loads(answer.body) for answer in answers]
    for document, answer in zip(documents, answers, strict=True):
        document.setdefault("errors", [Fault(answer.status_code, str(document.get("detail"))).document()])
    best = next((document for document in documents if document.get("positions")), None)
    if best is None:
        return answers[0]
    whole: dict[str, Any] = dict(best)
    for name in ("subscriptions", "warnings", "errors", "positions"):
        whole[name] = [one for document in documents for one in document.get(name, [])]
    whole["warnings"].append(Fault(NOT_ADDED, f"the identifier is shared: applied to {customers} customers").document())
    return as_json(whole)
