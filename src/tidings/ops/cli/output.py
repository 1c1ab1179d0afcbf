"""What a command prints on stdout: a table for people, TSV for pipes, JSON for programs, ids for other commands."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, TypeVar

from tidings.ops.cli.face import click
from tidings.ops.cli.text import one_line, safe_json

Form = Literal["table", "json", "ndjson", "ids"]
Row = Mapping[str, Any]
F = TypeVar("F", bound=Callable[..., Any])


class Output:
    """Prints data on stdout in the form that was asked for, and warnings on stderr.

    Without a form it is a table on a terminal, and elsewhere lines of tab-separated values below one line of names.
    """

    def __init__(self, form: Form | None = None) -> None:
        self.form = form
        self._warnings: list[str] = []

    def warn(self, text: str) -> None:
        """Say something that does not stop the command; JSON carries it in its envelope."""
        self._warnings.append(text)
        print(f"warning: {one_line(text, 1000)}", file=sys.stderr)

    def rows(self, rows: Sequence[Row], columns: Mapping[str, str], *, ids: str, empty: str = "") -> None:
        """Print many things.

        Args:
            rows: In the order to print; JSON shows every entry of a row.
            columns: Entry -> title of the columns of the table.
            ids: The entry printed by `-o ids`.
            empty: What to say on stderr when there is none.
        """
        if self.form == "json":
            self.data(rows)
        elif self.form in ("ndjson", "ids"):
            for row in rows:
                self.row(row, columns, ids=ids)
        elif self.form == "table" or _is_terminal():
            _print_table(rows, columns)
        else:
            self.names(columns)
            for row in rows:
                self.row(row, columns, ids=ids)
        if not rows and empty and self.form is None:
            print(empty, file=sys.stderr)

    def names(self, columns: Mapping[str, str]) -> None:
        """Print the names of the columns where the form has such a line."""
        if self.form is None and not _is_terminal():
            print("\t".join(columns.values()), flush=True)  # before whatever follows on stderr

    def row(self, row: Row, columns: Mapping[str, str], *, ids: str) -> None:
        """Print one thing on one line and flush it, so that a reader of a stream sees it at once."""
        if self.form in ("json", "ndjson"):
            line = _json(row)
        elif self.form == "ids":
            line = one_line(row[ids])
        else:
            gap = "  " if _is_terminal() else "\t"
            line = gap.join(_cell(row[name]) for name in columns)
        print(line, flush=True)

    def data(self, data: object, *, ok: bool = True, error: Row | None = None) -> None:
        """Print the JSON envelope around some data."""
        envelope: dict[str, object] = {"ok": ok, "data": data, "warnings": self._warnings, "version": 1}
        if error is not None:
            envelope["error"] = error
        print(_json(envelope, indent=2 if _is_terminal() else -1))

    def thing(self, data: Row, text: Iterable[str], *, ids: str) -> None:
        """Print one thing: as JSON, its id, or as lines of text written for people."""
        if self.form == "json":
            self.data(data)
        elif self.form in ("ndjson", "ids"):
            self.row(data, {}, ids=ids)
        else:
            for line in text:
                print(line)


def output_option(command: F) -> F:
    """Give a command `-o`; its function takes `output: Output`."""
    return click.option(
        "-o",
        "--output",
        type=click.Choice(["table", "json", "ndjson", "ids"]),
        is_eager=True,  # so that errors in other options are told in this form, too
        callback=_asked,
        help="Form of the data on stdout; by default a table on a terminal and TSV elsewhere.",
    )(command)


def _asked(context: click.Context, _option: click.Parameter, form: Form | None) -> Output:
    context.obj["form"] = form  # read where errors are told
    return Output(form)


def _is_terminal() -> bool:
    return sys.stdout is not None and sys.stdout.isatty()


def _json(value: object, indent: int = -1) -> str:
    import msgspec

    text = msgspec.json.format(msgspec.json.encode(value), indent=indent).decode()
    return safe_json(text, ascii_only=(sys.stdout.encoding or "").lower().replace("-", "") != "utf8")


def _cell(value: object) -> str:
    import msgspec

    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.1f}"
    if isinstance(value, Mapping):
        return one_line(" ".join(f"{key}={_cell(item)}" for key, item in value.items()))
    return one_line(bytes(value).decode(errors="replace") if isinstance(value, msgspec.Raw) else str(value))


def _print_table(rows: Sequence[Row], columns: Mapping[str, str]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="bold")
    for name, title in columns.items():
        numbers = bool(rows) and all(isinstance(row[name], int | float) for row in rows)
        table.add_column(title, justify="right" if numbers else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(_cell(row[name])) for name in columns))
    Console(highlight=False).print(table)
