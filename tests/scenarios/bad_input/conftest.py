"""What the tests of bad input share: a store that does not exist yet, in a file or of each kind."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def url(tmp_path: Path) -> str:
    """URL of a store that does not exist yet."""
    return f"sqlite:{tmp_path}/shop.db"


@pytest.fixture(params=["sqlite", "postgresql"])
def any_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """URL of a store that does not exist yet, of each kind in turn."""
    if request.param == "sqlite":
        return f"sqlite:{tmp_path}/shop.db"
    found: str = request.getfixturevalue("newest_postgres_url")
    return found
