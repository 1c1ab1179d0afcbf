"""What the shape tests look at: the source files, and everything that is kept in the repository."""

import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / "tidings"
OUR_OWN = "tests/shape/"  # these tests name what they refuse


def modules() -> list[Path]:
    return sorted(SOURCE.rglob("*.py"))


@cache
def kept() -> tuple[str, ...]:
    """Paths of all kept files, from the root: what git tracks, or would."""
    git = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(git, capture_output=True, text=True, check=True).stdout
    return tuple(sorted(path for path in set(listed.split("\0")) if path and (ROOT / path).is_file()))


def texts() -> Iterator[tuple[str, str]]:
    """Path and text of every kept text file."""
    for path in kept():
        data = (ROOT / path).read_bytes()
        if b"\0" not in data and not path.startswith(OUR_OWN):
            yield path, data.decode()
