"""`publish`: events from a file or stdin, keyed and partitioned right."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import BinaryIO

import click
import orjson

from streams import topics
from streams.config import Config
from streams.kafka.client import Producer, Sent
from streams.kafka.everywhere import send_settings
from streams.kafka.faults import KafkaFault

from .events import Checked, RecordError, check_event
from .lines import numbered_lines
from .options import KAFKA, json_option, timeout_option, with_config
from .root import Failure
from .run import note, progress, reachable, run

WINDOW = 2_000  # records under way; enough to fill the producer's batches


@click.command("publish", short_help="Publish events from a file or stdin.")
@click.argument("file", type=click.File("rb"), default="-")
@click.option("--keep-going", is_flag=True, show_envvar=True, help="leave bad lines out and go on; still exit code 1")
@with_config(*KAFKA, "max_record_bytes")
@timeout_option
@json_option
def command(config: Config, file: BinaryIO, keep_going: bool, as_json: bool) -> None:
    """Publish events, one JSON object per line, from FILE or stdin; print where each was written.

    A line is checked before it is sent; the first bad one ends the command, those before it are published. A
    settings.changed goes to every partition in one transaction.

    \b
    Example:
      echo '{"event":"customer.registered","event_id":"e-1","org_id":100,"customer_id":"565039505",
             "occurred_at":"2026-11-21T10:00:00.000Z"}' | tr -d '\\n' | consent-streams publish
    """
    if file.isatty():
        note("reading events from the terminal, one per line; Ctrl-D ends the input")
    publishing = Publishing(reachable(config), as_json)
    with progress(lambda: f"{publishing.published or 'no'} events published so far"):
        try:
            faults = run(publishing.run(file, keep_going))
        except KafkaFault as error:
            raise Failure(f"{error} ({_events(publishing.published)} published before)") from error
    if faults and not keep_going:
        raise Failure(f"{faults[0]} - stopped there; {_events(publishing.published)} before it published")
    if faults:
        raise Failure(f"{len(faults)} bad lines left out; {_events(publishing.published)} published")
    if not as_json:
        note(f"{_events(publishing.published)} published" if publishing.published else "nothing to publish: no lines")


def _events(count: int) -> str:
    return f"{count} event{'' if count == 1 else 's'}"


class Publishing:
    """One run: lines are sent as they come, positions printed in the order of the lines as they are acknowledged."""

    def __init__(self, config: Config, as_json: bool) -> None:
        self.published = 0
        self._config = config
        self._topic = config.topic(topics.CHANGES.name)
        self._as_json = as_json
        self._under_way: asyncio.Queue[tuple[int, str, asyncio.Future[Sent]] | None] = asyncio.Queue(WINDOW)

    async def run(self, stream: BinaryIO, keep_going: bool) -> list[str]:
        """Publish every line, or up to the first bad one; returns the faults. Raises KafkaFault."""
        faults: list[str] = []
        async with Producer(self._config) as producer:
            await producer.partitions(self._topic)
            printer = asyncio.create_task(self._print_all())
            feeder = asyncio.create_task(self._feed(stream, producer, keep_going, faults))
            try:
                # A write that fails ends the printer, and with it the command, though more input may be to come.
                await asyncio.wait([printer, feeder], return_when=asyncio.FIRST_EXCEPTION)
                await (printer if printer.done() else feeder)
                await feeder
            finally:
                await _cancel(feeder)
                await _cancel(printer)
        return faults

    async def _feed(self, stream: BinaryIO, producer: Producer, keep_going: bool, faults: list[str]) -> None:
        async for number, line in numbered_lines(stream):
            try:
                event = check_event(line, self._config.max_record_bytes)
            except RecordError as error:
                faults.append(f"line {number}: {error}")
                if not keep_going:
                    break
                note(faults[-1])
                continue
            if event.everywhere:
                await self._settle()
                await self._publish_settings(number, event)
            else:
                sent = await producer.send(self._topic, event.key, event.value)
                await self._under_way.put((number, event.id, sent))
        await self._settle()
        await self._under_way.put(None)

    async def _publish_settings(self, number: int, event: Checked) -> None:
        for sent in await send_settings(self._config, self._topic, event.org_id, event.key, event.value):
            self._print(number, event.id, sent)
        self.published += 1

    async def _settle(self) -> None:
        """Wait until all that was sent is acknowledged: what follows must stand behind it in every partition."""
        await self._under_way.join()

    async def _print_all(self) -> None:
        while (item := await self._under_way.get()) is not None:
            number, event_id, sent = item
            self._print(number, event_id, await sent)
            self.published += 1
            self._under_way.task_done()

    def _print(self, number: int, event_id: str, sent: Sent) -> None:
        if self._as_json:
            click.echo(orjson.dumps({"event_id": event_id, "partition": sent.partition, "offset": sent.offset}))
        else:
            click.echo(f"{number} {event_id} {sent}")


async def _cancel(task: asyncio.Task[None]) -> None:
    if not task.done():
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
