"""What the sections of a settings document have in common."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel, ConfigDict

from schemas.base import Id, Source


class Section(BaseModel):
    # Extra fields are kept: a newer producer's document must not lose them on its way through the state.
    model_config = ConfigDict(strict=True, extra="allow", frozen=True)


class Profile(Section):
    """A source account."""

    source: Source
    account_id: Id


def repeated(path: str, keys: list[Any]) -> Iterator[str]:
    first: dict[Any, int] = {}
    counts = Counter(keys)
    for i, key in enumerate(keys):
        if counts[key] > 1 and first.setdefault(key, i) != i:
            shown = " ".join("any" if part is None else str(part) for part in key) if isinstance(key, tuple) else key
            yield f"{path}[{i}]: {shown} is already given by {path}[{first[key]}]"
