"""Makefile, lock file and .ci/run."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2]
LOCK = (FOLDER / "requirements.lock").read_text("utf-8")
PROJECT = tomllib.loads((FOLDER / "pyproject.toml").read_text("utf-8"))


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_the_lock_has_everything_that_pyproject_asks_for_and_its_exact_pins() -> None:
    locked = dict(re.findall(r"^([a-z0-9-]+)==([^\s;\\]+)", LOCK, re.MULTILINE))
    project = PROJECT["project"]
    asked = [*project["dependencies"], *PROJECT["dependency-groups"]["dev"]]
    asked += [one for extra in project["optional-dependencies"].values() for one in extra]
    for requirement in asked:
        found = re.match(r"([A-Za-z0-9._-]+?)\s*(?:==\s*(\S+)|[<>=!~;].*)?$", requirement)
        assert found, requirement
        assert _normal(found[1]) in locked, f"{requirement}: `make lock` puts it there"
        assert found[2] in (None, locked[_normal(found[1])]), f"{requirement}: `make lock` puts it right"


def test_every_package_of_the_lock_has_its_hashes_and_none_a_place_to_come_from() -> None:
    packages = re.split(r"\n(?=\S)", LOCK.strip())
    assert all("--hash=sha256:" in package for package in packages)
    assert "://" not in LOCK


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_make_alone_lists_every_target() -> None:
    makefile = (FOLDER / "Makefile").read_text("utf-8")
    targets = re.search(r"^\.PHONY: (.+)$", makefile, re.MULTILINE)
    assert targets
    env = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    told = subprocess.run(["make", "-C", str(FOLDER)], env=env, capture_output=True, text=True, check=True).stdout
    for target in targets[1].split():
        assert re.search(rf"^  make {target} +\S", told, re.MULTILINE), target


def test_the_ci_script_runs_lint_types_and_the_readme_s_test_command_last() -> None:
    script = FOLDER / ".ci" / "run"
    assert os.access(script, os.X_OK)
    commands = [line for line in script.read_text("utf-8").splitlines() if line.startswith("make ")]
    assert commands == ["make setup", "make lint", "make types", "make test"]
    assert "```sh\nmake test" in (FOLDER / "README.md").read_text("utf-8")
