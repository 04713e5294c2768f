"""`doctor`: looks at a deployment from one machine, writes nothing, and says what to do."""

from __future__ import annotations

import click
import orjson

from streams.config import Config
from streams.kafka.admin import check_rights
from streams.kafka.faults import KafkaFault
from streams.topics import ALL

from ..options import HTTP, KAFKA, json_option, timeout_option, with_config
from ..root import Failure
from ..run import progress, reachable, run
from .cluster import Seen, look
from .findings import Finding, ok, problem, skipped
from .judging import judge
from .machine import look_here
from .workers import ask_all, judge_workers


@click.command("doctor", short_help="Look at a deployment and say what is wrong with it.")
@with_config(*KAFKA, "partitions", *HTTP, "users_file")
@timeout_option
@json_option
@click.pass_context
def command(ctx: click.Context, config: Config, as_json: bool) -> None:
    """Look at a deployment from this machine: Kafka, topics, workers, lag, data folder, users; say what is wrong.

    Writes nothing. One line for each check: ok, warning, problem or skipped, and what to do about it. Give it the
    environment of a worker, and run it as the worker's user. Exit code 1 if there is a problem.

    \b
    Example:
      consent-streams doctor --bootstrap-servers kafka-1:9092
    """
    with progress(lambda: "looking at Kafka and the workers"):
        findings = _examine(config)
    problems = sum(finding.status == "problem" for finding in findings)
    if as_json:
        click.echo(orjson.dumps({"problems": problems, "checks": [finding.document() for finding in findings]}))
    else:
        for finding in findings:
            click.echo(finding.line())
    ctx.exit(1 if problems else 0)


def _rights(config: Config, seen: Seen) -> Finding:
    if len(seen.cluster.topics) < len(ALL):
        return skipped("rights", "topics are missing")
    try:
        run(check_rights(config))
    except KafkaFault as fault:
        return problem("rights", str(fault), "grant them, or give this command the worker's Kafka user")
    return ok("rights", "Kafka lets this user do all that a worker does")


def _examine(config: Config) -> list[Finding]:
    seen: Seen | None = None
    try:
        config = reachable(config)
        seen = run(look(config))
    except (KafkaFault, Failure) as fault:
        text = fault.message if isinstance(fault, Failure) else str(fault)
        findings = [problem("broker", text, "see that it runs and that this machine may connect to it")]
        findings += [skipped(check, "Kafka does not answer") for check in ("topics", "replication", "workers", "lag")]
    else:
        findings = [*judge(config, seen), _rights(config, seen)]
    members = seen.group.members if seen and seen.group else ()
    findings += judge_workers(config, ask_all(config, members))
    findings += look_here(config, seen.cluster if seen else None)
    return findings
