"""RabbitMQ carries what a broker must carry."""

import pytest

from tidings.brokers.rabbitmq import RabbitBroker
from tidings.testing.conformance.broker import BrokerSuite


class RabbitmqTests(BrokerSuite):
    @pytest.fixture
    def url(self, rabbitmq_url):
        return rabbitmq_url

    def make(self, url, app):
        return RabbitBroker(url, app)


class TestRabbitmq(RabbitmqTests):
    pass


class TestRabbitmqWithShards(RabbitmqTests):
    @pytest.fixture
    def url(self, rabbitmq_url):
        return f"{rabbitmq_url}?shards=3"
