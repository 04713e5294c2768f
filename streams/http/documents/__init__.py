"""The OpenAPI document of the worker's HTTP, made of the operations and of the models in `schemas`.

The handlers read raw bodies, so that errors come in the API's own form and unknown fields are kept: FastAPI knows no
more of them than their paths. What it would say is therefore replaced as a whole; a test keeps the two in step.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Any

from schemas.answers import Problem
from schemas.export import Schema, components
from streams import __version__
from streams.http.documents.operations import OPERATIONS
from streams.http.documents.parts import GUARDED, Answer, Operation, Parameter

_ABOUT = """\
Consent changes in, one current answer to "may we send?" out.

Everything that is written here ends as events in Kafka (`consent.changes`, `consent.inbound`) before it is answered.
A worker on loopback without a users file asks for no credentials; every other one does, but for the probes and for
customers' links. Fields that are not known are allowed everywhere. Times are RFC 3339 with any offset, from 1970 on;
whole numbers are written without a fraction, so 1.0 is none.
"""
_SECURITY: Schema = {
    "basic": {"type": "http", "scheme": "basic", "description": "A user of the users file, for the orgs listed there."},
    "bearer": {"type": "http", "scheme": "bearer", "description": "CONSENT_HTTP_TOKEN: the operator, for every org."},
}
_TAGS = {
    "decisions": "May we send?",
    "state": "What a worker holds.",
    "subscriptions": "Opt-ins and opt-outs of customers, written by other systems.",
    "gateways": "What SMS and call gateways receive.",
    "links": "What customers open from their messages. The token in the path is the credential.",
    "operations": "For the machines that watch the worker.",
}
_HEADERS: Schema = {
    "Retry-After": {"description": "Seconds after which to ask again", "schema": {"type": "integer", "minimum": 1}},
    "WWW-Authenticate": {"description": "How to give credentials", "schema": {"type": "string"}},
}


@cache
def openapi() -> Schema:
    """The document, OpenAPI 3.1; the same for every worker of this version."""
    models = {model.__name__: model for model in _models()}
    schemas = components(models)[1]
    for name, field in (("EligibilityRequest", "request_id"), ("SmsReceived", "event"), ("CallMissed", "event")):
        # What a record has to name, and the path says or the worker adds.
        schemas[name]["required"].remove(field)
    paths: Schema = {}
    for (method, path), operation in OPERATIONS.items():
        paths.setdefault(path, {})[method.lower()] = _operation(operation)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "consent-streams",
            "version": __version__,
            "description": _ABOUT,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/", "description": "The worker that serves this document; any other one will do"}],
        "tags": [{"name": name, "description": text} for name, text in _TAGS.items()],
        "paths": paths,
        "components": {"schemas": schemas, "securitySchemes": _SECURITY, "headers": _HEADERS},
        "security": [{name: []} for name in _SECURITY],
    }


def _models() -> Iterable[Any]:
    for operation in OPERATIONS.values():
        yield from operation.body.models if operation.body else ()
        for answer in operation.answers.values():
            yield from answer.models
    yield Problem


def _operation(operation: Operation) -> Schema:
    answers = {**({} if operation.open else GUARDED), **operation.answers}
    document: Schema = {
        "operationId": operation.id,
        "tags": [operation.tag],
        "summary": operation.summary,
        "description": operation.description,
    }
    if operation.parameters:
        document["parameters"] = [_parameter(one) for one in operation.parameters]
    if operation.body:
        document["requestBody"] = {"required": operation.body.required, "content": _content(operation.body)}
    document["responses"] = {str(status): _answer(status, answer) for status, answer in sorted(answers.items())}
    if operation.open:
        document["security"] = []
    return document


def _parameter(one: Parameter) -> Schema:
    return {
        "name": one.name,
        "in": one.where,
        "required": one.required,
        "description": one.description,
        "schema": one.schema,
        "example": one.example,
    }


def _answer(status: int, answer: Answer) -> Schema:
    named = {401: ["WWW-Authenticate"], 429: ["Retry-After"], 503: ["Retry-After"]}.get(status, [])
    headers = {"headers": {name: {"$ref": f"#/components/headers/{name}"} for name in named}} if named else {}
    return {"description": answer.description, **headers, "content": _content(answer)}


def _content(answer: Answer) -> Schema:
    refs = [{"$ref": f"#/components/schemas/{model.__name__}"} for model in answer.models]
    schema = {"type": "string"} if not refs else refs[0] if len(refs) == 1 else {"anyOf": refs}
    schema = answer.schema or schema
    return {media: {"schema": schema, "example": answer.example} for media in answer.media}
