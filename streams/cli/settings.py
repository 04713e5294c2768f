"""`settings check`, `settings apply` and `settings show`."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any, BinaryIO

import click
import orjson
import yaml

from schemas.base import format_instant
from schemas.mobile import resets
from schemas.settings import OrgSettings
from streams import topics
from streams.config import Config
from streams.domain.keys import settings_key
from streams.kafka.client import Sent
from streams.kafka.everywhere import send_settings

from .documents import DocumentError, read_settings
from .http import NotFound, get
from .options import HTTP, KAFKA, json_option, timeout_option, with_config
from .root import Failure
from .run import note, progress, reachable, run

IN_FORCE_S = 5.0  # a worker that runs applies a change in milliseconds; longer waiting tells nothing new
POLL_S = 0.1


@click.group("settings", short_help="Check, apply or show an org's settings.")
def command() -> None:
    """Check, apply and show the settings document of an org.

    \b
    Example:
      consent-streams settings check org-100.yaml && consent-streams settings apply org-100.yaml
    """


@command.command("check")
@click.argument("file", type=click.File("rb"))
@json_option
@click.pass_context
def check(ctx: click.Context, file: BinaryIO, as_json: bool) -> None:
    """List every fault of a settings document (YAML or JSON; - is stdin) by its path; exit code 1 if there is one.

    \b
    Example:
      consent-streams settings check org-100.yaml
    """
    faults: list[str] = []
    try:
        document = read_settings(file)
    except DocumentError as error:
        faults = error.faults
        if not as_json:
            _refuse(error)
    if as_json:
        click.echo(orjson.dumps({"valid": not faults, "faults": [_path_and_message(fault) for fault in faults]}))
        ctx.exit(1 if faults else 0)
    click.echo(f"{file.name}: valid; org {document['org_id']}, version {document['version']}")


def _refuse(error: DocumentError) -> None:
    for fault in error.faults:
        note(fault)
    raise error


def _path_and_message(fault: str) -> dict[str, str]:
    path, colon, message = fault.partition(": ")
    return {"path": path, "message": message} if colon else {"path": "", "message": fault}


@command.command("apply")
@click.argument("file", type=click.File("rb"))
@with_config(*KAFKA, *HTTP, "max_record_bytes")
@timeout_option
@json_option
def apply(config: Config, file: BinaryIO, as_json: bool) -> None:
    """Put a settings document (YAML or JSON; - is stdin) in force: write it to all partitions in one transaction.

    Prints its position in each partition and, if a worker answers, whether it is in force or was ignored because its
    version is not higher than the one in force.

    \b
    Example:
      consent-streams settings apply org-100.yaml
    """
    config = reachable(config)
    try:
        document = read_settings(file)
    except DocumentError as error:
        _refuse(error)
        raise
    former = _in_force(config, document["org_id"])
    before = None if former is None else former.version
    given_up = list(resets(former.mobile if former else [], OrgSettings.model_validate(document).mobile))
    with progress(lambda: "writing to all partitions"):
        positions = apply_settings(config, document)
    if not as_json:
        for sent in positions:
            click.echo(f"{sent}")
    with progress(lambda: "waiting for a worker to apply it"):
        outcome = wait_in_force(config, document, before)
    if as_json:
        places = [{"partition": sent.partition, "offset": sent.offset} for sent in positions]
        told = {"event_id": _event_id(document), "positions": places, "outcome": outcome, "resets": given_up}
        click.echo(orjson.dumps(told))
    else:
        for line in given_up if outcome != "stale" else ():
            note(line)
        note(OUTCOMES[outcome].format(org=document["org_id"], version=document["version"], before=before))


OUTCOMES = {
    "in_force": "org {org}: version {version} is in force",
    "stale": "org {org}: version {version} was ignored as stale: version {before} is in force; give a higher one",
    "not_yet": "org {org}: version {version} is written, but not yet in force everywhere",
    "unknown": "org {org}: version {version} is written; no worker answers, so it is not known whether it is in force",
}


def _event_id(document: dict[str, Any]) -> str:
    return f"settings-{document['org_id']}-{document['version']}"


def apply_settings(config: Config, document: dict[str, Any]) -> list[Sent]:
    """Write a valid document as `settings.changed` to every partition, in one transaction; where it lies."""
    event = {
        "event": "settings.changed",
        "event_id": _event_id(document),
        "org_id": document["org_id"],
        "occurred_at": format_instant(int(datetime.now(UTC).timestamp() * 1000)),
        "settings": document,
    }
    value = orjson.dumps(event)
    if len(value) > config.max_record_bytes:
        raise Failure(f"the document is too large: {len(value)} of {config.max_record_bytes} bytes (max_record_bytes)")
    topic = config.topic(topics.CHANGES.name)
    return run(send_settings(config, topic, document["org_id"], settings_key(document["org_id"]), value))


def _in_force(config: Config, org_id: int) -> OrgSettings | None:
    """The org's settings until now, as far as a worker answers."""
    try:
        found = get(config, "v1", "orgs", org_id, "settings", timeout_s=1.0)
    except Failure:
        return None
    return OrgSettings.model_validate(found["settings"])


def wait_in_force(config: Config, document: dict[str, Any], before: int | None) -> str:
    """What became of it (a key of OUTCOMES), after a few seconds at most; `before`: the version in force until now."""
    if before is not None and before >= document["version"]:
        return "stale"
    deadline = time.monotonic() + IN_FORCE_S
    answered = False
    while time.monotonic() < deadline:
        try:
            found = get(config, "v1", "orgs", document["org_id"], "settings", timeout_s=1.0)
        except NotFound:
            answered = True
        except Failure:
            if not answered:
                return "unknown"
        else:
            answered = True
            if min([*found["partitions"].values(), found["version"]]) >= document["version"]:
                return "in_force"
        time.sleep(POLL_S)
    return "not_yet"


@command.command("show")
@click.argument("org", type=int)
@with_config(*HTTP)
@json_option
def show(config: Config, org: int, as_json: bool) -> None:
    """The settings of ORG as a worker holds them.

    \b
    Example:
      consent-streams settings show 100
    """
    try:
        found = get(config, "v1", "orgs", org, "settings")
    except NotFound as error:
        raise Failure(f"unknown org {org}: give it settings with `consent-streams settings apply FILE`") from error
    if as_json:
        click.echo(orjson.dumps(found))
        return
    click.echo(yaml.safe_dump(found["settings"], sort_keys=False, allow_unicode=True).rstrip())
    behind = {p: version for p, version in found["partitions"].items() if version != found["version"]}
    if behind:
        note(f"partitions with another version: {', '.join(f'{p}: {version}' for p, version in behind.items())}")
