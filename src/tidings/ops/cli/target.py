"""Which app or store a command is about: `--app`, TIDINGS_APP, pyproject.toml, ./app.py; or `--store`."""

from __future__ import annotations

import asyncio
import os
import re
import tomllib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from tidings.errors import NotFound
from tidings.ops.cli.face import click
from tidings.ops.cli.failures import BadCommand, NoTarget

if TYPE_CHECKING:
    from tidings.core.ports import Store
    from tidings.runtime.app import App

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class Target:
    """An app, a store, or both undecided until a command needs one.

    Attributes:
        spec: What `--app` says: MODULE:APP, or None.
        url: What `--store` says, or None.
    """

    spec: str | None = None
    url: str | None = None

    def app_spec(self) -> str:
        """MODULE:APP of the app: as given, or found around here.

        Raises:
            NoTarget: There is none.
            BadCommand: A place that should name it holds something else.
        """
        if self.spec is not None:
            return self.spec
        found = find_app()
        if found is None:
            msg = f"no app: neither --app nor TIDINGS_APP nor pyproject.toml nor app.py in {Path.cwd()} names one"
            raise NoTarget(msg, "say which: --app shop:app or --store sqlite:shop.db; or make one: tidings new shop")
        return found

    def app(self) -> App:
        """The app itself, imported."""
        from tidings.ops.cli.load import load_app

        return load_app(self.app_spec())

    def store_url(self) -> str:
        """The store's URL: as given, or the app's.

        Raises:
            NotFound: It is a file that does not exist.
            BadCommand: It is a store in memory, which only its own process can see.
        """
        url = self.url if self.url is not None else self.app().url
        path = _check_place(url)
        if path and not Path(path).exists():
            msg = f"no store at {Path(path).absolute()}"
            raise NotFound(msg, _CURE)
        return url

    def new_store(self) -> Store:
        """The store, not opened; it need not be there."""
        from tidings.runtime.connect import make_store

        url = self.url if self.url is not None else self.app().url
        _check_place(url)
        return make_store(url)

    def on_store(self, work: Callable[[Store], Awaitable[T]]) -> T:
        """Open the store, do the work with it, close it.

        Raises:
            NotFound: There is none; commands that look at one never make it.
        """
        url = self.store_url()

        async def main() -> T:
            from tidings.runtime.connect import make_store

            store = make_store(url)
            _check_exists(store)
            await store.open()
            try:
                return await work(store)
            finally:
                await store.close()

        return asyncio.run(main())


def target_options(command: F) -> F:
    """Give a command `--app` and `--store`; its function takes `target: Target`."""

    def decide(context: click.Context, _option: click.Parameter, url: str | None) -> Target:
        spec = context.params.pop("app", None)
        if spec is not None and url is not None:
            msg = "both --app and --store are given"
            raise BadCommand(msg, "give one of them; the app knows its store")
        return Target(clean(spec, "--app"), clean(url, "--store"))

    with_store = click.option(
        "--store", "target", metavar="URL", callback=decide, help="The store: sqlite:shop.db, postgresql://..."
    )
    with_app = click.option("--app", metavar="MODULE:APP", is_eager=True, help="The app, if not found by itself.")
    return with_app(with_store(command))


def clean(value: str | None, name: str) -> str | None:
    """A value as it was meant: without surrounding blanks, and None when nothing is left.

    Raises:
        BadCommand: It is in quotes, which a shell should have taken away.
    """
    value = (value or "").strip()
    if value[:1] in ("'", '"'):
        msg = f"{name} is {value}, with the quotes as part of it"
        raise BadCommand(msg, f"write it without them: {value.strip(value[0])}")
    return value or None


def find_app() -> str | None:
    """MODULE:APP found in the environment or the current folder, or None."""
    named = clean(os.environ.get("TIDINGS_APP"), "TIDINGS_APP") or _from_pyproject()
    if named is not None:
        return named
    return "app:app" if Path("app.py").is_file() else None


def _from_pyproject() -> str | None:
    path = Path("pyproject.toml")
    if not path.is_file():
        return None
    try:
        tidings = tomllib.loads(path.read_text(encoding="utf-8")).get("tool", {}).get("tidings", {})
    except tomllib.TOMLDecodeError as error:
        where = re.search(r"\(at line (\d+), column (\d+)\)", str(error))
        place = f":{where[1]}:{where[2]}" if where else ""
        msg = f"{path}{place} is not TOML"
        raise BadCommand(msg, "correct that line, or say --app MODULE:APP") from error
    except UnicodeDecodeError as error:
        msg = f"{path} is not UTF-8"
        raise BadCommand(msg, "save it as UTF-8, or say --app MODULE:APP") from error
    named = tidings.get("app") if isinstance(tidings, dict) else None
    if named is None:
        return None
    if not isinstance(named, str):
        msg = f"app in [tool.tidings] of {path} is {named!r}"
        raise BadCommand(msg, 'write it as text: app = "shop:app"')
    return clean(named, f"app in [tool.tidings] of {path}")


_CURE = "start the app once, or check the path; a command that reads never makes a store"


def _check_place(url: str) -> str:
    """The path of a store in a file, "" of another one."""
    from tidings.core.url import parse_url

    parsed = parse_url(url)
    if parsed.scheme != "sqlite":
        return ""
    if not parsed.path:
        msg = f"{parsed.safe} lives in the memory of one process; there is nothing to look at from here"
        raise BadCommand(msg, "use a file: sqlite:shop.db")
    return parsed.path


def _check_exists(store: Store) -> None:
    from tidings.core.url import parse_url

    if not store.schema().version:
        msg = f"no store at {parse_url(store.url).safe}"
        raise NotFound(msg, _CURE)
