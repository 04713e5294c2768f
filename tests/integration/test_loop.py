"""aiokafka's connections on the worker's event loop."""

from __future__ import annotations

import asyncio

import pytest
from aiokafka.conn import AIOKafkaConnection, create_conn
from aiokafka.errors import KafkaConnectionError
from aiokafka.protocol.metadata import MetadataRequest

from streams import loop
from streams.kafka.connection import survive_resets
from tests.integration.harness import World

pytestmark = pytest.mark.kafka


def test_a_write_to_a_connection_that_has_just_been_reset_is_a_broken_connection(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As a worker does at its start; these are put back after the test.
    for name in ("send", "_send_sasl_token"):
        monkeypatch.setattr(AIOKafkaConnection, name, getattr(AIOKafkaConnection, name))
    survive_resets()
    host, _, port = world.config.bootstrap_servers.rpartition(":")

    async def write() -> None:
        connection = await create_conn(host, int(port))
        whole = connection._writer._transport
        reset, _ = await asyncio.get_running_loop().create_connection(asyncio.Protocol, host, int(port))
        reset.abort()
        for _ in range(5):
            await asyncio.sleep(0)
        # As it is between a reset and the moment in which the reader hears of it.
        connection._writer._transport = reset
        try:
            with pytest.raises(RuntimeError, match="handler is closed"):
                reset.write(b"what uvloop says")
            with pytest.raises(KafkaConnectionError):
                await connection.send(MetadataRequest([]))
            assert not connection.connected()
        finally:
            whole.close()

    loop.run(write())
