"""The README says what the code says."""

from __future__ import annotations

import re
from typing import get_args

import pytest

from schemas.deadletter import Code
from schemas.eligibility import Reason
from streams.cli.root import COMMANDS
from tests.packaging.tables import README, with_tables

TEXT = README.read_text("utf-8")


def test_the_tables_are_those_of_the_code() -> None:
    assert with_tables(TEXT) == TEXT, "python -m tests.packaging.tables puts them right"


@pytest.mark.parametrize("code", [*get_args(Reason), *get_args(Code)])
def test_every_reason_and_every_code_of_a_dead_letter_is_named(code: str) -> None:
    assert f"`{code}`" in TEXT


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_named(command: str) -> None:
    assert f"consent-streams {command}" in TEXT


def test_files_and_sections_it_points_at_exist() -> None:
    links = re.findall(r"\]\(([^)]+)\)", TEXT)
    anchors = {re.sub(r"[^a-z0-9 -]", "", line.lstrip("# ").lower()).replace(" ", "-")
               for line in TEXT.splitlines() if line.startswith("#")}  # fmt: skip
    for link in links:
        if link.startswith("https://"):
            continue  # somebody else's
        assert link[1:] in anchors if link.startswith("#") else (README.parent / link).exists(), link
