"""Reading the frequent records in a quarter of the time, with a decoder made from their pydantic schemas.

The schemas stay the one definition, and pydantic has the last word: what the decoder takes is exactly what pydantic
would have made of it; what it does not take is only not decided yet.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NotRequired, Required, Union, get_args, get_origin, get_type_hints

import msgspec
from annotated_types import Ge, Le, MaxLen, MinLen
from pydantic import BeforeValidator
from pydantic.fields import FieldInfo
from typing_extensions import TypedDict, is_typeddict

from schemas.base import parse_instant

Reader = Callable[[bytes], dict[str, Any] | None]
_NEVER = "\0"
_BACKSLASH = ord("\\")


def reader(record: type, leave: frozenset[str] = frozenset()) -> Reader:
    """A function that reads one record of this typed dictionary: its known fields, or None to leave it to pydantic.

    Records with a field in `leave` are left to it too.
    """
    hints = get_type_hints(record, include_extras=True)
    instants = [name for name, hint in hints.items() if _has_instant(hint)]
    # What no value can have: a record with such a field is not taken.
    never = dict.fromkeys(leave, NotRequired[Literal[_NEVER]])
    decode = msgspec.json.Decoder(_lean(record, never)).decode

    def read(value: bytes) -> dict[str, Any] | None:
        # Escapes and bytes beyond ASCII in fields that are skipped are not looked at by this decoder.
        if not value.isascii() or _BACKSLASH in value:
            return None
        try:
            document: dict[str, Any] = decode(value)
            for name in instants:
                text = document.get(name)
                if text is not None:
                    document[name] = parse_instant(text)
        except (ValueError, RecursionError):
            return None
        return document

    return read


def _lean(record: type, instead: Mapping[str, Any]) -> Any:
    """The typed dictionary with msgspec's constraints in place of pydantic's, and other fields `instead` of some."""
    hints = get_type_hints(record, include_extras=True)
    total = record.__total__  # type: ignore[attr-defined]
    fields: dict[str, Any] = {}
    for name, hint in hints.items():
        required = get_origin(hint) is Required or (total and get_origin(hint) is not NotRequired)
        fields[name] = Required[_type(hint)] if required else NotRequired[_type(hint)]
    return TypedDict(record.__name__, {**fields, **instead})  # type: ignore[operator]


def _type(hint: Any) -> Any:
    """A field's type for msgspec. Raises TypeError for what it has no counterpart for."""
    origin = get_origin(hint)
    if origin in (Required, NotRequired):
        return _type(get_args(hint)[0])
    if origin is Annotated:
        if _has_instant(hint):
            return str
        base, *metadata = get_args(hint)
        return Annotated[_type(base), _limits(metadata)]
    if origin in (Union, UnionType):
        return Union[tuple(map(_type, get_args(hint)))]  # noqa: UP007 - made of a list
    if is_typeddict(hint):
        return _lean(hint, {})
    if origin in (Literal, dict) or hint in (str, int, bool, NoneType):
        return hint
    raise TypeError(f"no decoder for {hint!r}")


def _limits(metadata: list[Any]) -> msgspec.Meta:
    limits: dict[str, Any] = {}
    for item in metadata:
        for rule in item.metadata if isinstance(item, FieldInfo) else [item]:
            match rule:
                case Ge(ge=int(least)):
                    limits["ge"] = least
                case Le(le=int(most)):
                    limits["le"] = most
                case MinLen(min_length=least):
                    limits["min_length"] = least
                case MaxLen(max_length=most):
                    limits["max_length"] = most
                case _:
                    raise TypeError(f"no decoder for the constraint {rule!r}")
    return msgspec.Meta(**limits)


def _has_instant(hint: Any) -> bool:
    """Whether it is an `Instant` or may be one: a text for the decoder, checked by the function that pydantic calls."""
    if get_origin(hint) is Annotated:
        return any(isinstance(rule, BeforeValidator) and rule.func is parse_instant for rule in get_args(hint)[1:])
    return any(map(_has_instant, get_args(hint)))
