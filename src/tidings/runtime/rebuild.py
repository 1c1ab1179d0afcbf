"""Rebuilding a projection or replica: drop its tables, run history through it again, report how far it is."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from tidings.core.operations import Rewind
from tidings.errors import NotFound
from tidings.runtime.transaction import OPEN, check_free
from tidings.runtime.worker import Worker

if TYPE_CHECKING:
    from tidings.runtime.app import App


async def rebuild(app: App, name: str, progress: Callable[[int, int], None] | None) -> None:
    """See `App.rebuild`. Workers of the app may run meanwhile: their leases end with the rewind."""
    for subscription in app.subscriptions():
        if subscription.group == name and subscription.schema is not None:
            break
    else:
        known = [each.group for each in app.subscriptions() if each.schema is not None]
        msg = f"the app {app.name} has no projection or replica {name!r}"
        raise NotFound(msg, f"it has: {', '.join(known) or 'none'}")
    store, group = app.store, f"{app.name}.{name}"
    check_free(store, "rebuild", OPEN.get())
    seeded = subscription.bootstrap is not None
    await store.write(Rewind(group, subscription.schema or "", subscription.fingerprint, seeded))
    total = await store.head()
    worker: Worker = app.worker(only=name)
    await worker.start()
    failing = asyncio.create_task(worker.wait())
    try:
        while not await worker.pumps[0].finished(total) or await store.seeding(group) is not None:
            if progress is not None:
                progress(min(total, await store.checkpoint(group)), total)
            await asyncio.wait((failing,), timeout=0.02)
            if failing.done():
                failing.result()  # nothing else stops this worker
    finally:
        failing.cancel()
        await worker.drain(app.drain)
    if progress is not None:
        progress(total, total)
