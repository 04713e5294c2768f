"""A real worker does what its OpenAPI document says, whatever it is sent."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis.config import GenerationConfig, ProjectConfig, ProjectsConfig, SchemathesisConfig
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from schemas.base import LAST_MS
from schemas.examples import EXAMPLES
from streams.http.documents import openapi
from streams.links import Link, Links
from tests.integration.conftest import MakeWorker, MakeWorld
from tests.integration.harness import CHANGES, World, wait_for
from tests.integration.orgs import dump

pytestmark = pytest.mark.kafka

CHECKS = [
    content_type_conformance, response_headers_conformance, response_schema_conformance, status_code_conformance,
]  # fmt: skip
#: A request would otherwise wait so long for a position that is not there.
MOST_WAIT_MS = 50
CUSTOMER = EXAMPLES["customer.registered"]
#: What is seldom made up: an org and a customer that there are, a time since 1970, a link that is signed.
KNOWN = {name: CUSTOMER[name] for name in ("org_id", "customer_id", "occurred_at")}
KNOWN["received_at"] = KNOWN["requested_at"] = KNOWN["occurred_at"]
SECRET = "a secret of this test's own"  # noqa: S105
_PLACE = ("WEB_ENGAGE", "01", "EMAIL", "BULK", 200031782)
KNOWN["token"] = Links(SECRET).token(Link(100, "565039505", *_PLACE, action="OPTIN", expires_at=LAST_MS))
ACCOUNTS = [*EXAMPLES["settings"]["accounts"], {"source": "FACEBOOK", "account_id": "01", "channels": ["EMAIL"]}]
SETTINGS = EXAMPLES["settings"] | {"accounts": ACCOUNTS, "default_profile": {"source": "FACEBOOK", "account_id": "01"}}
OPERATIONS = [(method, path) for path, methods in openapi()["paths"].items() for method in methods]
#: Valid requests and faulty ones; where nothing is asked for, nothing can be faulty.
MODES = [
    (place, mode)
    for place in OPERATIONS
    for mode in schemathesis.GenerationMode
    if mode.is_positive or {"parameters", "requestBody"} & openapi()["paths"][place[1]][place[0]].keys()
]
each_operation = pytest.mark.parametrize("place", OPERATIONS, ids=" ".join)


@pytest.fixture(scope="module")
def example_world(make_world: MakeWorld) -> World:
    """The org and the customer that the document's examples are about."""
    world = make_world()
    changed = EXAMPLES["settings.changed"] | {"settings": SETTINGS}
    world.send_everywhere(b"100:", dump(changed))
    world.send(CHANGES, b"100:565039505", dump(CUSTOMER))
    return world


@pytest.fixture(scope="module")
def url(example_world: World, make_worker: MakeWorker) -> str:
    """A worker that knows them."""
    worker = make_worker(example_world, CONSENT_LINK_SECRET=SECRET).start().ready()
    known = f"{worker.url}/v1/customers/100/565039505"
    wait_for("the example's customer", lambda: httpx.get(known, timeout=30).status_code == 200)
    return worker.url


def test_the_document_is_served(url: str) -> None:
    assert httpx.get(f"{url}/openapi.json").json() == openapi()


@each_operation
def test_its_examples_work_as_they_stand(url: str, place: tuple[str, str]) -> None:
    method, path = place
    operation = openapi()["paths"][path][method]
    said: dict[str, dict[str, str]] = {where: {} for where in ("path", "query", "header")}
    for one in operation.get("parameters", []):
        said[one["in"]][one["name"]] = str(one["example"])
    body = operation.get("requestBody", {}).get("content", {}).get("application/json")
    answer = httpx.request(
        method, url + path.format(**said["path"]), params=said["query"], headers=said["header"], timeout=30,
        json=body and body["example"],
    )  # fmt: skip
    # A token that everybody can read is signed by nobody's secret.
    assert answer.status_code == 404 if path == "/u/{token}" else answer.status_code < 300, answer.text


@pytest.mark.parametrize(("place", "mode"), MODES, ids=lambda one: one if isinstance(one, str) else " ".join(one))
def test_whatever_is_sent_the_answer_is_one_of_the_document_s(
    url: str, place: tuple[str, str], mode: schemathesis.GenerationMode
) -> None:
    method, path = place
    operation = _schema()[path][method]

    @settings(max_examples=25, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(case=operation.as_strategy(generation_mode=mode), known=st.booleans())
    def ask(case: schemathesis.Case, known: bool) -> None:
        _about_the_example(case) if known else None
        _in_no_time(case)
        case.call_and_validate(base_url=url, checks=CHECKS, timeout=30)

    ask()


def _schema() -> Any:
    generation = GenerationConfig(deterministic=True)
    project = ProjectConfig(generation=generation)
    return schemathesis.openapi.from_dict(
        openapi(), config=SchemathesisConfig(projects=ProjectsConfig(default=project))
    )


def _about_the_example(case: schemathesis.Case) -> None:
    """Let it be about an org and a customer that there are."""
    case.path_parameters = {name: str(KNOWN.get(name, value)) for name, value in case.path_parameters.items()}
    case.query = {name: value for name, value in case.query.items() if name != "org_id"}
    if case.path.startswith(("/v2", "/v1.1")):
        case.headers["X-Org-Id"] = "100"
    for part in case.body if isinstance(case.body, list) else [case.body]:
        if isinstance(part, dict):
            part.update({name: value for name, value in KNOWN.items() if name in part})


def _in_no_time(case: schemathesis.Case) -> None:
    if case.path == "/v1/eligibility" and isinstance(case.body, dict) and isinstance(case.body.get("max_wait_ms"), int):
        case.body["max_wait_ms"] = min(case.body["max_wait_ms"], MOST_WAIT_MS)
