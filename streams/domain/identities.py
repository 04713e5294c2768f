"""Identifiers: written alike whoever writes them, and the customers that have one (domain section 6)."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import orjson
import phonenumbers

KINDS = ("mobile", "email", "external_id")

_E164 = re.compile(r"\+[1-9][0-9]{6,14}")
_BETWEEN_DIGITS = re.compile(r"[\s().\-/]+")
#: So many replies may be awaited from one number at a time; the oldest is given up.
MOST_AWAITED = 16


def normal(kind: str, value: str, region: str | None) -> str:
    """The one way in which an identifier is written: E.164, a case-folded address, an id without surrounding space.

    `region` (ISO 3166, such as DE) says where a mobile number without a country code is at home. What cannot be a
    number, such as a short code, stays as it is but for its spaces.
    """
    value = value.strip()
    if kind == "email":
        return value.casefold()
    if kind != "mobile" or _E164.fullmatch(value):
        return value
    try:
        number = phonenumbers.parse(value, region)
    except phonenumbers.NumberParseException:
        return _BETWEEN_DIGITS.sub("", value)
    if phonenumbers.is_possible_number_with_reason(number) != phonenumbers.ValidationResult.IS_POSSIBLE:
        return _BETWEEN_DIGITS.sub("", value)
    return phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)


def identity_key(org_id: int, kind: str, identifier: str) -> bytes:
    """`{org_id}:{kind}:{identifier}` in UTF-8, of a normal identifier."""
    return f"{org_id}:{kind}:{identifier}".encode()


class Awaited(NamedTuple):
    """A pending opt-in that a reply with `keyword` verifies, until `expires_at` (milliseconds since the epoch)."""

    keyword: str
    customer_id: str
    source: str
    account_id: str
    priority: str
    org_unit_id: int
    event_id: str
    expires_at: int


class Holders:
    """The customers that have an identifier, and the replies that are awaited from it.

    Each customer stands with the position of the record that said so: what is told again changes nothing.
    """

    __slots__ = ("_awaited", "_since")

    def __init__(self, since: dict[str, list[int]] | None = None, awaited: list[list[Any]] | None = None) -> None:
        self._since = since or {}
        self._awaited = awaited or []

    def customers(self) -> list[str]:
        """Their ids, in the order in which they came to have the identifier."""
        return list(self._since)

    def awaited(self, text: str, at: int) -> Awaited | None:
        """What a reply at this time verifies; without regard to case and surrounding space."""
        said = text.strip().casefold()
        found = (Awaited(*one) for one in self._awaited)
        return next((one for one in found if one.keyword.casefold() == said and at <= one.expires_at), None)

    def link(self, customer_id: str, partition: int, offset: int) -> None:
        """The customer has the identifier, says the record at this position of `consent.changes`."""
        if offset >= self._since.get(customer_id, (partition, -1))[1]:
            self._since[customer_id] = [partition, offset]

    def unlink(self, customer_id: str, offset: int) -> None:
        """The customer has it no more; nor is a reply of this customer awaited."""
        if offset >= self._since.get(customer_id, (0, 0))[1]:
            self._since.pop(customer_id, None)
            self._awaited = [one for one in self._awaited if one[1] != customer_id]

    def wait_for(self, reply: Awaited) -> None:
        """Await a reply; a newer one for the same place takes an older one's."""
        place = reply[1:6]
        others = [one for one in self._awaited if tuple(one[1:6]) != place]
        self._awaited = [*others, list(reply)][-MOST_AWAITED:]

    def encode(self) -> bytes | None:
        """As it is stored; None where there is nothing to store."""
        if not self._since and not self._awaited:
            return None
        # A copy: orjson's own bytes keep a buffer of 4 KB each, and many thousands of these are held in memory.
        return bytes(memoryview(orjson.dumps({"c": self._since, "a": self._awaited})))


def decode_holders(raw: bytes | None) -> Holders | None:
    """The holders as written by `Holders.encode`; None stays None."""
    if raw is None:
        return None
    document = orjson.loads(raw)
    return Holders(document["c"], document["a"])
