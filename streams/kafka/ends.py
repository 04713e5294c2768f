"""Where logs end, asked by a command: of whichever brokers answer, and again while one is away."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from streams.config import Config
from streams.kafka.client import stopped
from streams.kafka.faults import plain_faults
from streams.kafka.log_reader import LogReader
from streams.kafka.reaching import answering, persistently

#: One attempt ends by then: the next one has the cluster's present leaders.
ATTEMPT_S = 10.0


async def ends_of(config: Config, topic: str, partitions: int) -> Mapping[int, int]:
    """The offset behind the last record of each partition of the topic of this full name, see `LogReader.ends`.

    Raises KafkaFault.
    """

    async def once() -> Mapping[int, int]:
        reader = LogReader(await answering(config))
        try:
            async with asyncio.timeout(ATTEMPT_S):
                await reader.start()
                return await reader.ends(topic, range(partitions))
        finally:
            await stopped(reader.stop())

    with plain_faults(config):
        return await persistently(once)
