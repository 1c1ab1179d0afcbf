"""What the servers are made of: fetched once by the ordinary tools, and kept in the user's cache."""

import contextlib
import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path


class Missing(Exception):
    """A server cannot be had here.

    Args:
        reason: Why.
        cure: The command that would bring it.
    """

    def __init__(self, reason: str, cure: str) -> None:
        super().__init__(f"{reason}: {cure}")


def kept(name: str, fetch: Callable[[Path], None], *, within: Path | None = None) -> Path:
    """The folder of that name in the cache, filled at the first time.

    Args:
        name: With everything in it that decides what `fetch` brings.
        fetch: Fills an empty folder.
        within: The cache, if not the user's.

    Raises:
        Missing: It is not there, and nothing may be fetched, or could be.
    """
    home = within or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tidings"
    folder, complete = home / name, home / name / ".complete"
    home.mkdir(parents=True, exist_ok=True)
    with (home / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # several runs may need it at the same time
        if not complete.exists():
            if os.environ.get("NO_INSTALL") == "1":
                raise Missing(f"{name} is not in {home}, and NO_INSTALL=1 forbids to fetch it", "unset NO_INSTALL")
            print(f"fetching {name} into {folder}, once", file=sys.stderr)
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            fetch(folder)
            complete.touch()
    return folder


def fetch_with(*command: object, cwd: Path | None = None) -> str:
    """Run a tool that fetches something; what it said.

    Raises:
        Missing: It failed.
    """
    words = [str(word) for word in command]
    with contextlib.suppress(FileNotFoundError):
        done = subprocess.run(
            words, cwd=cwd, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=600, check=False
        )
        if done.returncode == 0:
            return done.stdout
        said = (done.stdout + done.stderr).strip()[-1000:]
        raise Missing(f"fetching failed\n{said}\n", " ".join(words))
    raise Missing(f"there is no {words[0]} on this machine", f"apt-get install {words[0]}")


def jars(name: str, pom: Path, *settings: str) -> Path:
    """A folder with the jars of a Maven project's dependencies, from wherever Maven is told to find them.

    Args:
        name: With the versions in it.
        pom: The project.
        settings: Values of its properties, as `name=value`.
    """

    def fetch(folder: Path) -> None:
        goal = ("dependency:copy-dependencies", "-DincludeScope=runtime", f"-DoutputDirectory={folder}")
        fetch_with("mvn", "-B", "-q", "-f", pom, *goal, *(f"-D{setting}" for setting in settings))

    return kept(name, fetch)


def environment(name: str, *packages: str) -> Path:
    """The programs of Python packages in an environment of their own, so that their pins are not ours."""

    def fetch(folder: Path) -> None:
        fetch_with(sys.executable, "-m", "venv", "--without-pip", folder)
        pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", folder / "bin" / "python")
        fetch_with(*pip, "install", "--quiet", *packages)

    return kept(name, fetch) / "bin"
