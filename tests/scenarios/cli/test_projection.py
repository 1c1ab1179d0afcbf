"""`tidings projection`: seeing read models, and making one anew."""

import signal
from pathlib import Path

import pytest

from tests.scenarios.cli.conftest import everywhere, place, python, sql, store_of
from tests.scenarios.cli.terminal import on_terminal, started, tidings


def revenue(cwd: Path) -> dict[str, int]:
    return dict(sql(cwd, "SELECT email, total FROM revenue"))


def spoil(cwd: Path) -> None:
    sql(cwd, "UPDATE revenue SET total = -1")


@everywhere
def test_projections_are_listed_with_their_tables(shop: Path) -> None:
    [row] = tidings("projection", "ls", "-o", "json", cwd=shop).data
    assert (row["name"], row["app"], row["tables"], row["state"]) == ("revenue", "shop", ["revenue"], "up to date")
    place("eve", cwd=shop)
    [late] = tidings("projection", "ls", "-o", "json", "--store", store_of(shop), cwd=shop).data
    assert (late["lag"], late["state"]) == (1, "behind")


@everywhere
def test_a_rebuild_fills_the_tables_again(shop: Path) -> None:
    expected = revenue(shop)
    spoil(shop)
    done = tidings("projection", "rebuild", "revenue", "--yes", cwd=shop)
    assert done.code == 0, done.err
    assert done.out == "revenue is rebuilt from 7 events\n"
    assert "rebuild 100 % 7/7" in done.err
    assert revenue(shop) == expected


@everywhere
def test_a_rebuild_goes_on_beside_a_worker(shop: Path) -> None:
    expected = revenue(shop)
    spoil(shop)
    with started("run", "app:app", cwd=shop) as run:
        run.until(lambda: " works on " in run.log)
        assert tidings("projection", "rebuild", "revenue", "--yes", cwd=shop).code == 0
        run.until(lambda: revenue(shop) == expected)


@everywhere
@pytest.mark.bad_input(57)
def test_a_rebuild_asks_first(shop: Path) -> None:
    spoil(shop)
    assert tidings("projection", "rebuild", "revenue", cwd=shop).code == 2
    dry = tidings("projection", "rebuild", "revenue", "--dry-run", "-o", "json", cwd=shop)
    assert (dry.code, dry.data["events"], dry.data["replayed"]) == (0, 7, 0)
    assert on_terminal("projection", "rebuild", "revenue", cwd=shop, typed="n\n").code == 1
    assert set(revenue(shop).values()) == {-1}
    assert on_terminal("projection", "rebuild", "revenue", cwd=shop, typed="y\n").code == 0
    assert set(revenue(shop).values()) == {10}


@everywhere
def test_a_changed_projection_is_seen_refused_and_mended(shop: Path) -> None:
    source = shop / "app.py"
    source.write_text(source.read_text().replace("        order.total,\n", "        order.total * 2,\n"))
    assert tidings("projection", "ls", cwd=shop).rows[0][-1] == "changed"
    refused = tidings("run", "app:app", cwd=shop)
    assert refused.code == 1
    assert "fix: rebuild it: `tidings projection rebuild revenue`" in refused.err
    assert tidings("projection", "rebuild", "revenue", "--yes", cwd=shop).code == 0
    assert set(revenue(shop).values()) == {20}
    assert tidings("projection", "ls", cwd=shop).rows[0][-1] == "up to date"


def test_a_projection_that_is_not_there_is_not_found(shop: Path) -> None:
    done = tidings("projection", "rebuild", "revenu", "--yes", cwd=shop)
    assert done.code == 3
    assert "its projections: revenue" in done.err
    assert tidings("projection", "rebuild", "revenue", "--yes", "--store", store_of(shop), cwd=shop).code == 2


@everywhere
def test_an_interrupted_rebuild_says_so_and_can_be_repeated(shop: Path) -> None:
    many = (
        "import asyncio, app\n"
        "async def main():\n"
        "    async with app.app:\n"
        "        for _ in range(40):\n"
        "            await app.app.publish(*(app.OrderPlaced('k', 'x', 1) for _ in range(1000)))\n"
        "asyncio.run(main())"
    )
    python(many, cwd=shop)
    with started("projection", "rebuild", "revenue", "--yes", cwd=shop) as rebuild:
        rebuild.until(lambda: "will be dropped" in rebuild.log)
        rebuild.until(lambda: "x" in revenue(shop) or "rebuild 10 %" in rebuild.log)
        rebuild.send(signal.SIGINT)
        assert rebuild.ended() == 130
    assert "revenue is incomplete; run it again" in rebuild.log
    assert "Traceback" not in rebuild.log
    assert tidings("projection", "rebuild", "revenue", "--yes", cwd=shop).code == 0
    assert revenue(shop)["x"] == 40_000
