"""`deadletter list` and `deadletter replay`."""

from __future__ import annotations

from typing import Any, BinaryIO, get_args

import click
import orjson

from schemas.deadletter import Code
from streams.config import Config
from streams.kafka.client import Producer, Sent
from streams.kafka.everywhere import send_settings

from .events import Checked, RecordError
from .letters import Letter, read_letters
from .options import KAFKA, json_option, timeout_option, with_config
from .repair import AssignmentType, edited_values, headers_of, repaired
from .root import Failure
from .run import note, progress, reachable, run

Ready = tuple[Letter, Checked]


@click.group("deadletter", short_help="List dead letters, or send them again.")
def command() -> None:
    """List the records that could not be applied, and send them again once they are repaired.

    \b
    Example:
      consent-streams deadletter list --code unknown_org
    """


@command.command("list")
@click.option("--code", type=click.Choice(get_args(Code)), show_envvar=True, help="only those with this code")
@with_config(*KAFKA)
@timeout_option
@json_option
def list_letters(config: Config, code: str | None, as_json: bool) -> None:
    """All dead letters: PARTITION/OFFSET, code, where it came from, key, message, and the beginning of the value.

    \b
    Example:
      consent-streams deadletter list --code invalid_field
    """
    with progress(lambda: "reading dead letters"):
        letters = run(read_letters(reachable(config), code))
    for letter in letters:
        click.echo(orjson.dumps(letter.as_json()) if as_json else letter.line())
    if not letters:
        note("no dead letters" + (f" with code {code}" if code else ""))


@command.command("replay")
@click.option("--partition", type=click.IntRange(0), show_envvar=True, help="partition of the dead letter")
@click.option("--offset", type=click.IntRange(0), show_envvar=True, help="offset of the dead letter")
@click.option("--code", type=click.Choice(get_args(Code)), show_envvar=True, help="all with this code")
@click.option("--all", "everything", is_flag=True, show_envvar=True, help="all there are")
@click.option(
    "--set", "assignments", multiple=True, type=AssignmentType(), metavar="FIELD=JSON",
    help="set a field before sending, such as org_id=100 or 'channel=\"EMAIL\"'; may be repeated",
)
@click.option("--edit", type=click.File("rb"), help="repaired values, a line for each dead letter, in the list's order")
@click.option("--keep-going", is_flag=True, show_envvar=True, help="leave out what is still wrong; still exit code 1")
@click.option("--dry-run", is_flag=True, show_envvar=True, help="check everything, send nothing")
@with_config(*KAFKA, "max_record_bytes")
@timeout_option
@json_option
def replay(
    config: Config, partition: int | None, offset: int | None, code: str | None, everything: bool,
    assignments: list[tuple[str, Any]], edit: BinaryIO | None, keep_going: bool, dry_run: bool, as_json: bool,
) -> None:
    """Send dead letters to their topic again, repaired, under the right key. The dead letters stay where they are.

    Everything is checked before anything is sent; if one is still wrong, nothing is. What is sent carries the header
    consent.replayed_from. Sent twice, an event still counts once: it keeps its event_id.

    \b
    Examples:
      consent-streams deadletter replay --partition 3 --offset 17 --set 'channel="EMAIL"'
      consent-streams deadletter replay --code unknown_org --dry-run
      consent-streams deadletter list --code malformed_json --json | jq -r .value > values  # repair them, then:
      consent-streams deadletter replay --code malformed_json --edit values
    """  # fmt: skip
    _check_choice(partition, offset, code, everything)
    config = reachable(config)
    with progress(lambda: "reading dead letters"):
        letters = run(read_letters(config, code, partition, offset))
    if not letters and offset is not None:
        raise Failure(f"there is no dead letter at {partition}/{offset}")
    values = edited_values(edit.read(), letters) if edit else [letter.record.value or b"" for letter in letters]
    ready, faults = _check(config, letters, values, list(assignments))
    if faults and not keep_going:
        raise Failure(f"{len(faults)} of {len(letters)} still wrong: nothing sent")
    if dry_run:
        note(f"dry run: {len(ready)} dead letters would be sent again")
    else:
        with progress(lambda: "sending"):
            run(_send(config, ready, as_json))
    if faults:
        raise Failure(f"{len(faults)} of {len(letters)} still wrong: left out")
    if not letters:
        note("no dead letters to replay")


def _check_choice(partition: int | None, offset: int | None, code: str | None, everything: bool) -> None:
    if (partition is None) != (offset is None):
        raise click.UsageError("--partition and --offset belong together")
    if sum([partition is not None, code is not None, everything]) != 1:
        raise click.UsageError("say which: --partition P --offset O, --code CODE or --all")


def _check(
    config: Config, letters: list[Letter], values: list[bytes], assignments: list[tuple[str, Any]]
) -> tuple[list[Ready], list[str]]:
    ready, faults = [], []
    for letter, value in zip(letters, values, strict=True):
        try:
            ready.append((letter, repaired(letter, value, assignments, config)))
        except RecordError as error:
            faults.append(f"{letter.place}: {error}")
            note(faults[-1])
    return ready, faults


async def _send(config: Config, ready: list[Ready], as_json: bool) -> None:
    settings_sent: set[tuple[int, str]] = set()
    async with Producer(config) as producer:
        for letter, checked in ready:
            topic = str(letter.topic)
            if not checked.everywhere:
                pending = await producer.send(topic, checked.key, checked.value, headers=headers_of(letter))
                _print(letter, await pending, as_json)
            elif (checked.org_id, checked.id) not in settings_sent:
                # Every partition has a dead letter of the same document; one of them brings it to all again.
                settings_sent.add((checked.org_id, checked.id))
                for sent in await send_settings(
                    config, topic, checked.org_id, checked.key, checked.value, headers_of(letter)
                ):
                    _print(letter, sent, as_json)


def _print(letter: Letter, sent: Sent, as_json: bool) -> None:
    if as_json:
        place = {"topic": sent.topic, "partition": sent.partition, "offset": sent.offset}
        click.echo(orjson.dumps({"replayed_from": letter.place, **place}))
    else:
        click.echo(f"{letter.place} {sent}")
