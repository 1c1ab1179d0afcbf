"""`tidings topology`: what an app needs at its broker, shown, or as commands for those who make it themselves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tidings.ops.cli.face import click
from tidings.ops.cli.failures import NoTarget
from tidings.ops.cli.output import Output, output_option
from tidings.ops.cli.root import Suggesting
from tidings.ops.cli.target import Target, target_options

if TYPE_CHECKING:
    from tidings.core.ports import Broker

COLUMNS = {"kind": "kind", "name": "name", "settings": "settings"}


@click.group(cls=Suggesting)
def topology() -> None:
    """What an app needs at its broker: topics, queues, and what connects them."""


@topology.command()
@target_options
@output_option
@click.option("--broker", metavar="URL", help="Another broker than the app's.")
def show(*, target: Target, output: Output, broker: str | None) -> None:
    """List what must be there for the app to receive what its handlers take. Asks no server."""
    made, topics = _of(target, broker)
    rows = [
        {"kind": each.kind, "name": each.name, "settings": " ".join(map("=".join, each.settings.items()))}
        for each in made.topology(topics)
    ]
    output.rows(rows, COLUMNS, ids="name")


@topology.command()
@target_options
@click.option("--broker", metavar="URL", help="Another broker than the app's.")
def export(*, target: Target, broker: str | None) -> None:
    """Print the commands, or the template, that make it: kafka-topics, rabbitmqadmin, CloudFormation."""
    made, topics = _of(target, broker)
    print(made.export(topics).rstrip("\n"))


def _of(target: Target, url: str | None) -> tuple[Broker, Sequence[str]]:
    """The broker, not open, and what the app subscribes to."""
    from tidings.runtime.connect import make_broker
    from tidings.runtime.link import topics_of

    app = target.app()
    if url is None and app.broker is None:
        raise NoTarget(f"the app {app.name} has no broker", "say which: --broker kafka://localhost:9092")
    return make_broker(url or app.broker or "", app.name), topics_of(app.name, app.subscriptions())
