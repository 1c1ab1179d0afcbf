"""How a command finds its app or its store, and what it says when it finds none or a wrong one."""

import os
import sqlite3
from pathlib import Path

import pytest

from tests.scenarios.cli.terminal import Done, tidings


def found(done: Done) -> str:
    """The store that a status is about."""
    assert done.code == 0, done.err
    return str(done.data["store"])


def other_shop(folder: Path, module: str) -> None:
    """One more app beside the one of the shop, on a copy of its store."""
    source = (folder / "app.py").read_text()
    (folder / f"{module}.py").write_text(source.replace("sqlite:shop.db", f"sqlite:{module}.db"))
    (folder / f"{module}.db").write_bytes((folder / "shop.db").read_bytes())


def test_the_nearest_naming_of_an_app_wins(shop: Path) -> None:
    for module in ("asked", "set", "written"):
        other_shop(shop, module)
    status = ("status", "-o", "json")
    assert found(tidings(*status, cwd=shop)) == "sqlite:shop.db"
    (shop / "pyproject.toml").write_text('[tool.tidings]\napp = "written:app"\n')
    assert found(tidings(*status, cwd=shop)) == "sqlite:written.db"
    assert found(tidings(*status, cwd=shop, TIDINGS_APP="set:app")) == "sqlite:set.db"
    assert found(tidings(*status, "--app", "asked:app", cwd=shop, TIDINGS_APP="set:app")) == "sqlite:asked.db"
    assert found(tidings(*status, "--store", "sqlite:shop.db", cwd=shop, TIDINGS_APP="set:app")) == "sqlite:shop.db"


@pytest.mark.parametrize("nothing", ["", "   "])
@pytest.mark.bad_input(40)
def test_an_empty_variable_is_none(shop: Path, nothing: str) -> None:
    assert found(tidings("status", "-o", "json", cwd=shop, TIDINGS_APP=nothing)) == "sqlite:shop.db"


@pytest.mark.bad_input(40)
def test_blanks_around_a_variable_do_not_matter(shop: Path) -> None:
    assert found(tidings("status", "-o", "json", cwd=shop, TIDINGS_APP=" app:app\n")) == "sqlite:shop.db"


@pytest.mark.bad_input(40)
def test_quotes_in_a_variable_are_named(shop: Path) -> None:
    done = tidings("status", cwd=shop, TIDINGS_APP="'app:app'")
    assert done.code == 2
    assert "fix: write it without them: app:app" in done.err


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('[tool.tidings]\napp = "app:app\n', "pyproject.toml:2:"),
        ("[tool.tidings\n", "pyproject.toml:1:"),
        ("[tool.tidings]\napp = 3\n", "app in [tool.tidings] of pyproject.toml is 3"),
        ("\ufffe", "pyproject.toml"),
    ],
)
@pytest.mark.bad_input(40)
def test_a_broken_configuration_is_told_with_its_place(shop: Path, text: str, told: str) -> None:
    (shop / "pyproject.toml").write_text(text, encoding="utf-16" if text == "\ufffe" else "utf-8")
    done = tidings("status", cwd=shop)
    assert done.code == 2
    assert told in done.err


def test_a_folder_without_an_app_says_how_to_name_one(tmp_path: Path) -> None:
    done = tidings("status", cwd=tmp_path)
    assert done.code == 2
    assert done.err.startswith("error[TID-602]")
    assert "--app shop:app" in done.err
    assert "tidings new shop" in done.err


def test_looking_at_a_store_that_is_not_there_makes_none(new_shop: Path) -> None:
    for command in ("status", "events ls", "dead ls", "tail", "projection ls"):
        done = tidings(*command.split(), cwd=new_shop)
        assert done.code == 3
        assert "no store at" in done.err
    assert list(new_shop.glob("*.db*")) == []


def a_database_of_others(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE theirs (id INTEGER)")
    connection.commit()
    connection.close()


def a_newer_store(path: Path) -> None:
    path.write_bytes((path.parent / "shop.db").read_bytes())
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 99")
    connection.commit()
    connection.close()


@pytest.mark.parametrize(
    ("make", "code", "told"),
    [
        (lambda path: path.mkdir(), 75, "is a directory"),
        (lambda path: path.write_text("a letter, not a database " * 100), 1, "is not an SQLite database"),
        (a_database_of_others, 1, "another program"),
        (a_newer_store, 1, "newer tidings"),
    ],
)
def test_a_file_that_is_no_store_of_ours_is_told_and_not_touched(shop: Path, make, code: int, told: str) -> None:
    path = shop / "odd.db"
    make(path)
    before = path.read_bytes() if path.is_file() else None
    done = tidings("status", "--store", "sqlite:odd.db", cwd=shop)
    assert done.code == code
    assert told in done.err
    assert len(done.err.splitlines()) == 3
    assert before is None or path.read_bytes() == before


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is closed to root")
def test_a_closed_file_is_told_with_its_mode(shop: Path) -> None:
    (shop / "shop.db").chmod(0o000)
    done = tidings("status", cwd=shop)
    assert done.code == 75
    assert "mode ----------" in done.err


@pytest.mark.parametrize(
    ("url", "code", "told"),
    [
        ("sqlite::memory:", 2, "in the memory of one process"),
        ("sqlte:shop.db", 2, "did you mean sqlite:"),
        ("shop.db", 2, "scheme"),
        ("sqlite://shop.db", 2, "sqlite:shop.db"),
        ("sqlite:~/shop.db", 2, "not expanded"),
        ("'sqlite:shop.db'", 2, "quotes"),
        ("kafka://ada:s3cret@localhost", 2, "no store adapter"),
        ("postgresql://ada:s3cr@t@localhost/shop", 2, "%40"),
    ],
)
def test_a_wrong_url_is_told_without_its_password(shop: Path, url: str, code: int, told: str) -> None:
    done = tidings("status", "--store", url, cwd=shop)
    assert done.code == code
    assert told in done.err
    assert "s3cr" not in done.err + done.out
