"""The bench's own dealings with the broker: topics, preloading, end offsets, reading back. Nothing here is measured."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator

from confluent_kafka import (
    Consumer,
    ConsumerGroupTopicPartitions,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, NewTopic, OffsetSpec

from tests.bench.events import Keyed
from tests.bench.plan import (
    COMMIT_DEADLINE_S,
    NO_NAGLE,
    POLL_S,
    PRODUCER_LINGER_MS,
    PRODUCER_QUEUE,
    READ_DEADLINE_S,
    BenchError,
)

LOG_CRITICAL = 2  # of syslog: retries and the end of the broker are no news; failures come back as exceptions
CALL_S = 20.0  # one request to a local broker; longer means it is gone
CHUNK = 1_000  # records handed over per call, and between two looks at the delivery reports


class Kafka:
    """One broker, or a cluster of several, seen from the bench; every topic has a replica on each of `brokers`."""

    def __init__(self, bootstrap: str, partitions: int, brokers: int = 1) -> None:
        self.bootstrap = bootstrap
        self.partitions = partitions
        self.replication = brokers
        #: Begins every topic and group of this run: on a broker that is kept, an earlier run's records stay apart.
        self.prefix = f"bench-{int(time.time()):x}-"
        self._admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": LOG_CRITICAL})

    def create(self, *names: str) -> None:
        """Create topics with the run's partitions and replicas, one of which may lag; existing ones are left alone."""
        config = {"min.insync.replicas": str(max(1, self.replication - 1))}
        new = [NewTopic(name, self.partitions, self.replication, config=config) for name in names]
        for name, future in self._admin.create_topics(new).items():
            try:
                future.result(CALL_S)
            except Exception as error:
                fault = error.args[0]
                if not (isinstance(fault, KafkaError) and fault.code() == KafkaError.TOPIC_ALREADY_EXISTS):
                    raise BenchError(f"topic {name} could not be created: {error}") from error

    def topics(self) -> list[str]:
        """The names of all topics."""
        return list(self._admin.list_topics(timeout=CALL_S).topics)

    def ends(self, topic: str) -> list[int]:
        """The end offset of every partition, in one request."""
        return self._offsets(topic, OffsetSpec.latest())

    def records(self, topic: str) -> int:
        """How many offsets a topic spans."""
        return sum(self.ends(topic)) - sum(self._offsets(topic, OffsetSpec.earliest()))

    def _offsets(self, topic: str, spec: OffsetSpec) -> list[int]:
        deadline = time.monotonic() + CALL_S
        while True:
            found = self._admin.list_offsets({TopicPartition(topic, p): spec for p in range(self.partitions)})
            try:
                by_partition = {tp.partition: future.result(CALL_S).offset for tp, future in found.items()}
            except KafkaException as error:
                # A topic just created has no leader for a moment, here or in librdkafka's view of the cluster, which
                # this brings up to date.
                if time.monotonic() > deadline:
                    raise BenchError(f"the end of {topic} cannot be read: {error}") from error
                self._admin.list_topics(topic, timeout=CALL_S)
                time.sleep(POLL_S)
            else:
                return [by_partition[p] for p in range(self.partitions)]

    def produce(self, topic: str, records: Iterable[Keyed], *, every_partition: bool = False) -> int:
        """Write all records and wait for every acknowledgement; returns how many. Java's partitioning by key.

        `every_partition` writes each record to all partitions, which is how settings travel.
        """
        failed: list[str] = []
        producer = Producer(
            {
                "bootstrap.servers": self.bootstrap,
                "partitioner": "murmur2_random",
                "linger.ms": PRODUCER_LINGER_MS,
                # Without it a retry (a new topic's leader moves in) changes the order, and the right answers with it.
                "enable.idempotence": True,
                "queue.buffering.max.messages": PRODUCER_QUEUE,
                "delivery.report.only.error": True,
                "log_level": LOG_CRITICAL,
                "on_delivery": lambda error, _message: failed.append(str(error)),
            }
        )
        count = 0
        targets = range(self.partitions) if every_partition else (-1,)
        for key, value in records:
            for partition in targets:
                _put(producer, topic, key, value, partition)
                count += 1
                if count % CHUNK == 0:
                    producer.poll(0)
        left = producer.flush(READ_DEADLINE_S)
        if left or failed:
            raise BenchError(f"input for {topic}: {left} records not acknowledged, {len(failed)} refused {failed[:1]}")
        return count

    def read(self, topic: str, start: list[int], end: list[int]) -> Iterator[Message]:
        """Every record between two lists of offsets."""
        consumer = self._reader()
        consumer.assign([TopicPartition(topic, p, offset) for p, offset in enumerate(start) if offset < end[p]])
        open_partitions = {p for p, offset in enumerate(start) if offset < end[p]}
        deadline = time.monotonic() + READ_DEADLINE_S
        try:
            while open_partitions:
                if time.monotonic() > deadline:
                    raise BenchError(f"{topic} could not be read back within {READ_DEADLINE_S:.0f} s")
                for message in consumer.consume(CHUNK, 0.1):
                    if message.error():
                        raise BenchError(f"{topic} could not be read back: {message.error()}")
                    partition = message.partition()
                    if message.offset() < end[partition]:
                        yield message
                    if message.offset() >= end[partition] - 1:
                        open_partitions.discard(partition)
        finally:
            consumer.close()

    def tail(self, topic: str) -> Consumer:
        """A consumer at the present end of a topic; the caller closes it."""
        consumer = self._reader()
        consumer.assign([TopicPartition(topic, p, offset) for p, offset in enumerate(self.ends(topic))])
        return consumer

    def _reader(self) -> Consumer:
        return Consumer(
            {
                "bootstrap.servers": self.bootstrap,
                "group.id": "bench-reader",
                "enable.auto.commit": False,
                "fetch.min.bytes": 1,
                **NO_NAGLE,
            }
        )

    def wait_committed(self, group: str, topic: str) -> None:
        """Wait until a group has committed a topic to its end."""
        ends = self.ends(topic)
        deadline = time.monotonic() + COMMIT_DEADLINE_S
        while True:
            asked = [ConsumerGroupTopicPartitions(group, [TopicPartition(topic, p) for p in range(self.partitions)])]
            try:
                found = self._admin.list_consumer_group_offsets(asked)[group].result(CALL_S)
            except KafkaException as error:
                raise BenchError(f"the offsets of {group} cannot be read: {error}") from error
            at = {tp.partition: tp.offset for tp in found.topic_partitions}
            if all(at.get(p, -1) >= end for p, end in enumerate(ends) if end):
                return
            if time.monotonic() > deadline:
                raise BenchError(f"{group} committed {at} of {ends} in {topic} within {COMMIT_DEADLINE_S:.0f} s")
            time.sleep(POLL_S)


def _put(producer: Producer, topic: str, key: bytes, value: bytes, partition: int) -> None:
    while True:
        try:
            producer.produce(topic, value, key, partition)
        except BufferError:
            producer.poll(0.1)
        else:
            return
