"""Which message an event causes, in which language and in what words (domain section 8)."""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256
from typing import Any, NamedTuple

import orjson

from schemas.messages import MessageKind, in_language
from streams.domain.cells import winner
from streams.domain.changes import Applied
from streams.domain.orgs import Org, Texts

#: Changes that came this way are confirmed by nobody, or by whoever made them.
UNCONFIRMED = frozenset({"API", "IMPORT"})
#: A double opt-in is verified even where no text is configured for it.
BUILT_IN: dict[MessageKind, Texts] = {
    "verify": {"en": ("en", "{org}: please confirm that you want to receive our messages: {link}")}
}

#: Read off a screen and typed on a telephone: nothing that looks like something else, and no vowels to make words.
_ALPHABET = "CDFHJKMPQRTVWXY2346789"
_KEYWORD_LENGTH = 6
_ID_LENGTH = 32


class Message(NamedTuple):
    """One message to a customer; `text` has its placeholders yet, `language` is the tag that it is configured under."""

    kind: MessageKind
    language: str
    text: str


def message_of(org: Org, event: dict[str, Any], applied: Applied) -> Message | None:
    """The message that a `consent.changed` or `consent.verified` causes, once it is applied under these settings.

    There is one for every new pending entry; and one for an opt-in or opt-out that won its own cell, where the org
    configured a text. A verified double opt-in is confirmed as the opt-in that it makes, if that came in such a way.
    """
    kind = _kind(org, event, applied)
    if kind is None:
        return None
    texts = org.texts(kind, event["source"], event["account_id"], event["channel"], event["org_unit_id"])
    texts = texts or BUILT_IN.get(kind)
    # Settings see to it that what is configured has a text in one of the last two languages.
    found = in_language(texts, _languages(org, event, applied)) if texts else None
    return None if found is None else Message(kind, *found)


def _kind(org: Org, event: dict[str, Any], applied: Applied) -> MessageKind | None:
    if applied.outcome == "pending":
        return "verify"
    if applied.outcome != "applied" or event["event"] == "consent.batch_reverted" or event["priority"] == "TRANS":
        return None
    if all(cell["synced"] for cell in applied.cells):
        return None
    if _origin(org, event, applied) in UNCONFIRMED:
        return None
    return "confirm_opt_out" if event.get("type") == "OPTOUT" else "confirm_opt_in"


def _origin(org: Org, event: dict[str, Any], applied: Applied) -> str:
    """How the change came; a verified one as its pending entry did, which the cell's new winner remembers."""
    if event["event"] == "consent.changed":
        origin: str = event.get("origin", "PRODUCER")
        return origin
    place = org.place(
        event["source"], event["account_id"], event["channel"], event["priority"], event["org_unit_id"]
    )
    entered = winner(applied.state.cell(place.key)) if applied.state is not None else None
    return entered[3] if entered is not None else "PRODUCER"


def _languages(org: Org, event: dict[str, Any], applied: Applied) -> Iterator[str | None]:
    """The event's, else the customer's, else the org's default, else English."""
    yield event.get("language")
    if applied.state is not None:
        yield applied.state.about.get("l")
    yield org.settings.default_language
    yield "en"


def written(message: Message, org: Org, event: dict[str, Any], link: str | None, keyword: str | None) -> str:
    """The message's text with everything filled in; a place that is the whole org bears the org's name."""
    return message.text.format_map(
        {
            "org": org.name,
            "org_unit": org.unit_names[event["org_unit_id"]],
            "channel": event["channel"],
            "link": link,
            "keyword": keyword,
        }
    )


def notification_id(org_id: int, customer_id: str, event_id: str, kind: MessageKind) -> str:
    """What a message is known by, however often it is made."""
    return sha256(orjson.dumps([org_id, customer_id, event_id, kind])).hexdigest()[:_ID_LENGTH]


def keyword_of(org_id: int, customer_id: str, event_id: str) -> str:
    """The word that verifies a pending opt-in on MOBILE when the customer replies with it (compare in upper case).

    The same pending entry always has the same word. It proves nothing by itself: it counts from the customer's number.
    """
    number = int.from_bytes(sha256(orjson.dumps([org_id, customer_id, event_id])).digest())
    letters = []
    for _ in range(_KEYWORD_LENGTH):
        number, letter = divmod(number, len(_ALPHABET))
        letters.append(_ALPHABET[letter])
    return "".join(letters)
