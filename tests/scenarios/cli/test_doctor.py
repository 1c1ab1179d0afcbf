"""`tidings doctor`: finds what is wrong, and says what to do."""

import fcntl
import shutil
import time
from pathlib import Path

import pytest

from tests.scenarios.cli.conftest import everywhere, place, sql, store_of, work
from tests.scenarios.cli.terminal import Done, on_terminal, started, tidings


def checks(done: Done) -> dict[str, dict[str, str]]:
    return {row["check"]: row for row in done.data}


def doctor(cwd: Path, *options: object) -> Done:
    return tidings("doctor", "-o", "json", *options, cwd=cwd)


def test_a_healthy_shop_has_nothing_that_fails(shop: Path) -> None:
    tidings("dead", "discard", "--all", "--yes", cwd=shop)
    done = doctor(shop, "--deep")
    assert done.code == 0
    found = checks(done)
    assert {name for name, row in found.items() if row["verdict"] != "ok"} <= {"sqlite", "disk"}
    assert {"python", "sqlite", "clock", "permissions", "turnstile", "journal", "flush", "wal"} <= set(found)
    assert {"retention", "timers", "workers", "groups", "handlers", "integrity"} <= set(found)


def test_on_a_terminal_a_deep_look_shows_that_it_goes_on(shop: Path) -> None:
    assert "reading all that is in the store" in on_terminal("doctor", "--deep", cwd=shop).out
    assert "reading all" not in on_terminal("doctor", cwd=shop).out
    assert "reading all" not in doctor(shop, "--deep").err


def test_the_machine_alone_can_be_checked(tmp_path: Path) -> None:
    done = doctor(tmp_path)
    assert done.code == 0
    assert checks(done)["store"]["fix"] == "give --app or --store"


def test_every_finding_has_its_fix(shop: Path) -> None:
    (shop / "shop.db").chmod(0o644)
    place("eve", cwd=shop)
    found = checks(doctor(shop))
    assert found["permissions"]["fix"].startswith("chmod 600 ")
    assert "tidings dead redrive --group shop.send_receipt" in found["dead letters"]["fix"]
    assert found["lag"]["fix"] == "tidings run"
    assert all(row["fix"] for row in found.values() if row["verdict"] != "ok")


@everywhere
def test_workers_are_seen(shop: Path) -> None:
    with started("run", "app:app", cwd=shop) as run:
        run.until(lambda: " works on " in run.log)
        assert "alive: none" not in checks(doctor(shop))["workers"]["found"]


@everywhere
def test_a_handler_that_is_gone_and_one_that_is_new_are_told(shop: Path) -> None:
    source = shop / "app.py"
    source.write_text(source.read_text().replace("send_parcel", "post_parcel"))
    place("eve", cwd=shop)
    rows = doctor(shop).data
    gone, new = (row for row in rows if row["check"] == "handlers")
    assert gone["found"].startswith("shop.send_parcel has no handler in the app any more")
    assert "group='send_parcel'" in gone["fix"]
    assert new["found"] == "shop.post_parcel will start with the next `tidings run`"
    assert not [row for row in rows if row["check"] == "lag" and "send_parcel" in row["found"]]


@everywhere
def test_the_status_shows_a_group_without_a_handler_and_does_not_wait_for_it(shop: Path) -> None:
    source = shop / "app.py"
    renamed = source.read_text().replace("send_receipt", "mail_receipt").replace("send_parcel", "post_parcel")
    source.write_text(renamed)
    place("eve", cwd=shop)
    work(shop)
    done = tidings("status", "-o", "json", "--max-lag", 0, cwd=shop)
    assert done.code == 0, done.err
    assert {row["group"]: row["gone"] for row in done.data["groups"]} == {
        "shop.mail_receipt": False,
        "shop.post_parcel": False,
        "shop.revenue": False,
        "shop.send_parcel": True,
        "shop.send_receipt": True,
    }
    assert "shop.send_receipt has no handler in the app any more" in done.err
    assert tidings("status", "--max-lag", 0, "--store", store_of(shop), cwd=shop).code == 5  # it knows no app


def test_a_changed_projection_fails(shop: Path) -> None:
    source = shop / "app.py"
    source.write_text(source.read_text().replace("        order.total,\n", "        order.total * 2,\n"))
    done = doctor(shop)
    assert done.code == 5
    assert checks(done)["handlers"]["fix"] == "tidings projection rebuild revenue"


def test_a_stuck_turnstile_fails_and_names_who_holds_it(shop: Path) -> None:
    with (shop / "shop.db-lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = doctor(shop)
    assert done.code == 5
    assert "has held the lock for more than 2 s" in checks(done)["turnstile"]["found"]


@everywhere
def test_a_log_that_lost_its_end_fails(shop: Path) -> None:
    sql(shop, "DELETE FROM tidings_log WHERE position > 4")
    done = doctor(shop)
    assert done.code == 5
    assert "the log ends at 4" in checks(done)["log"]["found"]
    assert "restore" in checks(done)["log"]["fix"]


def test_a_damaged_page_fails_the_deep_check(shop: Path) -> None:
    with (shop / "shop.db").open("r+b") as file:
        file.seek(4096 * 3)
        file.write(b"\xff" * 2048)
    done = doctor(shop, "--deep")
    assert done.code == 5


def test_times_from_the_future_and_late_timers_are_told(shop: Path) -> None:
    sql(shop, f"UPDATE tidings_log SET time = {int((time.time() + 3600) * 1_000_000)} WHERE position = 7")
    sql(shop, "INSERT INTO tidings_timer VALUES (1, 1000000, 'x', 'shop', x'00')")
    found = checks(doctor(shop))
    assert (found["time"]["verdict"], found["timers"]["verdict"]) == ("warn", "warn")


@pytest.mark.parametrize(
    ("break_it", "check", "told"),
    [
        (lambda shop: (shop / "app.py").write_text("import nowhere\n"), "app", "ModuleNotFoundError"),
        (lambda shop: (shop / "shop.db").unlink(), "app", "no store at"),
        (lambda shop: (shop / "shop.db").write_bytes(b"x" * 5000), "app", "not an SQLite database"),
        (
            lambda shop: (shop / "app.py").write_text("from tidings import App\napp = App('sqlite::memory:')"),
            "app",
            "memory",
        ),
    ],
)
def test_what_keeps_it_from_looking_is_a_finding(shop: Path, break_it, check: str, told: str) -> None:
    break_it(shop)
    done = doctor(shop)
    assert done.code == 5
    assert told in checks(done)[check]["found"]


def test_it_never_changes_what_it_looks_at(shop: Path) -> None:
    before = (shop / "shop.db").read_bytes()
    shutil.rmtree(shop / "shop.db-bells")
    doctor(shop, "--deep")
    assert (shop / "shop.db").read_bytes() == before
