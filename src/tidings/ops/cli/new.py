"""`tidings new`: a folder with an app that runs and a test that passes."""

from __future__ import annotations

import re
import sys
import tempfile
from importlib.resources import files
from pathlib import Path

from tidings.ops.cli.face import click
from tidings.ops.cli.failures import BadCommand, Exists
from tidings.ops.cli.output import Output, output_option

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,49}")
_RESERVED = {"tidings"}  # a project of that name could not depend on tidings

FILES = {
    "app.py": "app.py.txt",
    "tests/test_app.py": "tests/test_app.py.txt",
    "pyproject.toml": "pyproject.toml.txt",
    "README.md": "README.md.txt",
    ".gitignore": "gitignore.txt",
}
"""Path in the new folder -> its template beside this file. NAME in a template becomes the name."""


@click.command()
@click.argument("name")
@click.option("--dry-run", is_flag=True, help="Only say what would be made.")
@output_option
def new(*, name: str, dry_run: bool, output: Output) -> None:
    """Make a folder NAME with an app that runs and a test that passes."""
    if not _NAME.fullmatch(name) or name.lower() in _RESERVED:
        msg = f"{name or 'nothing'} cannot be the name of a project"
        raise BadCommand(msg, "use up to 50 letters, digits, - and _, a letter first, and no path; not tidings itself")
    folder = Path(name)
    if folder.is_symlink() or (folder.exists() and not (folder.is_dir() and not any(folder.iterdir()))):
        what = "is a folder with something in it" if folder.is_dir() else "exists and is no folder"
        msg = f"{folder.absolute()} {what}"
        raise Exists(msg, "choose another name, or move it away; nothing was changed")
    if not dry_run:
        _make(folder)
    made = [f"{name}/{path}" for path in FILES]
    thing = {"name": name, "folder": str(folder.absolute()), "files": made, "dry_run": dry_run}
    output.thing(thing, made, ids="folder")
    if output.form is None:
        next_ = "nothing was made" if dry_run else f"next: cd {name} && python app.py && tidings run"
        print(next_, file=sys.stderr)


def _make(folder: Path) -> None:
    name = folder.name
    templates = files("tidings.ops.cli") / "scaffold"
    with tempfile.TemporaryDirectory(prefix=f".{name}-", dir=".") as made:  # moved when complete: all or nothing
        whole = Path(made) / name
        for path, template in FILES.items():
            (whole / path).parent.mkdir(parents=True, exist_ok=True)
            (whole / path).write_text((templates / template).read_text("utf-8").replace("NAME", name), "utf-8")
        whole.rename(folder)
