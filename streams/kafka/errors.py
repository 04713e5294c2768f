"""What can go wrong with Kafka, in aiokafka's names: those that others than this package tell apart."""

from __future__ import annotations

from aiokafka.errors import IllegalStateError, InvalidProducerEpoch, KafkaError, ProducerFenced

__all__ = ["IllegalStateError", "InvalidProducerEpoch", "KafkaError", "ProducerFenced"]
