"""An app that answers requests, in a process of its own that may be killed in the middle of it.

`python -m tests.scenarios.brokers.answering STORE BROKER WHEN`: WHEN is "during" the handler, "after" its commit while
the answer is still in the log, or "never".
"""

import asyncio
import os
import signal
import sys

from tests.scenarios.runtime.messages import AskPrice, Price
from tidings import App, Transaction
from tidings.core.envelope import Envelope
from tidings.runtime.outbound import Outbound


def prices(store: str, broker: str, when: str = "never") -> App:
    """The app that answers."""
    app = App(store, broker=broker, name="prices")

    @app.on(AskPrice)
    async def tell(ask: AskPrice, tx: Transaction) -> Price:
        await tx.execute("CREATE TABLE IF NOT EXISTS asked (item TEXT)")
        await tx.execute("INSERT INTO asked VALUES (?)", ask.item)
        if when == "during":
            die()
        return Price(ask.item, 7)

    return app


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


async def main(store: str, broker: str, when: str) -> None:
    """Answer, or die of it."""
    app = prices(store, broker, when)
    if when == "after":

        async def carry(self: Outbound, envelope: Envelope) -> None:
            if envelope.type == "tidings.answer":
                die()

        Outbound._publish = carry
    await app.run()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
