"""Fixtures for pytest: put `pytest_plugins = ["tidings.testing.pytest_plugin"]` into your top conftest.py."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tidings.testing.clock import VirtualClock


@pytest.fixture
def tidings_url(tmp_path: Path) -> str:
    """URL of a new store on disk, for one test."""
    return f"sqlite:///{tmp_path}/tidings.db"


@pytest.fixture
def tidings_clock() -> VirtualClock:
    """A clock that stands still: `App(url, clock=tidings_clock)`, then `tidings_clock.advance(3600)`."""
    from tidings.testing.clock import VirtualClock

    return VirtualClock()
