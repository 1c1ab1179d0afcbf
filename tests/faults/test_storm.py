"""What failed together, because something that all need was down, does not come back together."""

import asyncio
from collections import Counter

import pytest

from tidings import App, Key, Retry, event

KEYS = 200
BOUND = 600.0
"""Seconds within which each is tried again; nobody waits for them here."""
PARTS = 10


@event
class Asked:
    key: Key[str]


async def busiest(url: str) -> float:
    """The share of retries that are due in the busiest tenth of the time."""
    app = App(url, name="storm")

    @app.on(Asked, retry=Retry(initial=BOUND, maximum=BOUND))
    async def ask(asked: Asked) -> None:
        raise ConnectionRefusedError(asked.key)

    async with app:
        await app.publish(*(Asked(f"k-{number}") for number in range(KEYS)))
        running = asyncio.create_task(app.run())
        while len(waiting := await app.store.held(state="retry", limit=KEYS)) < KEYS:
            await asyncio.sleep(0.01)
        app.stop()
        await running
    first = min(held.due for held in waiting)
    parts = Counter(int((held.due - first) / 1_000_000 / BOUND * PARTS) for held in waiting)
    return max(parts.values()) / KEYS


@pytest.mark.parametrize("store", ["sqlite", "postgresql"])
async def test_g22_what_failed_together_is_not_tried_again_together(store, tmp_path, request):
    url = f"sqlite:{tmp_path}/storm.db" if store == "sqlite" else request.getfixturevalue("newest_postgres_url")
    assert await busiest(url) < 3 / PARTS
