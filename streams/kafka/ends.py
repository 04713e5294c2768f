"""Where logs end, asked by a command: through the read barrier, and again while a broker is away."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from streams.config import Config
from streams.kafka.faults import plain_faults
from streams.kafka.log_reader import log_reader
from streams.kafka.reaching import persistently

#: One attempt ends by then: the next one has the cluster's present leaders.
ATTEMPT_S = 10.0


async def ends_of(config: Config, topic: str, partitions: int) -> Mapping[int, int]:
    """The offset behind the last record of each partition of the topic of this full name, see `LogReader.ends`.

    Raises KafkaFault.
    """

    async def once() -> Mapping[int, int]:
        async with asyncio.timeout(ATTEMPT_S), log_reader(config) as reader:
            return await reader.ends(topic, range(partitions))

    with plain_faults(config):
        return await persistently(once)
