"""The documents that commands print: of HTTP, and of all topics."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from schemas.export import RECORDS
from streams import topics
from streams.cli.channels import CHANNELS, asyncapi
from streams.config import Config
from streams.http.documents import openapi
from tests.cli.world import invoke

DOCUMENT = asyncapi(Config())
MESSAGES = DOCUMENT["components"]["messages"]
SCHEMAS = DOCUMENT["components"]["schemas"]
#: The official parser, of exactly this version, with the official schemas that it brings.
PARSER, VERSION = "@asyncapi/parser", "3.6.3"
OFFICIAL_SCHEMA = "node_modules/@asyncapi/specs/schemas/3.0.0.json"
#: Reads a document from stdin and prints what is wrong with it.
CHECK = f"""
import {{ readFileSync }} from 'node:fs';
import {{ Parser }} from '{PARSER}';
const {{ document, diagnostics }} = await new Parser().parse(readFileSync(0, 'utf8'));
const faults = diagnostics.map(one => ({{ severity: one.severity, code: one.code, message: one.message }}));
console.log(JSON.stringify({{ read: document !== undefined, faults }}));
"""
NEWER = "asyncapi-latest-version"


def test_openapi_prints_what_workers_serve() -> None:
    result = invoke("openapi")
    assert (result.exit_code, json.loads(result.stdout)) == (0, openapi())


def test_asyncapi_prints_yaml_or_json() -> None:
    as_yaml, as_json = invoke("asyncapi"), invoke("asyncapi", "--json")
    assert yaml.safe_load(as_yaml.stdout) == json.loads(as_json.stdout) == DOCUMENT
    assert "&id" not in as_yaml.stdout


def test_asyncapi_speaks_of_the_topics_and_servers_that_are_given() -> None:
    options = ["--topic-prefix", "eu-", "--partitions", "12", "--bootstrap-servers", "a:9092, b:9093"]
    document = yaml.safe_load(invoke("asyncapi", *options).stdout)
    assert [one["host"] for one in document["servers"].values()] == ["a:9092", "b:9093"]
    assert {one["address"] for one in document["channels"].values()} == {f"eu-{s.name}" for s in topics.PUBLIC}
    assert {one["bindings"]["kafka"]["partitions"] for one in document["channels"].values()} == {12}
    group = document["operations"]["receive.consent.changes"]["bindings"]["kafka"]["groupId"]
    assert group["enum"] == ["eu-consent-streams"]
    assert "servers" not in DOCUMENT


def test_every_public_topic_is_there_with_its_key_and_retention() -> None:
    assert [channel.spec for channel in CHANNELS] == list(topics.PUBLIC)
    for spec in topics.PUBLIC:
        channel = DOCUMENT["channels"][spec.name]
        told = channel["bindings"]["kafka"]["topicConfiguration"]
        assert told["retention.ms"] == int(spec.config["retention.ms"])
        for name in channel["messages"]:
            key = MESSAGES[name]["bindings"]["kafka"]["key"]["description"]
            assert key == ("{org_id}:" if name in {"settings.changed", "consent.audit.inbound"} else spec.key)


def test_every_record_of_the_published_schemas_is_in_one_channel() -> None:
    told = [name for channel in CHANNELS for name in channel.records]
    unions_and_parts = {"consent.changes", "consent.inbound", "consent.audit", "settings"}
    assert sorted(told) == sorted(RECORDS.keys() - unions_and_parts | {"deadletter"})


def test_what_the_worker_receives_and_sends_is_what_the_topics_are_for() -> None:
    received = {name.partition(".")[2] for name in DOCUMENT["operations"] if name.startswith("receive.")}
    assert received == {spec.name for spec in topics.SOURCES if spec in topics.PUBLIC}
    sent = {name.partition(".")[2] for name in DOCUMENT["operations"] if name.startswith("send.")}
    assert sent == {spec.name for spec in topics.PUBLIC}


@pytest.mark.parametrize("name", MESSAGES)
def test_every_example_is_valid_by_the_schemas_of_its_message(name: str) -> None:
    message = MESSAGES[name]
    for example in message["examples"]:
        for part in ("payload", "headers"):
            if part in example:
                schema = message[part] | {"components": {"schemas": SCHEMAS}}
                found = jsonschema.Draft7Validator(schema).iter_errors(example[part])
                assert [error.message for error in found] == []
        assert ("headers" in example) == bool(message["headers"].get("required"))


def _words(schema: Any) -> Iterator[str]:
    """Every keyword that a schema uses, itself and below."""
    if isinstance(schema, list):
        for part in schema:
            yield from _words(part)
    elif isinstance(schema, dict):
        for word, part in schema.items():
            yield word
            parts = part.values() if word in {"properties", "patternProperties"} else [part]
            for one in [] if word in {"default", "examples", "enum", "const", "required"} else parts:
                yield from _words(one)


def test_schemas_use_draft_7_only_which_asyncapi_is_made_of() -> None:
    later = {
        "$defs", "$anchor", "$dynamicRef", "prefixItems", "unevaluatedProperties", "unevaluatedItems",
        "dependentSchemas", "dependentRequired", "minContains", "maxContains", "discriminator",
    }  # fmt: skip
    for name, schema in SCHEMAS.items():
        jsonschema.Draft7Validator.check_schema(schema)
        assert set(_words(schema)) & later == set(), name
        assert all(len(part) == 1 for part in _references(schema)), name


def _references(schema: Any) -> Iterator[dict[str, Any]]:
    if isinstance(schema, list):
        for part in schema:
            yield from _references(part)
    elif isinstance(schema, dict):
        if isinstance(schema.get("$ref"), str):
            yield schema
        for part in schema.values():
            yield from _references(part)


# --- the official tool -------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def official() -> Path:
    """A folder with AsyncAPI's own parser, installed once for all checkouts."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("AsyncAPI's own parser needs node and npm, which are not installed")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cache / "consent-streams" / f"asyncapi-parser-{VERSION}"
    if not (folder / "complete").exists():
        folder.mkdir(parents=True, exist_ok=True)
        quiet = ["--no-audit", "--no-fund", "--no-update-notifier", "--ignore-scripts", "--fetch-retries=1"]
        command = ["npm", "install", "--prefix", str(folder), *quiet, f"{PARSER}@{VERSION}"]
        try:
            subprocess.run(command, cwd=folder, capture_output=True, check=True, timeout=180)
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
            said = (error.stderr or b"").decode(errors="replace").splitlines()
            why = [line for line in said if line.startswith("npm error")]
            pytest.skip(f"npm cannot install AsyncAPI's own parser: {'; '.join(why[:2]) or error}")
        (folder / "complete").touch()
    return folder


def _checked(official: Path, document: Any) -> dict[str, Any]:
    """Whether the parser could read a document, and what it says of it."""
    (official / "check.mjs").write_text(CHECK)
    done = subprocess.run(
        ["node", "check.mjs"], cwd=official, input=json.dumps(document), capture_output=True, text=True, check=True,
        timeout=60,
    )  # fmt: skip
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("servers", ["", "kafka-1:9092,kafka-2:9092"])
def test_asyncapi_s_own_parser_has_nothing_to_say(official: Path, servers: str) -> None:
    found = _checked(official, asyncapi(Config(bootstrap_servers=servers)))
    assert found["read"]
    assert [fault for fault in found["faults"] if fault["code"] != NEWER] == []


def test_the_parser_would_say_so(official: Path) -> None:
    broken = json.loads(json.dumps(DOCUMENT))
    broken["operations"]["send.consent.audit"]["channel"]["$ref"] = "#/channels/nowhere"
    broken["components"]["messages"]["consent.changed"]["examples"][0]["payload"] = {}
    found = _checked(official, broken)
    assert len([fault for fault in found["faults"] if fault["severity"] == 0]) >= 2


def test_the_document_is_valid_by_the_official_schema(official: Path) -> None:
    schema = json.loads((official / OFFICIAL_SCHEMA).read_text())
    validator = jsonschema.Draft7Validator(schema)
    assert [error.message for error in validator.iter_errors(DOCUMENT)] == []
    assert not validator.is_valid({name: part for name, part in DOCUMENT.items() if name != "info"})
