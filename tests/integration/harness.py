"""Real workers on a real broker: processes to start and hurt, topics of a test's own, and raw reading and writing.

Everything blocks and is called from the test's thread; what talks to Kafka runs on an event loop in another thread.
Waiting is polling with a deadline.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from streams import topics
from streams.config import Config
from streams.kafka import admin
from streams.kafka.connection import stop_consumer
from tests.model.wire import partition_of

T = TypeVar("T")
Doc = dict[str, Any]
Headers = Sequence[tuple[str, bytes]]

CHANGES, REQUESTS, DECISIONS = topics.CHANGES.name, topics.REQUESTS.name, topics.DECISIONS.name
AUDIT, DEADLETTER, CHANGELOG = topics.AUDIT.name, topics.DEADLETTER.name, topics.CHANGELOG.name
NOTIFICATIONS = topics.NOTIFICATIONS.name

PARTITIONS = 4
CHECKOUT = Path(__file__).parents[2]
POLL_S = 0.02
#: Far more than anything takes; a test that waits this long has failed.
PATIENCE_S = 60.0
CLOSE_S = 5.0
ANSWER_S = 40.0
READY = re.compile(r"^consent-streams worker ready at (\S+) with partitions \[(.*)\]$", re.MULTILINE)
#: Dead workers are noticed soon. The heartbeat is a third of the session, as Kafka advises.
SHORT_SESSION = {"CONSENT_SESSION_TIMEOUT_MS": "3000", "CONSENT_HEARTBEAT_MS": "500"}


class Place(NamedTuple):
    """Where an acknowledged record lies."""

    partition: int
    offset: int


class Record(NamedTuple):
    """One record as read; `timestamp` in milliseconds."""

    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...]

    @property
    def place(self) -> Place:
        return Place(self.partition, self.offset)

    @property
    def body(self) -> Doc:
        """The value as JSON."""
        found: Doc = json.loads(self.value or b"null")
        return found

    def header(self, name: str) -> str | None:
        """The last header of this name, as text."""
        found = [value for key, value in self.headers if key == name]
        return found[-1].decode() if found else None


def wait_for(what: str, found: Callable[[], T], patience_s: float = PATIENCE_S) -> T:
    """Ask until the answer is true; returns it. Fails with `what` when the time is up."""
    deadline = time.monotonic() + patience_s
    while True:
        answer = found()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {patience_s:.0f} s in vain for {what}")
        time.sleep(POLL_S)


class Loop:
    """An event loop in a thread."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="kafka-clients", daemon=True)
        self._thread.start()

    def start(self, coroutine: Coroutine[Any, Any, T]) -> Future[T]:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    def run(self, coroutine: Coroutine[Any, Any, T], timeout_s: float = 2 * PATIENCE_S) -> T:
        return self.start(coroutine).result(timeout_s)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


# --- topics ------------------------------------------------------------------------------------------


class Log:
    """All committed records of one topic, in the order in which they were read; grows with every look.

    Those of some partitions only, if `numbers` are given.
    """

    def __init__(self, world: World, topic: str, numbers: Iterable[int] | None = None) -> None:
        self.records: list[Record] = []
        self._world = world
        numbers = range(world.config.partitions) if numbers is None else numbers
        self._tps = [TopicPartition(world.config.topic(topic), number) for number in numbers]
        self._consumer: AIOKafkaConsumer | None = None

    def complete(self) -> list[Record]:
        """Every record up to the topic's end now."""
        self._world.loop.run(self._read_to_end())
        return self.records

    def wait(self, what: str, wanted: Callable[[Record], bool], patience_s: float = PATIENCE_S) -> Record:
        """The first record that is wanted; waits for it to arrive."""
        return self._world.loop.run(self._wait(what, wanted, patience_s), patience_s + PATIENCE_S)

    def of(self, partition: int) -> list[Record]:
        """What was read of one partition, in its order."""
        return [record for record in self.records if record.partition == partition]

    async def _opened(self) -> AIOKafkaConsumer:
        if self._consumer is None:
            self._consumer = AIOKafkaConsumer(
                bootstrap_servers=self._world.config.bootstrap_servers,
                isolation_level="read_committed",
                auto_offset_reset="earliest",
                enable_auto_commit=False,
                fetch_max_wait_ms=100,
            )
            await self._consumer.start()
            self._consumer.assign(self._tps)
        return self._consumer

    async def _read_to_end(self) -> None:
        consumer = await self._opened()
        ends = await consumer.end_offsets(self._tps)
        async with asyncio.timeout(PATIENCE_S):
            while any([await consumer.position(tp) < end for tp, end in ends.items()]):
                await self._fetch(consumer)

    async def _wait(self, what: str, wanted: Callable[[Record], bool], patience_s: float) -> Record:
        consumer = await self._opened()
        seen, deadline = 0, time.monotonic() + patience_s
        while time.monotonic() < deadline:
            for record in self.records[seen:]:
                if wanted(record):
                    return record
            seen = len(self.records)
            await self._fetch(consumer)
        raise AssertionError(f"waited {patience_s:.0f} s in vain for {what}")

    async def _fetch(self, consumer: AIOKafkaConsumer) -> None:
        for found in (await consumer.getmany(timeout_ms=100)).values():
            self.records += [Record(r.partition, r.offset, r.timestamp, r.key, r.value, r.headers) for r in found]

    async def close(self) -> None:
        if self._consumer is not None:
            await stop_consumer(self._consumer)
            self._consumer = None


class World:
    """The topics of one test or module on a broker, under a prefix of their own unless one is given.

    `answer_s`: a producer asks again, and asks others, where a broker has not answered for so long.
    """

    def __init__(
        self,
        bootstrap: str,
        loop: Loop,
        partitions: int = PARTITIONS,
        prefix: str = "",
        *,
        replication: int = 1,
        answer_s: float = ANSWER_S,
    ) -> None:
        self.loop = loop
        self.config = Config(
            bootstrap_servers=bootstrap,
            partitions=partitions,
            replication=replication,
            topic_prefix=prefix or f"it-{uuid.uuid4().hex[:8]}-",
        )
        self._answer_ms = int(answer_s * 1000)
        self._logs: dict[str, Log] = {}
        self._producer: AIOKafkaProducer | None = None

    def create_topics(self) -> World:
        self.loop.run(admin.create_topics(self.config))
        return self

    @property
    def env(self) -> dict[str, str]:
        """What a worker needs to find these topics."""
        return {
            "CONSENT_BOOTSTRAP_SERVERS": self.config.bootstrap_servers,
            "CONSENT_TOPIC_PREFIX": self.config.topic_prefix,
            "CONSENT_PARTITIONS": str(self.config.partitions),
            "CONSENT_REPLICATION": str(self.config.replication),
            "CONSENT_HTTP_PORT": "0",
        }

    def home(self, key: bytes) -> int:
        return partition_of(key, self.config.partitions)

    def log(self, topic: str) -> Log:
        """The one log of this topic, named without prefix."""
        return self._logs.setdefault(topic, Log(self, topic))

    def read(self, topic: str) -> list[Record]:
        """All committed records of a topic."""
        return self.log(topic).complete()

    def send(
        self, topic: str, key: bytes | None, value: bytes | None, partition: int | None = None, headers: Headers = ()
    ) -> Place:
        """Write one record; returns when it is acknowledged. Without a partition, the key's home."""
        return self.loop.run(self._acknowledged(topic, key, value, partition, headers))

    async def _acknowledged(self, *record: Any) -> Place:
        return await (await self.sending(*record))

    async def sending(
        self, topic: str, key: bytes | None, value: bytes | None, partition: int | None = None, headers: Headers = ()
    ) -> asyncio.Task[Place]:
        """Hand over one record, on the loop; the task ends with its acknowledgement."""
        producer = await self._opened()
        number = self.home(key or b"") if partition is None else partition
        pending = await producer.send(self.config.topic(topic), value, key, number, headers=list(headers))

        async def acknowledged() -> Place:
            meta = await pending
            return Place(meta.partition, meta.offset)

        return asyncio.ensure_future(acknowledged())

    async def _opened(self) -> AIOKafkaProducer:
        if self._producer is None:
            producer = AIOKafkaProducer(
                bootstrap_servers=self.config.bootstrap_servers,
                acks="all",
                enable_idempotence=True,
                max_request_size=topics.INPUT_BYTES,
                request_timeout_ms=self._answer_ms,
            )
            await producer.start()
            self._producer = producer
        return self._producer

    def send_everywhere(self, key: bytes, value: bytes, topic: str = CHANGES) -> list[Place]:
        """The same record to every partition."""
        return [self.send(topic, key, value, number) for number in range(self.config.partitions)]

    def transaction(self, records: Sequence[tuple[str, bytes, bytes]], *, commit: bool) -> None:
        """Write (topic, key, value) records in one transaction, and commit or abort it."""
        with self.open_transaction(records) as end:
            end(commit)

    @contextmanager
    def open_transaction(self, records: Sequence[tuple[str, bytes, bytes]]) -> Iterator[Callable[[bool], None]]:
        """A transaction with records that stays open in the block, until what is given is called: True commits it."""

        async def begin() -> AIOKafkaProducer:
            producer = AIOKafkaProducer(
                bootstrap_servers=self.config.bootstrap_servers, transactional_id=f"tx-{uuid.uuid4().hex}"
            )
            await producer.start()
            await producer.begin_transaction()
            for topic, key, value in records:
                await producer.send_and_wait(self.config.topic(topic), value, key, self.home(key))
            return producer

        producer = self.loop.run(begin())

        def end(commit: bool) -> None:
            self.loop.run(producer.commit_transaction() if commit else producer.abort_transaction())

        yield end
        self.loop.run(producer.stop())

    def ends(self, topic: str) -> list[int]:
        """The end of each partition."""
        return self.loop.run(self._ends(topic))

    async def _ends(self, topic: str) -> list[int]:
        log = self.log(topic)
        ends = await (await log._opened()).end_offsets(log._tps)
        return [ends[tp] for tp in log._tps]

    def committed(self) -> dict[tuple[str, int], int]:
        """The group's committed offset of each source partition, by the topic's name without prefix."""
        return self.loop.run(self._committed())

    async def _committed(self) -> dict[tuple[str, int], int]:
        client = AIOKafkaAdminClient(bootstrap_servers=self.config.bootstrap_servers)
        await client.start()
        try:
            offsets = await client.list_consumer_group_offsets(self.config.group)
        finally:
            await client.close()
        prefix = len(self.config.topic_prefix)
        return {(tp.topic[prefix:], tp.partition): max(0, found.offset) for tp, found in offsets.items()}

    def unsettled(self) -> dict[tuple[str, int], tuple[int, int]]:
        """Source partitions that are not worked off: committed offset and end."""
        committed = self.committed()
        sources = [spec.name for spec in topics.SOURCES]
        ends = {(topic, n): end for topic in sources for n, end in enumerate(self.ends(topic))}
        return {place: (committed.get(place, 0), end) for place, end in ends.items() if committed.get(place, 0) != end}

    def settle(self, patience_s: float = PATIENCE_S) -> None:
        """Wait until everything written is worked off and committed.

        Commits follow outputs, and records sent home are outputs: once the commits are at the ends, nothing more comes.
        """
        deadline = time.monotonic() + patience_s
        while left := self.unsettled():
            if time.monotonic() > deadline:
                raise AssertionError(f"not worked off after {patience_s:.0f} s (committed, end): {left}")
            time.sleep(POLL_S)

    def configure(self, topic: str, **settings: str) -> None:
        """Change a topic's settings on the broker; when this returns, it goes by them.

        It says yes to a change, and tells the new settings, a moment before it goes by them. But it does so with one
        change after another: once it tells a second one, the first is in force. A setting without effect is the second.
        """

        async def alter() -> None:
            state = (await admin.describe(self.config)).topics[topic]

            def change(client: AIOKafkaAdminClient) -> Awaitable[object]:
                return client.alter_configs([ConfigResource(ConfigResourceType.TOPIC, state.name, wanted)])

            async with asyncio.timeout(PATIENCE_S):
                for mark in ("1", "2"):
                    wanted = settings | {"segment.jitter.ms": mark}
                    await admin.asked(self.config, change)
                    while (await admin.configs_of(self.config, [state]))[state.name]["segment.jitter.ms"] != mark:
                        await asyncio.sleep(POLL_S)

        self.loop.run(alter())

    def close(self) -> None:
        """Forget the clients; a broker that is gone by now does not matter."""

        async def close() -> None:
            stops = [log.close() for log in self._logs.values()]
            stops += [self._producer.stop()] if self._producer is not None else []
            await asyncio.wait([asyncio.ensure_future(stop) for stop in stops], timeout=CLOSE_S)

        if self._logs or self._producer is not None:
            self.loop.run(close())


# --- processes ---------------------------------------------------------------------------------------


def _die_with_parent() -> None:
    """Linux: the worker gets SIGKILL when the test process ends, however that ends."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)


class Worker:
    """One worker process with its own data folder, which outlives it; `module` is what is run."""

    def __init__(self, env: Mapping[str, str], folder: Path, module: str = "streams") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.datadir = folder / "data"
        self._env = {"CONSENT_DATADIR": str(self.datadir)} | dict(env)
        self._folder = folder
        self._module = module
        self._starts = 0
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, **env: str) -> Worker:
        """Start it; does not wait. Variables given stay set for later starts."""
        assert not self.running, "it runs already"
        self._env |= env
        self._starts += 1
        outside = {name: value for name, value in os.environ.items() if not name.startswith("CONSENT_")}
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self._process = subprocess.Popen(
                [sys.executable, "-m", self._module, "worker"],
                env=outside | self._env,
                cwd=CHECKOUT,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                preexec_fn=_die_with_parent,  # noqa: PLW1509 - the test process has no locks that a fork could hold
            )
        return self

    @property
    def _out(self) -> Path:
        return self._folder / f"out-{self._starts}"

    @property
    def _err(self) -> Path:
        return self._folder / f"err-{self._starts}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def errors(self) -> str:
        """What the last start printed on stderr."""
        return self._err.read_text(errors="replace") if self._starts else ""

    @property
    def last_line(self) -> str:
        return next((line for line in reversed(self.errors.splitlines()) if line.strip()), "")

    def ready(self, patience_s: float = PATIENCE_S) -> Worker:
        """Wait for the line that says so."""
        try:
            wait_for("a worker to be ready", lambda: self._said_ready() or not self.running, patience_s)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.errors[-3000:]}") from None
        assert self._said_ready(), f"the worker ended with {self.wait()}:\n{self.errors[-3000:]}"
        return self

    def _said_ready(self) -> re.Match[str] | None:
        return READY.search(self._out.read_text())

    @property
    def url(self) -> str:
        """Its address, once it is ready."""
        found = self._said_ready()
        assert found is not None
        return found[1]

    @property
    def first_partitions(self) -> list[int]:
        """What it had when it was ready first."""
        found = self._said_ready()
        assert found is not None
        return [int(number) for number in found[2].split(",") if number.strip()]

    def signal(self, number: signal.Signals) -> None:
        if self.running:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """SIGKILL, as a crash would; it can be started again."""
        self.signal(signal.SIGKILL)
        self.wait()

    def suspend(self) -> None:
        self.signal(signal.SIGSTOP)

    def resume(self) -> None:
        self.signal(signal.SIGCONT)

    def stop(self, patience_s: float = 15.0) -> int:
        """SIGTERM; returns its exit code."""
        self.signal(signal.SIGTERM)
        return self.wait(patience_s)

    def wait(self, patience_s: float = PATIENCE_S) -> int:
        """Wait for its end; returns its exit code, negative for a signal's number."""
        assert self._process is not None
        return self._process.wait(patience_s)

    def end(self) -> None:
        """Whatever it does, it ends here."""
        if self.running:
            self.resume()
            self.signal(signal.SIGTERM)
            try:
                self.wait(10)
            except subprocess.TimeoutExpired:
                self.kill()


def refused(worker: Worker) -> str:
    """The one line with which a worker refuses to start."""
    assert worker.start().wait() == 1
    lines = [line for line in worker.errors.splitlines() if line.strip()]
    assert len(lines) == 1, worker.errors
    assert lines[0].startswith("Error: ")
    return lines[0]
