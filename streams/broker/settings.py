"""The server properties and JVM flags of the embedded Kafka, each with its reason."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

CLIENTS = "CLIENTS"  # the listener for clients; tests may map it to SASL
CONTROLLER = "CONTROLLER"

# A first look and a test run share their machine with everything else: a heap that starts small, one collector thread,
# and only the quick compiler. A benchmark wants the opposite.
SMALL_JVM = ("-Xms32m", "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
FAST_JVM = ("-Xms1g", "-Xmx1g", "-XX:+UseParallelGC")

# Only warnings are worth keeping, but the word that the server is up tells where a start got stuck.
LOG_FLAGS = (
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
    "-Dorg.slf4j.simpleLogger.log.kafka.server.KafkaRaftServer=info",
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
    "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSS",
)


def server_properties(folder: Path, port: int, controller_port: int, extra: Mapping[str, str]) -> dict[str, str]:
    """The properties of one node that is broker and controller at once, on loopback; `extra` wins over them."""
    return {
        "process.roles": "broker,controller",
        "node.id": "1",
        "controller.quorum.voters": f"1@127.0.0.1:{controller_port}",
        "controller.listener.names": CONTROLLER,
        "listeners": f"{CLIENTS}://127.0.0.1:{port},{CONTROLLER}://127.0.0.1:{controller_port}",
        "advertised.listeners": f"{CLIENTS}://127.0.0.1:{port}",
        "listener.security.protocol.map": f"{CLIENTS}:PLAINTEXT,{CONTROLLER}:PLAINTEXT",
        "inter.broker.listener.name": CLIENTS,
        "log.dirs": str(folder),
        # A misspelt topic is an error here, never a new topic.
        "auto.create.topics.enable": "false",
        # One node: internal topics cannot be replicated, and fifty partitions of each only cost files and start time.
        "offsets.topic.replication.factor": "1",
        "offsets.topic.num.partitions": "4",
        "transaction.state.log.replication.factor": "1",
        "transaction.state.log.min.isr": "1",
        "transaction.state.log.num.partitions": "4",
        "share.coordinator.state.topic.replication.factor": "1",
        "share.coordinator.state.topic.min.isr": "1",
        "share.coordinator.state.topic.num.partitions": "4",
        "default.replication.factor": "1",
        "min.insync.replicas": "1",
        # A lone worker need not wait for others, and tests of rebalances use short sessions.
        "group.initial.rebalance.delay.ms": "0",
        "group.min.session.timeout.ms": "1000",
        # The controller forgets a killed broker after this long: restart after a hard kill takes 4 s instead of 12.
        "broker.session.timeout.ms": "2000",
        "broker.heartbeat.interval.ms": "500",
        # The default of 128 MB would be half of the heap.
        "log.cleaner.dedupe.buffer.size": str(16 * 1024 * 1024),
        "num.network.threads": "2",
        "num.io.threads": "4",
        **extra,
    }


def as_properties_file(properties: Mapping[str, str]) -> str:
    """Java's `.properties` format; backslashes and line ends in values are escaped."""

    def escaped(value: str) -> str:
        return value.replace("\\", "\\\\").replace("\n", "\\n")

    return "".join(f"{name}={escaped(value)}\n" for name, value in properties.items())
