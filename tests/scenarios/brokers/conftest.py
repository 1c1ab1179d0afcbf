"""What the scenarios with a broker share: a broker of each kind, and stores of its own for every app."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tidings import App

Make = Callable[..., App]
"""(name, *parts) -> an app with a store of its own, at the broker."""


@pytest.fixture(params=["sqlite", "postgresql"])
def broker_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """URL of a broker, or of a corner of one that nobody else uses."""
    if request.param == "sqlite":
        return f"sqlite:{tmp_path}/broker.db"
    found: str = request.getfixturevalue("newest_postgres_url")
    return found


@pytest.fixture
def make(broker_url: str, tmp_path: Path) -> Make:
    """Makes apps that share nothing but the broker."""
    return lambda name, *parts: App(f"sqlite:{tmp_path}/{name}.db", *parts, broker=broker_url, name=name)
