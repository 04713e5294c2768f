"""`topics create` and `topics check`."""

from __future__ import annotations

import click
import orjson

from streams import admin
from streams.config import Config
from streams.topics import ALL

from .options import KAFKA, TOPICS, json_option, with_config
from .run import note, progress, reachable, run


@click.group("topics", short_help="Create or check the topics.")
def command() -> None:
    """Create the topics, or compare what is there with what is needed.

    \b
    Example:
      consent-streams topics create --partitions 8
    """


@command.command("create")
@with_config(*KAFKA, *TOPICS)
@json_option
def create(config: Config, as_json: bool) -> None:
    """Create the topics that are missing; leave alone those that are there.

    \b
    Example:
      consent-streams topics create --partitions 8 --replication 3 --bootstrap-servers kafka-1:9092
    """
    config = reachable(config)
    with progress(lambda: "creating topics"):
        created = run(admin.create_topics(config))
    names = [config.topic(spec.name) for spec in ALL]
    if as_json:
        click.echo(orjson.dumps({"created": created, "existing": [n for n in names if n not in created]}))
    else:
        for name in names:
            click.echo(f"{name}: created with {config.partitions} partitions" if name in created else f"{name}: there")
    if len(created) < len(names):
        for problem in run(admin.check_topics(config)):
            note(f"warning: {problem}")


@command.command("check")
@with_config(*KAFKA, "partitions")
@json_option
@click.pass_context
def check(ctx: click.Context, config: Config, as_json: bool) -> None:
    """Compare the topics with what is needed; exit code 1 if something is wrong.

    \b
    Example:
      consent-streams topics check --partitions 8
    """
    problems = run(admin.check_topics(reachable(config)))
    if as_json:
        click.echo(orjson.dumps({"problems": problems}))
    elif not problems:
        click.echo(f"all {len(ALL)} topics are as they should be, with {config.partitions} partitions")
    else:
        for problem in problems:
            click.echo(f"{problem}", err=True)
    ctx.exit(1 if problems else 0)
