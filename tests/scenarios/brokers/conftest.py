"""What the scenarios with a broker share: a broker of each kind, and stores of its own for every app."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tidings import App

Make = Callable[..., App]
"""(name, *parts) -> an app with a store of its own, at the broker."""


@pytest.fixture(params=["sqlite", "postgresql", "kafka", "rabbitmq", "sqs-fifo"])
def broker_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """URL of a broker, or of a corner of one that nobody else uses."""
    get = request.getfixturevalue
    match request.param:
        case "sqlite":
            return f"sqlite:{tmp_path}/broker.db"
        case "postgresql":
            return str(get("newest_postgres_url"))
        case "kafka":
            return f"{get('kafka_url')}?prefix={get('prefix')}"
        case "rabbitmq":
            return str(get("rabbitmq_url"))
        case _:
            return f"{get('sqs_url')}&fifo=true&poll=1&prefix={get('prefix')}"


@pytest.fixture
def make(broker_url: str, tmp_path: Path) -> Make:
    """Makes apps that share nothing but the broker."""
    return lambda name, *parts: App(f"sqlite:{tmp_path}/{name}.db", *parts, broker=broker_url, name=name)
