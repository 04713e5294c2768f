"""The data folder is one worker's, and belongs to one cluster."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from streams.engine.guard import GuardError, identify, lock

IDENTITY = {"cluster_id": "abc", "partition_count": 8, "topic_ids": {"consent.changes": "t-1"}}
HOLD = """
import sys
from pathlib import Path
from streams.engine.guard import lock
held = lock(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


def _holder(folder: Path) -> subprocess.Popen[str]:
    root = str(Path(__file__).parents[2])
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=root
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a_folder_held_by_another_process_is_refused_with_its_pid(tmp_path: Path) -> None:
    with _holder(tmp_path) as process:
        with pytest.raises(GuardError) as caught:
            lock(tmp_path)
        process.kill()
    assert str(process.pid) in str(caught.value)
    assert "CONSENT_DATADIR" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_is_free_again_when_its_holder_was_killed(tmp_path: Path) -> None:
    with _holder(tmp_path) as process:
        process.kill()
    lock(tmp_path).close()
    assert (tmp_path / "worker.lock").exists()


def test_a_second_lock_in_the_same_process_is_refused_until_the_first_ends(tmp_path: Path) -> None:
    held = lock(tmp_path)
    with pytest.raises(GuardError):
        lock(tmp_path)
    held.close()
    lock(tmp_path).close()


def test_a_folder_is_made_where_there_is_none(tmp_path: Path) -> None:
    lock(tmp_path / "a" / "b").close()
    assert (tmp_path / "a" / "b").is_dir()


def test_a_folder_that_cannot_be_used_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(GuardError) as caught:
        lock(tmp_path / "file" / "state")
    assert "cannot be used" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_first_worker_ties_the_folder_and_later_ones_of_the_same_identity_may_use_it(tmp_path: Path) -> None:
    identify(tmp_path, IDENTITY)
    identify(tmp_path, IDENTITY)
    assert json.loads((tmp_path / "identity.json").read_text()) == IDENTITY
    assert [file.name for file in tmp_path.iterdir()] == ["identity.json"]


@pytest.mark.parametrize(
    ("name", "other", "words"),
    [
        ("cluster_id", "xyz", "cluster id"),
        ("partition_count", 4, "partition count"),
        ("topic_ids", {"consent.changes": "t-2"}, "topic ids"),
    ],
)
def test_another_identity_is_refused_by_what_differs_and_leaves_the_folder_as_it_was(
    tmp_path: Path, name: str, other: object, words: str
) -> None:
    identify(tmp_path, IDENTITY)
    with pytest.raises(GuardError) as caught:
        identify(tmp_path, IDENTITY | {name: other})
    assert words in str(caught.value)
    assert str(other) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert json.loads((tmp_path / "identity.json").read_text()) == IDENTITY


@pytest.mark.parametrize("content", ["", "{", "[]", "null"])
def test_an_identity_that_cannot_be_read_is_one_clear_line(tmp_path: Path, content: str) -> None:
    (tmp_path / "identity.json").write_text(content)
    with pytest.raises(GuardError):
        identify(tmp_path, IDENTITY)
