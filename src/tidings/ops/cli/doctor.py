"""`tidings doctor`: check everything, and say for each finding what to do."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING

from tidings.core.check import Check
from tidings.core.url import parse_url
from tidings.errors import BrokerError, TidingsError
from tidings.ops.cli.face import click
from tidings.ops.cli.failures import CHECK_FAILED
from tidings.ops.cli.output import Output, output_option
from tidings.ops.cli.progress import busy
from tidings.ops.cli.target import Target, find_app, target_options
from tidings.ops.doctor import groups, log, machine
from tidings.stores.sqlite.checkup import library

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tidings.core.guarantees import Guarantees
    from tidings.core.ports import Broker, Store
    from tidings.runtime.app import App

COLUMNS = {"check": "check", "verdict": "verdict", "found": "found", "fix": "fix"}


@click.command()
@target_options
@output_option
@click.option("--broker", metavar="URL", help="Check this broker; the app's, if it has one and this is not given.")
@click.option("--deep", is_flag=True, help="Also read all that is in the store.")
def doctor(*, target: Target, output: Output, broker: str | None, deep: bool) -> int:
    """Check the machine, the store, the broker and the app, and say what to do.

    Exits with 5 when a check failed. Warnings deserve a look, but no promise is broken.
    """
    checks = list(machine())
    is_alone = target.spec is None and target.url is None and find_app() is None
    if not is_alone:
        try:
            checks += _store(target, deep=deep)
        except TidingsError as error:
            checks.append(Check("store" if target.url else "app", "fail", error.what, error.cure))
    elif broker is None:
        nothing = "no app and no store here; only the machine was checked"
        checks += [library(), Check("store", "warn", nothing, "give --app or --store")]
    try:
        checks += _broker(None if is_alone or target.url else target.app(), broker)
    except TidingsError as error:
        checks.append(Check("broker", "fail", error.what, error.cure))
    rows = [{"check": each.name, "verdict": each.verdict, "found": each.found, "fix": each.fix} for each in checks]
    output.rows(rows, COLUMNS, ids="check")
    return CHECK_FAILED if any(each.verdict == "fail" for each in checks) else 0


def _broker(app: App | None, url: str | None) -> list[Check]:
    """What can be seen of the broker that is given, or of the app's."""
    from tidings.runtime.connect import make_broker

    place = url or (app and app.broker)
    if not place:
        return []
    made = make_broker(place, app.name if app else "doctor")
    return [Check("broker", "ok", f"{made.url}: {_promises(made.guarantees)}"), *made.look(), *_claims(place, made)]


def _claims(url: str, broker: Broker) -> Iterator[Check]:
    from tidings.runtime.connect import make_claims

    claims = make_claims(url, broker)
    if claims is None:
        return
    try:
        claims.place.check()
        yield Check("claims", "ok", f"data of more than {claims.over:,} bytes go to {claims.place.url}")
    except BrokerError as error:
        yield Check("claims", "fail", error.what, error.cure)


def _promises(given: Guarantees) -> str:
    order = "messages of one key in order" if given.ordered else "no order"
    history = "history is kept" if given.history else "no history: subscribe before you publish"
    return f"{order}; {history}; at most {given.max_bytes:,} bytes"


def _store(target: Target, *, deep: bool) -> list[Check]:
    from tidings.runtime.connect import make_store

    app: App | None = None
    if target.url is None:
        app = target.app()
        app.subscriptions()  # says which handler cannot be called
    url = target.store_url()
    checks = [Check("store", "ok", parse_url(url).safe), *make_store(url).look()]
    if any(each.verdict == "fail" and each.name != "disk" for each in checks):
        return checks  # opening it would fail, or wait for ever

    async def inside(store: Store) -> list[Check]:
        return [*await store.inspect(deep=deep), *await log(store), *await groups(store, app)]

    with busy("reading all that is in the store") if deep else nullcontext():
        return checks + target.on_store(inside)
