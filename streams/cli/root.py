"""The command `consent-streams` itself: finds the subcommands and turns every failure into one line and a code."""

from __future__ import annotations

import importlib
import logging
import os
import traceback
from typing import Any

import click

from streams import __version__

#: Name of each command, and the module (below this package) that has it as `command`.
COMMANDS = {
    "up": "up",
    "broker": "broker",
    "topics": "topics",
    "settings": "settings",
    "worker": "worker",
    "publish": "publish",
    "import": "import_",
    "ask": "ask",
    "link": "link",
    "state": "state",
    "audit": "audit",
    "deadletter": "deadletter",
    "users": "users",
    "openapi": "openapi",
    "asyncapi": "asyncapi",
    "doctor": "doctor",
}
INTERRUPTED = 130


class Failure(click.ClickException):
    """Ends the command with one line on stderr and exit code 1."""


class Root(click.Group):
    """Loads a subcommand's module only when it is used, so that the help of one does not import the rest."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """All names, in the order of the contract."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """The command of this name, imported now."""
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"streams.cli.{COMMANDS[cmd_name]}").command
        return command

    def invoke(self, ctx: click.Context) -> Any:
        """Run the subcommand. Whatever goes wrong is one line; the traceback comes only with log level debug."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            ctx.exit(INTERRUPTED)
        except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError):
            raise
        except Exception as error:
            if os.environ.get("CONSENT_LOG_LEVEL") == "debug":
                traceback.print_exc()
            raise Failure(_one_line(error)) from error


def _one_line(error: Exception) -> str:
    from streams.broker import BrokerError  # noqa: PLC0415
    from streams.config import ConfigError  # noqa: PLC0415
    from streams.kafka.faults import KafkaFault  # noqa: PLC0415 - imports Kafka's client, which --help does not need

    text = " ".join(str(error).split())
    if isinstance(error, (KafkaFault, BrokerError, ConfigError)):
        return text
    return f"{type(error).__name__}: {text} (CONSENT_LOG_LEVEL=debug shows where)"


@click.group(
    cls=Root,
    context_settings={"auto_envvar_prefix": "CONSENT", "help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.version_option(__version__, message="consent-streams %(version)s")
def cli() -> None:
    """Consent changes in, one current answer to "may we send?" out.

    Every option can be given as an environment variable, which its help names.

    \b
    Examples:
      consent-streams up                         everything, for a first look
      consent-streams ask 100 565039505 --channel EMAIL --priority BULK
      consent-streams COMMAND --help
    """
    # aiokafka logs each attempt to connect; what matters of it reaches the user as one line.
    debug = os.environ.get("CONSENT_LOG_LEVEL") == "debug"
    for name in ("aiokafka", "asyncio"):
        logging.getLogger(name).setLevel(logging.DEBUG if debug else logging.CRITICAL)
