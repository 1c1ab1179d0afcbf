"""The outbox loses nothing, doubles nothing and keeps the order of each key, whoever is killed, late or undone."""

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.outbox import Post, Wrote, connect, live
from tests.faults.sizes import KILLS
from tidings import App
from tidings.core.operations import Append, Ship
from tidings.core.outbox import taken_of
from tidings.stores.postgres import apply
from tidings.stores.postgres import outbox as postgres
from tidings.stores.postgres.log import NOTHING, appending


@pytest.fixture(params=["sqlite", "postgresql"])
def post(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Post]:
    is_file = request.param == "sqlite"
    post = Post(f"sqlite:{tmp_path}/shop.db" if is_file else request.getfixturevalue("durable_postgres_url"), tmp_path)
    yield post
    post.close()


@pytest.fixture
def posts_postgres(newest_postgres_url: str, tmp_path: Path) -> Iterator[Post]:
    post = Post(newest_postgres_url, tmp_path)
    yield post
    post.close()


@pytest.mark.timeout(max(120, KILLS // 4))
@pytest.mark.proves("G2", "G5", "G9")
def test_kills_of_writers_and_relays_lose_nothing_double_nothing_and_keep_the_order(post: Post) -> None:
    killed = live(post, KILLS // 6)
    found = post.found()
    published = len(post.published())
    print(f"{killed} kills, {published} messages")
    assert published > killed
    assert found.broken == set(), found


@pytest.mark.proves("G2", "G6", "G9")
def test_many_writers_with_late_commits_and_rollbacks_are_all_seen_and_in_order(post: Post) -> None:
    post.hold = 0.005 if post.url.startswith("sqlite") else 0.1  # there they take turns
    assert crowd(post) == set()


def crowd(post: Post, seconds: float = 3.0) -> set[str]:
    """Twelve processes write at once while three relay; what is broken then."""
    post.prepare()
    relays = [post.relay() for _ in range(3)]
    assert all(relay.wait_ready() for relay in relays)
    writers = [post.writer(seconds) for _ in range(12)]
    assert [writer.wait(60) for writer in writers] == [0] * 12
    found = post.found()
    published = len(post.published())
    print(f"{published} messages")
    assert published > 100
    return found.broken


def test_a_transaction_that_stays_open_holds_nobody_up_and_is_not_passed_over(posts_postgres: Post) -> None:
    post = posts_postgres
    post.prepare()
    app = App(post.url, name="shop")
    assert post.relay().wait_ready()
    with contextlib.closing(connect(post.url)) as late, contextlib.closing(connect(post.url)) as other:
        app.outbox.add(late, Wrote("late", 1, 1))
        app.outbox.add(other, Wrote("early", 1, 2))
        other.commit()
        assert waited_for(post, 1) < 1.0
        late.commit()
        assert waited_for(post, 2) < 1.0


def waited_for(post: Post, count: int) -> float:
    """Seconds until so many messages are in the log."""
    began = time.monotonic()
    with contextlib.closing(connect(post.url)) as connection:
        connection.autocommit = True
        while connection.execute("SELECT count(*) FROM tidings_log").fetchone() != (count,):
            assert time.monotonic() - began < 10.0
            time.sleep(0.002)
    return time.monotonic() - began


# ---- the proof can fail: planted bugs --------------------------------------------------------------------------------


def skip_what_is_locked() -> None:
    """M6: relays move at the same time, each what no other one has: rows of one key overtake each other."""
    postgres._LOCK = "SELECT true"
    postgres._TAKE = "SELECT * FROM tidings_outbox ORDER BY number LIMIT least($1, 2) FOR UPDATE SKIP LOCKED"


def go_on_from_the_last_number() -> None:
    """A relay remembers where it was: what commits late has a lower number."""
    last = 0
    ship = postgres.ship

    def from_there(op):
        nonlocal last
        postgres._TAKE = f"SELECT * FROM tidings_outbox WHERE number > {last} ORDER BY number LIMIT $1"
        steps = ship(op)
        wanted = next(steps)
        try:
            while True:
                results = yield wanted
                if len(results) == 2 and "FROM tidings_outbox" in wanted[1][0] and results[1].rows:
                    last = max(last, results[1].rows[-1][0])
                wanted = steps.send(results)
        except StopIteration as stop:
            return stop.value

    apply.APPLY[Ship] = from_there


def remove_first() -> None:
    """M22: rows are removed before what they hold is in the log."""

    def ship(op):
        locked, found = yield [(postgres._LOCK, ()), (postgres._TAKE, (op.limit,))]
        if not locked.rows[0][0] or not found.rows:
            return NOTHING
        numbers = [row[0] for row in found.rows]
        yield [("DELETE FROM tidings_outbox WHERE number = ANY ($1)", (numbers,)), apply.COMMIT, apply.BEGIN]
        yield [("SELECT pg_sleep(0.2)", ())]
        yield [appending([Append([taken_of(*row)]) for row in found.rows], strict=False)]
        return NOTHING

    apply.APPLY[Ship] = ship


def test_relays_that_move_at_the_same_time_are_found_to_invert(posts_postgres: Post) -> None:
    posts_postgres.mutant = skip_what_is_locked
    assert "inverted" in crowd(posts_postgres)


def test_a_relay_that_goes_on_from_the_last_number_is_found_to_pass_over(posts_postgres: Post) -> None:
    posts_postgres.mutant, posts_postgres.hold = go_on_from_the_last_number, 0.1
    post = posts_postgres
    post.prepare()
    assert post.relay().wait_ready()
    writers = [post.writer(2.0) for _ in range(8)]
    assert [writer.wait(60) for writer in writers] == [0] * 8
    time.sleep(1.0)
    with contextlib.closing(connect(post.url)) as connection:
        [(left,)] = connection.execute("SELECT count(*) FROM tidings_outbox").fetchall()
    assert left > 0


def test_a_relay_that_removes_first_is_found_to_lose(posts_postgres: Post) -> None:
    posts_postgres.mutant = remove_first
    live(posts_postgres, 40, pause=0.3)  # so that relays come to move something before they are killed
    assert "lost" in posts_postgres.found().broken
