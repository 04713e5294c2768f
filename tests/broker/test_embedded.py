"""Real Kafka, started, stopped, killed, suspended and started again."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path

import pytest

from streams.broker import BrokerError, EmbeddedBroker, running_address
from streams.broker.probe import answers

from .helpers import DEADLINE_S, alive, consume, create_topic, produce, until

pytestmark = pytest.mark.kafka


def test_data_survives_a_stop_and_a_kill_at_the_same_address(tmp_path: Path) -> None:
    broker = EmbeddedBroker(tmp_path)
    with broker:
        address, cluster = broker.bootstrap, broker.cluster_id
        create_topic(address, "kept")
        produce(address, "kept", b"first")

        broker.stop()
        assert not broker.running
        assert running_address(tmp_path) is None
        assert not (tmp_path / "broker" / "address").exists()

        broker.start()
        assert broker.bootstrap == address
        produce(address, "kept", b"second")

        pid = broker.pid
        broker.kill()
        assert not alive(pid)
        assert running_address(tmp_path) is None, "the address of a killed broker does not count"

        broker.start()
        assert (broker.bootstrap, broker.cluster_id) == (address, cluster)
        assert consume(address, "kept", 2) == [b"first", b"second"]

        os.kill(broker.pid, signal.SIGKILL)
        assert broker.wait(DEADLINE_S) == -signal.SIGKILL
        broker.start()
        assert consume(address, "kept", 2) == [b"first", b"second"]


def test_a_running_broker_can_be_found_suspended_and_woken_and_keeps_its_folder_to_itself(tmp_path: Path) -> None:
    with EmbeddedBroker(tmp_path) as broker:
        assert running_address(tmp_path) == broker.bootstrap
        assert broker.start() is broker, "a second start of the same broker does nothing"

        broker.suspend()
        until(lambda: not answers(broker.bootstrap, timeout_s=0.2), "a suspended broker is silent")
        broker.resume()
        until(lambda: answers(broker.bootstrap), "a resumed broker answers")

        with pytest.raises(BrokerError, match=rf"^a broker already runs on the data folder .* at {broker.bootstrap} "):
            EmbeddedBroker(tmp_path).start()
        assert answers(broker.bootstrap)

        broker.suspend()
        pid = broker.pid
    assert not alive(pid), "a suspended broker is stopped all the same"


def test_server_properties_of_the_caller_win_and_a_login_can_be_asked_for(tmp_path: Path) -> None:
    plain = "org.apache.kafka.common.security.plain.PlainLoginModule"
    properties = {
        "listener.security.protocol.map": "CLIENTS:SASL_PLAINTEXT,CONTROLLER:PLAINTEXT",
        "sasl.enabled.mechanisms": "PLAIN",
        "sasl.mechanism.inter.broker.protocol": "PLAIN",
        "listener.name.clients.plain.sasl.jaas.config": f'{plain} required username="a" password="b" user_a="b";',
    }
    with EmbeddedBroker(tmp_path, properties=properties) as broker:
        assert answers(broker.bootstrap, plaintext=False)
        assert not answers(broker.bootstrap), "without a login there is no metadata"


def test_a_taken_port_is_one_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(BrokerError, match=rf"^port {port} of 127\.0\.0\.1 is taken by another program$"):
            EmbeddedBroker(tmp_path, port).start()


def test_a_failed_start_quotes_the_log_in_one_line_and_leaves_nothing_behind(tmp_path: Path) -> None:
    broker = EmbeddedBroker(tmp_path, properties={"num.network.threads": "many"})
    with pytest.raises(BrokerError, match=r"ConfigException.*num\.network.threads") as failure:
        broker.start()
    assert "\n" not in str(failure.value)
    assert "num.network.threads" in failure.value.detail
    assert not broker.running
    with EmbeddedBroker(tmp_path) as repaired:
        assert answers(repaired.bootstrap)


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BrokerError, match=r"^the data folder .*file cannot be used: "):
        EmbeddedBroker(tmp_path / "file").start()
