"""What every broker owes, owed by SNS and SQS: FIFO and standard, on one emulator, and FIFO on another one."""

import itertools
import os

import pytest

from tests.servers.sqs import CREDENTIALS
from tidings.brokers.sqs import SqsBroker
from tidings.testing.conformance.broker import BrokerSuite

corners = itertools.count(1)


@pytest.fixture(autouse=True)
def credentials(monkeypatch):
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)


class TestSqsFifo(BrokerSuite):
    @pytest.fixture
    def url(self):
        return os.environ["SQS_AT"] + f"&prefix=c{next(corners)}-{os.getpid()}-&poll=1&fifo=true"

    def make(self, url, app):
        return SqsBroker(url, app)


class TestSqsStandard(BrokerSuite):
    @pytest.fixture
    def url(self):
        return os.environ["SQS_AT"] + f"&prefix=c{next(corners)}-{os.getpid()}-&poll=1"

    def make(self, url, app):
        return SqsBroker(url, app)
