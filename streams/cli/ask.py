"""`ask`: one eligibility request."""

from __future__ import annotations

import re
import uuid
from typing import Any, get_args

import click
import orjson

from schemas.base import Channel, Priority, Source
from schemas.eligibility import MAX_WAIT_MS
from streams.config import Config

from .asking import ask
from .events import RecordError, check_request
from .options import KAFKA, json_option, with_config
from .reasons import describe
from .run import progress, reachable, run


class PositionType(click.ParamType):
    """`PARTITION:OFFSET`, as `publish` prints it with an @."""

    name = "partition:offset"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> dict[str, int]:
        """Both numbers, or a usage error."""
        found = re.fullmatch(r"(\d{1,10})[:@](\d{1,19})", str(value))
        if found is None:
            self.fail(f"{value!r} is not PARTITION:OFFSET, such as 3:17", param, ctx)
        return {"partition": int(found[1]), "offset": int(found[2])}


def _one_of(words: Any) -> click.Choice[str]:
    return click.Choice(get_args(words), case_sensitive=False)


def _shown(words: Any) -> str:
    return "|".join(get_args(words))


@click.command("ask", short_help="One eligibility request; waits for the decision.")
@click.argument("org", type=int)
@click.argument("customer")
@click.option("--channel", required=True, show_envvar=True, type=_one_of(Channel), metavar=_shown(Channel))
@click.option(
    "--priority", required=True, show_envvar=True, type=_one_of(Priority), metavar=_shown(Priority),
    help="BULK (promotional) or TRANS (transactional)",
)
@click.option(
    "--org-unit", "org_unit_id", type=int, default=-1, show_default=True, show_envvar=True, help="-1: the org itself"
)
@click.option(
    "--source", show_envvar=True, type=_one_of(Source), metavar="SOURCE",
    help=f"needed while the unified layer is off: {', '.join(get_args(Source))}",
)
@click.option("--account", "account_id", show_envvar=True, help="account of the source")
@click.option(
    "--min-position", type=PositionType(), show_envvar=True, metavar="PARTITION:OFFSET",
    help="weigh the change at this position of consent.changes, as `publish` printed it",
)
@click.option(
    "--max-wait-ms", type=click.IntRange(0, MAX_WAIT_MS), show_envvar=True, help="how long the worker may wait for it"
)
@click.option("--request-id", show_envvar=True, help="default: a random one")
@click.option(
    "--timeout", type=click.FloatRange(0, min_open=True), default=30.0, show_default=True, show_envvar=True,
    help="seconds to wait for the decision",
)
@with_config(*KAFKA)
@json_option
def command(config: Config, as_json: bool, timeout: float, **fields: Any) -> None:
    """May we send to CUSTOMER of ORG? Writes one request and waits for the decision; exit code 0 for any decision.

    \b
    Example:
      consent-streams ask 100 565039505 --channel EMAIL --priority BULK --org-unit 200031782
    """
    request = {name: value for name, value in fields.items() if value is not None}
    request["org_id"], request["customer_id"] = request.pop("org"), request.pop("customer")
    request.setdefault("request_id", str(uuid.uuid4()))
    try:
        check_request(orjson.dumps(request), config.max_record_bytes)
    except (RecordError, orjson.JSONEncodeError) as error:
        raise click.UsageError(str(error)) from error
    config = reachable(config)
    with progress(lambda: "waiting for the decision"):
        decision = run(ask(config, request, timeout))
    click.echo(orjson.dumps(decision) if as_json else describe(decision))
