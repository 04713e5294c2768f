"""Checking a round that is too large for one process's memory: a partition at a time, in processes of their own.

A partition shows almost everything by itself. What was forwarded from it lies in others, so a first look at all of them
finds that; and whom an identifier belongs to is told by the customers of all, so that is compared at the end.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path

from streams.config import Config
from tests.chaos.checker import Part, check_part
from tests.chaos.history import TOPICS, History, Sent, Topic, stores_in
from tests.integration.compare import forwarded, origin_of
from tests.integration.harness import CHANGES, REQUESTS, Log, Loop, Record, World

PROCESSES = 2
#: With the topic that it lies in.
Copy = tuple[str, Record]


@dataclass(frozen=True)
class Share:
    """One partition, and what is known of it besides what is in the logs: see `History`."""

    config: Config
    number: int
    ends: Mapping[str, int]
    sent: Sequence[Sent]
    #: The data folder of each worker.
    folders: Mapping[str, Path]
    late: bool = False


def check_shares(shares: Sequence[Share]) -> list[Part]:
    """What every partition shows."""
    # Not forked: this process has threads.
    with ProcessPoolExecutor(PROCESSES, mp_context=get_context("spawn")) as pool:
        looked = pool.map(copies_in, [share.config for share in shares], [share.number for share in shares])
        copies = [copy for some in looked for copy in some]
        return list(pool.map(partial(check_share, copies), shares))


def copies_in(config: Config, number: int) -> list[Copy]:
    """What was forwarded to a partition."""
    return list(forwarded(_read(config, number, (CHANGES, REQUESTS))))


def check_share(copies: Sequence[Copy], share: Share) -> Part:
    """What one partition shows, given what was forwarded between all."""
    read = _read(share.config, share.number, [spec.name for spec in TOPICS])
    return check_part(
        History(
            config=share.config,
            topics=read.topics,
            numbers=[share.number],
            copies=[(t, r) for t, r in copies if origin_of(r).partition == share.number != r.partition],
            ends=share.ends,
            sent=share.sent,
            stores=[one for name, at in share.folders.items() for one in stores_in(at, name, [share.number])],
            late=share.late,
        )
    )


def _read(config: Config, number: int, names: Sequence[str]) -> History:
    """One partition of these topics."""
    loop = Loop()
    world = World(config.bootstrap_servers, loop, config.partitions, config.topic_prefix)
    logs = {name: Log(world, name, [number]) for name in names}
    try:
        return History(config, {name: Topic(log.complete()) for name, log in logs.items()}, [number])
    finally:
        for log in logs.values():
            loop.run(log.close())
        loop.close()
