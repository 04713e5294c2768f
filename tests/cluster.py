"""A cluster of Kafka nodes on loopback, each broker and controller, to be hurt in every way that a cluster can be.

A node has three listeners. Clients reach theirs directly. What other brokers and controllers reach is advertised under
a host name, and every JVM has a hosts file of its own in which that name is an address of the pair's own: 127.1.1.2 is
how node 1 reaches node 2. A proxy listens there, so that what passes between two nodes can be cut in each direction by
itself, while all clients go on reaching both. This needs no rights, and all of 127.0.0.0/8 on loopback, as Linux has.
"""

from __future__ import annotations

import base64
import os
import re
import signal
import socket
import sys
import time
import unittest
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType

from streams.broker import SMALL_JVM, find_java, kafka_jars
from streams.broker.ports import free_port
from streams.broker.probe import answers
from streams.broker.process import Child
from streams.broker.settings import CLIENTS, CONTROLLER, LOG_FLAGS, as_properties_file, server_properties
from tests.integration.harness import wait_for
from tests.kafka_requests import GROUP, TRANSACTION, Led, Seen, coordinator, elect_preferred, look, reassign
from tests.proxies import Proxies, Way

PEERS = "PEERS"
#: How long a broker may be silent before the controllers take its partitions from it, and how long a follower may lag.
SESSION_S = 4.0
LAG_S = 3.0
START_S = 90.0
STOP_S = 30.0
FORMAT_S = 60.0
#: From the last event until all replicas are in sync again.
WHOLE_S = 60.0
TAIL_BYTES = 4_000
#: Since then controllers tell each other under which address they are reached, which must be the proxies'.
ADVERTISED_CONTROLLERS_SINCE = (3, 9)

Place = tuple[str, int]


class Node:
    """One JVM, its data, and what is done to it at present."""

    def __init__(self, number: int, folder: Path, ports: Sequence[int]) -> None:
        self.number = number
        self.folder = folder
        self.port, self.peer_port, self.controller_port = ports
        self.child: Child | None = None
        self.suspended = False
        #: What is cut between it and the others.
        self.cut = False

    @property
    def bootstrap(self) -> str:
        """ "HOST:PORT" for clients."""
        return f"127.0.0.1:{self.port}"

    @property
    def host(self) -> str:
        """What the others call it."""
        return f"node-{self.number}"

    @property
    def running(self) -> bool:
        """Whether the JVM lives; a suspended one does."""
        return self.child is not None and self.child.running

    @property
    def serves(self) -> bool:
        """Whether it can be asked and is in touch with the others."""
        return self.running and not self.suspended and not self.cut

    @property
    def log(self) -> Path:
        """What the JVM printed since its last start."""
        return self.folder / "broker.log"

    def log_tail(self) -> str:
        """The end of what it printed."""
        return self.log.read_bytes()[-TAIL_BYTES:].decode(errors="replace") if self.log.exists() else ""


class Cluster:
    """A `with` block around N nodes, numbered from 1 as Kafka numbers them. Every method blocks.

    :param min_insync: `min.insync.replicas` of every topic.
    :param jars: the class path of another version of Kafka than the product's own.
    :param properties: server properties that win over ours.
    """

    def __init__(
        self,
        folder: Path,
        nodes: int = 3,
        *,
        min_insync: int = 2,
        jars: Sequence[Path] | None = None,
        properties: Mapping[str, str] | None = None,
        jvm_flags: Sequence[str] = SMALL_JVM,
    ) -> None:
        self.replication = nodes
        self.min_insync = min(min_insync, nodes)
        self._folder = folder.absolute()
        self._jars = list(jars) if jars is not None else kafka_jars()
        self._properties = dict(properties or {})
        self._jvm_flags = list(jvm_flags)
        self._id = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        ports: set[int] = set()
        while len(ports) < 3 * nodes:
            ports.add(free_port())
        self.nodes = {
            number: Node(number, self._folder / f"node-{number}", [ports.pop() for _ in range(3)])
            for number in range(1, nodes + 1)
        }
        self._proxies: Proxies | None = None

    # -- addresses --

    @property
    def bootstrap(self) -> str:
        """All nodes' addresses for clients."""
        return self.bootstrap_without()

    def bootstrap_without(self, *numbers: int) -> str:
        """The addresses of all nodes but some."""
        return ",".join(node.bootstrap for node in self.nodes.values() if node.number not in numbers)

    def others(self, *numbers: int) -> list[int]:
        """All nodes but some."""
        return [number for number in self.nodes if number not in numbers]

    # -- beginning and end --

    def __enter__(self) -> Cluster:
        try:
            return self.start()
        except BaseException:
            self.close()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End all nodes at once; their data stays in the folder."""
        for node in self.nodes.values():
            if node.child is not None:
                node.child.kill()
        if self._proxies is not None:
            self._proxies.close()
            self._proxies = None

    def start(self, *numbers: int) -> Cluster:
        """Start some nodes side by side, all if none is named, and wait until they serve clients; returns itself.

        Raises AssertionError with the log's tail if one does not.
        """
        if sys.platform != "linux":
            raise unittest.SkipTest("a cluster needs all of 127.0.0.0/8 on loopback, as Linux has it")
        if self._proxies is None:
            self._proxies = Proxies(list(self._ways()))
            self._format()
        wanted = [self.nodes[number] for number in numbers or self.nodes if not self.nodes[number].running]
        for node in wanted:
            node.suspended = False
            node.child = Child(self._java(node, "kafka.Kafka", str(node.folder / "server.properties")), node.log,
                               node.folder)  # fmt: skip
        deadline = time.monotonic() + START_S
        for node in wanted:
            while not answers(node.bootstrap):
                assert node.running, f"node {node.number} ended:\n{node.log_tail()}"
                assert time.monotonic() < deadline, f"node {node.number} is not ready:\n{node.log_tail()}"
                time.sleep(0.05)
        return self

    def _format(self) -> None:
        """Let Kafka's tool prepare all data folders, side by side. An id may begin with "-", hence the equals sign."""
        tools: list[Child] = []
        for node in self.nodes.values():
            node.folder.mkdir(parents=True, exist_ok=True)
            (node.folder / "hosts").write_text(self._hosts(node))
            properties = node.folder / "server.properties"
            properties.write_text(as_properties_file(self._properties_of(node)))
            command = self._java(node, "kafka.tools.StorageTool", "format", f"--cluster-id={self._id}",
                                 "--ignore-formatted", "--config", str(properties))  # fmt: skip
            tools.append(Child(command, node.log, node.folder))
        for tool, node in zip(tools, self.nodes.values(), strict=True):
            assert tool.wait(FORMAT_S), f"node {node.number} is not formatted"
            assert tool.exit_code == 0, node.log_tail()

    def _java(self, node: Node, *words: str) -> list[str]:
        hosts = f"-Djdk.net.hosts.file={node.folder / 'hosts'}"
        return [str(find_java()), *self._jvm_flags, *LOG_FLAGS, hosts, "-cp", os.pathsep.join(map(str, self._jars)),
                *words]  # fmt: skip

    def _hosts(self, node: Node) -> str:
        names = {"localhost": "127.0.0.1", socket.gethostname(): "127.0.0.1"}
        names |= {other.host: _address(node, other) for other in self.nodes.values()}
        return "".join(f"{address} {name}\n" for name, address in names.items())

    def _ways(self) -> Iterable[Way]:
        for one in self.nodes.values():
            for other in self.nodes.values():
                if one is not other:
                    for listener, port in ((PEERS, other.peer_port), (CONTROLLER, other.controller_port)):
                        yield Way(_way(listener, one.number, other.number), _address(one, other), port,
                                  "127.0.0.1", port)  # fmt: skip

    def _properties_of(self, node: Node) -> dict[str, str]:
        replicas, least = str(self.replication), str(self.min_insync)
        listeners = {CLIENTS: node.port, PEERS: node.peer_port, CONTROLLER: node.controller_port}
        advertised = [f"{CLIENTS}://{node.bootstrap}", f"{PEERS}://{node.host}:{node.peer_port}"]
        if self._version() >= ADVERTISED_CONTROLLERS_SINCE:
            advertised.append(f"{CONTROLLER}://{node.host}:{node.controller_port}")
        voters = (f"{one.number}@{one.host}:{one.controller_port}" for one in self.nodes.values())
        extra = {
            "node.id": str(node.number),
            "controller.quorum.voters": ",".join(voters),
            "listeners": ",".join(f"{name}://127.0.0.1:{port}" for name, port in listeners.items()),
            "advertised.listeners": ",".join(advertised),
            "listener.security.protocol.map": ",".join(f"{name}:PLAINTEXT" for name in listeners),
            "inter.broker.listener.name": PEERS,
            "default.replication.factor": replicas,
            "min.insync.replicas": least,
            "unclean.leader.election.enable": "false",
            "offsets.topic.replication.factor": replicas,
            "transaction.state.log.replication.factor": replicas,
            "transaction.state.log.min.isr": least,
            "share.coordinator.state.topic.replication.factor": replicas,
            "share.coordinator.state.topic.min.isr": least,
            "broker.session.timeout.ms": str(int(SESSION_S * 1000)),
            "broker.heartbeat.interval.ms": "1000",
            "replica.lag.time.max.ms": str(int(LAG_S * 1000)),
            # Leaders move when a test moves them.
            "auto.leader.rebalance.enable": "false",
            "num.io.threads": "3",
            "num.recovery.threads.per.data.dir": "1",
        }
        own = {**extra, **self._properties}
        return server_properties(node.folder / "data", node.port, node.controller_port, own)

    def _version(self) -> tuple[int, ...]:
        found = (re.fullmatch(r"kafka_2\.\d+-(\d+)\.(\d+).*\.jar", jar.name) for jar in self._jars)
        return next((tuple(map(int, match.groups())) for match in found if match), (4, 0))

    # -- what is done to nodes --

    def kill(self, *numbers: int) -> None:
        """SIGKILL to all of these at once, as a crash would."""
        children = [self._child(number) for number in numbers]
        for child in children:
            child.send(signal.SIGKILL)
        for child in children:
            child.kill()

    def stop(self, *numbers: int) -> None:
        """SIGTERM: they hand their partitions over and end. SIGKILL after STOP_S."""
        children = [self._child(number) for number in numbers]
        for child in children:
            child.send(signal.SIGTERM)
        for child in children:
            child.terminate(STOP_S)

    def suspend(self, number: int) -> None:
        """SIGSTOP: connections stay open, nothing answers."""
        self.nodes[number].suspended = True
        self._child(number).send(signal.SIGSTOP)

    def resume(self, number: int) -> None:
        """SIGCONT."""
        self._child(number).send(signal.SIGCONT)
        self.nodes[number].suspended = False

    def restart(self, number: int) -> None:
        """End a node in order and start it again; returns when it serves clients."""
        self.stop(number)
        self.start(number)

    def cut(self, number: int) -> None:
        """Part a node from all others, in both directions, and not from its clients."""
        self.nodes[number].cut = True
        self._all_proxies.cut(self._ways_of(number))

    def join(self, number: int) -> None:
        """Undo `cut` and `let_lag`."""
        self._all_proxies.join(self._ways_of(number))
        self.nodes[number].cut = False

    def let_lag(self, number: int) -> None:
        """Hold what a node asks of other brokers: as a follower it lags, as a leader and a broker it is well."""
        self._all_proxies.cut(_way(PEERS, number, other) for other in self.others(number))

    def mend(self) -> None:
        """Undo all that was done to any node, and wait until the cluster is whole."""
        for number, node in self.nodes.items():
            self.join(number)
            if node.running and node.suspended:
                self.resume(number)
        self.start()
        self.wait_until_whole()

    def _child(self, number: int) -> Child:
        child = self.nodes[number].child
        assert child is not None, f"node {number} was never started"
        return child

    @property
    def _all_proxies(self) -> Proxies:
        assert self._proxies is not None, "the cluster was never started"
        return self._proxies

    def _ways_of(self, number: int) -> list[str]:
        pairs = [pair for other in self.others(number) for pair in ((number, other), (other, number))]
        return [_way(listener, *pair) for listener in (PEERS, CONTROLLER) for pair in pairs]

    # -- who leads --

    def seen(self, by: int | None = None) -> Seen:
        """The cluster as one node sees it, or as some node does that is in touch with the others."""
        return look(self._one(by).bootstrap)

    def _one(self, by: int | None = None) -> Node:
        if by is not None:
            return self.nodes[by]
        return next(node for node in self.nodes.values() if node.serves)

    def leader_of(self, topic: str, partition: int, by: int | None = None) -> int:
        """Who leads a partition, -1 if nobody does, as one node sees it."""
        return self.seen(by).partitions[topic, partition].leader

    def led_by(self, number: int, by: int | None = None) -> set[Place]:
        """The partitions that a node leads, as one node sees it."""
        return {place for place, led in self.seen(by).partitions.items() if led.leader == number}

    def group_coordinator(self, group: str) -> int:
        """The node that coordinates a consumer group, or -1."""
        return coordinator(self._one().bootstrap, group, GROUP)

    def transaction_coordinator(self, transactional_id: str) -> int:
        """The node that coordinates the transactions of an id, or -1."""
        return coordinator(self._one().bootstrap, transactional_id, TRANSACTION)

    def lead(self, wanted: Mapping[Place, int]) -> None:
        """Make each node the leader of its partitions by a preferred election; all replicas stay where they are."""
        now = self.seen().partitions
        orders = {place: [node, *(r for r in now[place].replicas if r != node)] for place, node in wanted.items()}
        reassign(self._one().bootstrap, orders)
        self._wait_for("the replicas' new order", wanted, lambda place, led: list(led.replicas) == orders[place])
        topics: dict[str, list[int]] = {}
        for topic, number in wanted:
            topics.setdefault(topic, []).append(number)
        elect_preferred(self._one().bootstrap, topics)
        self._wait_for("the elected leaders", wanted, lambda place, led: led.leader == wanted[place])

    def elect_away(self, number: int) -> None:
        """Give what a node leads to the others, by election while all live."""
        others = self.others(number)
        self.lead({place: others[n % len(others)] for n, place in enumerate(sorted(self.led_by(number)))})

    def reassign_away(self, number: int) -> None:
        """Give what a node leads to the others, by taking its replicas away; `reassign_back` undoes that."""
        now = self.seen().partitions
        kept = {place: [r for r in now[place].replicas if r != number] for place in self.led_by(number)}
        reassign(self._one().bootstrap, kept)
        self._wait_for("replicas to be taken away", kept, lambda place, led: list(led.replicas) == kept[place])

    def reassign_back(self) -> None:
        """A replica of each partition on each node again, those that were taken away last."""
        all_nodes = list(self.nodes)
        orders = {
            place: [*led.replicas, *(node for node in all_nodes if node not in led.replicas)]
            for place, led in self.seen().partitions.items()
            if len(led.replicas) < len(all_nodes)
        }
        if orders:
            reassign(self._one().bootstrap, orders)
        self.wait_until_whole()

    def balance(self, apart: str = "") -> None:
        """Let every node lead its share of each topic, by election: of all topics the same partitions.

        But of the topic `apart` some: what a node leads of it is led by others of all other topics.
        """
        nodes = list(self.nodes)

        def node(topic: str, number: int) -> int:
            return nodes[(number + (number // 2 if topic == apart else 0)) % len(nodes)]

        self.lead({place: node(*place) for place in self.seen().partitions})

    # -- waiting --

    def wait_until_moved(self, number: int, places: Iterable[Place]) -> None:
        """Wait until others lead these partitions, as others see it."""
        places = list(places)
        other = next(node.number for node in self.nodes.values() if node.serves and node.number != number)

        def moved() -> bool:
            now = self.seen(other)
            return number not in now.brokers and all(now.partitions[p].leader not in (-1, number) for p in places)

        wait_for(f"others to lead what node {number} led", _patiently(moved))

    def wait_until_led(self) -> None:
        """Wait until every partition has a leader, as all see it that are in touch."""
        nodes = [node for node in self.nodes.values() if node.serves]

        def all_led() -> bool:
            return all(led.leader != -1 for node in nodes for led in look(node.bootstrap).partitions.values())

        wait_for("all partitions to have leaders", _patiently(all_led), WHOLE_S)

    def wait_until_whole(self) -> None:
        """Wait until all nodes see the same: all alive, every partition led, and all its replicas in sync."""
        wait_for("the cluster to be whole", _patiently(self._is_whole), WHOLE_S)

    def _is_whole(self) -> bool:
        views = [look(node.bootstrap) for node in self.nodes.values()]
        return all(view == views[0] for view in views) and self._shows_all_in_sync(views[0])

    def _shows_all_in_sync(self, seen: Seen) -> bool:
        led = seen.partitions.values()
        return len(seen.brokers) == len(self.nodes) and all(
            one.leader != -1 and set(one.in_sync) == set(one.replicas) for one in led
        )

    def _wait_for(self, what: str, places: Iterable[Place], found: Callable[[Place, Led], bool]) -> None:
        """Until all that are in touch see that of these places."""
        nodes = [node for node in self.nodes.values() if node.serves]

        def all_found() -> bool:
            views = [look(node.bootstrap).partitions for node in nodes]
            return all(found(place, view[place]) for view in views for place in places)

        wait_for(what, _patiently(all_found))


def _address(one: Node, other: Node) -> str:
    """Under which one node reaches another: itself directly, others through the proxy of the two."""
    return "127.0.0.1" if one is other else f"127.1.{one.number}.{other.number}"


def _way(listener: str, one: int, other: int) -> str:
    return f"{listener} {one} to {other}"


def _patiently(found: Callable[[], bool]) -> Callable[[], bool]:
    """The same; a broker that does not answer just now is no."""

    def ask() -> bool:
        try:
            return found()
        except (OSError, KeyError):
            return False

    return ask
