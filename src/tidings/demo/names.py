"""The owner of the names: publishes the whole record of every carrier and airport, for whoever keeps a replica."""

from __future__ import annotations

import asyncio
import json
from importlib.resources import files

from tidings import App
from tidings.demo.messages import Airport, Carrier


async def publish_names(app: App) -> None:
    """Publish all names. The ids make it one message each, however often it is published."""
    facts = json.loads((files("tidings.demo") / "data" / "names.json").read_text("utf-8"))
    records: list[Carrier | Airport] = [
        *(Carrier(code, name) for code, name in facts["carriers"].items()),
        *(Airport(code, name, city) for code, (name, city) in facts["airports"].items()),
    ]
    await asyncio.gather(*(app.publish(record, id=f"{record.code}/{type(record).__name__}/2013") for record in records))
