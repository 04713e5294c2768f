"""Options that several commands share: those of `Config`, each under its name there, `--timeout` and `--json`."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import Field, fields
from pathlib import Path
from typing import Any, TypeVar

import click

from streams.config import Config, ConfigError, default_datadir, from_environment
from streams.kafka.patience import PATIENCE_S, wait_at_most

Function = TypeVar("Function", bound=Callable[..., Any])
_FIELDS: dict[str, Field[Any]] = {f.name: f for f in fields(Config)}
_DEFAULTS = Config()

KAFKA = ("bootstrap_servers", "datadir", "topic_prefix")
HTTP = ("http_host", "http_port", "ssl_certfile")
TOPICS = ("partitions", "replication")
#: Secrets would be seen in the list of processes: they have variables but no options.
SECRETS = {name for name, field in _FIELDS.items() if field.metadata["secret"]}
#: Everything that a worker reads.
WORKER = tuple(name for name in _FIELDS if name not in {*SECRETS, "replication"})


def with_config(*names: str) -> Callable[[Function], Function]:
    """Give a command `config: Config`, made of `CONSENT_*` and of an option for each of `names`."""

    def decorate(function: Function) -> Function:
        @functools.wraps(function)
        def inner(**values: Any) -> Any:
            overrides = {name: values.pop(name) for name in names}
            try:
                config = from_environment(**overrides)
            except ConfigError as error:
                raise click.UsageError(str(error)) from error
            return function(config=config, **values)

        for name in reversed(names):
            inner = _option(_FIELDS[name])(inner)
        return inner  # type: ignore[return-value]

    return decorate


def _option(field: Field[Any]) -> Callable[[Any], Any]:
    kinds: dict[str, click.ParamType] = {
        "int": click.IntRange(field.metadata["low"], field.metadata["high"]),
        "Path": click.Path(path_type=Path, file_okay=False),
    }
    return click.option(
        "--" + field.name.replace("_", "-"),
        field.name,
        envvar="CONSENT_" + field.name.upper(),
        show_envvar=True,
        type=kinds.get(str(field.type), click.STRING),
        help=field.metadata["doc"] + _default_of(field),
    )


def _default_of(field: Field[Any]) -> str:
    if field.default_factory is default_datadir:
        return "; default: consent-streams in the user's data folder"
    default = getattr(_DEFAULTS, field.name)
    return "" if default == "" else f"; default {default}"


timeout_option = click.option(
    "--timeout", type=click.FloatRange(0, min_open=True), default=PATIENCE_S, show_default=True,
    envvar="CONSENT_TIMEOUT", show_envvar=True, expose_value=False,
    callback=lambda _ctx, _param, seconds: wait_at_most(seconds),
    help="seconds to go on asking Kafka while a broker is away, each time anew",
)  # fmt: skip

json_option = click.option(
    "--json", "as_json", is_flag=True, envvar="CONSENT_JSON", show_envvar=True, help="machine-readable output, as JSON"
)
