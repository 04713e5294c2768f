"""The texts of messages: their placeholders, and which of several languages a customer reads (domain section 8)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Literal, TypeVar

from pydantic import Field

T = TypeVar("T")

MessageKind = Literal["confirm_opt_in", "confirm_opt_out", "verify"]
MessageText = Annotated[
    str, Field(min_length=1, max_length=2000, description="Text with placeholders such as {org}; {{ and }} for braces")
]

#: What the texts of each kind may name: the org's and the org unit's name, the channel, what verifies an opt-in.
PLACEHOLDERS: dict[MessageKind, tuple[str, ...]] = {
    "confirm_opt_in": ("org", "org_unit", "channel"),
    "confirm_opt_out": ("org", "org_unit", "channel"),
    "verify": ("org", "org_unit", "channel", "link", "keyword"),
}
_BRACES = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")


def text_faults(kind: MessageKind, channel: str | None, text: str) -> Iterator[str]:
    """What is wrong with a text of this kind; of one without faults `str.format_map` makes a message.

    `channel` is the one that the entry names: only MOBILE has keywords, because only a message there is answered.
    """
    names = set()
    for found in _BRACES.finditer(text):
        name = found[1]
        if name is not None:
            names.add(name)
        elif len(found[0]) == 1:
            yield f"a single {found[0]} at character {found.start() + 1}; a brace is written {found[0] * 2}"
    known = PLACEHOLDERS[kind]
    for name in sorted(names.difference(known)):
        yield f"{{{name}}} is none of {', '.join(f'{{{one}}}' for one in known)}"
    if "keyword" in names and kind == "verify" and channel != "MOBILE":
        yield "{keyword} is for entries of channel MOBILE"
    if kind == "verify" and names.isdisjoint({"link", "keyword"}):
        yield "without {link} or {keyword} nobody can verify"


def in_language(texts: Mapping[str, T], languages: Iterable[str | None]) -> T | None:
    """What `texts`, by language tag in lower case, has for the first of these languages that it has anything for.

    A tag is looked up without regard to case, then shortened from its end: `zh-Hant-TW`, `zh-Hant`, `zh`.
    """
    for language in languages:
        tag = (language or "").lower()
        while tag:
            if tag in texts:
                return texts[tag]
            tag = tag.rpartition("-")[0]
    return None
