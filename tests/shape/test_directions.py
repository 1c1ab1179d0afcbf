"""The import contracts and the bans can fail: each is shown a small tree of the same shape with one wrong import."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.shape.tree import ROOT

FOLDERS = [
    "core",
    "runtime",
    "patterns",
    "stores",
    "brokers",
    "claims",
    "testing",
    "ops",
    "demo",
    "django",
    "sqlalchemy",
]


@pytest.fixture
def small_tree(tmp_path: Path) -> Path:
    package = tmp_path / "src" / "tidings"
    for folder in FOLDERS:
        (package / folder).mkdir(parents=True)
        (package / folder / "__init__.py").touch()
    for module in ("__main__", "errors", "core/lanes", "core/retry"):
        (package / f"{module}.py").touch()
    (package / "__init__.py").write_text("import tidings.patterns\nimport tidings.runtime\n")
    (tmp_path / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text())
    return tmp_path


def lint_imports(tree: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command as main; main()", "--no-cache"]
    env = os.environ | {"PYTHONPATH": str(tree / "src")}
    return subprocess.run(command, cwd=tree, env=env, capture_output=True, text=True, check=False)


def test_a_tree_in_order_passes(small_tree: Path) -> None:
    (small_tree / "src/tidings/demo/__init__.py").write_text("import tidings\n")
    done = lint_imports(small_tree)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("module", "imported"),
    [
        ("core/lanes.py", "tidings.runtime"),
        ("core/lanes.py", "tidings"),
        ("core/lanes.py", "asyncio"),
        ("core/lanes.py", "time"),
        ("errors.py", "tidings.core"),
        ("patterns/__init__.py", "sqlite3"),
        ("patterns/__init__.py", "tidings.stores"),
        ("runtime/__init__.py", "tidings"),
        ("runtime/__init__.py", "tidings.patterns"),
        ("runtime/__init__.py", "tidings.stores"),
        ("stores/__init__.py", "tidings.brokers"),
        ("demo/__init__.py", "tidings.testing"),
        ("demo/__init__.py", "tidings.ops"),
    ],
)
def test_an_import_against_the_direction_is_refused(small_tree: Path, module: str, imported: str) -> None:
    (small_tree / "src" / "tidings" / module).write_text(f"import {imported}\n")
    done = lint_imports(small_tree)
    assert done.returncode == 1, done.stdout + done.stderr


def test_a_folder_without_a_layer_is_refused(small_tree: Path) -> None:
    (small_tree / "src/tidings/utils.py").touch()
    assert lint_imports(small_tree).returncode == 1


def test_a_circle_inside_a_folder_is_refused(small_tree: Path) -> None:
    (small_tree / "src/tidings/runtime/worker").mkdir()
    (small_tree / "src/tidings/runtime/worker/__init__.py").write_text("import tidings.runtime.relay\n")
    (small_tree / "src/tidings/runtime/relay.py").write_text("import tidings.runtime.worker\n")
    assert lint_imports(small_tree).returncode == 1


@pytest.mark.parametrize(
    "statement",
    ["import time", "from uuid import uuid4", "import random", "import asyncio; asyncio.create_task(main())"],
)
@pytest.mark.parametrize(("folder", "allowed"), [("core", False), ("patterns", False), ("runtime", True)])
def test_only_some_folders_may_touch_the_world(small_tree: Path, folder: str, statement: str, *, allowed: bool) -> None:
    (small_tree / "src" / "tidings" / folder / "part.py").write_text(f"{statement}\n")
    ruff = [sys.executable, "-m", "ruff", "check", "--no-cache", "--select=TID251", "src"]
    done = subprocess.run(ruff, cwd=small_tree, capture_output=True, text=True, check=False)
    assert (done.returncode == 0) is allowed, done.stdout
