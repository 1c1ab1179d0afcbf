"""`tidings dead`: seeing what gave up, putting it back to work, or giving it up for good."""

import json
import signal
from pathlib import Path

import pytest

from tests.scenarios.cli.conftest import Market, everywhere, place, python, store_of, work
from tests.scenarios.cli.terminal import Done, on_terminal, started, tidings

MANY = """
import asyncio, sys
from msgspec.structs import replace
from app import app, OrderPlaced
from tidings.core.operations import Claim, Held, Join, Settle

async def main():
    async with app:
        where = app.subscriptions()[0].where
        await app.store.write(Join("shop.send_receipt", where, ["OrderPlaced"], [], 16, "earliest"))
        await app.publish(OrderPlaced("many", "many@example.com", 1))
        [envelope] = await app.store.read(0, 1, 1)
        lease = await app.store.write(Claim("shop.send_receipt", "me", 16))
        epochs = {slot: each.epoch for slot, each in lease.items()}
        for start in range(0, int(sys.argv[1]), 1000):
            some = [replace(envelope, key=f"k{number}", position=number) for number in range(start + 1, start + 1001)]
            dead = [(0, "shop.send_receipt", each.position, "dead", 2, 0, each) for each in some]
            hold = [Held(*each, "ValueError: no", "", ("attempt 1",), 1) for each in dead]
            await app.store.write(Settle("shop.send_receipt", epochs, hold=hold))

asyncio.run(main())
"""


@pytest.fixture(scope="session")
def saddened_shop(market: Market, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = market.open(tmp_path_factory.mktemp("sad") / "shop")
    (folder / "broken").touch()
    place("bad1", "bad2", "bad3", "bad4", "ok", "bad1", cwd=folder)
    work(folder)
    return folder


@pytest.fixture
def sad_shop(market: Market, saddened_shop: Path, tmp_path: Path) -> Path:
    """A shop with four dead letters of four customers, and an order parked behind one of them."""
    return market.copy(saddened_shop, tmp_path / "shop")


def dead(cwd: Path, *options: object) -> list[int]:
    """Ids of the dead letters."""
    return [row["id"] for row in tidings("dead", "ls", "-o", "json", *options, cwd=cwd).data]


def standing(cwd: Path) -> tuple[int, int, int]:
    """Retrying, parked and dead deliveries of the group that sends receipts."""
    groups = tidings("status", "-o", "json", cwd=cwd).data["groups"]
    row = next(row for row in groups if row["group"] == "shop.send_receipt")
    return row["retrying"], row["parked"], row["dead"]


@everywhere
def test_dead_letters_are_listed_with_their_reason(sad_shop: Path) -> None:
    rows = tidings("dead", "ls", cwd=sad_shop).rows
    assert [row[3] for row in rows] == ["bad1", "bad2", "bad3", "bad4"]
    assert {(row[1], row[2], row[4]) for row in rows} == {("shop.send_receipt", "OrderPlaced", "2")}
    assert rows[0][6] == "ValueError: no such mailbox: bad1@example.com"
    assert dead(sad_shop, "--key", "bad2") == [int(rows[1][0])]
    assert len(dead(sad_shop, "--group", "send_receipt")) == 4
    assert dead(sad_shop, "--group", "shop.send_parcel") == []
    assert dead(sad_shop, "--limit", 1) == [int(rows[3][0])]
    assert "1 of 4 dead letters" in tidings("dead", "ls", "--limit", 1, cwd=sad_shop).err


def test_a_group_that_is_not_there_is_answered_with_the_nearest(sad_shop: Path) -> None:
    done = tidings("dead", "ls", "--group", "shop.send_recipt", cwd=sad_shop)
    assert done.code == 3
    assert "did you mean shop.send_receipt?" in done.err


@everywhere
def test_a_dead_letter_is_shown_with_all_that_is_known(shop: Path) -> None:
    shown = tidings("dead", "show", 1, cwd=shop).out
    assert '  "email": "bad@example.com",' in shown
    assert "attempt 1 at " in shown
    assert "attempt 2 at " in shown
    assert "Traceback (most recent call last):" in shown
    assert 'raise ValueError(f"no such mailbox: {order.email}")' in shown
    data = tidings("dead", "show", 1, "-o", "json", cwd=shop).data
    assert (data["state"], data["attempt"], data["event"]["key"]) == ("dead", 2, "bad")
    assert tidings("dead", "show", 99, cwd=shop).code == 3


@everywhere
def test_all_can_be_redriven_and_then_succeed(sad_shop: Path) -> None:
    (sad_shop / "broken").unlink()
    done = tidings("dead", "redrive", "--all", "--yes", cwd=sad_shop)
    assert done.code == 0
    assert done.out == "4 of 4 dead letters redriven\n"
    assert standing(sad_shop) == (4, 1, 0)
    work(sad_shop)
    assert standing(sad_shop) == (0, 0, 0)
    assert tidings("events", "ls", "--type", "ReceiptSent", "-o", "ids", cwd=sad_shop).out.count("\n") == 6


@everywhere
def test_redrive_works_with_a_store_alone(sad_shop: Path) -> None:
    store = store_of(sad_shop)
    (sad_shop / "app.py").unlink()
    assert tidings("dead", "redrive", "--all", "--yes", "--store", store, cwd=sad_shop).code == 0


@pytest.mark.parametrize(
    ("options", "left"),
    [
        (["--key", "bad2"], ["bad1", "bad3", "bad4"]),
        (["--group", "send_receipt"], []),
        (["--group", "shop.send_receipt", "--key", "bad4"], ["bad1", "bad2", "bad3"]),
        (["1", "3"], ["bad2", "bad4"]),
    ],
)
@pytest.mark.parametrize("verb", ["redrive", "discard"])
def test_some_can_be_chosen(sad_shop: Path, verb: str, options: list[str], left: list[str]) -> None:
    assert dead(sad_shop) == [1, 2, 3, 4]
    assert tidings("dead", verb, *options, "--yes", cwd=sad_shop).code == 0
    assert [row[3] for row in tidings("dead", "ls", cwd=sad_shop).rows] == left


@everywhere
@pytest.mark.parametrize("verb", ["redrive", "discard"])
@pytest.mark.bad_input(56)
def test_a_dry_run_changes_nothing_and_counts(sad_shop: Path, verb: str) -> None:
    done = tidings("dead", verb, "--all", "--dry-run", "-o", "json", cwd=sad_shop)
    assert done.code == 0
    assert (done.data["matched"], done.data["dry_run"]) == (4, True)
    assert "shop.send_receipt: 4 dead letters" in done.err
    assert standing(sad_shop) == (0, 1, 4)


@pytest.mark.parametrize("verb", ["redrive", "discard"])
@pytest.mark.bad_input(57)
def test_without_a_terminal_nothing_happens_unless_confirmed(sad_shop: Path, verb: str) -> None:
    done = tidings("dead", verb, "--all", cwd=sad_shop)
    assert done.code == 2
    assert "error[TID-605]" in done.err
    assert "add --yes" in done.err
    assert standing(sad_shop) == (0, 1, 4)


@pytest.mark.bad_input(57)
def test_on_a_terminal_it_asks(sad_shop: Path) -> None:
    refused = on_terminal("dead", "discard", "--all", cwd=sad_shop, typed="n\n")
    assert refused.code == 1
    assert "will never be handled" in refused.out
    assert "nothing was changed" in refused.out
    assert standing(sad_shop) == (0, 1, 4)
    assert on_terminal("dead", "discard", "--all", cwd=sad_shop, typed="\x04").code == 130
    agreed = on_terminal("dead", "discard", "--all", cwd=sad_shop, typed="y\n")
    assert agreed.code == 0
    assert standing(sad_shop) == (0, 1, 0)


@everywhere
def test_what_was_parked_follows_when_its_dead_letter_is_discarded(sad_shop: Path) -> None:
    (sad_shop / "broken").unlink()
    assert tidings("dead", "discard", "--key", "bad1", "--yes", cwd=sad_shop).out == "1 of 1 dead letter discarded\n"
    work(sad_shop)
    sent = tidings("events", "ls", "--type", "ReceiptSent", "-o", "json", cwd=sad_shop).data
    assert [row["key"] for row in sent].count("bad1") == 1


@pytest.mark.bad_input(56)
def test_a_choice_that_matches_nothing_is_fine_and_one_of_nothing_is_not(sad_shop: Path) -> None:
    none = tidings("dead", "redrive", "--key", "nobody", "--yes", "-o", "json", cwd=sad_shop)
    assert (none.code, none.data["matched"]) == (0, 0)
    assert tidings("dead", "redrive", "--yes", cwd=sad_shop).code == 2
    assert tidings("dead", "redrive", "1", "--all", "--yes", cwd=sad_shop).code == 2
    assert tidings("dead", "redrive", "77", "--yes", cwd=sad_shop).code == 3


@everywhere
def test_ids_that_are_no_dead_letters_make_it_partly_done(sad_shop: Path) -> None:
    done = tidings("dead", "redrive", "1", "77", "--yes", "-o", "json", cwd=sad_shop)
    assert done.code == 6
    assert (done.data["redriven"], done.data["missing"]) == (1, [77])


def test_redriving_twice_is_harmless(sad_shop: Path) -> None:
    assert tidings("dead", "redrive", "2", "--yes", cwd=sad_shop).code == 0
    assert tidings("dead", "redrive", "2", "--yes", cwd=sad_shop).code == 3


@everywhere
@pytest.mark.bad_input(56)
def test_many_are_redriven_in_chunks_with_progress(new_shop: Path) -> None:
    python(MANY, "20000", cwd=new_shop)
    done = tidings("dead", "redrive", "--all", "--yes", "-o", "json", cwd=new_shop)
    assert done.code == 0, done.err
    assert done.data["redriven"] == 20_000
    tenths = [line for line in done.err.splitlines() if line.startswith("redrive ")]
    assert [line.split(" %")[0] for line in tenths] == [f"redrive {tenth}" for tenth in range(10, 110, 10)]
    assert "20,000/20,000" in tenths[-1]


def test_a_bar_shows_on_a_terminal(new_shop: Path) -> None:
    python(MANY, "5000", cwd=new_shop)
    shown = on_terminal("dead", "discard", "--all", "--yes", cwd=new_shop, width=120).out
    assert "5000/5000" in shown


@pytest.mark.bad_input(56)
def test_ctrl_c_stops_between_chunks_and_tells_how_far_it_came(new_shop: Path) -> None:
    python(MANY, "10000", cwd=new_shop)
    with started("dead", "redrive", "--all", "--yes", "--rate", "500", cwd=new_shop) as redrive:
        redrive.until(lambda: "redrive 10 %" in redrive.log)
        redrive.send(signal.SIGINT)
        assert redrive.ended() == 130
    assert "stopped after" in redrive.log
    retrying, _parked, left = standing(new_shop)
    assert retrying + left == 10_000
    assert 1_000 <= retrying < 10_000


@everywhere
@pytest.mark.bad_input(56)
def test_redriving_stops_while_the_handler_still_fails(new_shop: Path) -> None:
    (new_shop / "broken").touch()
    place(*(f"bad{number}" for number in range(60)), cwd=new_shop)
    work(new_shop)
    with started("run", "app:app", cwd=new_shop) as run:
        run.until(lambda: " works on " in run.log)
        done: Done = tidings(
            *("dead", "redrive", "--all", "--yes", "--rate", "10", "--stop-after", "5", "-o", "json"), cwd=new_shop
        )
    assert done.code == 6
    assert done.data["redriven"] < 60
    assert done.data["died_again"] >= 5
    assert "correct the handler" in json.loads(done.out)["warnings"][0]
