"""`users`, and the credentials and certificates with which commands ask a worker."""

from __future__ import annotations

import json
import os
import pty
import select
import subprocess
import sys
import time
from base64 import b64encode
from pathlib import Path
from typing import Any

import pytest

from streams.http.users import is_password, read_users
from tests.cli.world import invoke

PATIENCE_S = 20.0


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The users file that the commands are told of, missing as yet."""
    monkeypatch.setenv("CONSENT_USERS_FILE", str(tmp_path / "users.jsonl"))
    return tmp_path / "users.jsonl"


def test_users_are_added_listed_replaced_and_removed(file: Path) -> None:
    added = invoke("users", "add", "shop", "--org", "200", "--org", "100", text="geheim\n")
    assert (added.exit_code, added.stdout) == (0, "")
    assert added.stderr == f"user shop added in {file}, for org 100, 200\n"
    assert file.stat().st_mode & 0o777 == 0o600
    assert "geheim" not in file.read_text()
    assert invoke("users", "add", "web", "--org", "7", "--password-stdin", text="ein anderes").exit_code == 0
    listed = invoke("users", "list")
    assert "shop" in listed.stdout
    assert "100, 200" in listed.stdout
    assert json.loads(invoke("users", "list", "--json").stdout) == [
        {"name": "shop", "orgs": [100, 200]}, {"name": "web", "orgs": [7]},
    ]  # fmt: skip
    assert invoke("users", "add", "shop", "--org", "5", "--replace", text="neu\r\n").stderr.startswith("user shop repl")
    found = read_users(file)["shop"]
    assert (found.orgs, is_password(found.hash, b"neu")) == ([5], True)
    assert invoke("users", "remove", "shop").exit_code == 0
    assert list(read_users(file)) == ["web"]


@pytest.mark.parametrize(
    ("arguments", "password", "says"),
    [
        (["add", "shop", "--org", "1"], "x", "user shop exists: --replace"),
        (["add", "a:b", "--org", "1"], "x", "name: 1 to 64 letters"),
        (["add", "web", "--org", "1"], "", "the password is empty"),
        (["add", "web", "--org", "1"], "\n", "the password is empty"),
        (["add", "web", "--org", "1"], "two\nlines\n", "one line"),
        (["add", "web", "--org", "1"], b"\xff", "UTF-8"),
        (["remove", "web"], "", "there is no user web"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_changes_nothing(
    file: Path, arguments: list[str], password: str | bytes, says: str
) -> None:
    assert invoke("users", "add", "shop", "--org", "1", text="geheim").exit_code == 0
    before = file.read_bytes()
    result = invoke("users", *arguments, text=password)
    assert result.exit_code == 1
    assert says in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert file.read_bytes() == before


@pytest.mark.parametrize("arguments", [["list"], ["add", "shop", "--org", "1"], ["remove", "shop"]], ids=" ".join)
def test_a_faulty_file_is_one_line_that_names_the_place(file: Path, arguments: list[str]) -> None:
    file.write_text('{"name": "shop"}\n')
    result = invoke("users", *arguments, text="geheim")
    assert result.exit_code == 1
    assert f"{file}, line 1: orgs: " in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert file.read_text() == '{"name": "shop"}\n'


def test_on_a_terminal_the_password_is_asked_for_twice_and_not_shown(file: Path, checkout_env: dict[str, str]) -> None:
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "streams", "users", "add", "shop", "--org", "1"]
    env = {**checkout_env, "CONSENT_USERS_FILE": str(file)}
    with subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, env=env, close_fds=True, start_new_session=True
    ) as adding:
        os.close(theirs)
        shown = b""
        for question in (b"Password of shop: ", b"confirmation: "):
            shown += _read_until(ours, question)
            os.write(ours, b"geheim\n")
        shown += _read_until(ours, b"added")
        assert adding.wait(PATIENCE_S) == 0
    os.close(ours)
    assert b"geheim" not in shown
    assert is_password(read_users(file)["shop"].hash, b"geheim")


def _read_until(terminal: int, text: bytes) -> bytes:
    seen, deadline = b"", time.monotonic() + PATIENCE_S
    while text not in seen:
        ready, _, _ = select.select([terminal], [], [], max(0, deadline - time.monotonic()))
        assert ready, f"{text!r} did not come: {seen!r}"
        seen += os.read(terminal, 1_000)
    return seen


# --- asking a worker ---------------------------------------------------------------------------------


def test_a_user_is_sent_if_there_is_no_token_and_never_printed(worker_http: dict[str, Any]) -> None:
    worker_http["/v1/customers/100/1"] = (401, {"detail": "no"})
    result = invoke("state", "100", "1", env={"CONSENT_HTTP_USER": "shop:ge:heim"})
    assert result.exit_code == 1
    assert "CONSENT_HTTP_USER" in result.stderr
    assert "heim" not in result.output
    invoke("state", "100", "1", env={"CONSENT_HTTP_USER": "shop:ge:heim", "CONSENT_HTTP_TOKEN": "t0ken"})
    sent = [{name.lower(): value for name, value in headers.items()} for _, headers in worker_http["asked"]]
    assert [headers["authorization"] for headers in sent] == [
        f"Basic {b64encode(b'shop:ge:heim').decode()}", "Bearer t0ken",
    ]  # fmt: skip


def test_a_user_without_a_password_is_wrong_use_and_not_shown() -> None:
    result = invoke("state", "100", "1", env={"CONSENT_HTTP_USER": "geheim"})
    assert result.exit_code == 2
    assert "CONSENT_HTTP_USER" in result.stderr
    assert "geheim" not in result.output


def test_another_orgs_state_is_refused_in_the_workers_words(worker_http: dict[str, Any]) -> None:
    worker_http["/v1/customers/100/1"] = (403, {"detail": "this user may not act for org 100"})
    result = invoke("state", "100", "1", env={"CONSENT_HTTP_USER": "shop:geheim"})
    assert result.exit_code == 1
    assert "may not act for org 100" in result.stderr


def test_a_certificate_that_cannot_be_read_is_one_line() -> None:
    result = invoke("state", "100", "1", env={"CONSENT_SSL_CERTFILE": "no-such.pem"})
    assert result.exit_code == 1
    assert "CONSENT_SSL_CERTFILE: no-such.pem: No such file" in result.stderr
    assert len(result.stderr.splitlines()) == 1
