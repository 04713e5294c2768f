"""`worker`: one worker of the group."""

from __future__ import annotations

import click

from streams.config import Config

from .options import WORKER, with_config
from .run import reachable


@click.command("worker", short_help="Run one worker of the group.")
@with_config(*WORKER)
@click.pass_context
def command(ctx: click.Context, config: Config) -> None:
    """Run one worker of the group until Ctrl-C or SIGTERM; as many as there are partitions can share the work.

    Prints one line when it is ready. HTTP asks for a user of the users file, or for the bearer token
    CONSENT_HTTP_TOKEN, which has no option since it is a secret.

    \b
    Example, a second worker on the same machine:
      consent-streams worker --http-port 6067 --datadir /var/lib/consent-2 --bootstrap-servers 127.0.0.1:9092
    """
    config = reachable(config)
    from streams.worker import run_worker  # noqa: PLC0415 - imports Faust, which no other command needs

    ctx.exit(run_worker(config))
