"""Which paths ask whom for credentials, on which address; a small app stands for the worker's routes."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request, Response

from streams.config import Config
from streams.http.access import Access, asking, forbidden, may_act_for
from streams.http.logins import Logins
from streams.http.users import changing, make_account

OPEN = ("/livez", "/readyz", "/u/abc")
WRITING = ("/v2/customers/1/subscriptions", "/v1.1/customer/subscriptions", "/v1/inbound/sms")
OTHER = ("/v1/customers/100/1", "/v1/eligibility", "/metrics", "/openapi.json", "/", "/v2", "/u", "/livez/", "//v2/x")
LOOPBACK, ANYWHERE = "127.0.0.1", "0.0.0.0"  # noqa: S104 - this is what is tested
TOKEN: dict[str, str] = {"Authorization": "Bearer t0ken"}
SHOP, WRONG = ("shop", "geheim"), ("shop", "wrong")
ACCOUNT = make_account("shop", [100], "geheim")


class World:
    """An app behind `Access`, and what it answers."""

    def __init__(self, clock: Any = None, **options: Any) -> None:
        self._app = FastAPI(openapi_url=None)
        config = Config(**options)
        with_clock = {"clock": clock} if clock else {}
        self._app.add_middleware(Access, config=config, logins=Logins(config, **with_clock), **with_clock)

        @self._app.get("/orgs/{org_id}")
        async def org(org_id: int, request: Request) -> Response:
            return Response() if may_act_for(request, org_id) else forbidden(org_id)

        @self._app.get("/{path:path}")
        async def anything(request: Request) -> str:
            return asking(request).name

    def get(self, path: str, **more: Any) -> httpx.Response:
        async def ask() -> httpx.Response:
            transport = httpx.ASGITransport(app=self._app, client=("192.0.2.1", 5))
            async with httpx.AsyncClient(transport=transport) as client:
                return await client.get(f"http://worker{path}", **more)

        return asyncio.run(ask())

    def status(self, path: str, **more: Any) -> int:
        return self.get(path, **more).status_code


@pytest.fixture
def users(tmp_path: Path) -> str:
    """The path of a file with one user."""
    with changing(tmp_path / "users") as accounts:
        accounts["shop"] = ACCOUNT
    return str(tmp_path / "users")


#: Who is configured, where the worker listens, and what the paths of each kind answer without credentials.
RULES = [
    ((), LOOPBACK, {WRITING: 200, OTHER: 200}),
    ((), ANYWHERE, {WRITING: 401, OTHER: 401}),
    (("token",), LOOPBACK, {WRITING: 401, OTHER: 401}),
    (("token",), ANYWHERE, {WRITING: 401, OTHER: 401}),
    (("users",), LOOPBACK, {WRITING: 401, OTHER: 200}),
    (("users",), ANYWHERE, {WRITING: 401, OTHER: 401}),
    (("users", "token"), LOOPBACK, {WRITING: 401, OTHER: 401}),
    (("users", "token"), ANYWHERE, {WRITING: 401, OTHER: 401}),
]


def world_of(configured: tuple[str, ...], host: str, users: str) -> World:
    options = {"users": {"users_file": users}, "token": {"http_token": "t0ken"}}
    return World(http_host=host, **{name: value for kind in configured for name, value in options[kind].items()})


@pytest.mark.parametrize(("configured", "host", "expected"), RULES)
def test_each_kind_of_path_has_its_rule(
    configured: tuple[str, ...], host: str, expected: dict[tuple[str, ...], int], users: str
) -> None:
    world = world_of(configured, host, users)
    for path in OPEN:
        assert (world.status(path), world.status(path, auth=WRONG)) == (200, 200), path
    for paths, status in expected.items():
        for path in paths:
            assert world.status(path) == status, path


@pytest.mark.parametrize("host", [LOOPBACK, ANYWHERE])
@pytest.mark.parametrize("path", [WRITING[0], OTHER[0]])
def test_right_credentials_open_and_wrong_ones_close_on_every_address(path: str, host: str, users: str) -> None:
    world = world_of(("users", "token"), host, users)
    assert world.get(path, auth=SHOP).json() == "shop"
    assert world.status(path, headers=TOKEN) == 200
    assert world.status(path, auth=WRONG) == 401
    assert world.status(path, headers={"Authorization": "Bearer wrong"}) == 401
    only_users = world_of(("users",), host, users)
    assert only_users.status(path, auth=SHOP) == 200
    assert (only_users.status(path, auth=WRONG), only_users.status(path, headers=TOKEN)) == (401, 401)
    only_token = world_of(("token",), host, users)
    assert only_token.status(path, headers=TOKEN) == 200
    assert only_token.status(path, auth=SHOP) == 401


def test_a_401_says_what_is_asked_for(users: str) -> None:
    refused = world_of(("users",), LOOPBACK, users).get(WRITING[0])
    assert refused.headers["www-authenticate"] == 'Basic realm="consent-streams"'
    assert "user" in refused.json()["detail"]
    refused = world_of(("token",), LOOPBACK, users).get(WRITING[0])
    assert refused.headers["www-authenticate"] == "Bearer"
    assert "CONSENT_HTTP_TOKEN" in refused.json()["detail"]


def test_a_user_acts_for_their_orgs_only_and_the_token_for_all(users: str) -> None:
    world = world_of(("users", "token"), ANYWHERE, users)
    assert world.status("/orgs/100", auth=SHOP) == 200
    refused = world.get("/orgs/7", auth=SHOP)
    assert (refused.status_code, refused.json()) == (403, {"detail": "this user may not act for org 7"})
    assert world.status("/orgs/7", headers=TOKEN) == 200
    loopback = world_of(("users",), LOOPBACK, users)
    assert (loopback.status("/orgs/7"), loopback.status("/orgs/7", auth=SHOP)) == (200, 403)


def test_an_open_path_acts_for_no_org(users: str) -> None:
    assert World(http_host=LOOPBACK).get("/u/token", auth=SHOP).json() == "(nobody)"


def test_a_user_who_asks_too_often_is_told_when_to_come_again(users: str) -> None:
    now = [1_000.0]
    world = World(lambda: now[0], http_host=LOOPBACK, users_file=users, rate_limit=3)
    assert [world.status("/v2/x", auth=SHOP) for _ in range(5)] == [200, 200, 200, 429, 429]
    refused = world.get("/v1/x", auth=SHOP)
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
    assert world.status("/v1/x") == 200, "who is no user has no rate"
    now[0] += 1
    assert [world.status("/v2/x", auth=SHOP) for _ in range(4)] == [200, 200, 200, 429]


def test_failed_logins_are_429_after_a_while(users: str) -> None:
    world = World(lambda: 1_000.0, http_host=LOOPBACK, users_file=users)
    assert [world.status("/v1/x", auth=WRONG) for _ in range(11)] == [401] * 10 + [429]
    refused = world.get("/v2/x", auth=SHOP)
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "6")
    assert world.status("/v1/x") == 200
