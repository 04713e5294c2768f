"""One eligibility request over Kafka and its decision."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson

from streams import topics
from streams.config import Config
from streams.domain.keys import customer_key, partition_of
from streams.kafka.client import Producer, Reader

from .root import Failure


class NoDecision(Failure):
    """The request is written, but its decision did not come in time."""


async def ask(config: Config, request: dict[str, Any], timeout_s: float) -> dict[str, Any]:
    """Write a request and wait for its decision. Raises NoDecision, KafkaFault.

    The decisions' end is taken before the request is written, so that its decision cannot be missed.
    """
    key = customer_key(request["org_id"], request["customer_id"])
    requests, decisions = config.topic(topics.REQUESTS.name), config.topic(topics.DECISIONS.name)
    async with Producer(config) as producer:
        partition = partition_of(key, await producer.partitions(requests))
        async with Reader(config, decisions, [partition]) as reader:
            start = await reader.ends()
            sent = await (await producer.send(requests, key, orjson.dumps(request), partition=partition))
            try:
                async with asyncio.timeout(timeout_s):
                    return await _decision(reader, start, request["request_id"])
            except TimeoutError as error:
                raise NoDecision(
                    f"no decision within {timeout_s:g} s for the request at {sent}: does a worker run? "
                    "(`consent-streams worker`; the decision will come once one does)"
                ) from error


async def _decision(reader: Reader, start: dict[int, int], request_id: str) -> dict[str, Any]:
    async for bundle in reader.bundles(start, follow=True):
        for record in bundle:
            try:
                decision = orjson.loads(record.value or b"")
            except orjson.JSONDecodeError:
                continue
            if isinstance(decision, dict) and decision.get("request_id") == request_id:
                return decision
    raise AssertionError("a reader that follows never ends")
