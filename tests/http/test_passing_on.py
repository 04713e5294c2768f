"""What goes along when one worker asks another, and what several answers make together."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import orjson
from fastapi import Request, Response

from streams.config import Config
from streams.http.owners import HOP, Owners, as_json, retry
from streams.http.replies import together


def _request(headers: list[tuple[bytes, bytes]]) -> Request:
    return Request({"type": "http", "method": "POST", "headers": headers, "query_string": b"", "path": "/"})


def _passed_on(headers: list[tuple[bytes, bytes]]) -> httpx.Request:
    """What the other worker gets of a request with these headers."""
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200)

    async def ask() -> Response:
        nothing: Any = None
        config = Config(http_token="t0ken")  # noqa: S106
        owners = Owners(config, nothing, lambda _: "http://other:1")
        await owners.close()
        owners._client = httpx.AsyncClient(transport=httpx.MockTransport(answer), headers=owners._client.headers)
        return await owners.ask_for(0, "/v1/x", _request(headers))

    assert asyncio.run(ask()).status_code == 200
    return seen[0]


def test_headers_go_along_byte_for_byte() -> None:
    key = "clé-日本".encode()
    found = _passed_on([(b"idempotency-key", key), (b"x-org-id", b"100"), (b"cookie", b"a=b")])
    raw = {name.lower(): value for name, value in found.headers.raw}
    assert raw[b"idempotency-key"] == key
    assert raw[b"x-org-id"] == b"100"
    assert raw[HOP.encode()] == b"1"
    assert b"cookie" not in raw


def test_who_asks_goes_along_and_else_the_worker_s_own_token() -> None:
    assert _passed_on([]).headers.get_list("authorization") == ["Bearer t0ken"]
    assert _passed_on([(b"authorization", b"Basic dTpw")]).headers.get_list("authorization") == ["Basic dTpw"]


def _accepted(customer: str, offset: int) -> Response:
    position = {"partition": 0, "offset": offset}
    return as_json({
        "reason": "r", "subscriptions": [{"customerId": customer, "position": position}], "warnings": [],
        "errors": [], "positions": [position],
    })  # fmt: skip


def _refused(status: int, message: str) -> Response:
    error = {"status": False, "code": status, "message": message}
    return as_json({"subscriptions": [], "warnings": [], "errors": [error]}, status)


def test_what_was_not_done_for_one_of_several_customers_is_said() -> None:
    answers = [retry("partition 3 is being moved"), _accepted("a", 1), _refused(404, "gone"), _accepted("b", 2)]
    whole = together(answers, len(answers))
    document = orjson.loads(whole.body)
    assert whole.status_code == 200
    assert document["reason"] == "r"
    assert [one["customerId"] for one in document["subscriptions"]] == ["a", "b"]
    assert [one["offset"] for one in document["positions"]] == [1, 2]
    assert [(one["code"], one["message"]) for one in document["errors"]] == [
        (503, "partition 3 is being moved"), (404, "gone"),
    ]  # fmt: skip
    assert "shared" in document["warnings"][0]["message"]


def test_where_nothing_was_done_the_first_answer_stands() -> None:
    answers = [retry("partition 3 is being moved"), _refused(404, "gone")]
    assert together(answers, 2) is answers[0]
