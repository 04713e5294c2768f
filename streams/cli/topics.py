"""`topics create`, `topics check` and `topics acls`; `topics repartition` is in a package of its own."""

from __future__ import annotations

import shlex
from dataclasses import asdict
from typing import Any

import click
import orjson

from streams.config import Config
from streams.kafka import acls, admin
from streams.kafka.conditions import unmet
from streams.topics import ALL

from .options import KAFKA, TOPICS, json_option, timeout_option, with_config
from .repartition import command as repartition
from .run import note, progress, reachable, run


class OfRole(click.ParamType):
    """`ROLE=VALUE`."""

    def __init__(self, roles: tuple[str, ...], value: str) -> None:
        self.name = f"role={value}"
        self._roles = roles

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        """Role and value, or a usage error."""
        role, _, text = str(value).partition("=")
        if role not in self._roles or not text:
            roles = ", ".join(self._roles)
            self.fail(f"{value!r} is not {self.name.upper()} with one of the roles {roles}", param, ctx)
        return role, text


@click.group("topics", short_help="Create, check or repartition the topics; list who needs which right.")
def command() -> None:
    """Create the topics, compare them with what is needed, change their number of partitions, list rights in Kafka.

    \b
    Example:
      consent-streams topics create --partitions 8
    """


@command.command("create")
@with_config(*KAFKA, *TOPICS)
@timeout_option
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
@timeout_option
@json_option
@click.pass_context
def check(ctx: click.Context, config: Config, as_json: bool) -> None:
    """Compare the topics with what is needed; exit code 1 if something is wrong.

    A warning, which leaves the exit code at 0, says what Kafka can lose by the settings that it has: the guarantees
    need three replicas, min.insync.replicas of two, and unclean.leader.election.enable=false.

    \b
    Example:
      consent-streams topics check --partitions 8
    """
    problems, warnings = run(_compare(reachable(config)))
    if as_json:
        click.echo(orjson.dumps({"problems": problems, "warnings": warnings}))
        ctx.exit(1 if problems else 0)
    for warning in warnings:
        note(f"warning: {warning}")
    if not problems:
        click.echo(f"all {len(ALL)} topics are as they should be, with {config.partitions} partitions")
    else:
        for problem in problems:
            note(problem)
    ctx.exit(1 if problems else 0)


async def _compare(config: Config) -> tuple[list[str], list[str]]:
    """Problems and warnings, one line each."""
    there = (await admin.describe(config)).topics
    configs = await admin.readable_configs_of(config, there.values())
    found = [problem.text for problem in admin.problems(config, there, configs)]
    return found, [f"{one.line()} -> {one.remedy}" for one in unmet(there, configs)]


@command.command("acls")
@click.option(
    "--principal", "principals", multiple=True, type=OfRole(tuple(acls.ROLES), "principal"), show_envvar=True,
    metavar="ROLE=PRINCIPAL", help="who has the role, such as worker=User:CN=worker; default: User:consent-ROLE",
)
@click.option(
    "--group", "groups", multiple=True, type=OfRole(acls.READERS, "group"), show_envvar=True,
    metavar="ROLE=GROUP", help=f"consumer group of {', '.join(acls.READERS)}; default: consent-ROLE, after the prefix",
)
@click.option(
    "--org", "orgs", multiple=True, type=int, show_envvar=True,
    help="an org whose settings the operator may write, may be repeated; default: all",
)
@click.option(
    "--role", "roles", multiple=True, type=click.Choice(list(acls.ROLES)), show_envvar=True,
    help="list this role only, may be repeated",
)
@click.option("--to-prefix", show_envvar=True, help="list the role repartition too: prefix of its new topics")
@click.option("--command-config", metavar="FILE", show_envvar=True, help="with which `kafka-acls.sh` shall log in")
@with_config("bootstrap_servers", "topic_prefix")
@json_option
def list_acls(
    config: Config, principals: tuple[tuple[str, str], ...], groups: tuple[tuple[str, str], ...],
    orgs: tuple[int, ...], roles: tuple[str, ...], to_prefix: str | None, command_config: str | None, as_json: bool,
) -> None:
    """List the rights that each role needs in Kafka, as commands of Kafka's own `kafka-acls.sh`; changes nothing.

    \b
    Example:
      consent-streams topics acls --role worker --principal worker=User:CN=worker,O=Example
    """  # fmt: skip
    if "repartition" in roles and to_prefix is None:
        raise click.UsageError("--role repartition: needs --to-prefix")
    found = acls.acls(config, dict(principals), dict(groups), orgs, roles or tuple(acls.ROLES), to_prefix)
    tool = ["kafka-acls.sh", "--bootstrap-server", config.bootstrap_servers or "HOST:PORT"]
    tool += ["--command-config", command_config] if command_config else []
    if as_json:
        click.echo(orjson.dumps([asdict(acl) | {"command": [*tool, *acl.arguments()]} for acl in found]))
        return
    for role, what in acls.ROLES.items():
        own = [acl for acl in found if acl.role == role]
        if own:
            click.echo(f"# {role}: {what}")
        for acl in own:
            click.echo(shlex.join([*tool, *acl.arguments()]))


command.add_command(repartition)
