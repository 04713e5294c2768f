"""How a record is read, and what it cannot be read without."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel, TypeAdapter, ValidationError

from schemas import base, deadletter, eligibility
from schemas.export import RECORDS
from schemas.subscriptions import LegacyRequest, SubscriptionRequest

Doc = dict[str, Any]

FILE = Path(__file__).parent / "records.ndjson"
WORDS_FILE = Path(__file__).parent / "words.json"
UNIONS = {"consent.changes", "consent.inbound", "consent.audit"}
_HTTP = {"v2 request": SubscriptionRequest, "v1.1 request": LegacyRequest}
ADAPTERS: dict[str, TypeAdapter[Any]] = {
    name: TypeAdapter(record)
    for name, record in ({name: record for name, (_, record) in RECORDS.items() if name not in UNIONS} | _HTTP).items()
}
#: Words that may come in records; new ones may be added.
WORDS: dict[str, Any] = {
    "source": base.Source, "channel": base.Channel, "priority": base.Priority, "type": base.ChangeType,
    "status": base.Status, "opt_in_type": base.OptInType, "policy": base.Policy, "origin": base.Origin,
    "reason": eligibility.Reason, "consent.error": deadletter.Code,
}  # fmt: skip


def read(name: str, record: Doc) -> Any:
    """What the product works with: times are numbers, and what a settings document leaves out has its default."""
    return _plain(ADAPTERS[name].validate_python(record))


def _plain(value: Any) -> Any:
    """As JSON would have it, but nothing turned back into text."""
    if isinstance(value, BaseModel):
        value = dict(value)
    if isinstance(value, dict):
        return {str(name): _plain(part) for name, part in value.items()}
    return [_plain(part) for part in value] if isinstance(value, list) else value


def needs(name: str, record: Doc) -> list[str]:
    """The paths without which the record cannot be read."""
    found = []
    for path in _paths(record):
        without = copy.deepcopy(record)
        place: Any = without
        for step in path[:-1]:
            place = place[step]
        del place[path[-1]]
        try:
            ADAPTERS[name].validate_python(without)
        except ValidationError:
            found.append(".".join(str(step) for step in path))
    return found


def _paths(part: Any) -> Iterator[tuple[Any, ...]]:
    """Every field, of the first element in lists."""
    items = part.items() if isinstance(part, dict) else [(0, part[0])] if isinstance(part, list) and part else []
    for name, inner in items:
        if isinstance(part, dict):
            yield (name,)
        for path in _paths(inner):
            yield (name, *path)


def within(old: Any, new: Any) -> bool:
    """Whether everything that is in the old value is in the new one, of the same type; fields may have been added."""
    if type(old) is not type(new):
        return False
    if isinstance(old, dict):
        return all(name in new and within(part, new[name]) for name, part in old.items())
    if isinstance(old, list):
        return len(old) == len(new) and all(map(within, old, new))
    return bool(old == new)
