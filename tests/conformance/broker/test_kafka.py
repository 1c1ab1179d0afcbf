"""Kafka carries what a broker carries."""

import pytest

from tidings.brokers.kafka import KafkaBroker
from tidings.core.ports import Broker
from tidings.testing.conformance.broker import BrokerSuite


class KafkaSuite(BrokerSuite):
    def make(self, url: str, app: str) -> Broker:
        return KafkaBroker(url, app)


class TestKafka(KafkaSuite):
    """With the protocol that every Kafka speaks."""

    @pytest.fixture
    def url(self, kafka_url: str, prefix: str) -> str:
        return f"{kafka_url}?prefix={prefix}"


class TestNextProtocol(KafkaSuite):
    """With that of KIP-848, where the broker decides who gets what."""

    @pytest.fixture
    def url(self, kafka_url: str, prefix: str) -> str:
        return f"{kafka_url}?protocol=consumer&prefix={prefix}"
