"""`openapi`: the document of a worker's HTTP."""

from __future__ import annotations

import click
import orjson

from streams.http.documents import openapi


@click.command("openapi", short_help="Print the OpenAPI document of a worker's HTTP.")
def command() -> None:
    """Print the OpenAPI 3.1 document that every worker serves at /openapi.json; needs no worker and no broker.

    \b
    Example:
      consent-streams openapi > openapi.json
    """
    click.echo(orjson.dumps(openapi(), option=orjson.OPT_INDENT_2))
