"""The root of the command line: what commands there are, and where each is found."""

from __future__ import annotations

import difflib
from importlib import import_module
from typing import TYPE_CHECKING

from tidings.ops.cli.face import Command, Group, click
from tidings.ops.cli.failures import BadCommand

if TYPE_CHECKING:
    from collections.abc import Mapping

COMMANDS: Mapping[str, tuple[str, str]] = {
    "new": ("tidings.ops.cli.new:new", "Make a folder with an app that runs and a test that passes."),
    "run": ("tidings.ops.cli.run:run", "Run the handlers of an app."),
    "demo": ("tidings.demo.main:demo", "Two days of real flights through every part of tidings."),
    "status": ("tidings.ops.cli.status:status", "How the groups of an app stand: lag, retries, dead letters."),
    "tail": ("tidings.ops.cli.tail:tail", "Show events as they come."),
    "events": ("tidings.ops.cli.events:events", "List, show and trace events."),
    "dead": ("tidings.ops.cli.dead:dead", "List, show, redrive and discard dead letters."),
    "projection": ("tidings.ops.cli.projection:projection", "List and rebuild projections."),
    "groups": ("tidings.ops.cli.groups:groups", "Repair groups that have finished more than the log holds."),
    "migrate": ("tidings.ops.cli.migrate:migrate", "Show or change the version of a store's schema."),
    "topology": ("tidings.ops.cli.topology:topology", "What an app needs at its broker."),
    "doctor": ("tidings.ops.cli.doctor:doctor", "Check the machine and the store, and say what to do."),
}
"""Name -> where the command is declared and what it does. Known without importing it, so that help is quick."""


class Suggesting(Group):
    """A group of commands that answers an unknown one with the nearest it has."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Name, command and remaining arguments.

        Raises:
            BadCommand: There is no such command.
        """
        known = self.list_commands(ctx)
        if args[0] not in known:
            near = difflib.get_close_matches(args[0], known, 1, 0.5)
            cure = f"did you mean `{ctx.command_path} {near[0]}`?" if near else f"there are {', '.join(known)}"
            msg = f"{ctx.command_path} has no command {args[0]}"
            raise BadCommand(msg, cure)
        return super().resolve_command(ctx, args)


class Root(Suggesting):
    """Imports a command when it is called; of the others it knows the name and one line."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - the interface of click
        """Names of all commands, in the order in which one meets them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - as above
        """Name and line of a command, for a list of them."""
        return Command(cmd_name, help=COMMANDS[cmd_name][1]) if cmd_name in COMMANDS else None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Name, command and remaining arguments; imports the command."""
        name, _line, rest = super().resolve_command(ctx, args)
        module, _colon, attribute = COMMANDS[args[0]][0].partition(":")
        return name, getattr(import_module(module), attribute), rest


@click.group(cls=Root, invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="tidings", message="%(prog)s %(version)s")
@click.pass_context
def tidings(context: click.Context) -> None:
    """Event-driven systems in Python, from one SQLite file to a cluster.

    Without a command: how the app of this folder stands, and what to do next.
    """
    if context.invoked_subcommand is None:
        from tidings.ops.cli.status import show_overview

        show_overview(context)
