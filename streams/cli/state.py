"""`state`: a customer's cells as the worker holds them."""

from __future__ import annotations

from typing import Any

import click
import orjson
from rich.table import Table

from streams.config import Config

from .http import NotFound, get
from .options import HTTP, json_option, with_config
from .root import Failure
from .tables import print_table

COLUMNS = ("source", "account_id", "channel", "priority", "org_unit_id", "status", "since", "event_id", "pending")


@click.command("state", short_help="A customer's cells as the worker holds them.")
@click.argument("org", type=int)
@click.argument("customer")
@with_config(*HTTP)
@json_option
def command(config: Config, org: int, customer: str, as_json: bool) -> None:
    """The cells of CUSTOMER of ORG as the worker holds them; exit code 1 for an unknown customer.

    CONSENT_HTTP_TOKEN, or CONSENT_HTTP_USER=NAME:PASSWORD, are the credentials, if the worker asks for some.

    \b
    Example:
      consent-streams state 100 565039505
    """
    try:
        found = get(config, "v1", "customers", org, customer)
    except NotFound as error:
        raise Failure(f"unknown customer {org}:{customer}: {error.message}") from error
    if as_json:
        click.echo(orjson.dumps(found))
    else:
        show(found)


def show(state: dict[str, Any]) -> None:
    """Print what is known of the customer, then a table of the cells."""
    for name, value in state.items():
        if name != "cells" and value not in (None, "", False, [], {}):
            click.echo(f"{name}: {value if isinstance(value, str) else orjson.dumps(value).decode()}")
    cells = state.get("cells") or []
    if not cells:
        click.echo("no cells: the customer has said nothing yet")
        return
    more = [name for name in cells[0] if name not in COLUMNS]
    shown = [name for name in (*COLUMNS, *more) if any(cell.get(name) is not None for cell in cells)]
    table = Table(*shown)
    for cell in cells:
        table.add_row(*(_text(cell.get(name)) for name in shown))
    print_table(table)


def _text(value: Any) -> str:
    if value is None or value is False:
        return ""
    if isinstance(value, dict):  # a pending opt-in
        return f"since {value.get('since')}"
    return "yes" if value is True else str(value)
