"""`import`: a file of consent changes as one batch, which can be taken out again."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import click
import orjson

from streams.config import Config
from streams.kafka.faults import KafkaFault

from .bar import progress_bar
from .importing import Importing
from .journal import Journal, path_of
from .mapping import FIELDS, OF_A_ROW, Mapping
from .options import HTTP, KAFKA, json_option, timeout_option, with_config
from .rejects import Rejects
from .root import Failure
from .rows import Table
from .run import note, reachable, run
from .undoing import Undoing


class PairType(click.ParamType):
    """`FIELD=VALUE`, with a field of `consent.changed` that a row can give."""

    name = "field=value"

    def __init__(self, what: str) -> None:
        self._what = what

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        """Both parts, or a usage error."""
        field, equals, rest = str(value).partition("=")
        if not equals or not rest:
            self.fail(f"{value!r} is not FIELD={self._what}", param, ctx)
        if field not in FIELDS:
            self.fail(f"{field!r} is not one of {', '.join(FIELDS)}", param, ctx)
        return field, rest


class ZoneType(click.ParamType):
    """A time zone by its IANA name."""

    name = "zone"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> ZoneInfo:
        """The zone, or a usage error."""
        try:
            return ZoneInfo(str(value))
        except (OSError, ValueError, ZoneInfoNotFoundError):
            self.fail(f"{value!r} is no time zone, such as Asia/Kolkata", param, ctx)


@click.command("import", short_help="A file of opt-ins and opt-outs as one batch, or its undo.")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path), required=False)
@click.option(
    "--org", "org_id", type=int, show_envvar=True,
    help="the org that the customers are of; an undo finds it, if only one has such a batch",
)
@click.option("--batch-id", show_envvar=True, help="name of this import, by which it can be undone")
@click.option("--undo", metavar="BATCH", show_envvar=True, help="take this batch out again, instead of importing")
@click.option("--dry-run", is_flag=True, show_envvar=True, help="publish nothing, say what would change")
@click.option(
    "--map", "columns", multiple=True, type=PairType("COLUMN"), metavar="FIELD=COLUMN", show_envvar=True,
    help="the field is in this column; else in the one of its own name",
)
@click.option(
    "--set", "constants", multiple=True, type=PairType("VALUE"), metavar="FIELD=VALUE", show_envvar=True,
    help="the field has this value in every row",
)
@click.option(
    "--format", "kind", type=click.Choice(["csv", "ndjson"]), show_envvar=True,
    help="default: by the file's name (.ndjson, .jsonl, .json), else csv",
)
@click.option("--delimiter", show_envvar=True, help="of a CSV file; default: found out from its header")
@click.option("--date-format", show_envvar=True, help="of occurred_at, as for strptime; default: RFC 3339")
@click.option("--timezone", type=ZoneType(), show_envvar=True, help="IANA zone of dates that have no offset")
@click.option(
    "--rejects", type=click.Path(dir_okay=False, writable=True, path_type=Path), show_envvar=True,
    help="write rejected rows here, with line and fault: CSV, or NDJSON by the name",
)
@with_config(*KAFKA, *HTTP, "max_record_bytes")
@timeout_option
@json_option
def command(
    config: Config,
    file: Path | None,
    undo: str | None,
    org_id: int | None,
    dry_run: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Publish the rows of FILE (CSV with a header, or NDJSON) as opt-ins and opt-outs of one batch.

    A bad row is reported and left out, and the exit code is 1 then; the others are published. Newer entries stand. An
    import that was cut short goes on where it stopped when it is started again.

    \b
    Examples:
      consent-streams import crm.csv --org 100 --batch-id crm-2026-11 --map customer_id=id --map occurred_at=date
          --set source=INSTORE --set account_id=01 --set channel=EMAIL --set priority=BULK --set org_unit_id=-1
          --rejects rejected.csv --dry-run
      consent-streams import --undo crm-2026-11 --org 100
    """
    if undo is not None:
        _check_name("--undo", undo)
        if file is not None or options["batch_id"] is not None:
            raise click.UsageError("--undo takes no FILE and no --batch-id")
        _undo(reachable(config), org_id, undo, dry_run, as_json)
        return
    if file is None or org_id is None or options["batch_id"] is None:
        raise click.UsageError("FILE, --org and --batch-id are needed (or --undo BATCH)")
    _check_name("--batch-id", options["batch_id"])
    mapping = _mapping(org_id, options)
    table = Table(file, options["kind"], options["delimiter"])
    _check_columns(table, mapping)
    with Rejects(options["rejects"], table.columns) as rejects:
        config = reachable(config)
        importing = Importing(config, table, mapping, rejects)
        if dry_run:
            _preview(importing, table, rejects, as_json)
        else:
            _import(config, importing, table, mapping, rejects, as_json)
    if rejects.count:
        where = f": see {options['rejects']}" if options["rejects"] else ""
        raise Failure(f"{_count(rejects.count, 'row')} of {importing.rows} rejected{where}")


def _check_name(option: str, batch_id: str) -> None:
    if not 1 <= len(batch_id) <= 128:
        raise click.UsageError(f"{option}: 1 to 128 characters")


def _mapping(org_id: int, options: dict[str, Any]) -> Mapping:
    columns, constants = dict(options["columns"]), dict(options["constants"])
    for option, pairs, found in (("--map", options["columns"], columns), ("--set", options["constants"], constants)):
        if len(pairs) != len(found):
            raise click.UsageError(f"{option}: a field is named twice")
    if both := sorted(columns.keys() & constants.keys()):
        raise click.UsageError(f"{both[0]}: --map or --set, not both")
    if fixed := sorted(OF_A_ROW & constants.keys()):
        raise click.UsageError(f"--set {fixed[0]}: each row must have its own")
    if options["delimiter"] is not None and len(options["delimiter"]) != 1:
        raise click.UsageError("--delimiter: one character")
    return Mapping(org_id, options["batch_id"], columns, constants, options["date_format"], options["timezone"])


def _check_columns(table: Table, mapping: Mapping) -> None:
    """Raises Failure for a mapped column that a CSV file does not have, and for fields without any."""
    if table.columns is None:
        return
    there = ", ".join(map(repr, table.columns))
    for field, column in mapping.columns.items():
        if column not in table.columns:
            raise Failure(f"--map {field}={column}: {table.path} has no such column; it has {there}")
    if missing := mapping.missing(table.columns):
        ways = "--map FIELD=COLUMN names one, --set FIELD=VALUE sets it for all rows"
        raise Failure(f"{table.path} has no column {', '.join(missing)}; it has {there} ({ways})")


def _import(
    config: Config, importing: Importing, table: Table, mapping: Mapping, rejects: Rejects, as_json: bool
) -> None:
    content = f"{table.digest} {table.kind} {table.delimiter} {mapping} {config.bootstrap_servers}"
    digest = hashlib.sha256(content.encode()).hexdigest()
    journal = Journal(config, mapping.org_id, mapping.batch_id, digest)
    before = journal.read()
    if before:
        note(f"{_count(before, 'row')} acknowledged before: going on with row {before + 1}")
    with progress_bar(lambda: f"{_count(importing.published, 'row')} published", lambda: table.read, table.size):
        try:
            run(importing.publish(journal))
        except KafkaFault as error:
            raise Failure(f"{error} ({_count(importing.published, 'row')} published; start again to go on)") from error
    found = {"rows": importing.rows, "published": importing.published, "before": before, "rejected": rejects.count}
    if as_json:
        click.echo(orjson.dumps({"org_id": mapping.org_id, "batch_id": mapping.batch_id} | found))
    else:
        earlier = f", {before} before" if before else ""
        note(f"{_count(importing.published, 'row')} published as batch {mapping.batch_id}{earlier}")


def _preview(importing: Importing, table: Table, rejects: Rejects, as_json: bool) -> None:
    with progress_bar(lambda: f"{_count(importing.published, 'row')} weighed", lambda: table.read, table.size):
        found = importing.preview()
    found = {"rows": importing.rows} | found | {"rejected": rejects.count}
    if as_json:
        click.echo(orjson.dumps(found))
        return
    for name in ("outcomes", "dead_letters"):
        for word, count in found[name].items():
            click.echo(f"{count:>10} {word}{' (would be a dead letter)' if name == 'dead_letters' else ''}")
    if rejects.count:
        click.echo(f"{rejects.count:>10} rejected")
    click.echo(f"{found['contradicts_newer_opt_out']:>10} contradict a newer opt-out, which stands")
    note("nothing was published")


def _undo(config: Config, org_id: int | None, batch_id: str, dry_run: bool, as_json: bool) -> None:
    undoing = Undoing(config, org_id, batch_id)
    with progress_bar(lambda: f"{undoing.read} changes read", lambda: None, None):
        run(undoing.find())
    orgs = sorted({org for org, _ in undoing.customers})
    if len(orgs) > 1:
        raise Failure(f"orgs {', '.join(map(str, orgs))} have a batch {batch_id!r}: name one with --org")
    count = len(undoing.customers)
    if not count:
        whose = "" if org_id is None else f"org {org_id} has "
        raise Failure(f"{whose}nothing of a batch {batch_id!r} in consent.changes that is not undone yet")
    org_id = orgs[0]
    if not dry_run:
        with progress_bar(lambda: "customers", lambda: undoing.published, count):
            run(undoing.publish())
        path_of(config, org_id, batch_id).unlink(missing_ok=True)
    if as_json:
        click.echo(orjson.dumps({"org_id": org_id, "batch_id": batch_id, "customers": count, "published": not dry_run}))
    elif dry_run:
        note(f"batch {batch_id} would be taken out for {_count(count, 'customer')}; nothing was published")
    else:
        note(f"batch {batch_id} is taken out for {_count(count, 'customer')}")


def _count(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"
