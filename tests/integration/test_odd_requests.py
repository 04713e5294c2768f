"""What nobody should send is refused by its name, and what is merely unusual is taken as it is."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import httpx
import pytest

from tests.integration.conftest import MakeWorker, MakeWorld
from tests.integration.harness import DEADLETTER, Worker, World
from tests.integration.orgs import INSTORE, NORTH
from tests.integration.test_subscriptions import UNIT, Shop, entry

pytestmark = pytest.mark.kafka

ODD_IDS = [
    "a/b", "a%2Fb", "/", "a b", "a\nb", "a\n", "\x00", "ü", "日本", "?", "#", "a:b", "subscriptions", "x" * 128,
]  # fmt: skip
NO_IDS = ["", "x" * 129]
DEEP = 200  # can be read, but not be written again by every library
BOTTOMLESS = 20_000


@pytest.fixture(scope="module")
def shop(world: World, worker: Worker) -> Shop:
    return Shop(world, worker.url)


@pytest.fixture
def any_shop(world: World, worker: Worker) -> Shop:
    """An org that takes changes of customers it does not know."""
    return Shop(world, worker.url, require_registration=False)


def _get(shop: Shop, path: str) -> httpx.Response:
    # Not through httpx's own idea of a path: it would resolve dots.
    return httpx.get(httpx.URL(shop.url, raw_path=path.encode()), headers={"X-Org-Id": str(shop.id)}, timeout=30)


@pytest.mark.parametrize("customer", ODD_IDS)
def test_any_text_of_128_characters_is_a_customer_s_id(any_shop: Shop, customer: str) -> None:
    path = f"/v2/customers/{quote(customer, safe='')}/subscriptions"
    url = httpx.URL(any_shop.url, raw_path=path.encode())
    answer = httpx.post(url, json={"subscriptions": [entry()]}, headers={"X-Org-Id": str(any_shop.id)}, timeout=30)
    assert answer.status_code == 200, answer.text
    assert answer.json()["subscriptions"][0]["customerId"] == customer
    assert [one["type"] for one in _get(any_shop, path).json()["subscriptions"]] == ["OPTOUT"]
    state = _get(any_shop, f"/v1/customers/{any_shop.id}/{quote(customer, safe='')}").json()
    assert (state["customer_id"], len(state["cells"])) == (customer, 1)
    assert any_shop.asked(customer_id=customer) == (False, "opted_out")


@pytest.mark.parametrize("customer", NO_IDS)
def test_no_other_text_is(any_shop: Shop, customer: str) -> None:
    before = any_shop.events()
    path = f"/v2/customers/{customer}/subscriptions"
    assert any_shop.subscribe(entry(), customer=customer).status_code == 400
    assert _get(any_shop, path).status_code == 400
    assert _get(any_shop, f"/v1/customers/{any_shop.id}/{customer}").status_code == 422
    assert any_shop.look_up("id", customer or "x" * 129, entry()).status_code == 404
    assert any_shop.events() == before


@pytest.mark.parametrize("org", ["9" * 30, "-" + "9" * 30, "9" * 5_000, "1.0", "1e3", "one", "²", "1 2", "--1"])
def test_an_org_that_is_no_number_is_named(shop: Shop, org: str) -> None:
    for answer in (
        httpx.get(f"{shop.url}/v2/customers/c/subscriptions", params={"org_id": org}),
        httpx.get(f"{shop.url}/v2/customers/c/subscriptions", headers=[(b"X-Org-Id", org.encode("latin-1"))]),
    ):
        assert answer.status_code == 400
        assert answer.json()["errors"][0]["message"].startswith("org_id: ")
    assert httpx.get(f"{shop.url}/v1/orgs/{quote(org)}/settings").status_code in {404, 422}


def test_a_faulty_parameter_is_named_in_one_line(shop: Shop) -> None:
    answer = httpx.get(f"{shop.url}/v1/orgs/x/customers?name=id")
    assert answer.status_code == 422
    assert answer.json()["detail"].startswith("org_id: ")
    assert "value: Field required" in answer.json()["detail"]


def test_a_look_up_without_parameters_names_them(shop: Shop) -> None:
    for query in ("", "?identifierName=email", "?identifierValue=x", "?identifierName=&identifierValue="):
        answer = shop.post(f"/v2/customers/lookup/subscriptions{query}", {"subscriptions": [entry()]})
        assert answer.status_code == 400
        assert "identifierName, identifierValue" in answer.json()["errors"][0]["message"]


def test_a_look_up_in_an_org_without_settings_answers_in_the_api_s_own_form(shop: Shop) -> None:
    query = "identifierName=email&identifierValue=x&org_id=999999"
    answer = httpx.post(f"{shop.url}/v2/customers/lookup/subscriptions?{query}", json={"subscriptions": [entry()]})
    assert answer.status_code == 404
    assert answer.json()["errors"][0]["message"] == "no settings are in force for org 999999"


def nested(levels: int) -> bytes:
    return b"[" * levels + b"]" * levels


def _with(document: bytes, deep: bytes) -> bytes:
    return document[:-1] + b',"unknown":' + deep + b"}"


BODIES = [
    b"", b"\x00", b"\xff\xfe", b'{"a":"\xff"}', b'"\\ud800"', b"{", b"null", b"[]", b"1e999", b"NaN", b"\xef\xbb\xbf{}",
    nested(BOTTOMLESS), b'{"a":' * BOTTOMLESS,
]  # fmt: skip
PATHS = {
    "/v2/customers/c/subscriptions": 400, "/v1.1/customer/subscriptions": 400, "/v1/eligibility": 422,
    "/v1/inbound/sms": 422, "/v1/inbound/call": 422,
}  # fmt: skip


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("body", BODIES, ids=lambda body: repr(body[:12]))
def test_what_is_no_json_object_is_refused(shop: Shop, path: str, body: bytes) -> None:
    assert shop.post(path, body).status_code == PATHS[path]


def test_a_body_that_is_nested_too_deep_is_refused_before_anything_is_written(shop: Shop) -> None:
    number = {"to": "1234", "from": "+15550100505", "received_at": "2026-01-01T10:00:00Z"}
    question = {"org_id": shop.id, "customer_id": "c", "channel": "EMAIL", "priority": "BULK"}
    item = {"id": "c", "priority": "BULK", "channel": "email", "is_subscribed": 0}
    bodies: dict[str, Any] = {
        "/v2/customers/c/subscriptions": {"subscriptions": [entry()]},
        "/v1.1/customer/subscriptions": {"root": {"subscription": [item]}},
        "/v1/eligibility": question,
        "/v1/inbound/sms": number | {"org_id": shop.id, "message_id": "m", "text": "x"},
        "/v1/inbound/call": number | {"org_id": shop.id, "call_id": "c"},
    }
    before = shop.events()
    for path, body in bodies.items():
        content = httpx.Request("POST", shop.url, json=body).content
        answer = shop.post(path, _with(content, nested(DEEP)))
        assert answer.status_code == PATHS[path], path
        assert "nested deeper" in answer.text
        assert shop.post(path, _with(content, nested(50))).status_code in {200, 202, 500}, path
    taken = [event for event in shop.events() if event not in before]
    assert len(taken) == 2, "one each by v2 and v1.1, of the bodies that are not too deep"


def test_more_than_the_log_takes_at_once_is_refused_whole(shop: Shop) -> None:
    before = shop.events()
    many = {"reason": "r" * 4_000, "subscriptions": [entry()] * 300}
    answer = shop.post("/v2/customers/c/subscriptions", many)
    assert answer.status_code == 413
    assert "300 events" in answer.json()["detail"]
    assert shop.events() == before
    fewer = shop.post("/v2/customers/c/subscriptions", many | {"subscriptions": [entry()] * 200})
    assert [len(fewer.json()[name]) for name in ("subscriptions", "positions", "errors")] == [200, 200, 0]
    assert len(shop.events()) == len(before) + 200


def test_what_the_stream_would_call_too_large_is_refused(make_world: MakeWorld, make_worker: MakeWorker) -> None:
    world = make_world()
    worker = make_worker(world, CONSENT_MAX_RECORD_BYTES="2000").start().ready()
    shop = Shop(world, worker.url)
    answer = shop.post("/v2/customers/c/subscriptions", {"reason": "r" * 3_000, "subscriptions": [entry()]})
    assert answer.status_code == 413
    assert "max_record_bytes" in answer.json()["detail"]
    question = {"org_id": shop.id, "customer_id": "c", "channel": "EMAIL", "priority": "BULK", "org_unit_id": UNIT}
    bare = len(httpx.Request("POST", shop.url, json=question | {"x": ""}).content)
    just_fits = question | {"x": "x" * (2_000 - bare)}
    assert shop.post("/v1/eligibility", just_fits).status_code == 413, "the worker's own request_id makes it too large"
    assert shop.asked() == (True, "not_set_allowed")
    assert world.read(DEADLETTER) == []


def test_an_org_unit_may_be_written_as_text(shop: Shop) -> None:
    said = INSTORE | {"channel": "MOBILE", "accountId": "01", "sourceName": "INSTORE", "orgUnitId": str(UNIT)}
    answer = shop.subscribe(entry(**said))
    assert answer.json()["subscriptions"][0]["orgUnitId"] == str(UNIT)
    refused = shop.subscribe(entry(**said | {"orgUnitId": str(NORTH)}))
    assert refused.status_code == 500
