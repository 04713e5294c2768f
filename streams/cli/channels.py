"""The AsyncAPI document: every public topic, its records and their headers, made of what the worker itself uses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, get_args

from schemas.deadletter import Code
from schemas.examples import EXAMPLES
from schemas.export import RECORDS, Schema, components
from streams import __version__, topics
from streams.agents.writing import ERROR
from streams.config import Config
from streams.engine.records import FORWARDED, POSITION, PROGRESS
from streams.topics import TopicSpec

_ABOUT = """\
Opt-ins and opt-outs go in through `consent.changes` and `consent.inbound`; "may we send?" is asked in
`eligibility.requests` and answered in `eligibility.decisions`.

All topics have the same number of partitions, and records are partitioned by Kafka's own murmur2 hash of the key (the
Java default; librdkafka needs `partitioner=murmur2_random`), so that a customer's changes, requests and decisions
share a partition number. Values are one-line JSON in UTF-8, times are RFC 3339 with any offset, from 1970 on, whole
numbers are written without a fraction, fields that are not known are allowed everywhere.

Operations are seen from the worker: what it receives, others send. Its internal topics (changelogs and identities) are
no part of this contract.
"""
_BINDING = "0.5.0"
_DEAD_LETTER = "deadletter"


@dataclass(frozen=True, slots=True)
class Channel:
    """A topic, the records in it by their names in `RECORDS`, and what the worker does with it."""

    spec: TopicSpec
    about: str
    records: tuple[str, ...]
    receives: str = ""
    sends: str = ""


_CUSTOMER_EVENTS = (
    "consent.changed", "consent.verified", "consent.batch_reverted", "customer.registered", "customer.erased",
)  # fmt: skip
CHANNELS = (
    Channel(
        topics.CHANGES, "Everything that happens to a customer, in one order. Its log is the source of all state.",
        (*_CUSTOMER_EVENTS, "settings.changed"),
        "Apply what producers say: changes, registrations, erasures, settings.",
        "Write what came by HTTP, by a link, or by phone as events.",
    ),
    Channel(
        topics.INBOUND, "What gateways receive from customers' phones.", ("sms.received", "call.missed"),
        "Find out who has the number and what was meant.", "Write what came by webhook.",
    ),
    Channel(
        topics.REQUESTS, "Questions: may we send?", ("eligibility.request",),
        "Decide, once every change that was acknowledged before is in the state.", "Write questions that came by HTTP.",
    ),
    Channel(
        topics.DECISIONS, "The answers, in the partition and under the key of their requests.",
        ("eligibility.decision",), sends="Answer each request.",
    ),
    Channel(
        topics.AUDIT, "What became of every change, and what every decision was made from.",
        ("consent.audit.change", "consent.audit.decision", "consent.audit.inbound"),
        sends="Leave a trace of everything.",
    ),
    Channel(
        topics.NOTIFICATIONS, "Messages to be sent to customers.", ("consent.notification",),
        sends="Ask for confirmations and verifications to be sent.",
    ),
    Channel(
        topics.DEADLETTER, "What could not be read or applied, as it came, with what was wrong as headers.",
        (_DEAD_LETTER,), sends="Put aside what cannot be taken.",
    ),
)  # fmt: skip


def asyncapi(config: Config) -> Schema:
    """The document, AsyncAPI 3.0, for topics of this prefix and partition count; servers where they are given."""
    records = {name: RECORDS[name][1] for channel in CHANNELS for name in channel.records if name in RECORDS}
    schemas = components(records)[1]
    hosts = [host.strip() for host in config.bootstrap_servers.split(",") if host.strip()]
    servers = {f"kafka-{n}": {"host": host, "protocol": "kafka"} for n, host in enumerate(hosts, 1)}
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "consent-streams",
            "version": __version__,
            "description": _ABOUT,
            "license": {"name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"},
        },
        "defaultContentType": "application/json",
        **({"servers": servers} if servers else {}),
        "channels": {channel.spec.name: _channel(channel, config) for channel in CHANNELS},
        "operations": dict(operation for channel in CHANNELS for operation in _operations(channel, config)),
        "components": {
            "messages": {name: _message(name, channel) for channel in CHANNELS for name in channel.records},
            "schemas": _with_lone_references(schemas),
        },
    }


def _channel(channel: Channel, config: Config) -> Schema:
    spec = channel.spec
    numbers = {name: int(spec.config[name]) for name in ("retention.ms", "max.message.bytes")}
    return {
        "address": config.topic(spec.name),
        "title": spec.name,
        "description": channel.about,
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in channel.records},
        "bindings": {
            "kafka": {
                "topic": config.topic(spec.name),
                "partitions": config.partitions,
                "replicas": config.replication,
                "topicConfiguration": {"cleanup.policy": ["delete"], **numbers},
                "bindingVersion": _BINDING,
            }
        },
    }


def _operations(channel: Channel, config: Config) -> list[tuple[str, Schema]]:
    """What the worker does with a topic: an id, and the operation."""
    found = []
    for action, summary in (("receive", channel.receives), ("send", channel.sends)):
        if not summary:
            continue
        operation: Schema = {
            "action": action,
            "channel": {"$ref": f"#/channels/{channel.spec.name}"},
            "summary": summary,
            "messages": [{"$ref": f"#/channels/{channel.spec.name}/messages/{name}"} for name in channel.records],
        }
        if action == "receive":
            group = {"type": "string", "enum": [config.group]}
            operation["bindings"] = {"kafka": {"groupId": group, "bindingVersion": _BINDING}}
        found.append((f"{action}.{channel.spec.name}", operation))
    return found


def _message(name: str, channel: Channel) -> Schema:
    title, record = RECORDS.get(name, ("A record of another topic, unchanged", None))
    key = "{org_id}:" if name in _OF_THE_ORG else channel.spec.key
    example = {"headers": HEADER_EXAMPLES.get(name, {}), "payload": EXAMPLES.get(name, _UNREADABLE)}
    reference: Schema = {"$ref": f"#/components/schemas/{record.__name__}"} if record else {"description": title}
    return {
        "name": name,
        "title": title,
        "headers": _headers(name, channel),
        "payload": reference,
        "bindings": {"kafka": {"key": {"type": "string", "description": key}, "bindingVersion": _BINDING}},
        "examples": [{"name": name.replace(".", "-"), **{part: body for part, body in example.items() if body}}],
    }


def _headers(name: str, channel: Channel) -> Schema:
    """The headers that a record has, or, where others write it, may have."""
    if name == _DEAD_LETTER:
        known = _ERROR_HEADERS
    else:
        known = _CLOUD_EVENT | (_PROGRESS if name in _DECIDED else {}) | (_FORWARDED if channel.receives else {})
    always = [*known] if name == _DEAD_LETTER else [] if channel.receives else [*_CLOUD_EVENT]
    return {"type": "object", "properties": known, **({"required": always} if always else {})}


def _text(description: str, **more: Any) -> Schema:
    return {"type": "string", "description": description, **more}


_OF_THE_ORG = {"settings.changed", "consent.audit.inbound"}
_DECIDED = {"eligibility.decision", "consent.audit.decision"}
_CLOUD_EVENT = {
    "ce_specversion": _text("CloudEvents", const="1.0"),
    "ce_type": _text("What kind of record it is"),
    "ce_source": _text("Who wrote it"),
    POSITION: _text("The position of the input that caused it: topic/partition/offset; a repeat has the same"),
    "content-type": _text("How the value is written", const="application/json"),
}
_PROGRESS = {PROGRESS: _text("How far the requests of the partition are answered, for the worker itself")}
_FORWARDED = {FORWARDED: _text("Where it was found, if a worker sent it home from a foreign partition")}
_CONNECT = "__connect.errors."
_ERROR_HEADERS = {
    f"{_CONNECT}topic": _text("The topic that it was read from"),
    f"{_CONNECT}partition": _text("Its partition there"),
    f"{_CONNECT}offset": _text("Its offset there"),
    f"{_CONNECT}stage": _text("Where it failed", enum=["KEY_CONVERTER", "VALUE_CONVERTER", "TRANSFORMATION"]),
    f"{_CONNECT}exception.class.name": _text("consent_streams. and the code"),
    f"{_CONNECT}exception.message": _text("What is wrong, with the field's name"),
    ERROR: _text("What is wrong, for programs", enum=list(get_args(Code))),
}
_UNREADABLE: Schema = EXAMPLES["consent.changed"] | {"channel": "PIGEON"}


def _caused(kind: str, source: str, position: str) -> Schema:
    values = ("1.0", kind, f"consent-streams/{source}", position, "application/json")
    return dict(zip(_CLOUD_EVENT, values, strict=True))


HEADER_EXAMPLES: dict[str, Schema] = {
    "eligibility.decision": _caused("eligibility.decision", "decisions", "eligibility.requests/3/4"),
    "consent.audit.change": _caused("consent.audit.change", "audit", "consent.changes/3/18"),
    "consent.audit.decision": _caused("consent.audit.decision", "audit", "eligibility.requests/3/4"),
    "consent.audit.inbound": _caused("consent.audit.inbound", "audit", "consent.inbound/1/5"),
    "consent.notification": _caused("consent.notification", "notifications", "consent.changes/3/17"),
    _DEAD_LETTER: {
        f"{_CONNECT}topic": "consent.changes", f"{_CONNECT}partition": "3", f"{_CONNECT}offset": "22",
        f"{_CONNECT}stage": "TRANSFORMATION", f"{_CONNECT}exception.class.name": "consent_streams.invalid_field",
        f"{_CONNECT}exception.message": "channel: Input should be 'MOBILE', 'EMAIL' or another channel",
        ERROR: "invalid_field",
    },
}  # fmt: skip


def _with_lone_references(schema: Any) -> Any:
    """Draft 7, which AsyncAPI's schemas are made of, overlooks what stands beside a `$ref`."""
    if isinstance(schema, list):
        return [_with_lone_references(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    parts = {name: _with_lone_references(part) for name, part in schema.items()}
    if isinstance(parts.get("$ref"), str) and len(parts) > 1:
        parts["allOf"] = [{"$ref": parts.pop("$ref")}]
    return parts
