"""What the commands' clients rely on in aiokafka, beside what `tests/engine/test_pins.py` holds still."""

from __future__ import annotations

import inspect

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.client import AIOKafkaClient

from tests.engine.test_pins import fingerprint

CLIENT, SENDER = "aiokafka.client:AIOKafkaClient", "aiokafka.producer.sender:"
PRODUCER, ADMIN = "aiokafka.producer.producer:AIOKafkaProducer", "aiokafka.admin.client:AIOKafkaAdminClient"
SOURCES = [
    (CLIENT + ".get_random_node", "a5830bb2e3d5", "steady: whom any question goes to"),
    (CLIENT + ".coordinator_lookup", "69b8e7781039", "steady: asks through get_random_node and send"),
    (CLIENT + "._metadata_update", "1a7209b63f1d", "steady: connects through _get_conn"),
    (CLIENT + ".bootstrap", "f9a38e7c4869", "options: the one address that is given is asked"),
    (CLIENT + "._wait_on_metadata", "2bd354e726d0", "know: raises what passes after the request's time"),
    (SENDER + "Sender._find_coordinator", "dd4cae536e43", "steady: looks on after NodeNotReadyError only"),
    (SENDER + "Sender._maybe_wait_for_pid", "6e49fb6994c9", "started_producer: goes on for ever"),
    (SENDER + "Sender._fail_all", "264dbf2e7afe", "everywhere: what an unexpected error becomes"),
    (SENDER + "BaseHandler.do", "996abaa659bd", "everywhere: asks a coordinator again after a failure"),
    (SENDER + "EndTxnHandler.handle_response", "4f08410f0fac", "everywhere: what says that a commit is done"),
    (SENDER + "SendProduceReqHandler._can_retry", "fd77d09c1cf7", "started_producer: batches never expire"),
    (PRODUCER + ".commit_transaction", "d26c50e16f81", "everywhere: waits for the commit's answer"),
    (ADMIN + "._send_to_controller", "601c0ebf3d08", "asked: gives up within the request's time"),
]  # fmt: skip


@pytest.mark.parametrize(("place", "known", "check"), SOURCES, ids=[row[0].rpartition(":")[2] for row in SOURCES])
def test_the_source_that_the_commands_rely_on_has_not_changed(place: str, known: str, check: str) -> None:
    found = fingerprint(place)
    assert found == known, f"{place} changed. Re-check: {check}. Then its fingerprint is {found!r}"


def test_the_attributes_that_are_set_are_those_that_are_read() -> None:
    assert "self._request_timeout_ms / 1000," in inspect.getsource(AIOKafkaProducer.send)
    assert "self.client = AIOKafkaClient(" in inspect.getsource(AIOKafkaProducer.__init__)
    assert "self._client = AIOKafkaClient(" in inspect.getsource(AIOKafkaAdminClient.__init__)
    assert "await self._get_conn(node_id, group=group)" in inspect.getsource(AIOKafkaClient.ready)
