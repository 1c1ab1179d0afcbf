"""A shop with a history: three orders, one of which nobody could mail a receipt for."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.scenarios.cli.terminal import settings

SHOP = Path(__file__).parent / "shop"
PLACE = """
import asyncio, sys
from app import app, OrderPlaced
async def main():
    async with app:
        for name in sys.argv[1:]:
            await app.publish(OrderPlaced(name, f"{name}@example.com", 10))
asyncio.run(main())
"""
WORK = "import asyncio, app; asyncio.run(app.app.run(until_idle=True))"


def python(code: str, *arguments: str, cwd: Path) -> None:
    """Run some code of the shop's owner."""
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, cwd=cwd, env=settings(), check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def place(*names: str, cwd: Path) -> None:
    """Place orders."""
    python(PLACE, *names, cwd=cwd)


def work(cwd: Path) -> None:
    """Handle all that can be handled."""
    python(WORK, cwd=cwd)


def open_shop(folder: Path) -> Path:
    """A shop that has not sold anything yet, in a folder of this name."""
    shutil.copytree(SHOP, folder, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


@pytest.fixture
def new_shop(tmp_path: Path) -> Path:
    """A shop that has not sold anything yet."""
    return open_shop(tmp_path / "shop")


@pytest.fixture(scope="session")
def grown_shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = open_shop(tmp_path_factory.mktemp("grown") / "shop")
    (folder / "broken").touch()
    place("ada", "bad", "bob", cwd=folder)
    work(folder)
    (folder / "broken").unlink()
    return folder


@pytest.fixture
def shop(grown_shop: Path, tmp_path: Path) -> Path:
    """A shop whose events 1 to 3 are orders; delivery 1, of the second, is a dead letter. Its handler is mended."""
    return shutil.copytree(grown_shop, tmp_path / "shop")
