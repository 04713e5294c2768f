"""`users add`, `users list` and `users remove`: who may use a worker's HTTP."""

from __future__ import annotations

from pathlib import Path

import click
import orjson
from rich.table import Table

from streams.config import Config
from streams.http.users import UsersError, changing, make_account, read_users

from .options import json_option, with_config
from .root import Failure
from .run import note
from .tables import print_table


@click.group("users", short_help="Add, list or remove users of a worker's HTTP.")
def command() -> None:
    """Add, list and remove the users of a worker's HTTP, in the file CONSENT_USERS_FILE.

    A worker that runs takes a change within a second.

    \b
    Example:
      consent-streams users add shop --org 100 --users-file users.jsonl
    """


@command.command("add")
@click.argument("name")
@click.option(
    "--org", "orgs", type=int, multiple=True, required=True, show_envvar=True,
    help="org that the user may see and change; may be repeated",
)  # fmt: skip
@click.option("--password-stdin", is_flag=True, show_envvar=True, help="read the password from stdin")
@click.option("--replace", is_flag=True, show_envvar=True, help="give a user that exists this password and these orgs")
@with_config("users_file")
def add(config: Config, name: str, orgs: tuple[int, ...], password_stdin: bool, replace: bool) -> None:
    """Add the user NAME, who may act for the orgs given.

    Asks for the password twice. It is read from stdin instead if that is not a terminal. The file is made if it is
    missing, readable to its owner only; it holds an argon2 hash of the password.

    \b
    Examples:
      consent-streams users add shop --org 100 --org 200 --users-file users.jsonl
      openssl rand -base64 24 | tee password | consent-streams users add shop --org 100 --users-file users.jsonl
    """
    file = _file(config)
    stdin = click.get_text_stream("stdin")
    if password_stdin or not stdin.isatty():
        try:
            password = stdin.read().removesuffix("\n").removesuffix("\r")
        except UnicodeDecodeError:
            raise Failure("the password is not text in UTF-8") from None
    else:
        password = click.prompt(f"Password of {name}", hide_input=True, confirmation_prompt=True, err=True)
    try:
        account = make_account(name, list(orgs), password)
        with changing(file) as accounts:
            if name in accounts and not replace:
                raise Failure(f"user {name} exists: --replace gives it this password and these orgs")
            done = "replaced" if name in accounts else "added"
            accounts[name] = account
    except UsersError as error:
        raise Failure(str(error)) from error
    note(f"user {name} {done} in {file}, for org {', '.join(map(str, account.orgs))}")


@command.command("list")
@with_config("users_file")
@json_option
def list_users(config: Config, as_json: bool) -> None:
    """All users with their orgs.

    \b
    Example:
      consent-streams users list --users-file users.jsonl
    """
    try:
        accounts = read_users(_file(config)).values()
    except UsersError as error:
        raise Failure(str(error)) from error
    if as_json:
        click.echo(orjson.dumps([{"name": account.name, "orgs": account.orgs} for account in accounts]))
        return
    table = Table("user", "orgs")
    for account in accounts:
        table.add_row(account.name, ", ".join(map(str, account.orgs)))
    print_table(table)


@command.command("remove")
@click.argument("name")
@with_config("users_file")
def remove(config: Config, name: str) -> None:
    """Remove the user NAME.

    \b
    Example:
      consent-streams users remove shop --users-file users.jsonl
    """
    file = _file(config)
    try:
        with changing(file) as accounts:
            if accounts.pop(name, None) is None:
                raise Failure(f"there is no user {name} in {file}")
    except UsersError as error:
        raise Failure(str(error)) from error
    note(f"user {name} removed from {file}")


def _file(config: Config) -> Path:
    if not config.users_file:
        raise click.UsageError("CONSENT_USERS_FILE (--users-file): name the file of the users")
    return Path(config.users_file).expanduser()
