"""The owner of the names: publishes the whole record of every carrier and airport, for whoever keeps a replica."""

from __future__ import annotations

import asyncio
import json
from importlib.resources import files

from tidings import App
from tidings.demo.messages import Airport, Carrier


async def publish_names(app: App) -> None:
    """Publish the edition of names that came with this code; one that was published before changes nothing."""
    facts = json.loads((files("tidings.demo") / "data" / "names.json").read_text("utf-8"))
    carriers = [Carrier(code, name) for code, name in facts["carriers"].items()]
    airports = [Airport(code, name, city) for code, (name, city) in facts["airports"].items()]
    edition = facts["edition"]
    await asyncio.gather(
        *(app.publish(carrier, id=f"carrier/{carrier.code}/{edition}") for carrier in carriers),
        *(app.publish(airport, id=f"airport/{airport.code}/{edition}") for airport in airports),
    )
