"""The OpenAPI document: valid, complete, and of exactly the routes that there are."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jsonschema
import pytest
from fastapi.routing import APIRoute
from openapi_spec_validator import OpenAPIV31SpecValidator

from streams.config import Config
from streams.http.documents import openapi
from streams.http.service import Service

DOCUMENT = openapi()
METHODS = {"get", "post", "put", "delete", "patch", "head", "options"}
OPERATIONS = {
    (method.upper(), path): operation
    for path, methods in DOCUMENT["paths"].items()
    for method, operation in methods.items()
}
each_operation = pytest.mark.parametrize("place", OPERATIONS, ids=" ".join)


@pytest.fixture
def routes(tmp_path: Path) -> list[APIRoute]:
    """What the worker's app offers; nothing of it is asked."""
    engine: Any = SimpleNamespace(intake_writer=SimpleNamespace(append_each=print))
    nothing: Any = None
    service = Service(Config(datadir=tmp_path), engine, nothing, nothing)
    app = service._routes(lambda: None)
    assert app.openapi() is DOCUMENT
    return [route for route in _routes_of(app) if route.include_in_schema]


def _routes_of(router: Any) -> Iterator[APIRoute]:
    for route in router.routes:
        if isinstance(route, APIRoute):
            yield route
        elif hasattr(route, "original_router"):  # FastAPI keeps included routers whole
            yield from _routes_of(route.original_router)


def test_the_document_is_valid_openapi_3_1() -> None:
    assert DOCUMENT["openapi"].startswith("3.1.")
    assert [error.message for error in OpenAPIV31SpecValidator(DOCUMENT).iter_errors()] == []


def test_every_route_is_described_and_nothing_else(routes: list[APIRoute]) -> None:
    assert {(method, route.path_format) for route in routes for method in route.methods} == set(OPERATIONS)


def test_the_parameters_in_paths_are_those_of_the_routes(routes: list[APIRoute]) -> None:
    for route in routes:
        for method in route.methods:
            described = OPERATIONS[method, route.path_format].get("parameters", [])
            assert {one["name"] for one in described if one["in"] == "path"} == set(route.param_convertors)
            declared = {one.alias for one in route.dependant.query_params}
            assert declared <= {one["name"] for one in described if one["in"] == "query" and one["required"]}


@each_operation
def test_every_operation_says_what_it_does_and_answers(place: tuple[str, str]) -> None:
    operation = OPERATIONS[place]
    assert operation["summary"]
    assert operation["description"]
    assert {tag["name"] for tag in DOCUMENT["tags"]} >= set(operation["tags"])
    assert any(status.startswith("2") for status in operation["responses"])
    assert all(answer["description"] for answer in operation["responses"].values())
    assert all(one["description"] and one["schema"] for one in operation.get("parameters", []))


def test_operations_have_names_of_their_own() -> None:
    assert len({operation["operationId"] for operation in OPERATIONS.values()}) == len(OPERATIONS)


@each_operation
def test_what_asks_for_credentials_says_so(place: tuple[str, str]) -> None:
    operation = OPERATIONS[place]
    is_open = place[1] in {"/livez", "/readyz"} or place[1].startswith("/u/")
    assert (operation.get("security") == []) == is_open
    assert ("401" not in operation["responses"]) == is_open


def _samples(operation: Any) -> Iterator[tuple[str, Any, Any]]:
    """Where, schema and example of everything that an operation takes and gives."""
    for one in operation.get("parameters", []):
        yield one["name"], one["schema"], one["example"]
    bodies = [("request", operation.get("requestBody", {})), *operation["responses"].items()]
    for where, body in bodies:
        for media, content in body.get("content", {}).items():
            yield f"{where} {media}", content["schema"], content["example"]


@each_operation
def test_every_example_is_valid_by_its_schema(place: tuple[str, str]) -> None:
    samples = list(_samples(OPERATIONS[place]))
    assert samples
    for where, schema, example in samples:
        validator = jsonschema.Draft202012Validator(schema | {"components": DOCUMENT["components"]})
        assert [error.message for error in validator.iter_errors(example)] == [], where


@each_operation
def test_no_example_says_less_than_its_schema_asks(place: tuple[str, str]) -> None:
    """An object's example lacks nothing that is required, and an empty one would."""
    for where, schema, example in _samples(OPERATIONS[place]):
        if isinstance(example, dict) and "$ref" in schema:
            validator = jsonschema.Draft202012Validator(schema | {"components": DOCUMENT["components"]})
            assert not validator.is_valid({}), where
