"""The PostgreSQL store keeps what a store promises."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from random import Random

import msgspec
import psycopg
import pytest

from tidings.core.envelope import Envelope
from tidings.core.operations import ANY, Append, Repair, Settle
from tidings.core.ports import Store
from tidings.core.url import parse_url
from tidings.errors import Fenced, NotFound, OutcomeUnknown, StoreFull, StoreUnavailable, TidingsError, WrongVersion
from tidings.stores.postgres import PostgresStore
from tidings.stores.postgres.committer import KNOWN, LOOK, Committer
from tidings.stores.postgres.connection import PLANNED_ONCE, Place
from tidings.stores.postgres.wire import BlockingWire, finish
from tidings.stores.sqlite import SqliteStore
from tidings.testing.conformance.store import StoreSuite
from tidings.testing.conformance.store.making import GROUP, claimed, envelope

AT_THE_COMMIT = """
CREATE FUNCTION too_late() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {}; RETURN NULL; END $$;
CREATE CONSTRAINT TRIGGER too_late AFTER INSERT ON tidings_log DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW WHEN (NEW.key = 'bad') EXECUTE FUNCTION too_late();
"""
"""Makes what is appended for one key fail where it commits, when the statement has given its rows already."""
FULL = "RAISE EXCEPTION 'no space' USING ERRCODE = 'disk_full'"
ENDED = "PERFORM pg_terminate_backend(pg_backend_pid())"


Plant = Callable[[str], object]


async def lengths(store: Store) -> dict[str, int]:
    """The version of each stream."""
    return {stream: len(await store.load(stream)) for stream in ("a:1", "a:2")}


def appends(random: Random, known: dict[str, int], used: list[Envelope]) -> Iterator[Append]:
    """Some appends; most of them at a version that is right, if all before them are kept."""
    states = random.choice([[], [], ["state:Customer:k-1", "state:Customer:k-2"]])
    kinds = random.choice([["OrderPlaced"], ["OrderPlaced", "OrderPaid"]])
    context = {name: random.choice([None, None, "c-1"]) for name in ("correlation", "causation", "traceparent")}
    for _ in range(random.randint(1, 6)):
        stream = random.choice([None, "a:1", "a:2", *states])
        types, keys = (["Customer"], [stream[-3:]]) if stream in states else (kinds, ["k-1", "k-2"])
        envelopes = [
            envelope(random.choice(keys), stream=stream, type=random.choice(types), headers=b"{}", **context)
            for _ in range(random.choice([1, 1, 2, 5]))
        ]
        fresh = random.random() < 0.9
        if used and not fresh and random.random() < 0.5:
            envelopes[-1] = random.choice(used)
        if used and not fresh and random.random() < 0.5:
            envelopes[0] = msgspec.structs.replace(envelopes[0], id=random.choice(used).id)
        expected = ANY
        if stream in known and {each.stream for each in envelopes} == {stream}:
            expected = random.choice([ANY, *[known[stream]] * 4]) if random.random() < 0.9 else known[stream] + 2
            known[stream] += len(envelopes)
        used[:] = [*used, *envelopes][-20:]
        yield Append(envelopes, expected, fresh=fresh)


async def written(store: Store, op: Append) -> object:
    """What a store says to an append."""
    try:
        return await store.write(op)
    except TidingsError as error:
        return error


def outcome(result: object) -> object:
    """What can be compared."""
    if isinstance(result, TidingsError):
        return type(result), result.data
    return tuple(result.positions), result.version


@pytest.fixture
def pass_time(store: PostgresStore) -> Callable[[float], Awaitable[None]]:
    """Lease time passes in the database alone, so it is the leases that are moved."""

    async def pass_time(seconds: float) -> None:
        tx = await store.begin()
        for table in ("tidings_slot", "tidings_member"):
            await tx.execute(f"UPDATE {table} SET expires = expires - ? WHERE expires > 0", (float(seconds),))
        await tx.commit()

    return pass_time


class TestPostgres(StoreSuite):
    async def test_a_store_is_fit_by_its_own_account(self, store: Store) -> None:
        """It says what is wrong with the servers that tests share: they are quick, not safe."""
        found = [*store.look(), *await store.inspect(deep=True)]
        assert [each.name for each in found if each.verdict == "fail"] == ["fsync", "full_page_writes"]
        assert all(each.fix for each in found if each.verdict != "ok")

    @pytest.mark.parametrize("count", [1, 2])
    @pytest.mark.parametrize("before", [0, 3], ids=["not prepared", "prepared"])
    @pytest.mark.parametrize(("happens", "error"), [(FULL, StoreFull), (ENDED, OutcomeUnknown)])
    async def test_what_fails_at_the_commit_itself_is_not_acknowledged(
        self, store: PostgresStore, plant: Plant, happens: str, error: type[Exception], before: int, count: int
    ) -> None:
        plant(AT_THE_COMMIT.format(happens))
        for _ in range(before):
            await store.write(Append([envelope("good") for _ in range(count)]))
        for _ in range(2):
            with pytest.raises(error):
                await store.write(Append([envelope("bad") for _ in range(count)]))
        await store.write(Append([envelope("good")]))
        assert await store.query("SELECT key, count(*) FROM tidings_log GROUP BY key") == [("good", before * count + 1)]

    @pytest.mark.parametrize("count", [1, 2])
    async def test_g4_unknown_is_only_what_may_have_been_sent(
        self, store: PostgresStore, plant: Plant, count: int
    ) -> None:
        """The server takes one connection and no other: where there is none, and where there is one no more."""
        plant(AT_THE_COMMIT.format(ENDED))
        places = [Place(parse_url(url, ("postgresql",))) for url in ("postgresql://127.0.0.1:1/shop", store.url)]
        backends: list[int] = []

        async def connect() -> BlockingWire:
            place = places.pop() if len(places) > 1 else places[0]
            connection = place.connect(**PLANNED_ONCE)
            backends.append(connection.info.backend_pid)
            return BlockingWire(connection)

        def commit(key: str) -> set[type]:
            outcomes, _ = finish(committer.commit_all([Append([envelope(key)]) for _ in range(count)]))
            return {type(error) for _, error in outcomes}

        with contextlib.closing(Committer(connect, "here")) as committer:
            assert commit("bad") == {OutcomeUnknown}, "the server ended it where it was asked to commit"
            assert commit("good") == {StoreUnavailable}, "there is no connection"
            places.append(Place(parse_url(store.url, ("postgresql",))))
            assert commit("good") == {type(None)}
            await store.query(f"SELECT pg_terminate_backend({backends[-1]}, 10000)")
            await asyncio.sleep(2 * KNOWN)
            assert commit("good") == {StoreUnavailable}, "it ended while nobody used it"
        assert await store.head() == count

    async def test_on_a_new_connection_the_end_of_the_log_is_looked_for(
        self, store: PostgresStore, plant: Plant
    ) -> None:
        """Behind it may be another server, put in place of one that broke, that lacks the end of the log."""
        for _ in range(3):
            await store.write(Append([envelope("k-1")], fresh=True))
        plant("DELETE FROM tidings_log WHERE position > 1")
        plant(
            "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        await asyncio.sleep(2 * KNOWN)
        await claimed(store)  # makes the new connection
        done = await store.write(Append([envelope("k-1")], fresh=True))
        assert done.positions == (2,)

    async def test_g12_of_sixteen_racers_one_wins_and_of_appends_at_any_version_all_are_kept(
        self, store: PostgresStore
    ) -> None:
        """Each on a connection of its own."""
        racers = [PostgresStore(store.url) for _ in range(16)]
        async with contextlib.AsyncExitStack() as opened:
            for each in racers:
                await each.open()
                opened.push_async_callback(each.close)
            race = [each.write(Append([envelope(stream="a:1")], expected=0)) for each in racers]
            done = await asyncio.gather(*race, return_exceptions=True)
            assert sorted(type(one).__name__ for one in done) == ["Appended", *["WrongVersion"] * 15]
            crowd = [racers[n % 16].write(Append([envelope(stream="a:1")])) for n in range(20)]
            assert sorted(one.version for one in await asyncio.gather(*crowd)) == list(range(2, 22))
        assert [version for _, _, version in await store.load("a:1")] == list(range(1, 22))

    async def test_g4_a_transaction_whose_connection_broke_before_its_commit_has_failed(
        self, store: PostgresStore
    ) -> None:
        tx = await store.begin()
        with pytest.raises(StoreUnavailable):
            await tx.execute("SELECT pg_terminate_backend(pg_backend_pid())")
        with pytest.raises(StoreUnavailable):
            await tx.commit()

    @pytest.mark.parametrize("seed", range(6))
    async def test_appends_that_share_a_commit_end_as_if_each_came_alone(
        self, store: PostgresStore, tmp_path: Path, seed: int
    ) -> None:
        """Alone, that is on SQLite. Some surprise: an id that is known or taken, a version that is not there.

        Now and then somebody else appends too.
        """
        random, single = Random(seed), SqliteStore(f"sqlite:{tmp_path / 'single.db'}")
        await single.open()
        used: list[Envelope] = []
        place = Place(parse_url(store.url, ("postgresql",)))

        async def connect() -> BlockingWire:
            return BlockingWire(place.connect(**PLANNED_ONCE))

        with contextlib.closing(Committer(connect, "here")) as committer:
            for _ in range(60):
                batch = list(appends(random, await lengths(single), used))
                done = committer.commit_all(batch) if len(batch) > 1 else committer.commit_one(batch[0])
                outcomes, _ = finish(done)
                shared = [outcome(error or result) for result, error in outcomes]
                assert shared == [outcome(await written(single, each)) for each in batch]
                if random.random() < 0.2:
                    other = Append([envelope("other", stream=random.choice([None, "a:1"]))])
                    assert outcome(await written(store, other)) == outcome(await written(single, other))
        head = await single.head()
        assert await store.read(0, head + 1, head) == await single.read(0, head + 1, head)
        assert await store.states("Customer") == await single.states("Customer")
        await single.close()

    @pytest.mark.parametrize("count", [1, 3])
    @pytest.mark.parametrize("end", ["commit", "rollback"])
    async def test_what_is_new_waits_for_whoever_appends_and_takes_the_next_place(
        self, store: PostgresStore, other: PostgresStore, end: str, count: int
    ) -> None:
        """This process was alone so far, and takes the place for free that the other one is about to take."""
        for _ in range(3):
            await store.write(Append([envelope()], fresh=True))
        theirs = await other.begin()
        assert (await theirs.apply(Append([envelope("theirs")]))).positions == (4,)
        waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
        async with asyncio.timeout(20), asyncio.TaskGroup() as group:
            ours = group.create_task(store.write(Append([envelope("ours") for _ in range(count)], fresh=True)))
            while await other.query(waiting) == [(0,)]:
                await asyncio.sleep(0.01)
            await getattr(theirs, end)()
        keys = ["theirs"] * (end == "commit") + ["ours"] * count
        assert ours.result().position == 3 + len(keys)
        assert [(each.position, each.key) for each in await store.read(3, 9, 9)] == list(enumerate(keys, 4))

    async def test_tasks_whose_first_writes_came_apart_share_their_later_commits(
        self, store: PostgresStore, other: PostgresStore
    ) -> None:
        """The first one's commit takes long, and the others wait for it; from then on all of them go out together."""

        async def write() -> None:
            for _ in range(10):
                await store.write(Append([envelope()], fresh=True))

        await store.write(Append([envelope()], fresh=True))
        theirs = await other.begin()
        await theirs.apply(Append([envelope()]))
        async with asyncio.timeout(20), asyncio.TaskGroup() as group:
            for _ in range(8):
                group.create_task(write())
            await asyncio.sleep(0.1)
            await theirs.commit()
        commits = await store.query("SELECT count(DISTINCT xmin::text) FROM tidings_log WHERE position > 2")
        assert commits <= [(12,)]  # one for the first, one for the seven others, and nine for all of them

    async def test_others_are_told_while_there_are_some(self, store: PostgresStore, heard: Callable[[], int]) -> None:
        """Who is alone is not told on, as to notify takes as long as some appends."""

        async def write() -> int:
            await store.write(Append([envelope()]))
            return await asyncio.to_thread(heard)

        async with asyncio.timeout(30):
            while await write():  # what it said when it came
                pass
            assert not any([await write() for _ in range(3)])
            for _ in range(2):
                other = PostgresStore(store.url)
                await other.open()
                while not await write():  # once the other one has said that it is there
                    pass
                assert all([await write() for _ in range(3)])
                await other.close()
                while await write():
                    pass
                assert not any([await write() for _ in range(3)])

    async def test_who_comes_is_told_what_was_committed_before_it_was_heard(
        self, store: PostgresStore, heard: Callable[[], int], plant: Plant
    ) -> None:
        """Its own word is the cause: nobody writes any more."""
        async with asyncio.timeout(30):
            while await asyncio.to_thread(heard):
                pass
            plant("SELECT pg_advisory_lock_shared(1953063786, 'tidings_log'::regclass::oid::integer)")
            plant(f'NOTIFY "tidings_{Place(parse_url(store.url, ("postgresql",))).schema}"')
            count = 0
            while count < 2:  # that one, and what it is answered
                count += await asyncio.to_thread(heard)

    @pytest.fixture
    def heard(self, store: PostgresStore) -> Iterator[Callable[[], int]]:
        """How many notifications there are within a quarter of a second; it takes one or some of them."""
        with psycopg.connect(store.url, autocommit=True) as connection:
            connection.execute(f'LISTEN "tidings_{Place(parse_url(store.url, ("postgresql",))).schema}"')
            yield lambda: len(list(connection.notifies(timeout=0.25, stop_after=1)))

    @pytest.mark.parametrize("count", [1, 3])
    async def test_a_log_that_became_shorter_gets_no_hole(self, store: PostgresStore, plant: Plant, count: int) -> None:
        for _ in range(5):
            await store.write(Append([envelope()], fresh=True))
        plant("DELETE FROM tidings_log WHERE position > 3")
        await asyncio.sleep(2 * LOOK)
        done = await store.write(Append([envelope() for _ in range(count)], fresh=True))
        assert done.positions == tuple(range(4, 4 + count))

    @pytest.mark.parametrize(("to", "after"), [(None, 3), (1, 1), (99, 3)])
    async def test_a_group_ahead_of_a_log_that_became_shorter_is_set_back(
        self, store: PostgresStore, plant: Plant, to: int | None, after: int
    ) -> None:
        await store.write(Append([envelope() for _ in range(5)]))
        slots = await claimed(store)
        await store.write(Settle(GROUP, slots, checkpoint=5))
        assert await store.write(Repair(GROUP, to)) == 0
        plant("DELETE FROM tidings_log WHERE position > 3")
        assert await store.write(Repair(GROUP, to)) == 2
        assert await store.checkpoint(GROUP) == after
        with pytest.raises(Fenced):
            await store.write(Settle(GROUP, slots, checkpoint=5))
        with pytest.raises(NotFound):
            await store.write(Repair("shop.unknown"))

    @pytest.mark.parametrize("count", [1, 10])
    async def test_what_comes_behind_a_version_that_is_missing_is_refused(
        self, store: PostgresStore, plant: Plant, count: int
    ) -> None:
        """An owner elsewhere may have numbered a stream with gaps."""
        await store.write(Append([envelope(stream="a:1", version=version) for version in (1, 5)]))
        for expected in (1, 3, 6):
            with pytest.raises(WrongVersion) as caught:
                await store.write(Append([envelope(stream="a:1") for _ in range(count)], expected=expected))
            assert caught.value.data["actual"] == 5
        done = await store.write(Append([envelope(stream="a:1") for _ in range(count)], expected=5))
        assert done.version == 5 + count

    @pytest.fixture
    def plant(self, store: PostgresStore) -> Iterator[Plant]:
        """Runs statements as the owner of the store; what `AT_THE_COMMIT` made is taken away in the end."""
        with psycopg.connect(store.url, autocommit=True) as connection:
            yield connection.execute
            connection.execute("DROP FUNCTION IF EXISTS too_late CASCADE")

    @pytest.fixture
    async def store(self, postgres_store_url: str) -> AsyncIterator[Store]:
        store = PostgresStore(postgres_store_url)
        await store.open()
        yield store
        await store.close()

    @pytest.fixture
    async def other(self, store: Store) -> AsyncIterator[Store]:
        other = PostgresStore(store.url)
        await other.open()
        yield other
        await other.close()
