"""Groups, their tables, and the leases by which workers share them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

import pytest

from tidings.core.operations import Append, Beat, Claim, Lease, Rewind, Seed, Settle
from tidings.core.ports import Store
from tidings.errors import BadDeclaration, Fenced, GroupConflict, NotFound, ProjectionChanged
from tidings.testing.conformance.store.making import GROUP, NOW, claimed, envelope, held, joining

PassTime = Callable[[float], Awaitable[None]]
SCHEMA = "CREATE TABLE balance (account TEXT PRIMARY KEY, amount INTEGER); CREATE INDEX by_amount ON balance (amount);"


class GroupTests:
    """G10, G11, G16, G25 and G26, as far as a store can be asked about them alone."""

    async def claim(self, store: Store, member: str, want: int, *give: int) -> Mapping[int, Lease]:
        """Claim slots of the group."""
        leases: Mapping[int, Lease] = await store.write(Claim(GROUP, member, want, give))
        return leases

    # ---- joining -----------------------------------------------------------------------------------------------------

    async def test_g11_a_new_group_starts_where_it_says(self, store: Store) -> None:
        await store.write(Append([envelope(), envelope(type="Other"), envelope()]))
        starts = {"earliest": 0, "latest": 3, 2: 2, 99: 3}
        for number, (start, checkpoint) in enumerate(starts.items()):
            assert await store.write(joining(f"shop.g{number}", start=start)) == 2
            assert await store.checkpoint(f"shop.g{number}") == checkpoint

    async def test_g11_private_events_of_others_are_not_counted(self, store: Store) -> None:
        await store.write(Append([envelope(topic=None), envelope(topic=None, source="billing"), envelope()]))
        assert await store.write(joining()) == 2

    async def test_joining_again_changes_nothing(self, store: Store) -> None:
        await store.write(Append([envelope()]))
        await claimed(store)
        await store.write(Settle(GROUP, {0: 1}, started=1))
        assert await store.write(joining(start="latest")) == 0
        leases = await self.claim(store, "worker-1", 16)
        assert leases[0] == Lease(1, 0, 1)

    async def test_an_unknown_group_is_said_to_be_unknown(self, store: Store) -> None:
        with pytest.raises(NotFound):
            await store.checkpoint(GROUP)
        with pytest.raises(NotFound):
            await self.claim(store, "worker-1", 1)
        assert await store.backlog(GROUP) == []

    async def test_a_command_has_one_group(self, store: Store) -> None:
        await store.write(joining("shop.a", types=["Pay"], commands=["Pay"]))
        await store.write(joining("shop.a", types=["Pay"], commands=["Pay"]))
        with pytest.raises(GroupConflict, match=r"shop\.a"):
            await store.write(joining("shop.b", types=["Pay"], commands=["Pay"]))
        with pytest.raises(NotFound):
            await store.checkpoint("shop.b")

    async def test_another_handler_may_not_share_a_group_that_is_at_work(
        self, store: Store, pass_time: PassTime
    ) -> None:
        await claimed(store)
        await store.write(joining(where="shop.handlers:send_receipt (handlers.py:99)"))  # an edit moved it
        with pytest.raises(GroupConflict, match="worker-1"):
            await store.write(joining(where="other.module:mail (module.py:1)"))
        await pass_time(10.0)
        await store.write(joining(where="other.module:mail (module.py:1)"))

    async def test_a_group_keeps_its_number_of_slots(self, store: Store) -> None:
        await store.write(joining())
        with pytest.raises(GroupConflict):
            await store.write(joining(slots=1))

    async def test_several_workers_may_join_at_once(self, store: Store, other: Store) -> None:
        await store.write(Append([envelope()]))
        op = joining(schema=SCHEMA, fingerprint="f-1")
        assert sorted(await asyncio.gather(*((store, other)[n % 2].write(op) for n in range(8)))) == [0] * 7 + [1]

    # ---- tables ------------------------------------------------------------------------------------------------------

    async def test_g16_a_new_group_brings_its_tables_and_a_rewind_makes_them_anew(self, store: Store) -> None:
        await store.write(Append([envelope(), envelope(), envelope(type="Other")]))
        await store.write(joining(schema=SCHEMA, fingerprint="f-1", slots=1))
        leases = await self.claim(store, "worker-1", 1)
        epochs = {0: leases[0].epoch}
        tx = await store.begin()
        await tx.execute("INSERT INTO balance VALUES ('a', 1)")
        await tx.apply(Settle(GROUP, epochs, checkpoint=2, hold=[held(1)], marks=[3]))
        await tx.commit()
        assert await store.write(Rewind(GROUP, SCHEMA.replace("amount", "total"), "f-2")) == 2
        assert await store.query("SELECT account, total FROM balance") == []
        assert (await store.checkpoint(GROUP), await store.held(), await store.marks(GROUP, 0)) == (0, [], set())
        with pytest.raises(Fenced):
            await store.write(Settle(GROUP, epochs, checkpoint=3))
        assert await store.write(joining(schema=SCHEMA, fingerprint="f-2", slots=1)) == 0

    async def test_changed_code_of_a_projection_is_refused(self, store: Store) -> None:
        await store.write(joining(schema=SCHEMA, fingerprint="f-1"))
        with pytest.raises(ProjectionChanged):
            await store.write(joining(schema=SCHEMA, fingerprint="f-2"))
        with pytest.raises(NotFound):
            await store.write(Rewind("shop.nothing", SCHEMA))

    async def test_a_schema_that_fails_leaves_nothing_behind(self, store: Store) -> None:
        broken = f"{SCHEMA} CREATE TABLE balance (twice INTEGER)"
        done = await asyncio.gather(
            store.write(Append([envelope()])),
            store.write(joining(schema=broken)),
            store.write(Append([envelope()])),
            return_exceptions=True,
        )
        assert [type(one) for one in done if isinstance(one, BaseException)] == [BadDeclaration]
        assert await store.head() == 2
        await store.write(joining(schema=SCHEMA))

    async def test_a_bootstrap_is_noted_until_it_ends(self, store: Store) -> None:
        await store.write(joining(seed=True))
        assert await store.seeding(GROUP) == ""
        await store.write(Seed(GROUP, "c-100"))
        assert await store.seeding(GROUP) == "c-100"
        await store.write(Seed(GROUP, None))
        assert await store.seeding(GROUP) is None
        assert await store.seeding("shop.nothing") is None

    async def test_g18_a_bootstrap_finds_states_of_which_nobody_knew_that_they_are_states(self, store: Store) -> None:
        def customer(key: str, stream: str | None = None, data: bytes = b"{}") -> Append:
            return Append([envelope(key, type="Customer", stream=stream, data=data)])

        for each in (customer("a"), customer("b", "state:Customer:b"), customer("a", data=b""), customer("b")):
            await store.write(each)
        await store.write(Append([envelope("c"), envelope(None, type="Customer")]))
        join = joining(types=["Customer"], seed=True)
        await store.write(join)
        current = [(one.key, one.version, one.data) for one in await store.states("Customer")]
        assert current == [("a", 3, b""), ("b", 4, b"{}")]
        await store.write(customer("c"))
        assert (await store.write(customer("b", "state:Customer:b"))).version == 5
        await store.write(Rewind(GROUP, "CREATE TABLE copy (key TEXT)", seed=True))
        assert [(one.key, one.version) for one in await store.states("Customer")] == [("a", 3), ("b", 5), ("c", 7)]

    async def test_the_members_of_all_apps_are_known_with_what_they_run(
        self, store: Store, pass_time: PassTime
    ) -> None:
        await store.write(Beat("shop", "worker-1", 10.0, groups=[GROUP]))
        await pass_time(6.0)
        await store.write(Beat("billing", "worker-2", 10.0))
        await store.write(Beat("shop", "worker-3", 10.0))
        await store.write(Beat("shop", "worker-3", 10.0, leaving=True))
        await pass_time(6.0)
        assert [(one.app, one.member, list(one.groups), one.alive) for one in await store.members()] == [
            ("billing", "worker-2", [], True),
            ("shop", "worker-1", [GROUP], False),
        ]

    async def test_a_store_is_fit_by_its_own_account(self, store: Store) -> None:
        found = [*store.look(), *await store.inspect(deep=True)]
        assert [each for each in found if each.verdict == "fail"] == []
        assert all(each.fix for each in found if each.verdict == "warn")

    # ---- leases ------------------------------------------------------------------------------------------------------

    async def test_g10_slots_are_shared_and_never_held_twice(self, store: Store, other: Store) -> None:
        await store.write(joining())
        first = await self.claim(store, "worker-1", 10)
        second = await self.claim(other, "worker-2", 10)
        assert (len(first), len(second)) == (10, 6)
        assert not set(first) & set(second)
        assert await self.claim(store, "worker-1", 10) == first

    async def test_g10_what_is_handed_back_can_be_taken_by_others_with_a_new_epoch(
        self, store: Store, other: Store
    ) -> None:
        await store.write(joining())
        before = await self.claim(store, "worker-1", 16)
        assert sorted(await self.claim(store, "worker-1", 14, 3, 4)) == [
            slot for slot in range(16) if slot not in (3, 4)
        ]
        after = await self.claim(other, "worker-2", 8)
        assert sorted(after) == [3, 4]
        assert all(after[slot].epoch > before[slot].epoch for slot in after)
        await store.write(Settle(GROUP, {0: before[0].epoch}, checkpoint=1))
        with pytest.raises(Fenced):
            await store.write(Settle(GROUP, {3: before[3].epoch}, checkpoint=1))

    async def test_holding_more_than_wanted_takes_nothing_away(self, store: Store) -> None:
        await store.write(joining())
        assert await self.claim(store, "worker-1", 16) == await self.claim(store, "worker-1", 2)

    async def test_g25_slots_of_a_silent_worker_are_free_when_its_lease_is_over(
        self, store: Store, other: Store, pass_time: PassTime
    ) -> None:
        before = await claimed(store)
        await store.write(Settle(GROUP, before, checkpoint=2, started=5))
        assert await self.claim(other, "worker-2", 16) == {}
        await pass_time(10.0)
        after = await self.claim(other, "worker-2", 16)
        assert after == {slot: Lease(epoch + 1, 2, 5) for slot, epoch in before.items()}
        with pytest.raises(Fenced):
            await store.write(Settle(GROUP, before, checkpoint=6))
        assert await self.claim(store, "worker-1", 16) == {}

    async def test_a_beat_renews_the_leases_of_its_member(
        self, store: Store, other: Store, pass_time: PassTime
    ) -> None:
        await claimed(store)
        for _ in range(3):
            await store.write(Beat("shop", "worker-1", 10.0))
            await pass_time(6.0)
        assert await self.claim(other, "worker-2", 16) == {}

    async def test_an_owner_that_was_silent_but_not_replaced_goes_on(self, store: Store, pass_time: PassTime) -> None:
        epochs = await claimed(store)
        await pass_time(100.0)
        await store.write(Settle(GROUP, epochs, checkpoint=1))
        leases = await self.claim(store, "worker-1", 16)
        assert {slot: lease.epoch for slot, lease in leases.items()} == epochs

    async def test_beats_tell_who_lives(self, store: Store, other: Store, pass_time: PassTime) -> None:
        assert list(await store.write(Beat("shop", "worker-1", 10.0))) == ["worker-1"]
        assert list(await other.write(Beat("shop", "worker-2", 10.0))) == ["worker-1", "worker-2"]
        assert list(await store.write(Beat("billing", "worker-3", 10.0))) == ["worker-3"]
        await pass_time(6.0)
        assert list(await other.write(Beat("shop", "worker-2", 10.0))) == ["worker-1", "worker-2"]
        await pass_time(6.0)
        assert list(await other.write(Beat("shop", "worker-2", 10.0))) == ["worker-2"]

    async def test_beats_tell_who_runs_what(self, store: Store, other: Store) -> None:
        await store.write(Beat("shop", "worker-1", 10.0, groups=[GROUP, "shop.mail"]))
        known = await other.write(Beat("shop", "worker-2", 10.0, groups=[GROUP]))
        assert known == {"worker-1": [GROUP, "shop.mail"], "worker-2": [GROUP]}
        await store.write(Beat("shop", "worker-1", 10.0, groups=["shop.mail"]))
        assert await other.write(Beat("shop", "worker-2", 10.0)) == {"worker-1": ["shop.mail"], "worker-2": []}

    async def test_a_worker_that_leaves_frees_its_slots_at_once(self, store: Store, other: Store) -> None:
        await store.write(Beat("shop", "worker-1", 10.0))
        await claimed(store)
        assert list(await store.write(Beat("shop", "worker-1", 10.0, leaving=True))) == []
        assert len(await self.claim(other, "worker-2", 16)) == 16

    # ---- standing ----------------------------------------------------------------------------------------------------

    async def test_g33_the_backlog_counts_what_is_there(self, store: Store) -> None:
        epochs = await claimed(store, want=8)
        await store.write(joining("shop.other", where="shop.handlers:other", types=["Nothing"]))
        await store.write(Append([envelope(time=NOW + n) for n in range(6)] + [envelope(type="Other")]))
        await store.write(
            Settle(
                GROUP, epochs, hold=[held(1, "a"), held(2, "b", "dead"), held(3, "a", "parked"), held(4, "c", "dead")]
            )
        )
        await claimed(store, member="worker-2")
        await store.write(Settle(GROUP, dict.fromkeys(range(16), 1), checkpoint=4))
        other, one = await store.backlog()
        assert (one.group, one.checkpoint, one.lag) == (GROUP, 4, 2)
        assert (one.retrying, one.parked, one.dead) == (1, 1, 2)
        assert one.owners == {slot: "worker-1" if slot < 8 else "worker-2" for slot in range(16)}
        assert one.oldest > 3600
        assert (other.group, other.lag, other.oldest, other.owners) == ("shop.other", 0, 0.0, {})
        assert await store.backlog("shop.other") == [other]
