"""`tidings new`: a project that works from its first minute."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.scenarios.cli.terminal import settings, started, tidings


def test_a_new_project_passes_its_test_runs_and_can_be_looked_at(tmp_path: Path) -> None:
    done = tidings("new", "my-shop", cwd=tmp_path)
    assert done.code == 0, done.err
    folder = tmp_path / "my-shop"
    assert sorted(done.out.split()) == sorted(
        f"my-shop/{name}" for name in ("app.py", "pyproject.toml", "README.md", ".gitignore", "tests/test_app.py")
    )
    assert "NAME" not in "".join(path.read_text() for path in folder.rglob("*.*") if path.is_file())

    pytest_ = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:asyncio"]
    tested = subprocess.run(pytest_, cwd=folder, env=settings(), capture_output=True, text=True, check=False)
    assert tested.returncode == 0, tested.stdout
    assert "2 passed" in tested.stdout

    placed = subprocess.run(
        [sys.executable, "app.py"], cwd=folder, env=settings(), capture_output=True, text=True, check=False
    )
    assert placed.stdout == "published at position 1; now: tidings run\n", placed.stderr
    with started("run", "app:app", cwd=folder) as run:
        run.until(lambda: tidings("events", "ls", "--type", "ReceiptSent", "-o", "ids", cwd=folder).out)
    assert tidings(cwd=folder).code == 0
    assert [row["name"] for row in tidings("projection", "ls", "-o", "json", cwd=folder).data] == ["revenue"]
    assert tidings("doctor", cwd=folder).code == 0


def test_a_new_project_runs_on_postgresql_by_its_url_alone(tmp_path: Path, newest_postgres_url: str) -> None:
    assert tidings("new", "shop", cwd=tmp_path).code == 0
    folder = tmp_path / "shop"
    source = folder / "app.py"
    source.write_text(source.read_text().replace("sqlite:shop.db", newest_postgres_url))
    for _ in range(2):
        subprocess.run([sys.executable, "app.py"], cwd=folder, env=settings(), check=True)
    with started("run", "app:app", cwd=folder) as run:
        run.until(
            lambda: tidings("events", "ls", "--type", "ReceiptSent", "-o", "ids", cwd=folder).out.count("\n") == 2
        )
        run.until(lambda: tidings("status", "--max-lag", "0", cwd=folder).code == 0)
    [row] = tidings("projection", "ls", "-o", "json", cwd=folder).data
    assert (row["name"], row["state"], row["retrying"]) == ("revenue", "up to date", 0)


def test_a_dry_run_names_the_files_and_makes_none(tmp_path: Path) -> None:
    done = tidings("new", "shop", "--dry-run", cwd=tmp_path)
    assert done.code == 0, done.err
    assert "shop/app.py" in done.out.split()
    assert "nothing was made" in done.err
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "shop").touch()
    assert tidings("new", "shop", "--dry-run", cwd=tmp_path).code == 4


def test_what_is_there_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "app.py").write_text("mine")
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    for name in ("shop", "file", "link"):
        done = tidings("new", name, cwd=tmp_path)
        assert done.code == 4
        assert "error[TID-606]" in done.err
    assert (tmp_path / "shop" / "app.py").read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "link", "shop"]


def test_an_empty_folder_is_welcome(tmp_path: Path) -> None:
    (tmp_path / "shop").mkdir()
    assert tidings("new", "shop", cwd=tmp_path).code == 0
    assert (tmp_path / "shop" / "app.py").exists()


@pytest.mark.parametrize(
    "name", ["", "a/b", "../up", "/abs", ".", "3d", "a b", "café", "x" * 51, "tidings", "a\nb", "-x"]
)
def test_a_bad_name_is_refused(tmp_path: Path, name: str) -> None:
    done = tidings("new", "--", name, cwd=tmp_path)
    assert done.code == 2
    assert "error[TID-601]" in done.err
    assert list(tmp_path.iterdir()) == []
