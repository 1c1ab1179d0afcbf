"""What the tests of bad input share: a store that does not exist yet."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def url(tmp_path: Path) -> str:
    """URL of a store that does not exist yet."""
    return f"sqlite:{tmp_path}/shop.db"
