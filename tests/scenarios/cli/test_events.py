"""`tidings events`, `tail` and `status`: looking at what happened, whatever strangers wrote into it."""

import json
import sqlite3
from pathlib import Path

import pytest

from tests.scenarios.cli.conftest import everywhere, open_shop, place, python, store_of, work
from tests.scenarios.cli.terminal import on_terminal, started, tidings

HOSTILE = "\x1b[2J\x1b]0;owned\x07\u202eevil\u2066\r\nrm -rf\t\x9b31m\u200b{0.__class__}%s"


@everywhere
def test_events_are_listed_in_order_and_filtered(shop: Path) -> None:
    every = tidings("events", "ls", cwd=shop)
    assert [(row[0], row[2], row[3]) for row in every.rows] == [
        ("1", "OrderPlaced", "ada"),
        ("2", "OrderPlaced", "bad"),
        ("3", "OrderPlaced", "bob"),
        ("4", "ReceiptSent", "ada"),
        ("5", "ReceiptSent", "bob"),
        ("6", "ParcelSent", "ada"),
        ("7", "ParcelSent", "bob"),
    ]

    def positions(*options: object) -> list[int]:
        return [row["position"] for row in tidings("events", "ls", "-o", "json", *options, cwd=shop).data]

    assert positions("--type", "ReceiptSent") == [4, 5]
    assert positions("--type", "ReceiptSent", "--type", "ParcelSent", "--key", "ada") == [4, 6]
    assert positions("--limit", 2) == [6, 7]
    assert positions("--after", 2, "--limit", 2) == [3, 4]
    assert positions("--after", 7) == []
    assert positions("--since", "1h") == [1, 2, 3, 4, 5, 6, 7]
    assert positions("--since", "2100-01-01") == []
    assert positions("--key", "nobody") == []


def test_a_page_that_ends_early_says_where_to_go_on(shop: Path) -> None:
    done = tidings("events", "ls", "--after", 0, "--limit", 3, "-o", "json", cwd=shop)
    assert json.loads(done.out)["warnings"] == ["more may follow: --after 3"]


@everywhere
def test_an_event_is_shown_by_id_and_by_position(shop: Path) -> None:
    [first, *_] = tidings("events", "ls", "-o", "ids", cwd=shop).out.split()
    by_id = tidings("events", "show", first, "-o", "json", cwd=shop).data
    assert by_id == tidings("events", "show", 1, "-o", "json", cwd=shop).data
    assert by_id["data"] == {"order_id": "ada", "email": "ada@example.com", "total": 10}
    assert '  "email": "ada@example.com",' in tidings("events", "show", 1, cwd=shop).out.splitlines()


@everywhere
@pytest.mark.parametrize("id_", ["nobody", "0", "8", "99999999999999999999", "-1", "%", ""])
def test_an_event_that_is_not_there_is_not_found(shop: Path, id_: str) -> None:
    done = tidings("events", "show", "--", id_, cwd=shop)
    assert done.code == 3
    assert "error[TID-404]" in done.err


@everywhere
def test_a_trace_shows_what_caused_what_and_what_failed(shop: Path) -> None:
    lines = [line.split("  ")[0] for line in tidings("events", "trace", 6, cwd=shop).out.splitlines()]
    assert lines == ["OrderPlaced ada", "└─ ReceiptSent ada", "   └─ ParcelSent ada"] or [
        line.strip("└─ ") for line in lines
    ] == ["OrderPlaced ada", "ReceiptSent ada", ""]
    failed = tidings("events", "trace", 2, cwd=shop).out
    assert "dead letter 1: shop.send_receipt: ValueError: no such mailbox: bad@example.com" in failed
    data = tidings("events", "trace", 2, "-o", "json", cwd=shop).data
    assert [row["depth"] for row in data["events"]] == [0]
    assert [(held["id"], held["state"]) for held in data["held"]] == [(1, "dead")]
    assert tidings("events", "trace", 1, "-o", "ids", cwd=shop).out.count("\n") == 3


@everywhere
def test_the_newest_events_come_first_to_hand_and_new_ones_follow(shop: Path) -> None:
    assert [row[0] for row in tidings("tail", "-n", 2, cwd=shop).rows] == ["6", "7"]
    assert tidings("tail", "-n", 0, cwd=shop).rows == []
    with started("tail", "-f", "-n", 1, "--type", "OrderPlaced", "-o", "ndjson", cwd=shop) as tail:
        tail.until(lambda: tail.out.count("\n") == 1)
        place("cyd", "dan", cwd=shop)
        tail.until(lambda: tail.out.count("\n") == 3)  # while it runs: each line is flushed
    assert [json.loads(line)["key"] for line in tail.out.splitlines()] == ["bob", "cyd", "dan"]


@everywhere
def test_a_long_log_is_searched_from_its_end(new_shop: Path) -> None:
    many = (
        "import asyncio, app\n"
        "async def main():\n"
        "    async with app.app, app.app.transaction() as tx:\n"
        "        await tx.publish(*(app.OrderPlaced(f'k{n % 1000}', 'x', n) for n in range(5000)))\n"
        "asyncio.run(main())"
    )
    python(many, cwd=new_shop)
    found = tidings("events", "ls", "--key", "k7", "--limit", 2, "-o", "json", cwd=new_shop).data
    assert [row["data"]["total"] for row in found] == [3007, 4007]
    first = tidings("events", "ls", "--key", "k7", "--after", 0, "--limit", 2, "-o", "json", cwd=new_shop).data
    assert [row["data"]["total"] for row in first] == [7, 1007]


# ---- hostile input ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def hostile_shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A shop where somebody wrote escape sequences into everything that can be written; it is only looked at."""
    folder = open_shop(tmp_path_factory.mktemp("hostile") / "shop")
    (folder / "broken").touch()
    publish = (
        "import asyncio, sys, app\n"
        "async def main():\n"
        "    async with app.app:\n"
        "        text = sys.argv[1]\n"
        "        await app.app.publish(app.OrderPlaced(text, 'bad' + text, 2**53 + 1))\n"
        "asyncio.run(main())"
    )
    python(publish, HOSTILE, cwd=folder)
    work(folder)
    return folder


@pytest.mark.parametrize(
    "command",
    ["events ls", "events show 1", "events trace 1", "tail", "dead ls", "dead show 1", "dead redrive 1 --dry-run"],
)
@pytest.mark.parametrize("form", ["", "-o json"])
@pytest.mark.bad_input(48)
def test_what_strangers_wrote_cannot_move_the_cursor(hostile_shop: Path, command: str, form: str) -> None:
    done = tidings(*command.split(), *form.split(), cwd=hostile_shop)
    assert done.code == 0, done.err
    for shown in (done.out, done.err):
        assert not set("\x1b\x07\r\x9b\u202e\u2066\u200b") & set(shown)
        assert "rm -rf" not in shown.splitlines()


def test_what_strangers_wrote_is_told_without_harm_on_a_terminal(hostile_shop: Path) -> None:
    shown = on_terminal("dead", "ls", cwd=hostile_shop, width=400).out
    assert r"\x1b[2J" in shown
    assert "\x1b[2J" not in shown
    assert "\u202e" not in shown


def test_json_keeps_every_character_and_every_digit(hostile_shop: Path) -> None:
    data = tidings("dead", "show", 1, "-o", "json", cwd=hostile_shop).data
    assert data["event"]["key"] == HOSTILE
    assert data["event"]["data"] == {"order_id": HOSTILE, "email": f"bad{HOSTILE}", "total": 2**53 + 1}


@pytest.mark.bad_input(48)
def test_data_that_is_no_json_and_a_line_of_ten_megabytes_are_shown(shop: Path) -> None:
    connection = sqlite3.connect(shop / "shop.db")
    connection.execute("UPDATE tidings_log SET data = x'00ff1b5b324a' WHERE position = 1")
    connection.execute(
        "UPDATE tidings_log SET data = ? WHERE position = 2", (b'{"text":"' + b"x" * 10_000_000 + b'"}',)
    )
    connection.commit()
    connection.close()
    assert "6 bytes that are not JSON" in tidings("events", "show", 1, cwd=shop).out
    assert tidings("events", "show", 1, "-o", "json", cwd=shop).data["data_base64"] == "AP8bWzJK"
    assert "characters)" in tidings("events", "show", 2, cwd=shop).out
    assert len(tidings("events", "ls", cwd=shop).out) < 5_000


# ---- status ----------------------------------------------------------------------------------------------------------


@everywhere
def test_status_tells_how_every_group_stands(shop: Path) -> None:
    place("eve", cwd=shop)
    data = tidings("status", "-o", "json", cwd=shop).data
    assert data["store"] == store_of(shop).replace(":password", ":***")
    assert data["head"] == 8
    assert data["timers"] == {"waiting": 0, "next": None}
    groups = {row["group"]: row for row in data["groups"]}
    assert set(groups) == {"shop.revenue", "shop.send_receipt", "shop.send_parcel"}
    late = groups["shop.send_receipt"]
    assert (late["lag"], late["retrying"], late["parked"], late["dead"], late["owners"]) == (1, 0, 0, 1, {})
    assert late["oldest_seconds"] > 0
    assert late["handler"].startswith("app:send_receipt")


@everywhere
def test_timers_that_wait_are_counted(shop: Path) -> None:
    later = (
        "import asyncio, app\n"
        "async def main():\n"
        "    async with app.app: await app.app.publish(app.OrderPlaced('x', 'x', 1), after=3600)\n"
        "asyncio.run(main())"
    )
    python(later, cwd=shop)
    timers = tidings("status", "-o", "json", cwd=shop).data["timers"]
    assert timers["waiting"] == 1
    assert timers["next"].endswith("Z")


@everywhere
def test_status_can_serve_as_a_check(shop: Path) -> None:
    assert tidings("status", "--max-lag", 0, "--max-age", 60, cwd=shop).code == 0
    place("eve", "fay", cwd=shop)
    late = tidings("status", "--max-lag", 1, cwd=shop)
    assert late.code == 5
    assert "too late: shop.revenue, shop.send_receipt" in late.err
    assert tidings("status", "--max-lag", 2, cwd=shop).code == 0
    assert tidings("status", "--max-age", 0, cwd=shop).code == 5
