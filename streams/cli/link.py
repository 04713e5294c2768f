"""`link`: a signed link for one customer, to be put into a message."""

from __future__ import annotations

import time
from typing import Any, get_args

import click
import orjson

from schemas.base import INT64_MAX, Channel, Priority, Source, format_instant
from streams.config import Config, ConfigError
from streams.links import Action, Link, Links, secret_of

from .http import base_url
from .options import HTTP, json_option, with_config
from .root import Failure

DAY_MS = 86_400_000
MAX_DAYS = 3_650
ID_LENGTH = 128
LANGUAGE_LENGTH = 35
INT64 = click.IntRange(-(2**63), INT64_MAX)


class Text(click.ParamType):
    """Text of 1 to so many characters, as events take it."""

    name = "text"

    def __init__(self, longest: int) -> None:
        self._longest = longest

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The text, or a usage error."""
        text = str(value)
        if not 1 <= len(text) <= self._longest:
            self.fail(f"{len(text)} characters, not 1 to {self._longest}", param, ctx)
        try:
            text.encode()
        except UnicodeEncodeError:
            self.fail("not UTF-8", param, ctx)
        return text


def _one_of(words: Any) -> click.Choice[str]:
    return click.Choice(get_args(words), case_sensitive=False)


@click.command("link", short_help="A signed link for one customer.")
@click.argument("org", type=INT64)
@click.argument("customer", type=Text(ID_LENGTH))
@click.option("--source", required=True, show_envvar=True, type=_one_of(Source), metavar="SOURCE",
              help=", ".join(get_args(Source)))
@click.option("--account", "account_id", required=True, show_envvar=True, type=Text(ID_LENGTH),
              help="account of the source")
@click.option("--channel", required=True, show_envvar=True, type=_one_of(Channel),
              metavar="|".join(get_args(Channel)), help="of the messages that the link is about")
@click.option("--priority", default="BULK", show_default=True, show_envvar=True, type=_one_of(Priority),
              metavar="|".join(get_args(Priority)), help="promotional or transactional")
@click.option("--org-unit", "org_unit_id", type=INT64, metavar="ID", default=-1, show_default=True,
              show_envvar=True, help="-1: the org itself")
@click.option("--action", default="optout", show_default=True, show_envvar=True,
              type=click.Choice(["optout", "optin"], case_sensitive=False))
@click.option("--language", type=Text(LANGUAGE_LENGTH), show_envvar=True,
              help="of the page, such as de; default: the browser's, the customer's, the org's")
@click.option("--expires-days", type=click.IntRange(1, MAX_DAYS), metavar="DAYS", default=365, show_default=True,
              show_envvar=True, help=f"1 to {MAX_DAYS}")
@with_config(*HTTP, "datadir", "public_url")
@json_option
def command(config: Config, as_json: bool, expires_days: int, action: str, **fields: Any) -> None:
    """Print the URL under which CUSTOMER of ORG can opt out (or in) at one place, with one press of a button.

    The link is signed with CONSENT_LINK_SECRET, or, while that is not set, with the secret in CONSENT_DATADIR
    (made there once). The same one of the two must be set as for the worker, for every worker if there are several:
    a link with another secret is not valid there. Mail providers offer one click only for https, so give the
    address that customers reach as CONSENT_PUBLIC_URL. --json adds the headers to put into the mail (RFC 8058).

    \b
    Example:
      consent-streams link 100 565039505 --source WEB_ENGAGE --account 01 --channel EMAIL --public-url https://example.com
    """
    expires_at = time.time_ns() // 1_000_000 + expires_days * DAY_MS
    wanted: Action = "OPTIN" if action == "optin" else "OPTOUT"
    link = Link(fields.pop("org"), fields.pop("customer"), action=wanted, expires_at=expires_at, **fields)
    try:
        token = Links(secret_of(config)).token(link)
    except ConfigError as error:
        raise Failure(str(error)) from error
    url = f"{_base(config)}/u/{token}"
    click.echo(orjson.dumps(_document(link, token, url)) if as_json else url)


def _base(config: Config) -> str:
    if config.public_url and not config.public_url.startswith(("https://", "http://")):
        raise click.UsageError(f"CONSENT_PUBLIC_URL: {config.public_url!r} does not begin with https:// or http://")
    return (config.public_url or base_url(config)).rstrip("/")


def _document(link: Link, token: str, url: str) -> dict[str, object]:
    """Everything about a link. Only one that opts out is for mail programs: they press it unasked."""
    one_click = {"List-Unsubscribe": f"<{url}>", "List-Unsubscribe-Post": "List-Unsubscribe=One-Click"}
    return {
        "url": url,
        "token": token,
        "expires_at": format_instant(link.expires_at),
        "headers": one_click if link.action == "OPTOUT" else {},
    }
