"""Names and passwords: what is verified, how often, and for whom; on a clock of the test's own."""

from __future__ import annotations

import asyncio
import threading
from base64 import b64encode
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from streams.config import Config
from streams.http import logins
from streams.http.logins import FAILURES, OPERATOR, Logins, RefusedError, User, address_of
from streams.http.users import Account, UsersError, changing, is_password, make_account

HOME, AWAY = "192.0.2.1", "198.51.100.7"
#: Made once: each takes tens of milliseconds.
ACCOUNTS = {name: make_account(name, orgs, f"secret of {name}") for name, orgs in (("shop", [100]), ("web", [7, 8]))}
SHOP, WEB = User("shop", frozenset({100})), User("web", frozenset({7, 8}))


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


def write(file: Path, *accounts: Account) -> None:
    with changing(file) as there:
        there.clear()
        there.update({account.name: account for account in accounts})


def basic(name: str, password: str | None = None) -> bytes:
    """The header of a user; without a password, the right one."""
    return b"Basic " + b64encode(f"{name}:{f'secret of {name}' if password is None else password}".encode())


class Door:
    """Logins of two users and a token, and how many passwords were verified."""

    def __init__(self, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.file, self.clock, self.verified = file, Clock(), 0
        write(file, *ACCOUNTS.values())

        def counted(hashed: str, password: bytes) -> bool:
            self.verified += 1
            return is_password(hashed, password)

        monkeypatch.setattr(logins, "is_password", counted)
        monkeypatch.setattr(logins, "WAITING", logins.WAITING)
        self._logins = Logins(Config(users_file=str(file), http_token="t0ken"), self.clock)  # noqa: S106

    async def knock(self, given: bytes, address: str = HOME) -> User | tuple[int, str | None]:
        """The user, or the status and when to come again."""
        try:
            return await self._logins.user(given, address)
        except RefusedError as refused:
            return refused.status, refused.headers.get("Retry-After")


@pytest.fixture
def door(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Door:
    return Door(tmp_path / "users.jsonl", monkeypatch)


def on_a_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[[Door], None]:
    """A test that is a coroutine."""

    def run(door: Door) -> None:
        asyncio.run(test(door))

    run.__name__ = test.__name__
    return run


@on_a_loop
async def test_the_right_password_names_the_user_and_their_orgs(door: Door) -> None:
    assert await door.knock(basic("shop")) == SHOP
    assert await door.knock(basic("web")) == WEB
    assert await door.knock(basic("web").replace(b"Basic ", b"bAsIc  ")) == WEB
    assert await door.knock(b"Bearer t0ken") == OPERATOR


@on_a_loop
async def test_whatever_is_not_right_is_refused(door: Door) -> None:
    wrong = [
        basic("shop", "secret of web"), basic("shop", ""), basic("nobody"), basic(""), basic("SHOP"), b"", b"Basic",
        b"Basic !!!", b"Basic " + b64encode(b"no colon"), b"Basic " + b64encode(b"\xff\xfe:x"), b"Bearer", b"Bearer x",
        b"Bearer t0ke\xff", b"Digest " + b64encode(b"shop:secret of shop"), ACCOUNTS["shop"].hash.encode(),
    ]  # fmt: skip
    for number, given in enumerate(wrong):
        assert await door.knock(given, f"192.0.2.{number}") == (401, None), given


def test_without_a_token_none_is_right(tmp_path: Path) -> None:
    write(tmp_path / "users", *ACCOUNTS.values())
    door = Logins(Config(users_file=str(tmp_path / "users")))
    for given in (b"Bearer", b"Bearer ", b"Bearer x"):
        with pytest.raises(RefusedError):
            asyncio.run(door.user(given, HOME))


@on_a_loop
async def test_an_unknown_name_costs_one_verification_like_a_known_one(door: Door) -> None:
    for given in (basic("shop", "wrong"), basic("nobody", "wrong"), basic("nobody", "secret of shop")):
        before = door.verified
        assert await door.knock(given) == (401, None)
        assert door.verified == before + 1


@on_a_loop
async def test_a_password_is_verified_once_while_it_is_in_use(door: Door) -> None:
    for _ in range(5):
        assert await door.knock(basic("shop"), AWAY) == SHOP
        door.clock.now += 50
    assert door.verified == 1
    door.clock.now += 61
    assert await door.knock(basic("shop")) == SHOP
    assert door.verified == 2


@on_a_loop
async def test_what_is_wrong_is_not_remembered(door: Door) -> None:
    for _ in range(3):
        assert await door.knock(basic("shop", "wrong")) == (401, None)
    assert door.verified == 3


@on_a_loop
async def test_many_requests_with_the_same_password_wait_for_one_verification(door: Door) -> None:
    assert set(await asyncio.gather(*(door.knock(basic("shop")) for _ in range(500)))) == {SHOP}
    assert door.verified == 1


@on_a_loop
async def test_after_too_many_failures_an_address_has_to_wait(door: Door) -> None:
    for number in range(FAILURES):
        assert await door.knock(basic("shop", f"guess {number}")) == (401, None)
    before = door.verified
    for given in (basic("shop"), basic("shop", "wrong"), b"Bearer t0ken", b"nonsense"):
        assert await door.knock(given) == (429, "6")
    assert door.verified == before, "nothing is verified for it"
    assert await door.knock(basic("shop"), AWAY) == SHOP
    door.clock.now += 6
    assert await door.knock(basic("shop", "wrong")) == (401, None)
    assert await door.knock(basic("shop", "wrong")) == (429, "6")
    door.clock.now += 60
    assert await door.knock(basic("web")) == WEB


@on_a_loop
async def test_guesses_made_at_the_same_time_count_before_the_next_is_looked_at(door: Door) -> None:
    answers = await asyncio.gather(*(door.knock(basic("shop", f"guess {number}")) for number in range(40)))
    assert answers.count((401, None)) == door.verified
    assert FAILURES <= door.verified <= FAILURES + logins.VERIFIED_AT_ONCE - 1
    assert {answer[0] for answer in answers if isinstance(answer, tuple)} == {401, 429}


@on_a_loop
async def test_who_is_at_work_is_not_locked_out_by_a_neighbour(door: Door) -> None:
    assert await door.knock(basic("shop")) == SHOP
    for number in range(FAILURES):
        await door.knock(basic("web", f"guess {number}"))
    assert await door.knock(basic("web")) == (429, "6")
    assert await door.knock(basic("shop")) == SHOP


# --- threads -----------------------------------------------------------------------------------------


@on_a_loop
async def test_passwords_are_verified_beside_the_event_loop_and_not_all_at_once(door: Door) -> None:
    assert await door.knock(basic("shop")) == SHOP
    logins.WAITING = 4  # the fixture puts it back
    go, lock, inside, most = threading.Event(), threading.Lock(), 0, 0

    def slow(hashed: str, password: bytes) -> bool:
        nonlocal inside, most
        with lock:
            inside += 1
            most = max(most, inside)
        assert go.wait(5)
        with lock:
            inside -= 1
        return False

    logins.is_password = slow  # type: ignore[assignment] - the fixture puts it back
    waiting = [asyncio.create_task(door.knock(basic("web", str(n)), f"a{n}")) for n in range(4)]
    while inside < logins.VERIFIED_AT_ONCE:
        await asyncio.sleep(0)
    assert await door.knock(basic("shop")) == SHOP, "the loop goes on"
    assert await door.knock(basic("web", "one more")) == (503, "1")
    go.set()
    assert set(await asyncio.gather(*waiting)) == {(401, None)}
    assert most == logins.VERIFIED_AT_ONCE


# --- changes of the file -----------------------------------------------------------------------------


@on_a_loop
async def test_a_change_of_the_file_counts_and_what_was_verified_is_forgotten(door: Door) -> None:
    assert await door.knock(basic("shop")) == SHOP
    write(door.file, make_account("shop", [5], "another"), ACCOUNTS["web"])
    assert await door.knock(basic("shop")) == SHOP, "it was looked at a moment ago"
    door.clock.now += 1
    assert await door.knock(basic("shop")) == (401, None)
    assert await door.knock(basic("shop", "another")) == User("shop", frozenset({5}))
    write(door.file)
    door.clock.now += 1
    assert await door.knock(basic("shop", "another")) == (401, None)
    assert await door.knock(b"Bearer t0ken") == OPERATOR


@on_a_loop
async def test_a_verification_that_a_change_of_the_file_overtakes_is_not_remembered(door: Door) -> None:
    go, started = threading.Event(), threading.Event()

    def slow(hashed: str, password: bytes) -> bool:
        started.set()
        assert go.wait(5)
        return is_password(hashed, password)

    logins.is_password = slow  # type: ignore[assignment] - the fixture puts it back
    overtaken = asyncio.create_task(door.knock(basic("shop")))
    while not started.is_set():
        await asyncio.sleep(0)
    write(door.file, ACCOUNTS["web"])
    door.clock.now += 1
    go.set()
    assert await door.knock(basic("shop")) == (401, None)
    assert await overtaken == SHOP
    assert await door.knock(basic("shop")) == (401, None)


@on_a_loop
async def test_while_the_file_is_faulty_the_users_of_before_stay(door: Door) -> None:
    door.file.write_text("nonsense")
    door.clock.now += 1
    assert await door.knock(basic("shop")) == SHOP
    door.file.unlink()
    door.clock.now += 1
    assert await door.knock(basic("web")) == WEB
    write(door.file, ACCOUNTS["web"])
    door.clock.now += 1
    assert await door.knock(basic("shop")) == (401, None)


def test_a_missing_file_is_one_clear_line_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(UsersError, match=r"gone: No such file"):
        Logins(Config(users_file=str(tmp_path / "gone")))


@pytest.mark.parametrize(
    ("host", "counted_as"),
    [
        ("192.0.2.1", "192.0.2.1"), ("::ffff:192.0.2.1", "192.0.2.1"), ("2001:db8:1:2:3::4", "2001:db8:1:2::/64"),
        ("::1", "::/64"), ("", ""), ("testclient", "testclient"),
    ],
)  # fmt: skip
def test_addresses_that_have_one_owner_count_together(host: str, counted_as: str) -> None:
    assert address_of(host) == counted_as
