"""`topics repartition`: another number of partitions, by a copy into topics of another prefix."""

from __future__ import annotations

import dataclasses
from typing import Any

import click
import orjson

from streams.config import Config

from ..options import KAFKA, json_option, timeout_option, with_config
from ..root import INTERRUPTED, Failure
from ..run import note, progress, reachable, run

SHOWN = 20

START = """\
next:
  1. start the workers of the copy: CONSENT_TOPIC_PREFIX={prefix} CONSENT_PARTITIONS={partitions}, data folders and
     HTTP ports of their own, the same CONSENT_LINK_SECRET. The old ones go on. Send nobody to the new ones yet.
  2. run this command again whenever you like, or with --follow, to copy what came since.
  3. stop all producers, gateways and the campaign engine, and run it with --switch."""

DONE = """\
switched: {customers} customers, {orgs} orgs and {identifiers} identifiers are the same in both
next:
  1. stop the old workers. The old topics take nothing any more.
  2. point producers, gateways, the campaign engine, the readers of all topics and all commands to
     CONSENT_TOPIC_PREFIX={prefix} CONSENT_PARTITIONS={partitions}, and HTTP clients and links to its workers.
  3. start them. Positions of the old topics (`min_position`, `as_of`) mean nothing in the new ones.
  4. keep the old topics as long as somebody reads their decisions, messages and audit."""


@click.command("repartition", short_help="Change the number of partitions: copy, compare, switch.")
@click.option("--to-prefix", required=True, show_envvar=True, help="prefix of the new topics, not that of the old ones")
@click.option(
    "--to-partitions", required=True, type=click.IntRange(1, 10_000), show_envvar=True,
    help="partitions of the new topics",
)
@click.option("--follow", is_flag=True, show_envvar=True, help="go on with what is still to come, until Ctrl-C")
@click.option("--switch", is_flag=True, show_envvar=True, help="producers are stopped: wait, compare, and switch")
@with_config(*KAFKA, "partitions", "max_record_bytes")
@timeout_option
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    config: Config,
    to_prefix: str,
    to_partitions: int,
    follow: bool,
    switch: bool,
    as_json: bool,
) -> None:
    """Copy `consent.changes` into new topics with another number of partitions, compare the states, and switch.

    The old installation goes on until the switch. Each run copies what came since the last one, each record once, also
    after a kill. With --switch it waits until the workers of both are through, closes the old inputs, and compares
    what they hold customer by customer; if there is a difference it opens them again (exit code 1).

    \b
    Example:
      consent-streams topics repartition --partitions 8 --to-prefix p16- --to-partitions 16
      consent-streams topics repartition --partitions 8 --to-prefix p16- --to-partitions 16 --switch
    """
    if to_prefix == config.topic_prefix:
        raise click.UsageError("--to-prefix: is that of the old topics")
    if follow and switch:
        raise click.UsageError("--follow or --switch, not both")
    old = reachable(config)
    new = dataclasses.replace(old, topic_prefix=to_prefix, partitions=to_partitions)
    try:
        told = _run(old, new, follow=follow, switch=switch)
    except KeyboardInterrupt:
        ctx.exit(0 if follow else INTERRUPTED)
    if as_json:
        click.echo(orjson.dumps(told))
    else:
        _show(told, new)
    if told.get("differences"):
        raise Failure(f"{len(told['differences'])} differences: nothing is switched, the old installation can go on")


def _run(old: Config, new: Config, *, follow: bool, switch: bool) -> dict[str, Any]:
    from .running import copy, copy_and_switch, copy_on  # noqa: PLC0415 - imports Faust, which no other command needs

    line = ["looking at the topics"]

    def tell(text: str) -> None:
        line[0] = text

    work = copy_and_switch if switch else copy_on if follow else copy
    with progress(lambda: line[0]):
        return run(work(old, new, tell))


def _show(told: dict[str, Any], new: Config) -> None:
    names = {"prefix": new.topic_prefix, "partitions": new.partitions}
    left_out = ", ".join(f"{count} {what}" for what, count in told["left_out"].items() if count)
    click.echo(f"copied {told['copied']} records{f', left out: {left_out}' if left_out else ''}")
    if "differences" not in told:
        click.echo(START.format(**names))
    elif not told["differences"]:
        click.echo(DONE.format(**names, **told["compared"]))
    for one in told.get("differences", [])[:SHOWN]:
        note(f"{one['kind']} {one['key']}: {one['difference']}")
