"""Kafka carries what a broker carries."""

import pytest

from tidings.brokers.kafka import KafkaBroker
from tidings.core.ports import Broker
from tidings.testing.conformance.broker import BrokerSuite
from tidings.testing.conformance.broker.making import Making


class TestKafka(BrokerSuite):
    """With the protocol that every Kafka speaks."""

    @pytest.fixture
    def url(self, kafka_url: str, prefix: str) -> str:
        return f"{kafka_url}?prefix={prefix}"

    def make(self, url: str, app: str) -> Broker:
        return KafkaBroker(url, app)


class TestNextProtocol(Making):
    """With that of KIP-848, where the broker decides who gets what: what depends on that."""

    test_g9_messages_of_one_key_arrive_in_order = BrokerSuite.test_g9_messages_of_one_key_arrive_in_order
    test_g5_the_workers_of_an_app_share = BrokerSuite.test_g5_the_workers_of_an_app_share_and_leave_nothing_out
    test_g5_what_waits_for_workers = BrokerSuite.test_g5_what_was_published_while_no_worker_ran_waits
    test_g5_what_is_not_settled_comes_again = (
        BrokerSuite.test_g5_what_is_not_settled_comes_again_and_what_is_settled_does_not
    )
    test_g11_a_new_app_gets_history = BrokerSuite.test_g11_a_new_app_gets_history_where_that_is_promised

    @pytest.fixture
    def url(self, kafka_url: str, prefix: str) -> str:
        return f"{kafka_url}?protocol=consumer&prefix={prefix}"

    def make(self, url: str, app: str) -> Broker:
        return KafkaBroker(url, app)
