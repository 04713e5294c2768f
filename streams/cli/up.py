"""`up`: everything for a first look."""

from __future__ import annotations

import asyncio
import dataclasses
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import FrameType
from typing import Any

import click
import orjson

from streams import topics
from streams.broker import ChosenBroker, find_or_start
from streams.config import Config
from streams.kafka import admin
from streams.kafka.client import Producer

from . import sample
from .asking import ask
from .child import WorkerProcess, free_port
from .events import check_event
from .http import NotFound, base_url, get
from .options import WORKER, json_option, with_config
from .run import note, progress, reachable, run
from .settings import apply_settings, wait_in_force
from .showing import decisions_table, hints
from .tables import print_table

ANSWER_S = 60.0  # the first answers of a worker that has just started, on a busy machine
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
STARTED = {
    "given": "as given", "running": "found running", "docker": "started in Docker", "embedded": "started, embedded",
}  # fmt: skip


@click.command("up", short_help="Everything for a first look: broker, topics, worker, a sample org.")
@click.option(
    "--broker-port", type=click.IntRange(0, 65_535), envvar="CONSENT_BROKER_PORT", show_envvar=True,
    help="port of a broker that has to be started; default 9092 if it is free, else any",
)  # fmt: skip
@with_config(*WORKER, "replication")
@json_option
def command(config: Config, broker_port: int | None, as_json: bool) -> None:
    """Everything for a first look: a broker (found or started), topics, a worker, and a sample org with answers.

    Stays up until Ctrl-C, which ends the worker, and the broker if it was started here. What they hold stays in the
    data folder; the next `up` goes on with it.

    \b
    Example:
      consent-streams up
    """
    with _signals_interrupt() as stack:
        config = dataclasses.replace(config, datadir=config.datadir.absolute())
        broker = _broker(config, broker_port)
        stack.callback(broker.stop)
        config = dataclasses.replace(config, bootstrap_servers=broker.bootstrap)
        note(f"Kafka at {broker.bootstrap} ({STARTED[broker.kind]})")
        with progress(lambda: "creating topics"):
            created = run(admin.create_topics(config))
        note(f"topics: {len(created)} created, {len(topics.ALL) - len(created)} there already")
        if config.http_port == 0:
            config = dataclasses.replace(config, http_port=free_port(config.http_host))
        worker = WorkerProcess(config)
        stack.callback(worker.stop)
        worker.wait_ready()
        note(f"worker ready at {base_url(config)} (log: {worker.log})")
        decisions = _show_sample(config)
        if as_json:
            click.echo(orjson.dumps({
                "bootstrap_servers": config.bootstrap_servers, "http": base_url(config), "decisions": decisions,
            }))  # fmt: skip
        else:
            print_table(decisions_table(decisions))
            click.echo(hints(config, broker.kind))
        while True:
            worker.check(wait_s=1.0)


@contextmanager
def _signals_interrupt() -> Iterator[ExitStack]:
    """A block that the first Ctrl-C or SIGTERM leaves; what it left on the stack is ended undisturbed, then exit 0."""

    asked: list[int] = []

    def interrupt(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        first = not asked
        asked.append(number)
        if first:
            raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in ENDING}
    try:
        with ExitStack() as stack:
            try:
                yield stack
            finally:
                asked.append(0)  # from here on nothing interrupts
                note("ending")
    except KeyboardInterrupt:
        pass
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _broker(config: Config, port: int | None) -> ChosenBroker:
    if config.bootstrap_servers:
        return ChosenBroker(reachable(config).bootstrap_servers, "given")
    return find_or_start(config.datadir, port, say=note)


def _show_sample(config: Config) -> list[dict[str, Any]]:
    document = sample.settings()
    try:
        there = get(config, "v1", "orgs", sample.ORG_ID, "settings")
        note(f"sample org {sample.ORG_ID}: its settings are in force, version {there['version']}")
    except NotFound:
        apply_settings(config, document)
        with progress(lambda: "waiting for the settings to be in force"):
            wait_in_force(config, document, None)
        note(f"sample org {sample.ORG_ID} '{document['name']}': settings written, version {document['version']}")
    published = run(_publish(config))
    with progress(lambda: "waiting for decisions"):
        decisions = run(_ask_all(config))
    note(f"{published} sample events published, {len(decisions)} requests answered")
    return decisions


async def _publish(config: Config) -> int:
    checked = [check_event(orjson.dumps(event), config.max_record_bytes) for event in sample.events()]
    async with Producer(config) as producer:
        topic = config.topic(topics.CHANGES.name)
        await asyncio.gather(*[await producer.send(topic, event.key, event.value) for event in checked])
    return len(checked)


async def _ask_all(config: Config) -> list[dict[str, Any]]:
    return await asyncio.gather(*(ask(config, request, ANSWER_S) for request in sample.requests()))
