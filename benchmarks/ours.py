"""The side with tidings: apps on a file of their own, opened, filled and copied through the public interface."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.shop import order
from tidings import App

CHUNK = 1_000
"""Messages published at once to fill a log."""
KEYS = 10_000
"""Different orders in a filled log; each of them comes again and again."""


def in_file(folder: Path) -> str:
    """The URL of a store on a file."""
    return f"sqlite:{folder / 'shop.db'}"


@contextmanager
def opened(app: App) -> Iterator[asyncio.Runner]:
    """An event loop in which the app is open, for rounds that are called from outside."""
    with asyncio.Runner() as runner:
        runner.run(app.__aenter__())
        try:
            yield runner
        finally:
            runner.run(app.__aexit__(None, None, None))


def filled(folder: Path, count: int) -> Path:
    """A store whose log holds so many orders, closed again."""
    path = folder / "filled.db"
    app = App(f"sqlite:{path}", name="shop")
    with opened(app) as runner:
        for first in range(0, count, CHUNK):
            numbers = range(first, min(first + CHUNK, count))
            orders = [order(f"o-{number % KEYS:07}", customer=number) for number in numbers]
            runner.run(app.publish(*orders))
    return path


def copied(filled_store: Path, number: int) -> Path:
    """A copy for one round, so that every round begins with the same file. Rounds before it are removed."""
    for old in filled_store.parent.glob("round-*"):
        shutil.rmtree(old)
    folder = filled_store.parent / f"round-{number}"
    folder.mkdir()
    for part in ("", "-wal"):
        source = filled_store.with_name(filled_store.name + part)
        if source.exists():
            shutil.copyfile(source, folder / f"shop.db{part}")
    return folder / "shop.db"
