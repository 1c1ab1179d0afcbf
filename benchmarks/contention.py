"""Nothing but small transactions from many connections: what taking turns costs when it is all there is.

`pgbench` is the client, so that the server and not Python is what is measured. With an old transaction open beside it,
rows that are written again and again pile up, for none of their versions may be removed.
"""

from __future__ import annotations

import contextlib
import re
import statistics
import subprocess
from collections.abc import Iterator, Sequence

import psycopg

from benchmarks.recipes import RECIPES, STREAMS, Recipe
from tests.servers.postgres import PostgresServer

CLIENTS = (1, 8, 16, 32)
NAMES = ("identity", "counter", "lock", "counter, flush later")
LONG = 10
"""How many times longer a round beside an old transaction is: time to pile up."""
SCRIPT = f"""
\\set stream random(0, {STREAMS - 1})
\\set id random(1, 1000000000000)
BEGIN;
INSERT INTO business (who) VALUES (1);
"""
APPEND = "SELECT append(:stream, ARRAY[:id::bigint], ARRAY['x'::bytea])"


def script(recipe: Recipe) -> str:
    """What each client does: the last statements in one round trip where the recipe says so."""
    if recipe.late:
        return SCRIPT + "\\; ".join(APPEND if "append" in each else each for each in recipe.late) + ";\n"
    return f"{SCRIPT}{APPEND};\nCOMMIT;\n"


def play(server: PostgresServer, recipe: Recipe, clients: int, seconds: float, *, beside_old: bool = False) -> float:
    """One round on a new database: transactions a second."""
    with server.database() as url, contextlib.ExitStack() as old:
        with psycopg.connect(url) as connection:
            connection.execute(recipe.tables)
        if beside_old:
            reader = old.enter_context(psycopg.connect(url))
            reader.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            reader.execute("SELECT 1")
        command = [server.bin / "pgbench", "-n", "-f", "-", "-c", str(clients), "-T", str(max(1, round(seconds))), url]
        done = subprocess.run(command, input=script(recipe), capture_output=True, text=True, check=True)
        return float(re.search(r"tps = ([\d.]+)", done.stdout)[1])


def measure(server: PostgresServer, rounds: int, seconds: float) -> Iterator[Sequence[str]]:
    """The lines of the table, its heading first; medians of rounds in turns."""
    recipes = [recipe for recipe in RECIPES if recipe.name in NAMES]
    found: dict[tuple[str, int], list[float]] = {}
    for _ in range(rounds):
        for clients in CLIENTS:
            for recipe in recipes:
                found.setdefault((recipe.name, clients), []).append(play(server, recipe, clients, seconds))
    slow = {recipe.name: play(server, recipe, CLIENTS[1], seconds * LONG, beside_old=True) for recipe in recipes}
    yield ["transactions/s", *(f"{clients} clients" for clients in CLIENTS), f"{CLIENTS[1]} beside an old transaction"]
    for recipe in recipes:
        rates = [f"{statistics.median(found[recipe.name, clients]):,.0f}" for clients in CLIENTS]
        yield [recipe.name, *rates, f"{slow[recipe.name]:,.0f}"]
