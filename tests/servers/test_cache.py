"""What servers are made of is fetched once, whole or not at all."""

import pytest

from tests.servers.cache import Missing, fetch_with, kept


@pytest.fixture(autouse=True)
def may_fetch(monkeypatch):
    monkeypatch.delenv("NO_INSTALL", raising=False)


def test_it_is_fetched_once(tmp_path):
    for _ in range(2):
        folder = kept("thing-1", lambda folder: (folder / "part").touch(exist_ok=False), within=tmp_path)
    assert (folder / "part").exists()


def test_what_was_fetched_in_part_is_fetched_again(tmp_path):
    def fail(folder):
        (folder / "half").touch()
        fetch_with("false")

    with pytest.raises(Missing, match="fetching failed"):
        kept("thing-1", fail, within=tmp_path)
    folder = kept("thing-1", lambda folder: None, within=tmp_path)
    assert not (folder / "half").exists()


def test_nothing_is_fetched_where_that_is_forbidden(tmp_path, monkeypatch):
    monkeypatch.setenv("NO_INSTALL", "1")
    with pytest.raises(Missing, match="NO_INSTALL"):
        kept("thing-1", lambda folder: None, within=tmp_path)


def test_a_tool_that_is_not_there_is_told_with_its_cure():
    with pytest.raises(Missing, match="no nothing-like-this on this machine: apt-get install nothing-like-this"):
        fetch_with("nothing-like-this")
