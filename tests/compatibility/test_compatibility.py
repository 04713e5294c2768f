"""What was written under the contract before is read as it was then."""

from __future__ import annotations

import json
from typing import Any, get_args

import jsonschema
import pytest

from schemas import export
from tests.compatibility.reading import ADAPTERS, FILE, WORDS, WORDS_FILE, needs, read, within

LINES = [json.loads(line) for line in FILE.read_text("utf-8").splitlines()]
SCHEMAS = {name.removesuffix(".json"): json.loads(content) for name, content in export.documents().items()}
each_line = pytest.mark.parametrize("line", LINES, ids=[f"{n}-{line['schema']}" for n, line in enumerate(LINES, 1)])


def test_there_is_a_line_for_every_record() -> None:
    assert {line["schema"] for line in LINES} == set(ADAPTERS), "python -m tests.compatibility adds what is missing"


@each_line
def test_it_is_read_as_it_was(line: dict[str, Any]) -> None:
    assert within(line["read"], read(line["schema"], line["record"]))


@each_line
def test_it_needs_what_it_needed_no_more_and_no_less(line: dict[str, Any]) -> None:
    assert needs(line["schema"], line["record"]) == line["needs"]


@each_line
def test_it_is_valid_by_the_published_schema(line: dict[str, Any]) -> None:
    schema = SCHEMAS.get(line["schema"])
    if schema is not None:
        found = jsonschema.Draft202012Validator(schema).iter_errors(line["record"])
        assert [error.message for error in found] == []


@pytest.mark.parametrize("kind", WORDS)
def test_no_word_is_lost(kind: str) -> None:
    assert set(json.loads(WORDS_FILE.read_text("utf-8"))[kind]) <= set(get_args(WORDS[kind]))


def test_an_older_value_is_within_one_that_has_more_but_not_in_another() -> None:
    old = {"a": [{"b": 1}], "c": None}
    assert within(old, {"a": [{"b": 1, "new": 2}], "c": None, "d": True})
    for other in ({"a": [{"b": 1}]}, {"a": [{"b": True}], "c": None}, {"a": [{}], "c": None}, {"a": [], "c": None}):
        assert not within(old, other)
