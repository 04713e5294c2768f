"""The subscription APIs over real HTTP: v2, v1.1 and the webhooks of gateways."""

from __future__ import annotations

import json
from itertools import count
from typing import Any

import httpx
import pytest

from tests.integration.conftest import MakeWorker, MakeWorld
from tests.integration.harness import AUDIT, CHANGES, SHORT_SESSION, Doc, Worker, World, wait_for
from tests.integration.orgs import INSTORE, Org, dump

pytestmark = pytest.mark.kafka

FACEBOOK: Doc = {"source": "FACEBOOK", "account_id": "01"}
UNIT = 200031782
ACCOUNTS = [FACEBOOK | {"channels": ["EMAIL", "MOBILE"]}, INSTORE | {"channels": ["MOBILE"]}]
_numbers = count(1)


def entry(channel: str = "EMAIL", priority: str = "BULK", kind: str = "OPTOUT", **fields: Any) -> Doc:
    """An entry as the platform sends it."""
    head = {"channel": channel, "accountId": "01", "priority": priority, "type": kind, "orgUnitId": UNIT}
    return head | {"sourceName": "FACEBOOK"} | fields


#: Real traffic: the fourth entry has a slip of the pen.
FOUR = [
    entry("EMAIL", "BULK", "OPTOUT"),
    entry("MOBILE", "BULK", "OPTIN"),
    entry("EMAIL", "TRANS", "OPTIN"),
    entry("MOBILE", "TANS", "OPTOUT"),
]
SCOPE = {"scope": "ORG", "subScope": "x"}
HEAD = {"communicationId": "c-7", "campaignId": -1, "reason": "preference centre", "scope": SCOPE}


class Shop(Org):
    """An org with customer `c` registered, and a client that asks a worker for it."""

    def __init__(self, world: World, url: str, **settings: Any) -> None:
        defaults = {"require_registration": True, "org_units": [{"id": UNIT}], "accounts": ACCOUNTS}
        super().__init__(world, **defaults | settings)
        self.url = url
        self.email = f"ana.{next(_numbers)}@example.com"
        self.register(identifiers={"email": self.email, "external_id": f"x-{self.id}"})

    def post(self, path: str, body: Any, **headers: str) -> httpx.Response:
        headers = {"X-Org-Id": str(self.id)} | {name.replace("_", "-"): value for name, value in headers.items()}
        content = body if isinstance(body, bytes) else dump(body)
        return httpx.post(self.url + path, content=content, headers=headers, timeout=30)

    def subscribe(self, *entries: Any, customer: str = "c", **headers: str) -> httpx.Response:
        return self.post(f"/v2/customers/{customer}/subscriptions", HEAD | {"subscriptions": list(entries)}, **headers)

    def look_up(self, name: str, value: str, *entries: Any) -> httpx.Response:
        query = httpx.QueryParams(source="FACEBOOK", accountId="01", identifierName=name, identifierValue=value)
        return self.post(f"/v2/customers/lookup/subscriptions?{query}", HEAD | {"subscriptions": list(entries)})

    def statuses(self, customer: str = "c") -> dict[tuple[str, ...], str]:
        answer = httpx.get(
            f"{self.url}/v2/customers/{customer}/subscriptions", headers={"X-Org-Id": str(self.id)}, timeout=30
        )
        assert answer.status_code == 200, answer.text
        named = ("sourceName", "accountId", "channel", "priority", "orgUnitId")
        return {tuple(str(one[name]) for name in named): one["type"] for one in answer.json()["subscriptions"]}

    def legacy(self, *items: Any) -> httpx.Response:
        return self.post("/v1.1/customer/subscriptions", {"root": {"subscription": list(items)}})

    def events(self) -> list[Doc]:
        """What is in the log of this org besides registrations and settings."""
        found = [r.body for r in self.world.read(CHANGES) if (r.key or b"").startswith(f"{self.id}:".encode())]
        return [event for event in found if event["event"] == "consent.changed"]

    def asked(self, **fields: Any) -> tuple[bool, str]:
        return self.verdict(**FACEBOOK | {"org_unit_id": UNIT, "channel": "EMAIL"} | fields)


@pytest.fixture(scope="module")
def shop(world: World, worker: Worker) -> Shop:
    return Shop(world, worker.url)


@pytest.fixture
def new_shop(world: World, worker: Worker) -> Any:
    return lambda **settings: Shop(world, worker.url, **settings)


def test_a_mixed_batch_is_taken_entry_by_entry(new_shop: Any) -> None:
    shop = new_shop(opt_in_types=[{"type": "RESTRICTED"}])
    answer = shop.subscribe(*FOUR)
    assert answer.status_code == 200
    body = answer.json()
    assert [one["index"] for one in body["subscriptions"]] == [0, 1, 2]
    assert {name: body[name] for name in HEAD} == HEAD
    (error,) = body["errors"]
    assert (error["status"], error["code"]) == (False, 1000)
    assert "subscriptions[3].priority" in error["message"]
    assert all(word in error["message"] for word in ("BULK", "TRANS", "TANS"))
    assert body["warnings"] == []
    events = shop.events()
    assert [(e["channel"], e["priority"], e["type"]) for e in events] == [
        ("EMAIL", "BULK", "OPTOUT"), ("MOBILE", "BULK", "OPTIN"), ("EMAIL", "TRANS", "OPTIN"),
    ]  # fmt: skip
    assert {(e["origin"], e["reason"], e["communication_id"], e.get("campaign_id")) for e in events} == {
        ("API", "preference centre", "c-7", None)
    }
    place = ("FACEBOOK", "01")
    assert shop.statuses() == {
        (*place, "EMAIL", "BULK", str(UNIT)): "OPTOUT",
        (*place, "MOBILE", "BULK", str(UNIT)): "OPTIN",
        (*place, "EMAIL", "TRANS", str(UNIT)): "OPTIN",
    }
    assert shop.asked() == (False, "opted_out")
    assert shop.asked(channel="MOBILE") == (True, "opted_in")
    position = body["subscriptions"][0]["position"]
    assert position in body["positions"]
    assert shop.ask(**FACEBOOK | {"org_unit_id": UNIT, "min_position": position})["eligible"]


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ({"channel": "FAX"}, "subscriptions[0].channel: Input should be 'MOBILE'"),
        ({"type": "out"}, "subscriptions[0].type: Input should be 'OPTIN' or 'OPTOUT', not 'out'"),
        ({"orgUnitId": 5}, f"subscriptions[0].orgUnitId: 5 is not a unit of the org: {UNIT}, -1"),
        ({"orgUnitId": "north"}, "subscriptions[0].orgUnitId: Input should be a valid integer"),
        ({"accountId": "99"}, "subscriptions[0].accountId: FACEBOOK '99' is not an active account of the org"),
        ({"channel": "MOBILE", "sourceName": "INSTORE", "accountId": 1}, "subscriptions[0].accountId"),
        ({"sourceName": "INSTORE"}, "subscriptions[0].channel: INSTORE '01' is not mapped to EMAIL"),
    ],
)
def test_an_entry_that_cannot_be_added_is_named_with_what_is_allowed(shop: Shop, bad: Doc, said: str) -> None:
    answer = shop.subscribe(entry(**{"channel": "EMAIL"} | bad))
    assert answer.status_code == 500  # all entries failed
    (error,) = answer.json()["errors"]
    assert error["code"] == 1000
    assert said in error["message"]


def test_a_missing_field_and_an_entry_that_is_none_are_named(shop: Shop) -> None:
    lacking = {name: value for name, value in entry().items() if name != "priority"}
    answer = shop.subscribe(lacking, "nothing", entry()).json()
    assert [error["message"].partition(":")[0] for error in answer["errors"]] == [
        "subscriptions[0].priority", "subscriptions[1]",
    ]  # fmt: skip
    assert len(answer["subscriptions"]) == 1


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"[]", b"{}", b'{"subscriptions": []}', b'{"subscriptions": {}}',
        b'{"subscriptions": [{}], "reason": 5}',
    ],
)  # fmt: skip
def test_a_request_that_cannot_be_read_is_400(shop: Shop, body: bytes) -> None:
    answer = shop.post("/v2/customers/c/subscriptions", body)
    assert answer.status_code == 400
    assert answer.json()["errors"][0]["code"] == 400


def test_a_customer_who_is_not_registered_is_1012(shop: Shop) -> None:
    for answer in (
        shop.subscribe(entry(), customer="nobody"),
        shop.look_up("email", "nobody@example.com", entry()),
        httpx.get(f"{shop.url}/v2/customers/nobody/subscriptions", headers={"X-Org-Id": str(shop.id)}),
    ):
        assert answer.status_code == 404
        assert [error["code"] for error in answer.json()["errors"]] == [1012]


def test_a_customer_is_found_by_identifier_right_behind_the_registration(new_shop: Any) -> None:
    shop = new_shop()
    answer = shop.look_up("email", shop.email.upper(), entry())
    assert answer.status_code == 200
    assert [one["customerId"] for one in answer.json()["subscriptions"]] == ["c"]
    assert shop.look_up("externalId", f"x-{shop.id}", entry(kind="OPTIN")).status_code == 200
    assert shop.look_up("shoeSize", "42", entry()).status_code == 400
    assert shop.asked() == (True, "opted_in")


def test_what_is_looked_up_by_a_shared_identifier_applies_to_all_who_have_it(new_shop: Any) -> None:
    shop = new_shop()
    shop.register(customer_id="d", identifiers={"email": shop.email})
    body = shop.look_up("email", shop.email, entry()).json()
    assert sorted(one["customerId"] for one in body["subscriptions"]) == ["c", "d"]
    assert "shared" in body["warnings"][0]["message"]
    assert shop.asked() == shop.asked(customer_id="d") == (False, "opted_out")


def test_the_same_key_gives_the_same_answer_and_no_second_event(new_shop: Any) -> None:
    shop = new_shop()
    first = shop.subscribe(*FOUR, Idempotency_Key="k-1")
    again = shop.subscribe(*FOUR, Idempotency_Key="k-1")
    assert (again.status_code, again.json()) == (first.status_code, first.json())
    assert len(shop.events()) == 3
    other = shop.subscribe(entry(kind="OPTIN"), Idempotency_Key="k-1")
    assert other.status_code == 422
    assert len(shop.events()) == 3
    assert shop.subscribe(*FOUR, Idempotency_Key="k-2").json()["positions"] != first.json()["positions"]


def test_a_double_opt_in_waits_and_the_answer_says_so(new_shop: Any) -> None:
    shop = new_shop(opt_in_types=[{"channel": "EMAIL", "type": "DOUBLE"}])
    answer = shop.subscribe(entry(kind="OPTIN")).json()
    assert "subscriptions[0]" in answer["warnings"][0]["message"]
    assert shop.asked() == (False, "verification_pending")


def test_the_older_api_acts_on_the_default_profile_for_the_whole_org(new_shop: Any) -> None:
    shop = new_shop(default_profile=FACEBOOK)
    item = {"email": shop.email, "priority": "BULK", "scope": "all", "channel": "email", "is_subscribed": 0}
    answer = shop.legacy(item, item | {"email": "nobody@example.com"}, {"id": "c", "priority": "TRANS"})
    assert answer.status_code == 201
    told = answer.json()["response"]
    assert {name: told["status"][name] for name in ("success", "code", "total", "success_count")} == {
        "success": False, "code": 201, "total": 3, "success_count": 1,
    }  # fmt: skip
    items = told["subscriptions"]["subscription"]
    assert [one["item_status"]["code"] for one in items] == [1000, 1012, 400]
    assert items[0]["email"] == shop.email
    assert shop.statuses() == {("FACEBOOK", "01", "EMAIL", "BULK", "-1"): "OPTOUT"}
    assert shop.asked() == (False, "opted_out")
    by_id = {"id": "c", "priority": "bulk", "channel": "sms", "is_subscribed": "1"}
    assert shop.legacy(by_id).status_code == 200
    assert shop.legacy(by_id | {"id": "nobody"}).status_code == 500
    assert shop.statuses()["FACEBOOK", "01", "MOBILE", "BULK", "-1"] == "OPTIN"
    assert shop.post("/v1.1/customer/subscriptions", b"{}").status_code == 400


def test_gateways_write_by_webhook(new_shop: Any) -> None:
    rule = INSTORE | {"org_unit_id": UNIT, "priority": "BULK"}
    sms = {"mode": "SMS", "number": "1234", "commands": {"OPTOUT": "STOP"}}
    shop = new_shop(mobile=[rule | sms], default_region="DE")
    number = f"017012{next(_numbers):05d}"
    shop.register(identifiers={"mobile": number})
    said = {"org_id": shop.id, "to": "1234", "from": number, "text": "stop", "received_at": "2026-01-01T10:00:00Z"}
    answer = shop.post("/v1/inbound/sms", said | {"message_id": "m-1"})
    assert answer.status_code == 202
    place = answer.json()["position"]
    shop.world.log(AUDIT).wait("its audit", lambda r: r.body["record"] == "inbound" and r.body["position"] == place)
    assert shop.verdict(**INSTORE | {"org_unit_id": UNIT}) == (False, "opted_out")
    faulty = shop.post("/v1/inbound/sms", said)
    assert (faulty.status_code, "message_id" in faulty.json()["detail"]) == (422, True)
    call = {name: value for name, value in said.items() if name != "text"}
    assert shop.post("/v1/inbound/call", call | {"call_id": "k-1"}).status_code == 202
    assert shop.post("/v1/inbound/sms", said | {"message_id": "m", "org_id": 999_999}).status_code == 404


def test_any_worker_answers_and_a_restart_remembers_keys(make_world: MakeWorld, make_worker: MakeWorker) -> None:
    world = make_world()
    workers = [make_worker(world, **SHORT_SESSION).start() for _ in "ab"]
    for worker in workers:
        worker.ready()
    shop = Shop(world, workers[0].url)
    customers = [f"c-{n}" for n in range(12)]
    for customer in customers:
        shop.register(customer_id=customer, identifiers={"external_id": f"x-{customer}"})
    answers: dict[str, Any] = {}
    for n, customer in enumerate(customers):
        shop.url = workers[n % 2].url
        found = shop.look_up("external_id", f"x-{customer}", entry())
        assert found.status_code == 200, found.text
        answers[customer] = shop.subscribe(entry(), customer=customer, Idempotency_Key=f"k-{n}").json()
        assert [one["index"] for one in answers[customer]["subscriptions"]] == [0]
    before = len(shop.events())
    assert before == 2 * len(customers)
    workers[0].kill()
    shop.url = workers[1].url
    for n, customer in enumerate(customers):

        def again(n: int = n, customer: str = customer) -> Any:
            answer = shop.subscribe(entry(), customer=customer, Idempotency_Key=f"k-{n}")
            return answer if answer.status_code != 503 else None

        assert wait_for("the partition's new owner", again).json() == answers[customer]
    assert len(shop.events()) == before
    assert json.loads(httpx.get(f"{shop.url}/v2/customers/c-0/subscriptions").text)["subscriptions"]


def test_where_one_org_has_settings_it_need_not_be_named(make_world: MakeWorld, make_worker: MakeWorker) -> None:
    world = make_world()
    worker = make_worker(world).start().ready()
    shop = Shop(world, worker.url)
    post = httpx.post(f"{worker.url}/v2/customers/c/subscriptions", json={"subscriptions": [entry()]}, timeout=30)
    assert post.status_code == 200, post.text
    Org(world)
    wait_for(
        "the second org's settings",
        lambda: httpx.get(f"{worker.url}/v2/customers/c/subscriptions", timeout=30).status_code == 400,
    )
    assert shop.statuses()
