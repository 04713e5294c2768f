"""One worker process, from start-up checks to its exit code."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import logging
import os
import signal
import socket
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, TextIO, get_args

from faust.types import TP

from schemas.deadletter import Code
from streams import logs, loop, metrics, topics
from streams.app import App, Lanes, make_app, store_of
from streams.config import Config, ConfigError
from streams.engine import guard
from streams.engine.core import Engine
from streams.http.answers import Answers
from streams.http.logins import Refusal
from streams.http.service import Service
from streams.http.users import UsersError
from streams.kafka import admin
from streams.kafka.connection import anybody_answers, survive_resets
from streams.kafka.errors import KafkaError
from streams.kafka.faults import ABSENT
from streams.logs import Ongoing

log = logging.getLogger("consent_streams")

#: SIGTERM ends a worker within ten seconds; what is not done by then is left to the partitions' next owners.
STOP_WITHIN_S = 8.0
#: How often the ready line, the lag and the restore progress are looked at.
WATCH_EVERY_S = 0.2
#: How often the topics are looked at. What is wrong twice in a row is: a broker that comes up knows them by and by.
LOOK_EVERY_S = 4.0
#: A line of progress while the state is restored.
PROGRESS_EVERY_S = 2.0


#: glibc's names for three numbers of mallopt(3).
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8


#: The topics, how long changelogs remember deletions, and `min.insync.replicas` by topic.
Checked = tuple[admin.Cluster, Mapping[str, float], Mapping[str, int]]


class WorkerError(Exception):
    """The worker cannot start or go on; the message is one clear line."""


def run_worker(config: Config) -> int:
    """Run a worker until a signal or an error ends it; returns its exit code: 0 after a signal, else 1."""
    logs.set_up(config.log_level, config.log_format)
    survive_resets()
    try:
        held = guard.lock(config.datadir / "state")
        return loop.run(_run(config, held))
    except (WorkerError, ConfigError, UsersError, guard.GuardError, admin.KafkaFault) as exc:
        logs.last_line(str(exc), config.log_format)
        return 1


def _tune_memory() -> None:
    """Keep the collector and the allocator from doing the same in vain over and over.

    Decoded states are many short-lived lists without cycles, and looking through them finds nothing. Batches are
    buffers of a megabyte, copied on their way to the socket: by default glibc maps each anew and gives it back.
    """
    with suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_THRESHOLD, 32 << 20)
        libc.mallopt(M_TRIM_THRESHOLD, 16 << 20)
        # RocksDB's threads would each keep an arena of their own.
        libc.mallopt(M_ARENA_MAX, 2)
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 20, 50)


def _count_from_zero(config: Config) -> None:
    """Show what has not happened yet as 0: a counter that appears with its first event has no increase to alert on."""
    for code in get_args(Code):
        metrics.DEAD_LETTERS.labels(code)
    for spec in topics.SOURCES:
        metrics.MISROUTED.labels(spec.name)
    for reason in get_args(Refusal):
        metrics.LOGIN_FAILURES.labels(reason)
    metrics.PARTITIONS.set(config.partitions)


async def _run(config: Config, held: TextIO) -> int:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    stopping = asyncio.create_task(stop.wait(), name="signal")
    listener = _listen(config)
    checking = asyncio.create_task(_check(config), name="check")
    try:
        await asyncio.wait({checking, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if not checking.done():
            log.info("ended before it began")
            return 0
        return await Worker(config, listener, *checking.result()).run(stopping)
    finally:
        held.close()


def _listen(config: Config) -> socket.socket:
    """Bind first: a taken port is known before anything is started, and port 0 becomes a real one."""
    family = socket.AF_INET6 if ":" in config.http_host else socket.AF_INET
    # The protocol is named because asyncio turns Nagle's algorithm off only where it is: else answers wait for 40 ms.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((config.http_host, config.http_port))
        listener.listen()
    except OSError as exc:
        raise WorkerError(
            f"HTTP cannot listen on {config.http_host}:{config.http_port}: {exc.strerror}; set CONSENT_HTTP_PORT"
        ) from None
    return listener


async def _check(config: Config) -> Checked:
    """What `_check_once` finds; waits for brokers that are away, as long as any is there.

    Where none answers from the start, most likely it is not where it is said to be.
    """
    away = Ongoing(log, "waiting for Kafka")
    while True:
        try:
            found = await _check_once(config)
        except admin.KafkaFault as fault:
            cause = fault.__cause__
            passes = isinstance(cause, ABSENT) or (isinstance(cause, KafkaError) and cause.retriable)
            if not passes or not await anybody_answers(config):
                raise
            away.happens(fault)
            await asyncio.sleep(LOOK_EVERY_S)
        else:
            away.over()
            return found


async def _check_once(config: Config) -> Checked:
    """Raises what keeps the worker from starting.

    Returns the topics, how long changelogs remember deletions, and `min.insync.replicas` by topic.
    """
    # What goes wrong here is said in one line; the client's own log of the same would come before it.
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    problems = await admin.check_topics(config, fatal_only=True)
    if problems:
        raise WorkerError("; ".join(problems))
    await admin.check_rights(config)
    if not config.link_secret and not config.listens_on_loopback:
        log.warning("CONSENT_LINK_SECRET is not set: links that this worker signs are good at this worker only")
    found = await admin.describe(config)
    guard.identify(config.datadir / "state", admin.identity(config, found))
    logs.set_up(config.log_level, config.log_format)
    return found, await admin.deletions_kept_s(config, found), await admin.min_in_sync(config)


class Worker:
    """Everything that one worker runs, started together and stopped in order."""

    def __init__(
        self,
        config: Config,
        listener: socket.socket,
        cluster: admin.Cluster,
        deletions_kept_s: Mapping[str, float],
        min_in_sync: Mapping[str, int],
    ) -> None:
        self._config = config
        self._topic_ids = {name: state.id for name, state in cluster.topics.items()}
        self._listener = listener
        host, port = listener.getsockname()[:2]
        shown = f"[{host}]" if ":" in host else host
        self.url = config.http_advertised_url or f"{'https' if config.ssl_certfile else 'http'}://{shown}:{port}"
        self._engine = Engine(config, lambda table: store_of(self._app, table), min_in_sync)
        self._app: App = make_app(config, self._engine, self.url, deletions_kept_s)
        answers = Answers(config)
        self._engine.opener = Lanes(config, self._engine, answers.on_answers, self.url)
        self._http = Service(config, self._engine, answers, self._owner_of)
        self._said_ready = False

    async def run(self, stopping: asyncio.Task[Any]) -> int:
        """Work until `stopping` is done or something fails; returns the exit code."""
        _tune_memory()
        _count_from_zero(self._config)
        self._http.start(self._listener, self._unready)
        await self._engine.start()
        self._app.finalize()
        starting = asyncio.create_task(self._app.start(), name="faust")
        watching = asyncio.create_task(self._watch(), name="watch")
        looking = asyncio.create_task(self._look_at_topics(), name="topics")
        crashed = asyncio.create_task(self._app._crashed.wait(), name="crashed")
        fatal = {crashed, stopping, self._engine.failed, watching, looking}
        ends = {*fatal, starting}
        while not any(one.done() for one in fatal):
            done, _ = await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            ends -= done & {starting}
            if starting.done() and starting.exception() is not None:
                break
        error = self._error(starting, watching, looking)
        in_time = await self._stop()
        return self._conclude(error, in_time)

    def _error(self, *tasks: asyncio.Task[None]) -> BaseException | None:
        if self._engine.failed.done():
            return self._engine.failed.result()
        if self._app._crashed.is_set():
            return self._app.crash_reason or RuntimeError("Faust ended without saying why")
        return next((t.exception() for t in tasks if t.done() and not t.cancelled() and t.exception()), None)

    def _conclude(self, error: BaseException | None, in_time: bool) -> int:
        if error is not None:
            log.debug("the error that ended the worker", exc_info=error)
            # Rights that are taken from a worker while it runs are no fault of its own.
            expected = type(error).__module__.startswith("streams.") or isinstance(error, admin.DENIED)
            text = " ".join(str(error).split())
            what = text if expected else f"{type(error).__name__}: {text}"
            if not expected:
                log.error("unexpected error", exc_info=error)
            logs.last_line(f"the worker ends: {what}", self._config.log_format)
        elif not in_time:
            logs.last_line("the worker could not end in order in time; nothing is lost", self._config.log_format)
        if not in_time:
            # Threads and tasks that wait for a silent broker would be waited for in turn.
            logging.shutdown()
            os._exit(1)
        if error is not None:
            return 1
        log.info("ended in order")
        return 0

    async def _stop(self) -> bool:
        """Finish checkpoints, commit, leave the group; whether that was done within STOP_WITHIN_S."""
        # Waited for from outside: what hangs on a silent broker does not always let itself be cancelled.
        stopping = asyncio.create_task(self._stop_in_order(), name="stop")
        done, _ = await asyncio.wait({stopping}, timeout=STOP_WITHIN_S)
        if done and stopping.exception() is not None:
            log.warning("could not stop in order: %r", stopping.exception())
        return bool(done)

    async def _stop_in_order(self) -> None:
        consumer = self._app.consumer
        await consumer.finish()
        if not self._engine.failed.done() and not self._app._crashed.is_set():
            # The first only waits, if another commit is under way.
            await consumer.commit()
            await consumer.commit()
        await self._app.stop()
        await self._engine.stop()
        await self._http.stop()

    def _owner_of(self, partition: int) -> str | None:
        tp = TP(self._config.topic(topics.CHANGELOG.name), partition)
        url = self._app.assignor._tps_url.get(tp)
        return None if url in (None, self.url) else str(url)

    def _assigned(self) -> list[int]:
        changes = self._config.topic(topics.CHANGES.name)
        return [tp.partition for tp in self._app.assignor.assigned_actives() if tp.topic == changes]

    def _unready(self) -> str | None:
        if self._app.rebalancing or not self._app.tables.recovery.completed.is_set():
            return "partitions are being assigned or restored"
        return self._engine.unready(self._assigned())

    async def _watch(self) -> None:
        """Say when the worker is ready, and how a long restore goes; raises WorkerError if it could go no further."""
        told = time.monotonic()
        lost = None
        while True:
            await asyncio.sleep(WATCH_EVERY_S)
            ready = self._unready() is None
            metrics.READY.set(ready)
            if not self._said_ready and ready:
                self._said_ready = True
                numbers = sorted(self._engine.partitions)
                print(f"consent-streams worker ready at {self.url} with partitions {numbers}", flush=True)
            self._measure_lag()
            lost_before, lost = lost, self._lost()
            if lost and lost == lost_before:
                raise WorkerError(f"an inner task has ended unasked: {lost}")
            left = self._restore_left()
            if left and time.monotonic() - told > PROGRESS_EVERY_S:
                told = time.monotonic()
                log.info("restoring the state: %d changelog records left", left)

    def _lost(self) -> str | None:
        """A task of Faust's without which nothing moves, if it is gone: mode says nothing of one that is cancelled."""
        for service in (self._app.tables.recovery, self._app._fetcher):
            if service.started and not service.should_stop:
                running = {future.__wrapped__.__name__ for future in service._futures}
                for task in service._get_tasks():
                    if (name := task.fun.__name__) not in running:
                        return f"{type(service).__name__}.{name}"
        return None

    async def _look_at_topics(self) -> None:
        """Raises WorkerError when a topic is gone, made anew, or has other partitions: keys would not find home."""
        before: list[str] = []
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            try:
                problems = await admin.changed_topics(self._config, self._topic_ids)
            except admin.KafkaFault:
                continue  # it is away, which others wait for and tell
            if problems and problems == before:
                raise WorkerError("; ".join(problems))
            before = problems

    def _restore_left(self) -> int:
        recovery = self._app.tables.recovery
        left: Counter[int] = Counter()
        for tp, records in recovery.active_remaining().items():
            left[tp.partition] += max(0, records) if recovery.in_recovery else 0
        for number, records in left.items():
            metrics.RESTORE_LEFT.labels(number).set(records)
        return left.total()

    def _measure_lag(self) -> None:
        # What this worker does not own any more is another's to tell.
        metrics.LAG.clear()
        for spec in topics.SOURCES:
            for number in self._engine.partitions:
                tp = TP(self._config.topic(spec.name), number)
                lag = self._app.consumer.lag(tp)
                if lag is not None:
                    metrics.LAG.labels(spec.name, number).set(lag)
