"""The log, streams, ids, states and timers."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from tidings.core.envelope import Envelope
from tidings.core.operations import Append, Fire, Ship
from tidings.core.outbox import COLUMNS, row_of
from tidings.core.ports import Store
from tidings.errors import BadArgument, IdConflict, WrongVersion
from tidings.testing.conformance.store.making import NOW, envelope


class LogTests:
    """G1, G4, G12, G14, G15, G18 and G19, as far as a store can be asked about them alone."""

    # ---- order and completeness --------------------------------------------------------------------------------------

    async def test_g14_positions_count_from_one_without_gaps(self, store: Store) -> None:
        first = await store.write(Append([envelope(), envelope()]))
        second = await store.write(Append([envelope()]))
        assert (tuple(first.positions), tuple(second.positions)) == ((1, 2), (3,))
        assert [one.position for one in await store.read(0, 10, 10)] == [1, 2, 3]
        assert await store.head() == 3

    async def test_g14_many_callers_at_once_get_each_a_place_of_their_own(self, store: Store, other: Store) -> None:
        stores = [store, other]
        done = await asyncio.gather(*(stores[n % 2].write(Append([envelope(), envelope()])) for n in range(100)))
        assert sorted(at for one in done for at in one.positions) == list(range(1, 201))
        assert all(one.positions[1] == one.positions[0] + 1 for one in done)

    async def test_g14_every_reader_finds_the_same_at_a_position(self, store: Store, other: Store) -> None:
        await store.write(Append([envelope(), envelope()]))
        await other.write(Append([envelope()]))
        assert await store.read(0, 10, 10) == await other.read(0, 10, 10)

    async def test_g3_an_envelope_comes_back_as_it_was_stored(self, store: Store) -> None:
        sent = envelope(
            "ключ-😀",
            correlation="c-1",
            causation="e-0",
            traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            headers=b'{"tags":["a"]}',
            data='{"text":"\\u0000 ünïcode"}'.encode(),
            topic=None,
            schema=3,
        )
        await store.write(Append([sent]))
        [read] = await store.read(0, 1, 1)
        assert read == msgspec.structs.replace(sent, position=1)

    async def test_an_empty_append_does_nothing(self, store: Store) -> None:
        assert (await store.write(Append([]))).position == 0
        assert await store.head() == 0

    async def test_writes_of_one_caller_keep_their_order(self, store: Store) -> None:
        sent = [envelope() for _ in range(50)]
        await asyncio.gather(*(store.write(Append([one])) for one in sent))
        assert [one.id for one in await store.read(0, 50, 50)] == [one.id for one in sent]

    # ---- reading -----------------------------------------------------------------------------------------------------

    async def test_reading_is_bounded_and_filtered_by_type_slot_and_app(self, store: Store) -> None:
        sent = [
            envelope(slot=1),
            envelope(slot=2, type="OrderShipped"),
            envelope(slot=1, topic=None),
            envelope(slot=2, topic=None, source="billing"),
            envelope(slot=2),
        ]
        await store.write(Append(sent))

        async def positions(after: int = 0, until: int = 9, limit: int = 9, **filters: object) -> list[int]:
            return [one.position for one in await store.read(after, until, limit, **filters)]  # type: ignore[arg-type]

        assert await positions() == [1, 2, 3, 4, 5]
        assert await positions(1, 4) == [2, 3, 4]
        assert await positions(limit=2) == [1, 2]
        assert await positions(types=["OrderShipped"]) == [2]
        assert await positions(types=[]) == []
        assert await positions(slots=[1]) == [1, 3]
        assert await positions(slots=[]) == []
        assert await positions(app="shop") == [1, 2, 3, 5]
        assert await positions(slots=[2], types=["OrderPlaced"], app="billing") == [4, 5]

    async def test_skimming_finds_the_same_without_what_handling_does_not_take(self, store: Store) -> None:
        trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
        await store.write(
            Append(
                [
                    envelope(slot=1),
                    envelope(type="OrderShipped"),
                    envelope(topic=None, source="billing"),
                    envelope("ключ", slot=2, schema=3, correlation="c-1", traceparent=trace, headers=b"{}", data=b"[]"),
                    envelope(topic=None),
                    envelope(),
                ]
            )
        )
        skimmed = await store.skim(0, 5, 9, ["OrderPlaced"], "shop")
        assert [one.position for one in skimmed] == [1, 4, 5]
        assert [one.position for one in await store.skim(1, 9, 2, None, "billing")] == [2, 3]
        for one in skimmed:
            [whole] = await store.read(one.position - 1, one.position, 1)
            assert msgspec.structs.asdict(one).items() <= msgspec.structs.asdict(whole).items()
            assert one.conversation == whole.conversation

    async def test_events_are_found_by_id_and_by_conversation(self, store: Store) -> None:
        first = envelope()
        second = envelope(correlation=first.id, causation=first.id)
        await store.write(Append([first, envelope(), second]))
        assert [one.position for one in await store.find(id=second.id)] == [3]
        assert [one.position for one in await store.find(correlation=first.id)] == [1, 3]
        assert await store.find(id="nothing") == []

    # ---- streams -----------------------------------------------------------------------------------------------------

    async def test_g12_versions_of_a_stream_count_from_one(self, store: Store) -> None:
        first = await store.write(Append([envelope(stream="a:1"), envelope(stream="a:1")], expected=0))
        second = await store.write(Append([envelope(stream="a:1")], expected=2))
        third = await store.write(Append([envelope(stream="a:1")]))
        assert (first.version, second.version, third.version) == (2, 3, 4)
        assert [version for _, _, version in await store.load("a:1")] == [1, 2, 3, 4]
        assert [version for _, _, version in await store.load("a:1", 2)] == [3, 4]
        assert await store.load("a:2") == []

    @pytest.mark.parametrize("count", [1, 10])
    @pytest.mark.parametrize("expected", [0, 1, 3])
    async def test_g12_an_append_at_another_version_is_refused(self, store: Store, expected: int, count: int) -> None:
        await store.write(Append([envelope(stream="a:1"), envelope(stream="a:1")]))
        with pytest.raises(WrongVersion) as caught:
            await store.write(Append([envelope(stream="a:1") for _ in range(count)], expected=expected))
        assert caught.value.data == {"stream": "a:1", "expected": expected, "actual": 2}
        assert await store.head() == 2

    async def test_g12_of_many_appends_at_one_version_one_wins(self, store: Store, other: Store) -> None:
        stores = [store, other]
        attempts = [stores[n % 2].write(Append([envelope(stream="a:1")], expected=0)) for n in range(20)]
        done = await asyncio.gather(*attempts, return_exceptions=True)
        assert sum(not isinstance(one, BaseException) for one in done) == 1
        assert sum(isinstance(one, WrongVersion) for one in done) == 19
        assert await store.head() == 1

    async def test_an_expected_version_needs_a_stream(self, store: Store) -> None:
        with pytest.raises(BadArgument):
            await store.write(Append([envelope()], expected=0))

    async def test_one_refusal_fails_nobody_else(self, store: Store) -> None:
        await store.write(Append([envelope(id="x", stream="a:1")]))
        ops = [Append([envelope()]) for _ in range(20)]
        ops[5] = Append([envelope(stream="a:1")], expected=0)
        ops[10] = Append([envelope(id="x", data=b"{}")])
        done = await asyncio.gather(*(store.write(op) for op in ops), return_exceptions=True)
        failed = {n: type(one) for n, one in enumerate(done) if isinstance(one, BaseException)}
        assert failed == {5: WrongVersion, 10: IdConflict}
        assert await store.head() == 19

    # ---- ids ---------------------------------------------------------------------------------------------------------

    async def test_g15_the_same_append_again_returns_the_same_positions(self, store: Store) -> None:
        op = Append([envelope(), envelope()])
        first = await store.write(op)
        await store.write(Append([envelope()]))
        again = await store.write(op)
        assert tuple(again.positions) == tuple(first.positions)
        assert await store.head() == 3

    async def test_g15_the_same_append_to_a_stream_returns_the_same_version(self, store: Store) -> None:
        op = Append([envelope(stream="a:1"), envelope(stream="a:1")], expected=0)
        first = await store.write(op)
        await store.write(Append([envelope(stream="a:1")]))
        again = await store.write(op)
        assert (tuple(again.positions), again.version) == (tuple(first.positions), 2)
        assert len(await store.load("a:1")) == 3

    async def test_g15_what_is_stored_in_part_is_completed(self, store: Store) -> None:
        known, fresh = envelope(), envelope()
        await store.write(Append([known]))
        assert tuple((await store.write(Append([known, fresh]))).positions) == (1, 2)

    async def test_g15_the_same_id_twice_in_one_append_is_one_event(self, store: Store) -> None:
        twice = envelope()
        assert tuple((await store.write(Append([twice, twice]))).positions) == (1, 1)
        assert await store.head() == 1

    @pytest.mark.parametrize("changes", [{"data": b"{}"}, {"type": "OrderShipped"}, {"key": "k-2"}])
    async def test_g4_a_taken_id_with_other_content_is_refused(self, store: Store, changes: dict[str, object]) -> None:
        first = envelope()
        await store.write(Append([first]))
        with pytest.raises(IdConflict):
            await store.write(Append([envelope(), msgspec.structs.replace(first, **changes)]))
        assert await store.head() == 1

    async def test_g4_ids_of_two_sources_do_not_collide(self, store: Store) -> None:
        await store.write(Append([envelope(id="x"), envelope(id="x", source="billing")]))
        assert [one.source for one in await store.find(id="x")] == ["shop", "billing"]

    async def test_g15_many_callers_with_one_id_make_one_event(self, store: Store, other: Store) -> None:
        stores, op = [store, other], Append([envelope()])
        done = await asyncio.gather(*(stores[n % 2].write(op) for n in range(30)))
        assert {tuple(one.positions) for one in done} == {(1,)}
        assert await store.head() == 1

    # ---- states ------------------------------------------------------------------------------------------------------

    async def test_g18_the_newest_state_of_each_key_is_kept_with_its_version(self, store: Store) -> None:
        def customer(key: str, data: bytes) -> Append:
            return Append([envelope(key, type="Customer", stream=f"state:Customer:{key}", data=data)])

        versions = [
            (await store.write(customer("c-2", b'{"name":"Bo"}'))).version,
            (await store.write(customer("c-1", b'{"name":"Ada"}'))).version,
            (await store.write(customer("c-2", b""))).version,
        ]
        await asyncio.gather(*(store.write(customer("c-3", b'{"name":"%d"}' % n)) for n in range(5)))
        assert versions == [1, 1, 2]
        states = await store.states("Customer")
        assert [(one.key, one.version, one.position, one.data) for one in states] == [
            ("c-1", 1, 2, b'{"name":"Ada"}'),
            ("c-2", 2, 3, b""),
            ("c-3", 5, 8, b'{"name":"4"}'),
        ]
        assert [one.key for one in await store.states("Customer", "c-1", 1)] == ["c-2"]
        assert await store.states("Order") == []

    async def test_g18_a_state_from_elsewhere_keeps_its_owners_version_and_none_goes_back(self, store: Store) -> None:
        def customer(version: int | None, name: str) -> Append:
            data = b'{"name":"%s"}' % name.encode()
            return Append([envelope("c-1", type="Customer", stream="state:Customer:c-1", version=version, data=data)])

        asked = [(3, "Ada"), (7, "Ada L."), (5, "late"), (7, "twice"), (None, "own")]
        versions = [(await store.write(customer(*each))).version for each in asked]
        assert versions == [3, 7, 5, 7, 8]
        [current] = await store.states("Customer")
        assert (current.version, current.position, current.data) == (8, 5, b'{"name":"own"}')
        in_log = [(one.version, one.stream is not None) for one in await store.read(0, 10, 10)]
        assert in_log == [(3, True), (7, True), (5, False), (7, False), (8, True)]

    # ---- timers ------------------------------------------------------------------------------------------------------

    async def test_g19_a_later_append_waits_for_its_time_and_fires_once(self, store: Store) -> None:
        late, early = envelope(), envelope()
        assert (await store.write(Append([late], due=NOW + 20))).position == 0
        assert (await store.write(Append([early], due=NOW + 10))).position == 0
        assert (await store.head(), await store.next_timer()) == (0, NOW + 10)
        assert await store.write(Fire(NOW + 9)) == NOW + 10
        assert await store.head() == 0
        assert await store.write(Fire(NOW + 10)) == NOW + 20
        assert await store.write(Fire(NOW + 1000)) is None
        assert await store.write(Fire(NOW + 1000)) is None
        read = await store.read(0, 10, 10)
        assert [(one.id, one.time) for one in read] == [(early.id, NOW + 10), (late.id, NOW + 20)]
        assert await store.next_timer() is None

    async def test_g19_at_most_so_many_timers_fire_at_once(self, store: Store) -> None:
        await store.write(Append([envelope() for _ in range(5)], due=NOW))
        assert await store.write(Fire(NOW, limit=3)) == NOW
        assert await store.head() == 3

    async def test_g19_a_timer_set_twice_fires_once(self, store: Store) -> None:
        op = Append([envelope()], due=NOW)
        await asyncio.gather(store.write(op), store.write(op))
        await store.write(Fire(NOW))
        assert (await store.write(op)).positions[0] == 1
        assert await store.write(Fire(NOW)) is None
        assert await store.head() == 1

    async def test_g19_a_timer_whose_message_was_published_meanwhile_adds_nothing(self, store: Store) -> None:
        one = envelope()
        await store.write(Append([one], due=NOW))
        await store.write(Append([one]))
        await store.write(Fire(NOW))
        assert await store.head() == 1

    # ---- the outbox --------------------------------------------------------------------------------------------------

    async def test_g2_the_outbox_moves_to_the_log_oldest_first_and_a_row_once(self, store: Store) -> None:
        late, *sent = [envelope(key) for key in ("a", "b", None, "a")]
        await put(store, *sent)
        assert await store.oldest_outgoing() == sent[0].time
        assert (await store.write(Ship(limit=2))).positions == (1, 2)
        await put(store, late)
        assert (await store.write(Ship())).positions == (3, 4)
        assert (await store.write(Ship())).positions == ()
        assert [one.id for one in await store.read(0, 10, 10)] == [one.id for one in (*sent, late)]
        assert await store.oldest_outgoing() is None

    async def test_g15_the_outbox_appends_an_id_once_and_keeps_what_contradicts_it(self, store: Store) -> None:
        one, other = envelope(), envelope()
        await store.write(Append([one]))
        lie = msgspec.structs.replace(one, data=b"{}")
        await put(store, one, other, lie, other)
        assert (await store.write(Ship())).positions == (1, 2, 0, 2)
        [dead] = await store.held(state="dead")
        assert (dead.group, dead.envelope, await store.head()) == ("shop.outbox", lie, 2)
        assert await store.oldest_outgoing() is None

    async def test_g18_states_in_the_outbox_get_the_next_versions(self, store: Store) -> None:
        stream = "state:Customer:c-1"
        await put(store, *[envelope("c-1", type="Customer", stream=stream, data=b"%d" % n) for n in range(3)])
        await store.write(Ship())
        [current] = await store.states("Customer")
        assert (current.version, current.data) == (3, b"2")

    async def test_g5_waiting_readers_learn_of_what_left_the_outbox(self, store: Store) -> None:
        await put(store, envelope())
        waiting = asyncio.ensure_future(store.grown(0, 5.0))
        await asyncio.sleep(0.05)
        await store.write(Ship())
        async with asyncio.timeout(1.0):
            await waiting
        assert await store.head() == 1

    async def test_g4_a_timer_with_a_taken_id_is_refused(self, store: Store) -> None:
        one = envelope()
        await store.write(Append([one], due=NOW))
        with pytest.raises(IdConflict):
            await store.write(Append([envelope(), msgspec.structs.replace(one, data=b"{}")], due=NOW))
        await store.write(Fire(NOW))
        assert await store.head() == 1


async def put(store: Store, *envelopes: Envelope) -> None:
    """Write envelopes into the outbox, as transactions of others do."""
    tx = await store.begin()
    for one in envelopes:
        await tx.execute(
            f"INSERT INTO tidings_outbox ({', '.join(COLUMNS)}) VALUES (?, ?, ?, ?, ?)",  # noqa: S608 - our own names
            row_of(one),
        )
    await tx.commit()
