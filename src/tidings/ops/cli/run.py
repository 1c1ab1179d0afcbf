"""`tidings run`: work on what is published, in this process or in several."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from tidings.core.retry import seconds
from tidings.core.url import parse_url
from tidings.ops.cli.face import click
from tidings.ops.cli.failures import INTERRUPTED, TERMINATED
from tidings.ops.cli.lifeline import lifeline, stop_signals
from tidings.ops.cli.load import load_app
from tidings.ops.cli.loglines import start_logging
from tidings.ops.cli.target import Target, clean
from tidings.ops.cli.text import plural

if TYPE_CHECKING:
    from tidings.runtime.app import App
    from tidings.runtime.worker import Worker

log = logging.getLogger("tidings")


@click.command()
@click.argument("spec", metavar="[MODULE:APP]", required=False)
@click.option("--workers", type=click.IntRange(1, 256), default=1, show_default=True, help="Processes to work in.")
@click.option("--drain", type=click.FloatRange(0, 86_400), metavar="SECONDS", help="How long handlers may take to end.")
@click.option("-v", "--verbose", is_flag=True, help="Log more.")
def run(*, spec: str | None, workers: int, drain: float | None, verbose: bool) -> int:
    """Run the handlers of an app until Ctrl-C or SIGTERM.

    Then it drains: handlers at work may end, nothing new is taken. A second Ctrl-C aborts them; what was not finished
    comes again. MODULE:APP is imported from the current folder; without it the app of this folder runs.
    """
    spec = Target(clean(spec, "MODULE:APP")).app_spec()
    drain = None if drain is None else seconds(drain, "--drain")  # click takes NaN for a number in any range
    if workers > 1:
        from tidings.ops.cli.workers import Workers

        start_logging(verbose=verbose)
        program = click.get_current_context().obj["program"]
        return asyncio.run(Workers([*program, "run", spec], workers, drain, verbose=verbose).run())
    app = load_app(spec)
    start_logging(verbose=verbose)
    asyncio.run(Run(app, app.drain if drain is None else drain).run())
    return 0


class Run:
    """One app at work in this process, until a signal ends it.

    Args:
        app: The app.
        drain: Seconds that handlers may take to end.
    """

    def __init__(self, app: App, drain: float) -> None:
        self._app = app
        self._drain = drain
        self._stopped_by: signal.Signals | None = None
        self._aborted = asyncio.Event()

    async def run(self) -> None:
        """Work until stopped. Where deliveries were cut short the process ends here, with the code of the signal."""
        cut = 0
        async with self._app as app:
            worker = app.worker()
            with self._signals(worker), lifeline(worker, self._drain) as ready:
                try:
                    await worker.start()
                    ready()
                    log.info("%s works on %s: %s", app.name, parse_url(app.url).safe, _groups(worker))
                    await worker.wait()
                finally:
                    cut = await self._stop(worker)
        if cut:  # a handler that will not end must not keep the process: leave without waiting for it
            logging.shutdown()
            sys.stdout.flush()
            os._exit(INTERRUPTED if self._stopped_by == signal.SIGINT else TERMINATED)

    async def _stop(self, worker: Worker) -> int:
        """Drain, but no longer when asked a second time; returns how many deliveries were cut short."""
        draining = asyncio.ensure_future(worker.drain(self._drain))
        aborted = asyncio.ensure_future(self._aborted.wait())
        await asyncio.wait([draining, aborted], return_when=asyncio.FIRST_COMPLETED)
        aborted.cancel()
        if draining.done():
            if error := draining.exception():  # what went wrong first is on its way already, or this is it
                log.error("the drain failed: %s", error)
                return 1
            cut, how = draining.result(), f"after {self._drain:g} s"
        else:
            draining.cancel()
            await asyncio.wait([draining])
            cut, how = await worker.drain(0.0), "at once"
        if cut:
            log.warning("%s cut short %s, to come again", plural(cut, "delivery", "deliveries"), how)
        elif self._stopped_by is not None:
            log.info("drained; nothing was left unfinished")
        return cut

    @contextlib.contextmanager
    def _signals(self, worker: Worker) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        numbers = stop_signals()

        def stop(number: signal.Signals) -> None:
            if self._stopped_by is None:
                self._stopped_by = number
                log.info("%s: draining for up to %g s; once more aborts", number.name, self._drain)
                worker.stop()
            elif not self._aborted.is_set():
                self._aborted.set()
            else:  # a handler that will not be cancelled: leave as kill -9 would, which loses nothing either
                os._exit(INTERRUPTED if number == signal.SIGINT else TERMINATED)

        for number in numbers:
            loop.add_signal_handler(number, stop, number)
        try:
            yield
        finally:
            for number in numbers:
                loop.remove_signal_handler(number)


def _groups(worker: Worker) -> str:
    names = [pump.subscription.group for pump in worker.pumps]
    return ", ".join(names) or "no handlers; only timers and the outbox"
