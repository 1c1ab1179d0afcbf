"""Apache Kafka, and what speaks its protocol: one Kafka topic per topic, one consumer group per app."""

from tidings.brokers.kafka.broker import KafkaBroker

__all__ = ["KafkaBroker"]
