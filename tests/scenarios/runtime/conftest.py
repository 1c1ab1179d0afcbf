"""What the scenarios of the runtime share: a store that does not exist yet, of each kind, and small messages."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """URL of a store that does not exist yet, of each kind in turn."""
    if request.param == "sqlite":
        return f"sqlite:{tmp_path}/shop.db"
    found: str = request.getfixturevalue("newest_postgres_url")
    return found


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """URL of a file, for what is about files."""
    return f"sqlite:{tmp_path}/shop.db"
