"""`tidings dead redrive` and `discard`: put dead letters back to work, or give them up."""

from __future__ import annotations

import asyncio
import difflib
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from tidings.errors import NotFound
from tidings.ops.cli.confirm import announce, confirm, mutation_options
from tidings.ops.cli.face import click
from tidings.ops.cli.failures import PARTLY, BadCommand
from tidings.ops.cli.output import Output, output_option
from tidings.ops.cli.progress import Progress
from tidings.ops.cli.target import Target, target_options
from tidings.ops.cli.text import plural

if TYPE_CHECKING:
    from tidings.core.ports import Store

F = TypeVar("F", bound=Callable[..., Any])

CHUNK = 1000
"""Dead letters changed in one transaction."""
LOOK = 0.5
"""Seconds between looks whether those put back died again."""


@dataclass(frozen=True)
class Choice:
    """Which dead letters are meant.

    Attributes:
        ids: By id; then nothing else is set.
        group: Full name of a group.
        key: A key.
        all: All of them.
    """

    ids: tuple[int, ...]
    group: str | None
    key: str | None
    all: bool

    def check(self) -> None:
        """Refuse a choice of nothing, and a contradictory one.

        Raises:
            BadCommand: Says how to choose.
        """
        by = [bool(self.ids), self.group is not None or self.key is not None, self.all]
        if sum(by) != 1:
            msg = "it is not clear which dead letters are meant" if any(by) else "no dead letters are chosen"
            raise BadCommand(msg, "give ids, or --key and --group, or --all")

    async def find(self, store: Store) -> list[int]:
        """Ids of those that are dead letters now.

        Raises:
            NotFound: None of the ids is.
        """
        from tidings.ops.survey import dead_ids

        if not self.ids:
            return await dead_ids(store, self.group, self.key)
        wanted = sorted(set(self.ids))
        found: list[int] = []
        for start in range(0, len(wanted), CHUNK):
            some = await store.held(ids=wanted[start : start + CHUNK], state="dead", limit=CHUNK)
            found.extend(one.id for one in some)
        if not found:
            msg = f"no dead letter {', '.join(map(str, wanted[:10]))}"
            raise NotFound(msg, "see `tidings dead ls`; they may have been redriven or discarded")
        return sorted(found)


def choice_options(command: F) -> F:
    """Give a command ids, `--key`, `--group` and `--all`."""
    ids = click.argument("ids", nargs=-1, type=click.IntRange(0, 2**63 - 1), metavar="[ID]...")
    by_key = click.option("--key", help="All of this key.")
    by_group = click.option("--group", help="All of this group.")
    everything = click.option("--all", "everything", is_flag=True, help="All dead letters.")
    return ids(by_key(by_group(everything(command))))


@click.command()
@target_options
@choice_options
@mutation_options
@output_option
@click.option("--rate", type=click.IntRange(1), metavar="N", help="At most N a second.")
@click.option(
    "--stop-after",
    type=click.IntRange(1),
    default=100,
    show_default=True,
    metavar="N",
    help="Stop when N of those put back have died again.",
)
def redrive(
    *,
    target: Target,
    ids: tuple[int, ...],
    key: str | None,
    group: str | None,
    everything: bool,
    yes: bool,
    dry_run: bool,
    output: Output,
    rate: int | None,
    stop_after: int,
) -> int:
    """Put dead letters back to work; their attempts count anew.

    What is parked behind them follows. A running worker takes them up at once.
    """
    choice = Choice(ids, group, key, everything)
    change = Change(discard=False, rate=rate, stop_after=stop_after)
    return _do(target, choice, change, output, yes=yes, dry_run=dry_run)


@click.command()
@target_options
@choice_options
@mutation_options
@output_option
def discard(
    *,
    target: Target,
    ids: tuple[int, ...],
    key: str | None,
    group: str | None,
    everything: bool,
    yes: bool,
    dry_run: bool,
    output: Output,
) -> int:
    """Give dead letters up for good; what is parked behind them then runs.

    The events stay in the log. What is lost is the delivery: the group will never handle them.
    """
    return _do(target, Choice(ids, group, key, everything), Change(discard=True), output, yes=yes, dry_run=dry_run)


@dataclass(frozen=True)
class Change:
    """What is done to dead letters.

    Attributes:
        discard: True gives them up; False puts them back to work.
        rate: At most this many a second, or None.
        stop_after: Stop when this many died again.
    """

    discard: bool
    rate: int | None = None
    stop_after: int = 100

    async def apply(self, store: Store, ids: Sequence[int], choice: Choice, progress: Progress) -> tuple[int, int]:
        """Change them chunk by chunk; returns how many were changed, and how many of them died again meanwhile."""
        from tidings.core.operations import Redrive
        from tidings.ops.survey import dead_up_to

        size = min(CHUNK, self.rate or CHUNK)
        changed = again = 0
        looked = time.monotonic()
        try:
            for start in range(0, len(ids), size):
                if start and self.rate:
                    await asyncio.sleep(size / self.rate)
                chunk = ids[start : start + size]
                changed += await store.write(Redrive(chunk, discard=self.discard))
                progress.update(min(start + size, len(ids)))
                if not self.discard and not choice.ids and time.monotonic() - looked > LOOK:
                    looked = time.monotonic()
                    again = await dead_up_to(store, chunk[-1], choice.group, choice.key)
                    if again >= self.stop_after:
                        break
        except asyncio.CancelledError:
            print(f"stopped after {changed:,} of {len(ids):,}; run it again for the rest", file=sys.stderr)
            raise
        return changed, again


def _do(target: Target, choice: Choice, change: Change, output: Output, *, yes: bool, dry_run: bool) -> int:
    choice.check()
    verb, done = ("discard", "discarded") if change.discard else ("redrive", "redriven")

    async def look(store: Store) -> tuple[Choice, list[int]]:
        chosen = Choice(choice.ids, await known_group(store, choice.group), choice.key, choice.all)
        ids = await chosen.find(store)
        announce(await _plan(store, chosen, ids, change))
        return chosen, ids

    async def apply(store: Store) -> tuple[int, int]:
        with Progress(verb, len(ids), "letter") as progress:
            return await change.apply(store, ids, chosen, progress)

    chosen, ids = target.on_store(look)
    missing = sorted(set(choice.ids) - set(ids))
    changed = again = 0
    if ids and not dry_run:
        confirm(f"{verb} {plural(len(ids), 'dead letter')}?", yes=yes)
        changed, again = target.on_store(apply)
    if missing:
        output.warn(f"not dead letters: {', '.join(map(str, missing[:20]))}")
    if again:
        output.warn(f"{plural(again, 'dead letter')} died again; correct the handler, see `tidings dead ls`")
    data = {"matched": len(ids), done: changed, "died_again": again, "missing": missing, "dry_run": dry_run}
    said = f"{len(ids):,} would be {done}" if dry_run else f"{changed:,} of {plural(len(ids), 'dead letter')} {done}"
    if output.form == "ids":
        print("\n".join(map(str, ids)))
    else:
        output.thing(data, [said], ids=done)
    return PARTLY if missing or again or (changed < len(ids) and not dry_run) else 0


async def _plan(store: Store, choice: Choice, ids: Sequence[int], change: Change) -> list[str]:
    if not ids:
        return ["no dead letters fit"]
    if choice.ids:
        held = await store.held(ids=ids[:CHUNK], limit=CHUNK)
        return [f"  {one.id}: {one.group}: {one.envelope.type} {one.envelope.id}: {one.reason}" for one in held[:20]]
    from tidings.ops.survey import dead_by_group

    groups = await dead_by_group(store, choice.group, choice.key)
    fate = "will never be handled" if change.discard else "will be tried again"
    return [f"  {name}: {plural(count, 'dead letter')} {fate}" for name, count in groups.items()]


async def known_group(store: Store, name: str | None) -> str | None:
    """The full name of a group given in full or without its app's name.

    Raises:
        NotFound: There is no such group; with the nearest there is.
    """
    if name is None:
        return None
    groups = [backlog.group for backlog in await store.backlog()]
    found = [group for group in groups if group == name] or [group for group in groups if group.endswith(f".{name}")]
    if len(found) == 1:
        return found[0]
    if found:
        msg = f"{name} may be any of {', '.join(found)}"
        raise BadCommand(msg, "give the full name")
    near = difflib.get_close_matches(name, groups, 1)
    msg = f"there is no group {name}"
    raise NotFound(msg, f"did you mean {near[0]}?" if near else "see `tidings status` for the groups of this store")
