"""`broker`: the embedded broker alone, in the foreground."""

from __future__ import annotations

import click

from streams.broker import run_foreground
from streams.config import Config

from .options import with_config


@click.command("broker", short_help="Run only the embedded Kafka, in the foreground.")
@click.option(
    "--port", type=click.IntRange(0, 65_535), envvar="CONSENT_BROKER_PORT", show_envvar=True,
    help="port on 127.0.0.1; 0: any free one; default 9092 if it is free, else any",
)  # fmt: skip
@with_config("datadir")
@click.pass_context
def command(ctx: click.Context, config: Config, port: int | None) -> None:
    """Run only the embedded Kafka, in the foreground, until Ctrl-C.

    The first line of output ends in its address, 127.0.0.1:PORT. Its data stays in the data folder; other commands on
    the same folder find it by themselves.

    \b
    Example:
      consent-streams broker --port 9092
    """
    ctx.exit(run_foreground(data_dir=config.datadir, port=port))
