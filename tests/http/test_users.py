"""The users file: what is refused by line and field, and how it is written."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.http.users import Account, UsersError, changing, is_password, make_account, read_users

HASH = make_account("shop", [1], "geheim").hash
LINE = {"name": "shop", "orgs": [100, 200], "hash": HASH}


def test_a_password_is_its_own_hash_and_no_other() -> None:
    assert HASH.startswith("$argon2id$")
    assert is_password(HASH, b"geheim")
    assert not is_password(HASH, b"Geheim")
    assert not is_password(HASH[:-8] + "AAAAAAAA", b"geheim")
    assert make_account("shop", [1], "geheim").hash != HASH


def test_orgs_are_kept_once_and_in_order() -> None:
    assert make_account("shop", [3, 1, 3], "geheim").orgs == [1, 3]


@pytest.mark.parametrize(
    ("name", "orgs", "password", "says"),
    [
        ("", [1], "x", "name: "), ("a:b", [1], "x", "name: "), ("ä", [1], "x", "name: "), ("-a", [1], "x", "name: "),
        ("a" * 65, [1], "x", "name: "), ("a\n", [1], "x", "name: "), ("a", [], "x", "orgs: "),
        ("a", [2**63], "x", r"orgs\[0\]: "), ("a", [1], "", "empty"), ("a", [1], "x\ny", "one line"),
        ("a", [1], "x" * 1_025, "at most 1024"),
    ],
)  # fmt: skip
def test_what_makes_no_user_is_refused_by_its_fault(name: str, orgs: list[int], password: str, says: str) -> None:
    with pytest.raises(UsersError, match=says) as refused:
        make_account(name, orgs, password)
    assert len(str(refused.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("second", "says"),
    [
        ("{", "line 3: no JSON"), ("7", "line 3: "), ("\xff", "line 3: no JSON"),
        (json.dumps(LINE), "line 3: name: shop is there twice"),
        (json.dumps(LINE | {"name": 7}), "line 3: name: "),
        (json.dumps(LINE | {"name": "a b"}), "line 3: name: 1 to 64"),
        (json.dumps(LINE | {"name": "b", "orgs": ["1"]}), r"line 3: orgs\[0\]: "),
        (json.dumps(LINE | {"name": "b", "orgs": []}), "line 3: orgs: "),
        (json.dumps(LINE | {"name": "b", "hash": "geheim"}), "line 3: hash: no argon2id hash"),
        (json.dumps(LINE | {"name": "b", "hash": HASH.replace("argon2id", "argon2i")}), "line 3: hash: no argon2id"),
        (json.dumps(LINE | {"name": "b", "org": 1}), "line 3: org: "),
        (json.dumps({"name": "b", "orgs": [1]}), "line 3: hash: "),
    ],
)  # fmt: skip
def test_a_fault_is_named_by_its_line_and_field(tmp_path: Path, second: str, says: str) -> None:
    file = tmp_path / "users"
    file.write_bytes(json.dumps(LINE).encode() + b"\n\n" + second.encode("latin-1") + b"\n")
    with pytest.raises(UsersError, match=says) as refused:
        read_users(file)
    assert str(file) in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1
    assert HASH not in str(refused.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsersError, match=f"{tmp_path}: Is a directory"):
        read_users(tmp_path)
    with pytest.raises(UsersError, match="No such file"), changing(tmp_path / "no" / "users"):
        pass


@given(st.dictionaries(st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}", fullmatch=True), st.sets(st.integers(0))))
def test_what_is_written_is_read(tmp_path_factory: pytest.TempPathFactory, users: dict[str, set[int]]) -> None:
    file = tmp_path_factory.mktemp("users") / "users"
    wanted = {
        name: Account(name=name, orgs=sorted(org % 2**63 for org in orgs) or [0], hash=HASH)
        for name, orgs in users.items()
    }
    with changing(file) as accounts:
        accounts.update(wanted)
    assert read_users(file) == wanted


def test_the_file_is_for_its_owner_only_and_nothing_else_is_left(tmp_path: Path) -> None:
    file = tmp_path / "users"
    file.write_text("")
    file.chmod(0o644)
    with changing(file) as accounts:
        accounts["shop"] = Account(**LINE)
    assert file.stat().st_mode & 0o777 == 0o600
    assert os.listdir(tmp_path) == ["users"]


def test_a_link_to_the_file_stays_one(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "users")
    with changing(tmp_path / "link") as accounts:
        accounts["shop"] = Account(**LINE)
    assert (tmp_path / "link").is_symlink()
    assert list(read_users(tmp_path / "users")) == ["shop"]


def test_a_change_that_fails_changes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "users"
    with changing(file) as accounts:
        accounts["shop"] = Account(**LINE)
    before = file.read_bytes()
    with pytest.raises(KeyError), changing(file) as accounts:
        del accounts["shop"], accounts["nobody"]
    assert file.read_bytes() == before
    assert os.listdir(tmp_path) == ["users"]


def test_changes_at_the_same_time_are_all_kept(tmp_path: Path) -> None:
    def add(name: str) -> None:
        with changing(tmp_path / "users") as accounts:
            accounts[name] = Account(**LINE | {"name": name})

    names = [f"u{number}" for number in range(20)]
    threads = [threading.Thread(target=add, args=[name]) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(read_users(tmp_path / "users")) == sorted(names)
