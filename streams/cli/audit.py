"""`audit`: the audit stream, readable."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click
import orjson

from schemas.base import format_instant
from streams import topics
from streams.config import Config
from streams.domain.keys import customer_key, partition_of
from streams.kafka.admin import describe
from streams.kafka.client import Reader, Record

from .options import KAFKA, json_option, timeout_option, with_config
from .root import INTERRUPTED
from .run import progress, reachable, run


@click.command("audit", short_help="The audit stream, readable.")
@click.option("--follow", is_flag=True, show_envvar=True, help="go on with what is still to come, until Ctrl-C")
@click.option("--org", type=int, show_envvar=True, help="only this org")
@click.option("--customer", show_envvar=True, help="only this customer of the org")
@with_config(*KAFKA)
@timeout_option
@json_option
@click.pass_context
def command(
    ctx: click.Context, config: Config, follow: bool, org: int | None, customer: str | None, as_json: bool
) -> None:
    """What became of every change and how every decision was made, one line each, from the beginning.

    A line has the time, the position of the input in its topic, org:customer, what it was, and what came of it.

    \b
    Example:
      consent-streams audit --follow --org 100 --customer 565039505
    """
    if customer is not None and org is None:
        raise click.UsageError("--customer needs --org")
    count = [0]

    def show(record: Record) -> None:
        count[0] += 1
        click.echo(record.value if as_json else line_of(record))

    try:
        with progress(lambda: f"{count[0]} audit records so far" if count[0] else "reading the audit"):
            run(_read(reachable(config), org, customer, follow, show))
    except KeyboardInterrupt:
        ctx.exit(0 if follow else INTERRUPTED)


async def _read(
    config: Config, org: int | None, customer: str | None, follow: bool, show: Callable[[Record], None]
) -> None:
    key = None if org is None else customer_key(org, customer or "")
    partitions = None
    if key is not None and customer is not None:
        found = (await describe(config)).topics.get(topics.AUDIT.name)
        # Without the topic the reader says so.
        partitions = [partition_of(key, found.partitions)] if found else None
    async with Reader(config, config.topic(topics.AUDIT.name), partitions) as reader:
        async for bundle in reader.bundles(follow=follow):
            for record in bundle:
                if record.value is not None and _wanted(record.key or b"", key, customer is not None):
                    show(record)


def _wanted(key: bytes, asked: bytes | None, exactly: bool) -> bool:
    if asked is None:
        return True
    return key == asked if exactly else key.startswith(asked)


def line_of(record: Record) -> str:
    """One record of `consent.audit` as one line."""
    when = format_instant(max(record.timestamp, 0))
    try:
        body = orjson.loads(record.value or b"")
        place = f"{body['position']['partition']}@{body['position']['offset']}"
        who = (record.key or b"").decode(errors="replace")
        what = {"decision": _decision, "inbound": _inbound}.get(body["record"], _change)(body)
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError):
        return f"{when} unreadable audit record at {record.partition}@{record.offset}"
    return f"{when} {place} {who} {what}"


def _change(body: dict[str, Any]) -> str:
    event = body["input"]
    kind = event.get("event")
    fields = ("type", "source", "account_id", "channel", "priority", "org_unit_id", "verifies")
    what = " ".join([str(kind), *(str(event[name]) for name in fields if event.get(name) is not None)])
    if kind == "settings.changed":
        what += f" version {event['settings']['version']}"
    if event.get("batch_id") is not None:
        what += f" of batch {event['batch_id']}"
    reason = f" ({body['outcome_reason']})" if body.get("outcome_reason") else ""
    cells = "".join(f"; {_cell(cell)}" for cell in body.get("cells") or [])
    return f"{what}: {body['outcome']}{reason}{cells}"


def _inbound(body: dict[str, Any]) -> str:
    said = body["input"]
    reason = f" ({body['outcome_reason']})" if body.get("outcome_reason") else ""
    events = "".join(f"; {event['event']} {event['event_id']} of {event['customer_id']}" for event in body["events"])
    return f"{said.get('event')} to {said.get('to')}: {body['outcome']}{reason}{events}"


def _cell(cell: dict[str, Any]) -> str:
    place = " ".join(str(cell[name]) for name in ("source", "account_id", "channel", "priority", "org_unit_id"))
    return f"{place} {cell['before']} -> {cell['after']}{' by sync' if cell.get('synced') else ''}"


def _decision(body: dict[str, Any]) -> str:
    decision = body["decision"]
    asked = " ".join(str(decision[name]) for name in ("channel", "priority", "org_unit_id"))
    weighed = "".join(
        f"; {profile['source']} {profile['account_id']} {profile['opt_in_type']} {profile['status']}"
        f"{' pending' if profile.get('pending') else ''}"
        for profile in body.get("inputs") or []
    )
    answer = "yes" if decision["eligible"] else "no"
    return f"request {decision['request_id']} {asked}: {answer} ({decision['reason']}){weighed}"
