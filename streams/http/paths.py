"""Customers' ids in paths: any text of 1 to 128 characters, slashes and line breaks included."""

from __future__ import annotations

from pydantic import TypeAdapter, ValidationError
from starlette.convertors import Convertor, register_url_convertor

from schemas.base import Id

_ID = TypeAdapter(Id)


class _AnyText(Convertor[str]):
    # Starlette's own `path` ends at a line break.
    regex = "(?s:.*)"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("customer", _AnyText())

#: What such an id is in a route. An empty one matches too, so that it is refused and not taken for another path.
CUSTOMER = "{customer_id:customer}"


def is_id(text: str) -> bool:
    """Whether a customer can have this id. The empty one would be the key of the org's settings."""
    try:
        _ID.validate_python(text)
    except ValidationError:
        return False
    return True
