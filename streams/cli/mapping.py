"""From a row of an imported file to an event: columns to fields, words in any case, dates as the file writes them."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import orjson
from pydantic import ValidationError

from schemas.base import format_instant, parse_instant
from schemas.events import EVENTS
from schemas.settings import faults_of
from streams.domain.keys import customer_key

from .rows import Row

REQUIRED = (
    "customer_id", "occurred_at", "type", "source", "account_id", "channel", "priority", "org_unit_id",
)  # fmt: skip
OPTIONAL = ("language", "reason", "campaign_id", "communication_id", "proof")
FIELDS = REQUIRED + OPTIONAL
WORDS = frozenset({"type", "source", "channel", "priority"})
#: A date stands beside the consent that it dates, and so does whose it is: they cannot be the same for every row.
OF_A_ROW = frozenset({"customer_id", "occurred_at"})


class RowError(ValueError):
    """A row that cannot be an event; the message names each column at fault."""


@dataclass(frozen=True, slots=True)
class Event:
    """A row as an event: its customer's key, and its value as it is published."""

    key: bytes
    value: bytes


@dataclass(frozen=True)
class Mapping:
    """How rows become events. `columns` is field to column, `constants` field to text."""

    org_id: int
    batch_id: str
    columns: dict[str, str]
    constants: dict[str, str]
    date_format: str | None = None
    timezone: ZoneInfo | None = None

    def missing(self, columns: list[str]) -> list[str]:
        """Required fields that no constant and none of these columns gives a value."""
        return [
            name for name in REQUIRED if name not in self.constants and self.columns.get(name, name) not in columns
        ]

    def event(self, row: Row) -> Event:
        """The row as a checked event. Raises RowError with every fault.

        Its id is made of the batch and of what it says, so that the same row is the same event whenever it is sent.
        """
        if row.fault is not None:
            raise RowError(row.fault)
        faults: list[str] = []
        fields: dict[str, Any] = {}
        for name in FIELDS:
            try:
                value = self._value(name, row)
            except ValueError as error:
                faults.append(f"{self._named(name)}: {error}")
                continue
            if value is not None:
                fields[name] = value
            elif name in REQUIRED:
                faults.append(f"{self._named(name)}: missing")
        event = self._with_id(fields)
        faults += self._invalid(event, faults)
        if faults:
            raise RowError("; ".join(faults))
        return Event(customer_key(self.org_id, fields["customer_id"]), orjson.dumps(event))

    def _value(self, name: str, row: Row) -> Any:
        """A field's value as the wire has it; None if the row has none. Raises ValueError."""
        given = self.constants.get(name) if name in self.constants else row.fields.get(self.columns.get(name, name))
        if isinstance(given, str):
            given = given.strip() if name != "reason" else given
            if not given:
                return None
        if given is None:
            return None
        if name in WORDS and isinstance(given, str):
            return given.upper()
        if name == "occurred_at":
            return format_instant(self._instant(given))
        if name == "org_unit_id" and isinstance(given, str):
            return _whole_number(given)
        if name == "proof" and isinstance(given, str):
            return _object(given)
        # Numbers of customers and accounts are texts in consent events, whatever they are in the file.
        return str(given) if name in {"customer_id", "account_id"} and type(given) is int else given

    def _instant(self, given: Any) -> int:
        if self.date_format is None or not isinstance(given, str):
            return parse_instant(given)
        try:
            moment = datetime.strptime(given, self.date_format)  # noqa: DTZ007 - the zone is seen to below
        except ValueError:
            raise ValueError(f"{given[:40]!r} is not of the form {self.date_format}") from None
        if moment.tzinfo is None:
            if self.timezone is None:
                raise ValueError(f"{given[:40]!r} has no offset: --timezone says which zone it means")
            local = moment.replace(tzinfo=self.timezone)
            if local.astimezone(UTC).astimezone(self.timezone).replace(tzinfo=None) != moment:
                raise ValueError(f"{given[:40]!r} is no time in {self.timezone}: the clocks were put forward")
            moment = local
        # Through the canonical form: the same range of years is accepted as on the wire.
        return parse_instant(moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"))

    def _with_id(self, fields: dict[str, Any]) -> dict[str, Any]:
        event = {"event": "consent.changed", "org_id": self.org_id, "batch_id": self.batch_id, "origin": "IMPORT"}
        event |= fields
        said = orjson.dumps(event, option=orjson.OPT_SORT_KEYS)
        return {"event_id": f"import-{hashlib.sha256(said).hexdigest()[:32]}"} | event

    def _invalid(self, event: dict[str, Any], known: list[str]) -> list[str]:
        """What the schema says against the fields that were found."""
        try:
            EVENTS["consent.changed"].validate_python(event)
        except ValidationError as error:
            found = [fault.partition(": ") for fault in faults_of(error)]
            named = [f"{self._named(name)}: {what}" for name, _, what in found]
            reported = {fault.partition(": ")[0] for fault in known}
            return [fault for fault in named if fault.partition(": ")[0] not in reported]
        return []

    def _named(self, name: str) -> str:
        """A field as people find it in their file."""
        if name in self.constants:
            return f"{name} (--set)"
        column = self.columns.get(name, name)
        return name if column == name else f"{name} (column {column!r})"


def _whole_number(text: str) -> int:
    if re.fullmatch(r"[+-]?[0-9]+", text) is None:
        raise ValueError(f"{text[:40]!r} is not a whole number")
    return int(text)


def _object(text: str) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        raise ValueError("not a JSON object") from None
