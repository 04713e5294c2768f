"""Settings documents from YAML or JSON files, with all their faults."""

from __future__ import annotations

import json
from collections.abc import Hashable
from typing import Any, BinaryIO

import orjson
import yaml
from pydantic import ValidationError

from schemas.settings import OrgSettings, faults_of

from .root import Failure


class DocumentError(Failure):
    """A settings document that would be refused; `faults` are `path: what is wrong`, one each."""

    def __init__(self, name: str, faults: list[str]) -> None:
        super().__init__(f"{name}: {len(faults)} fault{'' if len(faults) == 1 else 's'}, not usable")
        self.faults = faults


def read_settings(file: BinaryIO) -> dict[str, Any]:
    """The document in a file, as given, its keys as text. Raises DocumentError with every fault."""
    name = getattr(file, "name", "stdin")
    try:
        document = _parse(file.read(), name)
    except (ValueError, yaml.YAMLError) as error:
        raise DocumentError(name, [" ".join(str(error).split())]) from error
    if not isinstance(document, dict):
        raise DocumentError(name, ["the document must be an object with org_id and version"])
    try:
        OrgSettings.model_validate(document)
    except ValidationError as error:
        raise DocumentError(name, faults_of(error)) from error
    # Through JSON: the numbers that YAML has as keys of unified.org_units are text there.
    plain: dict[str, Any] = orjson.loads(orjson.dumps(document, option=orjson.OPT_NON_STR_KEYS))
    return plain


def _parse(content: bytes, name: str) -> Any:
    text = content.decode("utf-8-sig")
    if name.endswith(".json") or text.lstrip().startswith("{"):
        try:
            return json.loads(text, object_pairs_hook=_unique)
        except json.JSONDecodeError:
            if name.endswith(".json"):
                raise
    return yaml.load(text, _UniqueKeys)  # noqa: S506 - a subclass of SafeLoader


def _unique(pairs: list[tuple[Hashable, Any]]) -> dict[Hashable, Any]:
    """Refuse an object with the same key twice: the parsers would silently keep only the last."""
    found = dict(pairs)
    if len(found) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"{twice}: given twice in the same object")
    return found


class _UniqueKeys(yaml.SafeLoader):
    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
        if all(isinstance(key, Hashable) for key in keys):
            _unique([(key, None) for key in keys])
        return super().construct_mapping(node, deep)
