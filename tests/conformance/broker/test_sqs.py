"""What every broker owes, owed by SNS and SQS: FIFO and standard on one emulator, FIFO on a second one."""

import pytest

from tidings.brokers.sqs import SqsBroker
from tidings.testing.conformance.broker import BrokerSuite
from tidings.testing.conformance.broker.making import Making


class OnSqs(BrokerSuite):
    fifo = "false"

    @pytest.fixture
    def url(self, sqs_url, prefix):
        return f"{sqs_url}&prefix={prefix}&poll=1&fifo={self.fifo}"

    def make(self, url, app):
        return SqsBroker(url, app)


class TestSqs(OnSqs):
    pass


class TestSqsFifo(OnSqs):
    fifo = "true"


class TestASecondOpinion(Making):
    """Of moto, which is slow, and hands out messages twice and out of order to calls that overlap."""

    test_g3_what_is_published_arrives_as_it_was = BrokerSuite.test_g3_what_is_published_arrives_as_it_was
    test_g5_what_is_not_settled_comes_again = (
        BrokerSuite.test_g5_what_is_not_settled_comes_again_and_what_is_settled_does_not
    )
    test_g33_what_waits_is_counted = BrokerSuite.test_g33_what_waits_is_counted

    @pytest.fixture
    def url(self, moto_url, prefix):
        return f"{moto_url}&prefix={prefix}&poll=1&fifo=true"

    def make(self, url, app):
        return SqsBroker(url, app)
