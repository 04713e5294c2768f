"""What the broker's tests share: a round trip, waiting with a deadline, processes that no test leaves behind."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

CHECKOUT = Path(__file__).parents[2]
DEADLINE_S = 60.0
FOREGROUND = (
    "import sys; from streams.broker import run_foreground; sys.exit(run_foreground(data_dir=sys.argv[1], port=0))"
)
NOWHERE = "http://127.0.0.1:9"  # the discard port: nothing listens there


def until(true: Callable[[], object], what: str, deadline_s: float = DEADLINE_S) -> None:
    """Poll until `true()`; fail after the deadline."""
    end = time.monotonic() + deadline_s
    while not true():
        assert time.monotonic() < end, f"not within {deadline_s} s: {what}"
        time.sleep(0.02)


def alive(pid: int) -> bool:
    """Whether a process lives; a zombie, whose parent has not looked yet, does not."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text("utf-8")
    except (FileNotFoundError, ProcessLookupError):
        return False


def offline(**more: str) -> dict[str, str]:
    """An environment that reaches no repository, and has no Java and no Maven on its PATH."""
    kept = {name: value for name, value in os.environ.items() if name in ("HOME", "XDG_CACHE_HOME", "PYTHONPATH")}
    return {**kept, "PATH": "", "HTTP_PROXY": NOWHERE, "HTTPS_PROXY": NOWHERE, "NO_PROXY": "", **more}


@contextmanager
def python(code: str, *arguments: str, env: Mapping[str, str] | None = None) -> Iterator[subprocess.Popen[str]]:
    """A Python process in the checkout, its output in pipes; killed at the end of the block if it is still there."""
    process = subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        cwd=CHECKOUT,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
        process.communicate(timeout=DEADLINE_S)


def create_topic(bootstrap: str, topic: str) -> None:
    async def create() -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
        await admin.start()
        try:
            await admin.create_topics([NewTopic(topic, 1, 1)])
        finally:
            await admin.close()

    asyncio.run(create())


def produce(bootstrap: str, topic: str, *values: bytes) -> None:
    async def send() -> None:
        async with AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all") as producer:
            for value in values:
                await producer.send_and_wait(topic, value)

    asyncio.run(asyncio.wait_for(send(), DEADLINE_S))


def consume(bootstrap: str, topic: str, count: int) -> list[bytes]:
    """The first `count` values of a topic."""

    async def read() -> list[bytes]:
        consumer = AIOKafkaConsumer(topic, bootstrap_servers=bootstrap, auto_offset_reset="earliest")
        async with consumer:
            return [(await consumer.getone()).value or b"" for _ in range(count)]

    return asyncio.run(asyncio.wait_for(read(), DEADLINE_S))
