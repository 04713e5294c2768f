"""`asyncapi`: the document of all topics."""

from __future__ import annotations

from typing import Any

import click
import orjson
import yaml

from streams.config import Config

from .channels import asyncapi
from .options import TOPICS, json_option, with_config


class _Plain(yaml.SafeDumper):
    """Writes what occurs twice twice."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 - yaml's signature
        return True


@click.command("asyncapi", short_help="Print the AsyncAPI document of all topics.")
@with_config("bootstrap_servers", "topic_prefix", *TOPICS)
@json_option
def command(config: Config, as_json: bool) -> None:
    """Print the AsyncAPI 3.0 document of all topics, as YAML or (--json) JSON; needs no broker.

    Addresses bear the prefix, servers are the ones that are given.

    \b
    Example:
      consent-streams asyncapi --bootstrap-servers kafka-1:9092 --partitions 8 > asyncapi.yaml
    """
    document = asyncapi(config)
    if as_json:
        click.echo(orjson.dumps(document))
    else:
        click.echo(yaml.dump(document, Dumper=_Plain, sort_keys=False, allow_unicode=True, width=120), nl=False)
