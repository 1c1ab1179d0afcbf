"""The log of a store, as a broker between apps that have stores of their own."""

from pathlib import Path

import pytest

from tidings.core.ports import Broker
from tidings.runtime.connect import make_broker
from tidings.testing.conformance.broker import BrokerSuite


class OfAStore(BrokerSuite):
    def make(self, url: str, app: str) -> Broker:
        return make_broker(url, app)


class TestSqlite(OfAStore):
    @pytest.fixture
    def url(self, tmp_path: Path) -> str:
        return f"sqlite:{tmp_path}/shared.db"


class TestPostgres(OfAStore):
    @pytest.fixture
    def url(self, postgres_url: str) -> str:
        return postgres_url
