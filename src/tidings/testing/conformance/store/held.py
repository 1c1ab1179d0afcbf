"""Settling deliveries, and those that are held."""

from __future__ import annotations

import statistics
import time

import msgspec
import pytest

from tidings.core.operations import Append, Held, Redrive, Settle
from tidings.core.ports import Store
from tidings.errors import Fenced
from tidings.testing.conformance.store.making import GROUP, NOW, claimed, envelope, held, joining

ALL = range(16)


class HeldTests:
    """G9, G10, G20 and G26, as far as a store can be asked about them alone."""

    @pytest.fixture
    async def epochs(self, store: Store) -> dict[int, int]:
        """Slots of the group, claimed by one worker."""
        return await claimed(store)

    async def hold(self, store: Store, epochs: dict[int, int], *rows: Held) -> None:
        """Store held deliveries."""
        await store.write(Settle(GROUP, epochs, hold=rows))

    async def due(self, store: Store, now: int = NOW, limit: int = 100) -> list[int]:
        """Positions of what is due."""
        return [one.position for one in await store.due(GROUP, ALL, now, limit)]

    # ---- settling ----------------------------------------------------------------------------------------------------

    async def test_g5_everything_in_a_settlement_is_stored_together(self, store: Store, epochs: dict[int, int]) -> None:
        result = await store.write(
            Settle(
                GROUP,
                epochs,
                checkpoint=5,
                started=9,
                hold=[held(3)],
                marks=[7, 8],
                append=[envelope(), envelope()],
                later=[Append([envelope()], due=NOW)],
            )
        )
        assert tuple(result.positions) == (1, 2)
        assert await store.checkpoint(GROUP) == 5
        assert await store.marks(GROUP, 5) == {7, 8}
        assert await store.marks(GROUP, 7) == {8}
        assert await self.due(store) == [3]
        assert await store.next_timer() == NOW

    async def test_g6_a_checkpoint_never_moves_back(self, store: Store, epochs: dict[int, int]) -> None:
        await store.write(Append([envelope() for _ in range(9)]))
        await store.write(Settle(GROUP, epochs, checkpoint=7))
        await store.write(Settle(GROUP, epochs, checkpoint=3))
        assert await store.checkpoint(GROUP) == 7

    async def test_g6_the_checkpoint_of_a_group_is_that_of_its_last_slot(
        self, store: Store, epochs: dict[int, int]
    ) -> None:
        await store.write(Settle(GROUP, {slot: epoch for slot, epoch in epochs.items() if slot != 3}, checkpoint=7))
        assert await store.checkpoint(GROUP) == 0
        await store.write(Settle(GROUP, {3: epochs[3]}, checkpoint=4))
        assert await store.checkpoint(GROUP) == 4

    async def test_marks_are_forgotten_when_every_slot_has_passed_them(
        self, store: Store, epochs: dict[int, int]
    ) -> None:
        await store.write(Settle(GROUP, epochs, marks=[4, 8]))
        await store.write(Settle(GROUP, {1: epochs[1]}, checkpoint=9))
        assert await store.marks(GROUP, 0) == {4, 8}
        await store.write(Settle(GROUP, epochs, checkpoint=5))
        assert await store.marks(GROUP, 0) == {8}

    @pytest.mark.parametrize("durable", [True, False])
    async def test_g26_one_old_epoch_refuses_the_whole_settlement(
        self, store: Store, epochs: dict[int, int], *, durable: bool
    ) -> None:
        old = epochs | {5: epochs[5] - 1}
        refused = Settle(GROUP, old, checkpoint=5, hold=[held(3)], append=[envelope()], durable=durable)
        with pytest.raises(Fenced):
            await store.write(refused)
        assert (await store.checkpoint(GROUP), await self.due(store), await store.head()) == (0, [], 0)
        await store.write(Settle(GROUP, {1: epochs[1]}, checkpoint=5))

    # ---- what is due -------------------------------------------------------------------------------------------------

    async def test_g20_a_held_delivery_comes_back_as_it_was_stored(self, store: Store, epochs: dict[int, int]) -> None:
        one = held(
            3, attempt=2, due=NOW + 5, traceback="Traceback...\n", history=("attempt 1: boom", "attempt 2: bang")
        )
        await self.hold(store, epochs, one)
        [read] = await store.held(group=GROUP)
        assert read == msgspec.structs.replace(one, id=read.id)
        assert [read] == await store.due(GROUP, ALL, NOW + 5, 10) == await store.held(ids=[read.id])

    async def test_a_retry_is_due_when_its_time_has_come(self, store: Store, epochs: dict[int, int]) -> None:
        await self.hold(store, epochs, held(3, "a", due=NOW + 5), held(4, "b", due=NOW + 9))
        assert (await self.due(store), await store.next_due(GROUP, ALL)) == ([], NOW + 5)
        assert await self.due(store, NOW + 5) == [3]
        assert await self.due(store, NOW + 9) == [3, 4]
        assert await self.due(store, NOW + 9, limit=1) == [3]

    async def test_only_the_slots_asked_for_are_looked_at(self, store: Store, epochs: dict[int, int]) -> None:
        rows = [held(n, f"key-{n}") for n in range(1, 5)]
        await self.hold(store, epochs, *rows)
        for one in rows:
            slot = one.envelope.slot
            expected = sorted(other.position for other in rows if other.envelope.slot == slot)
            assert [found.position for found in await store.due(GROUP, [slot], NOW, 10)] == expected
        unused = sorted(set(ALL) - {one.envelope.slot for one in rows})
        assert (await store.due(GROUP, unused, NOW, 10), await store.next_due(GROUP, unused)) == ([], None)

    async def test_a_group_of_one_slot_holds_everything_in_it(self, store: Store) -> None:
        await store.write(joining("shop.balances", slots=1))
        one = held(1, "k", group="shop.balances", envelope=envelope("k", slot=9))
        await store.write(Settle("shop.balances", {}, hold=[one]))
        assert [found.position for found in await store.due("shop.balances", [0], NOW, 10)] == [1]

    async def test_g9_successors_wait_until_the_first_of_their_key_is_done(
        self, store: Store, epochs: dict[int, int]
    ) -> None:
        await self.hold(store, epochs, held(3), held(4, state="parked"), held(5, state="parked"), held(6, "k-2"))
        assert await self.due(store) == [3, 6]
        first, *_ = await store.held(key="k-1")
        await store.write(Settle(GROUP, epochs, done=[first.id]))
        assert await self.due(store) == [4, 6]
        [second, _] = await store.held(key="k-1")
        await self.hold(store, epochs, msgspec.structs.replace(second, state="retry", due=NOW + 9))
        assert await self.due(store) == [6]
        assert await self.due(store, NOW + 9) == [4, 6]

    async def test_g9_a_dead_letter_blocks_what_is_behind_it(self, store: Store, epochs: dict[int, int]) -> None:
        await self.hold(store, epochs, held(3, state="dead"), held(4, state="parked"))
        assert (await self.due(store), await store.next_due(GROUP, ALL)) == ([], None)

    async def test_g9_a_group_that_skips_dead_letters_goes_on_behind_them(
        self, store: Store, epochs: dict[int, int]
    ) -> None:
        await self.hold(store, epochs, held(3), held(4, state="parked"), held(5, "k-2", "dead"), held(6, "k-2"))
        assert await self.due(store) == [3]
        await store.write(joining(on_dead="skip"))
        assert await self.due(store) == [3, 6]
        [first] = await store.held(key="k-1", state="retry")
        await self.hold(store, epochs, msgspec.structs.replace(first, state="dead"))
        assert await self.due(store) == [4, 6]
        await store.write(joining(on_dead="park"))
        assert await self.due(store) == []

    async def test_deliveries_without_a_key_wait_for_nobody(self, store: Store, epochs: dict[int, int]) -> None:
        await self.hold(store, epochs, held(3, None), held(4, None), held(5, None, "dead"), held(6, None, due=NOW + 1))
        assert await self.due(store) == [3, 4]
        assert await store.next_due(GROUP, ALL) == 0

    async def test_an_earlier_delivery_that_comes_later_goes_first(self, store: Store, epochs: dict[int, int]) -> None:
        await self.hold(store, epochs, held(5))
        await self.hold(store, epochs, held(3))
        assert await self.due(store) == [3]

    async def test_blocked_names_the_keys_that_have_held_deliveries(self, store: Store, epochs: dict[int, int]) -> None:
        await self.hold(store, epochs, held(3, "a"), held(4, "b", "dead"), held(5, "c", "dead"), held(6, "c"))
        assert await store.blocked(GROUP, ["a", "b", "c", "d"]) == {"a", "b", "c"}
        assert await store.blocked(GROUP, ["a", "b", "c", "d"], dead=False) == {"a", "c"}
        assert await store.blocked("shop.other", ["a"]) == set()
        assert await store.blocked(GROUP, []) == set()

    async def test_the_first_of_each_key_are_found_due_or_not(self, store: Store, epochs: dict[int, int]) -> None:
        rows = [held(3, "a", due=NOW + 9), held(4, "b", "dead"), held(5, "a", "parked"), held(6, "c"), held(7, "a")]
        await self.hold(store, epochs, *rows)

        async def positions(*keys: str, limit: int = 10, group: str = GROUP) -> list[int]:
            return [one.position for one in await store.first_held(group, keys, limit)]

        assert await positions("a", "b", "d") == [3, 4, 5, 7]
        assert await positions("a", "b", "c", limit=2) == [3, 4, 5, 6]
        assert await positions("a", group="shop.other") == []
        assert await positions() == []
        assert rows[2].envelope == (await store.first_held(GROUP, ["a"], 2))[1].envelope

    async def test_it_takes_no_longer_to_end_the_first_of_a_key_however_many_wait_behind_it(
        self, store: Store, epochs: dict[int, int]
    ) -> None:
        for start in range(0, 20_000, 1000):
            await self.hold(store, epochs, *(held(start + at, "long", "parked") for at in range(1, 1001)))
        await self.hold(store, epochs, *(held(20_000 + at, "short", "parked") for at in range(1, 17)))
        took: dict[str | None, list[float]] = {"long": [], "short": []}
        for _ in range(15):
            for one in await store.due(GROUP, ALL, NOW, 10):
                began = time.perf_counter()
                assert await store.blocked(GROUP, [str(one.envelope.key)])
                assert len(await store.first_held(GROUP, [str(one.envelope.key)], 2)) == 2
                await store.write(Settle(GROUP, epochs, done=[one.id]))
                took[one.envelope.key].append(time.perf_counter() - began)
        assert statistics.median(took["long"]) < 4 * statistics.median(took["short"])

    # ---- dead letters ------------------------------------------------------------------------------------------------

    async def test_held_deliveries_are_listed_newest_last(self, store: Store, epochs: dict[int, int]) -> None:
        rows = [held(3, "a"), held(4, "b", "dead"), held(5, "a", "parked"), held(6, "c", "dead")]
        await self.hold(store, epochs, *rows)

        async def positions(**filters: object) -> list[int]:
            return [one.position for one in await store.held(**filters)]  # type: ignore[arg-type]

        assert await positions() == [3, 4, 5, 6]
        assert await positions(limit=2) == [5, 6]
        assert await positions(group=GROUP, limit=1) == [6]
        assert await positions(group="shop.other") == []
        assert await positions(key="a") == [3, 5]
        assert await positions(state="dead") == [4, 6]
        assert await positions(group=GROUP, key="a", state="parked") == [5]
        ids = [one.id for one in await store.held()]
        assert await positions(ids=[ids[0], ids[3]]) == [3, 6]

    async def test_g20_a_redriven_dead_letter_is_due_with_fresh_attempts(
        self, store: Store, epochs: dict[int, int]
    ) -> None:
        await self.hold(store, epochs, held(3, state="dead", attempt=8), held(4, state="parked"), held(5, None, "dead"))
        ids = [one.id for one in await store.held()]
        assert await store.write(Redrive(ids)) == 2
        assert await store.write(Redrive(ids)) == 0
        assert await self.due(store) == [3, 5]
        [first, *_] = await store.held()
        assert (first.state, first.attempt, first.due) == ("retry", 0, 0)

    async def test_g20_a_discarded_dead_letter_lets_its_successors_run(
        self, store: Store, epochs: dict[int, int]
    ) -> None:
        await self.hold(store, epochs, held(3, state="dead"), held(4, state="parked"), held(5, "k-2"))
        ids = [one.id for one in await store.held()]
        assert await store.write(Redrive(ids, discard=True)) == 1
        assert await self.due(store) == [4, 5]

    async def test_g20_a_position_is_held_once_in_its_last_state(self, store: Store, epochs: dict[int, int]) -> None:
        await self.hold(store, epochs, held(3, reason="released"))
        [first] = await store.held()
        await self.hold(store, epochs, held(3, state="dead", attempt=2, reason="ValueError"))
        [second] = await store.held()
        assert (second.id, second.state, second.attempt, second.reason) == (first.id, "dead", 2, "ValueError")
        assert await self.due(store) == []

    async def test_ids_of_held_deliveries_are_never_used_twice(self, store: Store, epochs: dict[int, int]) -> None:
        await self.hold(store, epochs, held(3, state="dead"))
        [first] = await store.held()
        await store.write(Redrive([first.id], discard=True))
        await self.hold(store, epochs, held(4))
        [second] = await store.held()
        assert second.id > first.id

    async def test_what_is_done_or_replaced_after_it_was_discarded_stays_away(
        self, store: Store, epochs: dict[int, int]
    ) -> None:
        await self.hold(store, epochs, held(3, state="dead"))
        [row] = await store.held()
        await store.write(Redrive([row.id], discard=True))
        await store.write(Settle(GROUP, epochs, hold=[msgspec.structs.replace(row, state="retry")], done=[row.id]))
        assert await store.held() == []

    async def test_g21_what_belongs_to_no_group_is_kept_too(self, store: Store) -> None:
        one = held(-1, None, "dead", group="shop.quarantine", envelope=envelope(None, data=b"\xff\xfe"))
        await store.write(Settle("shop.quarantine", {}, hold=[one]))
        [read] = await store.held(group="shop.quarantine")
        assert read.envelope.data == b"\xff\xfe"
        assert await store.write(Redrive([read.id])) == 0  # nobody would handle it; it stays in sight
        assert [each.state for each in await store.held(group="shop.quarantine")] == ["dead"]
        assert await store.write(Redrive([read.id], discard=True)) == 1
