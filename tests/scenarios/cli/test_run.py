"""`tidings run`: works until it is told to stop, and then stops in the way it was told."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.scenarios.cli.conftest import everywhere, place, store_of
from tests.scenarios.cli.terminal import PATIENCE, Started, started, tidings, until


def group(cwd: Path, name: str = "shop.send_receipt") -> dict[str, Any]:
    found = tidings("status", "-o", "json", "--store", store_of(cwd), cwd=cwd)
    return next((row for row in found.data["groups"] if row["group"] == name), {})


def unfinished(cwd: Path) -> int:
    """Deliveries of the group that sends receipts that are still to be made."""
    standing = group(cwd)
    return sum(standing[name] for name in ("lag", "retrying", "parked"))


def pids(command: Started) -> set[int]:
    """Processes that a command started and that live."""
    children = Path(f"/proc/{command.process.pid}/task/{command.process.pid}/children").read_text().split()
    return {int(pid) for pid in children}


def works(command: Started) -> bool:
    return " works on " in command.log


@pytest.fixture(autouse=True)
def hangups() -> Iterator[None]:
    """What tests start hears a hangup, even where the tests themselves run under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@everywhere
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
@pytest.mark.bad_input(55)
def test_it_handles_what_is_published_and_drains_when_asked(new_shop: Path, number: signal.Signals) -> None:
    with started("run", "app:app", cwd=new_shop) as run:
        run.until(lambda: works(run))
        place("ada", "bob", cwd=new_shop)
        run.until(
            lambda: tidings("events", "ls", "--type", "ParcelSent", "-o", "ids", cwd=new_shop).out.count("\n") == 2
        )
        run.send(number)
        assert run.ended() == 0
    assert f"{number.name}: draining" in run.log
    assert "Traceback" not in run.log
    assert group(new_shop)["lag"] == 0


@everywhere
@pytest.mark.bad_input(55)
@pytest.mark.parametrize("workers", [1, 2])
def test_under_nohup_it_outlives_a_hangup(new_shop: Path, workers: int) -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does; children inherit it
    with started("run", "app:app", "--workers", workers, cwd=new_shop) as run:
        run.until(lambda: run.log.count(" works on ") == workers)
        run.send(signal.SIGHUP)
        place("ada", cwd=new_shop)
        run.until(lambda: tidings("events", "ls", "--type", "ParcelSent", "-o", "ids", cwd=new_shop).out)
        assert "draining" not in run.log
        run.send(signal.SIGTERM)
        assert run.ended() == 0


def test_handlers_that_outlast_the_drain_are_cut_short_and_come_again(new_shop: Path) -> None:
    place("ada", cwd=new_shop)
    (new_shop / "slow").touch()
    with started("run", "app:app", "--drain", "0.2", cwd=new_shop) as run:
        run.until(lambda: works(run))
        run.until(lambda: group(new_shop, "shop.revenue")["lag"] == 0)
        run.send(signal.SIGTERM)
        assert run.ended() == 143
    assert "1 delivery cut short" in run.log
    assert unfinished(new_shop) == 1
    (new_shop / "slow").unlink()
    with started("run", "app:app", cwd=new_shop) as run:
        run.until(lambda: tidings("events", "ls", "--type", "ParcelSent", "-o", "ids", cwd=new_shop).out)


@pytest.mark.bad_input(55)
def test_a_second_ctrl_c_aborts_and_says_how_many_are_left(new_shop: Path) -> None:
    place("ada", "bob", cwd=new_shop)
    (new_shop / "slow").touch()
    with started("run", "app:app", cwd=new_shop) as run:
        run.until(lambda: works(run))
        run.until(lambda: group(new_shop, "shop.revenue")["lag"] == 0)
        run.send(signal.SIGINT)
        run.until(lambda: "draining" in run.log)
        run.send(signal.SIGINT)
        assert run.ended() == 130
    assert "2 deliveries cut short at once" in run.log
    assert unfinished(new_shop) == 2
    assert "Traceback" not in run.log


@everywhere
def test_several_workers_share_the_slots_and_stop_together(new_shop: Path) -> None:
    with started("run", "app:app", "--workers", "3", cwd=new_shop) as run:
        run.until(lambda: sorted(map(len, owned(new_shop).values())) == [5, 5, 6])
        [told] = [row for row in tidings("status", cwd=new_shop).rows if row[0] == "shop.send_receipt"]
        assert sorted(owned(new_shop)) == sorted(share.split()[0] for share in told[-1].split(", "))
        run.send(signal.SIGTERM)
        assert run.ended() == 0
    assert "3 workers are draining" in run.log
    assert all(f"[{number}] drained" in run.log for number in (1, 2, 3))
    assert owned(new_shop) == {}


def owned(cwd: Path) -> dict[str, list[int]]:
    found = tidings("status", "-o", "json", "--store", store_of(cwd), cwd=cwd)
    if found.code:  # not there yet
        return {}
    groups = [row for row in found.data["groups"] if row["group"] == "shop.send_receipt"]
    return groups[0]["owners"] if groups else {}


@everywhere
def test_a_killed_worker_is_replaced(new_shop: Path) -> None:
    with started("run", "app:app", "--workers", "2", cwd=new_shop) as run:
        run.until(lambda: run.log.count(" works on ") == 2)
        before = pids(run)
        os.kill(min(before), signal.SIGKILL)
        run.until(lambda: run.log.count(" works on ") == 3)
        assert len(pids(run)) == 2
        assert len(pids(run) & before) == 1
        run.send(signal.SIGTERM)
        assert run.ended() == 0
    assert "ended by SIGKILL; it starts again in 0.5 s" in run.log


@everywhere
@pytest.mark.bad_input(52)
def test_a_message_that_kills_its_worker_ends_as_a_dead_letter(new_shop: Path) -> None:
    (new_shop / "crash").touch()
    place("ada", "bad", "bob", cwd=new_shop)
    with started("run", "app:app", "--workers", "2", cwd=new_shop) as run:
        run.until(lambda: (standing := group(new_shop)).get("dead") == 1 and standing["lag"] == 0)
        run.send(signal.SIGTERM)
        assert run.ended() == 0
    assert "with exit code 9" in run.log
    assert [row[3] for row in tidings("dead", "ls", cwd=new_shop).rows] == ["bad"]


def test_workers_whose_starter_was_killed_drain_by_themselves(new_shop: Path) -> None:
    with started("run", "app:app", "--workers", "2", cwd=new_shop) as run:
        run.until(lambda: run.log.count(" works on ") == 2)
        workers = pids(run)
        run.send(signal.SIGKILL)
        run.ended()
        until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers), lambda: run.log)
    assert run.log.count("the process that started this worker is gone; draining") == 2


def test_a_mistake_that_all_workers_would_make_is_told_once(new_shop: Path) -> None:
    (new_shop / "app.py").write_text("import nowhere_at_all\n")
    done = tidings("run", "app:app", "--workers", "4", cwd=new_shop)
    assert done.code == 1
    assert done.err.count("error[TID-604]") == 1


def test_workers_wait_for_a_store_that_is_not_there_yet(new_shop: Path) -> None:
    source = (new_shop / "app.py").read_text().replace("sqlite:shop.db", "sqlite:late/shop.db")
    (new_shop / "app.py").write_text(source)
    with started("run", "app:app", "--workers", "2", cwd=new_shop) as run:
        run.until(lambda: "starts again" in run.log)
        assert "error[TID-501]" in run.log
        (new_shop / "late").mkdir()
        run.until(lambda: run.log.count(" works on ") == 2)
        run.send(signal.SIGTERM)
        assert run.ended() == 0


# ---- MODULE:APP ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "code", "told"),
    [
        ("ap:app", 2, "did you mean app?"),
        ("nowhere:app", 2, "no module nowhere"),
        ("app:ap", 2, "did you mean app:app?"),
        ("app:OrderPlaced", 2, "is a type, not an App"),
        ("app", 2, "app:app"),
        ("app.py:app", 2, "name the module: app:app"),
        (":", 2, "MODULE:APP"),
    ],
)
@pytest.mark.bad_input(58)
def test_a_wrong_spec_is_answered_with_the_right_one(new_shop: Path, spec: str, code: int, told: str) -> None:
    done = tidings("run", spec, cwd=new_shop)
    assert done.code == code
    assert told in done.err
    assert len(done.err.splitlines()) == 3
    assert not (new_shop / "shop.db").exists()


@pytest.mark.bad_input(58)
def test_an_app_that_breaks_on_import_shows_its_own_lines_and_none_of_ours(new_shop: Path) -> None:
    (new_shop / "prices.py").write_text("def load():\n    return {}['vat']\n\nVAT = load()\n")
    (new_shop / "app.py").write_text("import prices\n")
    done = tidings("run", "app:app", cwd=new_shop)
    assert done.code == 1
    assert "return {}['vat']" in done.err
    assert f'File "{new_shop}/app.py", line 1' in done.err
    assert "importlib" not in done.err
    assert "tidings/ops" not in done.err
    assert done.err.splitlines()[-3:][0] == "error[TID-604]: app cannot be imported: KeyError: 'vat'"


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("def broken(:\n", "SyntaxError"),
        ("import not_installed_anywhere\n", "ModuleNotFoundError: No module named 'not_installed_anywhere'"),
        ("raise SystemExit(3)\n", "SystemExit: 3"),
        ("raise ValueError('\\x1b[2J\\u202e')\n", r"ValueError: \x1b[2J\u202e"),
    ],
)
@pytest.mark.bad_input(58)
def test_whatever_an_import_raises_is_told(new_shop: Path, source: str, told: str) -> None:
    (new_shop / "app.py").write_text(source)
    done = tidings("run", "app:app", cwd=new_shop)
    assert done.code == 1
    assert told in done.err
    assert "error[TID-604]" in done.err
    assert "\x1b" not in done.err


def test_a_wrong_handler_keeps_its_own_code_and_shows_where_it_is(new_shop: Path) -> None:
    with (new_shop / "app.py").open("a") as source:
        source.write("\n@app.on(str)\nasync def wrong(text: str) -> None: ...\n")
    done = tidings("run", "app:app", cwd=new_shop)
    assert done.code == 2
    assert "error[TID-101]" in done.err
    assert "@app.on(str)" in done.err
    assert "tidings/core" not in done.err


def test_what_a_module_prints_on_import_does_not_mix_with_data(shop: Path) -> None:
    source = shop / "app.py"
    source.write_text(f"print('hello from the module')\n{source.read_text()}")
    done = tidings("status", "-o", "json", cwd=shop)
    assert json.loads(done.out)["ok"] is True
    assert "hello from the module" in done.err


STUBBORN = """
async def sleep_on():
    while True:
        try:
            await asyncio.sleep(600)
        except asyncio.CancelledError:
            pass
"""


@pytest.mark.bad_input(22)
def test_it_waits_no_longer_than_it_must_for_a_handler_that_will_not_be_cancelled(new_shop: Path) -> None:
    source = new_shop / "app.py"
    source.write_text(source.read_text().replace("await asyncio.sleep(600)", "await sleep_on()") + STUBBORN)
    place("ada", cwd=new_shop)
    (new_shop / "slow").touch()
    with started("run", "app:app", "--drain", "0.1", cwd=new_shop) as run:
        run.until(lambda: works(run))
        run.until(lambda: group(new_shop, "shop.revenue")["lag"] == 0)
        run.send(signal.SIGTERM)
        assert run.process.wait(PATIENCE) == 143


WAITS_IN_ITS_TRANSACTION = """
import asyncio, pathlib, time
from tidings import App, Key, Transaction, event

@event
class Noted:
    number: Key[int]

app = App("sqlite:shop.db")

@app.on(Noted)
async def note(noted: Noted, tx: Transaction) -> None:
    await tx.execute("SELECT 1")
    pathlib.Path("begun").touch()
    await asyncio.to_thread(time.sleep, 300)

if __name__ == "__main__":
    with app.blocking() as b:
        b.publish(Noted(1))
"""


def test_a_handler_that_goes_on_with_the_store_in_hand_is_told_of(new_shop: Path) -> None:
    waits = "await asyncio.to_thread(time.sleep, 300)"
    goes_on = f"while True:\n        try:\n            {waits}\n        except BaseException:\n            pass"
    source = WAITS_IN_ITS_TRANSACTION.replace(waits, goes_on)
    (new_shop / "app.py").write_text(source.replace("SELECT 1", "CREATE TABLE held (n)"))
    subprocess.run([sys.executable, "app.py"], cwd=new_shop, check=True)
    with started("run", "app:app", "--drain", "0.1", cwd=new_shop) as run:
        run.until((new_shop / "begun").exists)
        run.send(signal.SIGTERM)
        assert run.process.wait(PATIENCE) == 143
    assert "the store is held up" in run.log
    assert "the drain failed" not in run.log


def test_what_is_cut_short_inside_its_transaction_is_told_and_its_threads_are_not_waited_for(new_shop: Path) -> None:
    (new_shop / "app.py").write_text(WAITS_IN_ITS_TRANSACTION)
    subprocess.run([sys.executable, "app.py"], cwd=new_shop, check=True)
    with started("run", "app:app", "--drain", "0.1", cwd=new_shop) as run:
        run.until((new_shop / "begun").exists)
        run.send(signal.SIGTERM)
        assert run.process.wait(PATIENCE) == 143
    assert "1 delivery cut short" in run.log


@pytest.mark.bad_input(70)
@pytest.mark.parametrize("workers", [1, 2])
def test_a_store_that_goes_away_stops_it_loudly_and_no_worker_makes_another_one(new_shop: Path, workers: int) -> None:
    with started("run", "app:app", "--workers", workers, cwd=new_shop) as run:
        run.until(lambda: run.log.count(" works on ") == workers)
        (new_shop / "shop.db").rename(new_shop / "moved.db")
        assert run.ended() == 1
    assert "error[TID-504]" in run.log
    assert not (new_shop / "shop.db").exists()
