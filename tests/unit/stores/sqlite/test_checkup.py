"""Single findings about an SQLite store, which the doctor asks it for."""

import fcntl
import os
from pathlib import Path

import pytest

from tidings.stores.sqlite import checkup


@pytest.mark.parametrize(
    ("version", "verdict"),
    [
        ((3, 40, 1), "warn"),
        ((3, 44, 5), "warn"),
        ((3, 44, 6), "ok"),
        ((3, 50, 6), "warn"),
        ((3, 50, 7), "ok"),
        ((3, 51, 2), "warn"),
        ((3, 51, 3), "ok"),
        ((3, 54, 1), "ok"),
        ((4, 0, 0), "ok"),
    ],
)
@pytest.mark.bad_input(34)
def test_sqlite_with_the_wal_reset_bug_is_told(version: tuple[int, int, int], verdict: str) -> None:
    found = checkup._sqlite(version)
    assert found.verdict == verdict
    assert bool(found.fix) is (verdict != "ok")


def test_a_free_turnstile_is_found_free_and_left_free(tmp_path: Path) -> None:
    path = tmp_path / "shop.db"
    assert checkup.turnstile(path).verdict == "ok"
    Path(f"{path}-lock").touch()
    assert checkup.turnstile(path).verdict == "ok"
    with Path(f"{path}-lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_a_taken_turnstile_names_its_holder(tmp_path: Path) -> None:
    path = tmp_path / "shop.db"
    with Path(f"{path}-lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        found = checkup.turnstile(path)
    assert found.verdict == "fail"
    holders = Path("/proc/locks").read_text()
    assert f"process {os.getpid()}" in found.found or str(os.getpid()) not in holders  # a container may hide the locks


def test_a_lock_that_is_a_link_fails(tmp_path: Path) -> None:
    path = tmp_path / "shop.db"
    path.touch(0o600)
    Path(f"{path}-lock").symlink_to("/dev/null")
    assert checkup.turnstile(path).verdict == "fail"
    assert checkup._permissions(path).verdict == "fail"


def test_a_file_that_others_can_read_is_told(tmp_path: Path) -> None:
    path = tmp_path / "shop.db"
    path.touch(0o600)
    assert checkup._permissions(path).verdict == "ok"
    path.chmod(0o644)
    assert checkup._permissions(path).fix == f"chmod 600 {path}"
