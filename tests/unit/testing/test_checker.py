"""The checker finds every kind of broken promise in hand-made histories, and nothing in a good one."""

import dataclasses
import itertools
import time

import msgspec
import pytest

from tidings.core.envelope import Envelope
from tidings.core.operations import Held
from tidings.testing.checker import check
from tidings.testing.evidence import Effect, Final, Group, ReadModel
from tidings.testing.history import History, Record, digest, read_history

GROUP = Group("shop.ship", frozenset({"Placed"}), attempts=3)


def envelope(position, key="a", *, type_="Placed", stream=None, version=None, causation=None, **data):
    body = msgspec.json.encode({"producer": "p", "pseq": position, **data})
    id_ = f"id-{position}"
    place = (position, id_, "shop", type_, 1, "orders", key, 0, stream, version, 0)
    return Envelope(*place, None, causation, None, None, body)


def held(position, state="dead", attempt=3, **changes):
    given = {"envelope": envelope(position), "reason": "ValueError: no", **changes}
    return Held(id=position, group=GROUP.name, position=position, state=state, attempt=attempt, due=0, **given)


class Run:
    """A run of three messages on one key, published, delivered and handled as promised; tests spoil it."""

    def __init__(self):
        self.ticks = itertools.count(1)
        self.records = []
        self.log = [envelope(position) for position in (1, 2, 3)]
        self.effects = [
            Effect(GROUP.name, f"id-{n}", digest("Placed", "a", self.log[n - 1].data), 7) for n in (1, 2, 3)
        ]
        self.final = Final(self.log, self.effects, [], {GROUP.name: 3}, [GROUP])
        for item in self.log:
            facts = {"id": item.id, "key": "a"}
            self.note("publish", "invoke", **facts, digest=digest("Placed", "a", item.data))
            self.note("publish", "ok", **facts, pos=item.position)
            self.deliver(item.id)

    def note(self, op, ph, t=None, pid=1, **facts):
        self.records.append(Record(t if t is not None else next(self.ticks) * 1_000_000, 0.0, pid, op, ph, **facts))

    def deliver(self, id_, ph="invoke", member=7, **more):
        self.note("deliver", ph, pid=member, group=GROUP.name, id=id_, member=member, **more)

    def check(self, **changes):
        return check(self.records, dataclasses.replace(self.final, **changes))


@pytest.fixture
def run():
    return Run()


def broken(report):
    return set(report.broken)


def test_a_good_run_holds_everything_it_exercises(run):
    report = run.check()
    report.require("G1", "G3", "G4", "G5", "G7", "G8", "G9", "G14")
    assert report.verdicts["G12"].status == "NOT EXERCISED"
    assert "G5 conservation" in str(report)


def test_requiring_what_was_not_exercised_fails(run):
    with pytest.raises(AssertionError, match="G12 not exercised"):
        run.check().require("G12")


def test_an_acknowledged_message_that_is_gone_breaks_g1(run):
    run.note("publish", "invoke", id="id-9")
    run.note("publish", "ok", id="id-9", pos=4)
    report = run.check()
    assert broken(report) == {"G1"}
    assert "id-9 was acknowledged at position 4 and is gone" in str(report)


def test_a_message_without_an_effect_behind_the_checkpoint_breaks_g5_and_g7(run):
    report = run.check(effects=run.effects[:2])
    assert broken(report) == {"G5", "G7"}
    assert "id-3 at 3, key a, was skipped" in str(report)


def test_a_message_beyond_the_checkpoint_was_never_reached(run):
    assert "was never reached" in str(run.check(effects=run.effects[:2], checkpoints={GROUP.name: 2}))


def test_a_message_still_waiting_for_a_retry_breaks_g5(run):
    assert broken(run.check(effects=run.effects[:2], held=[held(3, "retry", 1)])) == {"G5"}


def test_a_double_effect_breaks_g7(run):
    report = run.check(effects=[*run.effects, run.effects[0]])
    assert broken(report) == {"G7"}
    assert "took effect 2 times" in str(report)


def test_a_double_effect_of_an_at_least_once_group_is_allowed(run):
    loose = msgspec.structs.replace(GROUP, exactly_once=False)
    assert not run.check(effects=[*run.effects, run.effects[0]], groups=[loose]).broken


def test_an_effect_of_a_dead_letter_breaks_g7(run):
    assert broken(run.check(held=[held(3)])) == {"G7"}


def test_a_returned_message_that_is_missing_breaks_g7(run):
    returns = msgspec.structs.replace(GROUP, returns="Shipped")
    child = msgspec.structs.replace(envelope(4, type_="Shipped", causation="id-1"))
    report = run.check(groups=[returns], log=[*run.log, child])
    assert "id-2 at 2, key a, led to 0 Shipped" in str(report)
    assert broken(report) == {"G7"}


def test_effects_out_of_order_break_g9(run):
    first, second, third = run.effects
    assert broken(run.check(effects=[second, first, third])) == {"G9"}


def test_an_effect_behind_a_dead_letter_of_its_key_breaks_g9_unless_the_group_skips(run):
    effects = [run.effects[0], run.effects[2]]
    assert broken(run.check(effects=effects, held=[held(2)])) == {"G9"}
    skips = msgspec.structs.replace(GROUP, on_dead="skip")
    assert not run.check(effects=effects, held=[held(2)], groups=[skips]).broken


def test_what_was_redriven_in_a_group_that_skips_comes_late(run):
    skips = msgspec.structs.replace(GROUP, on_dead="skip")
    late = [run.effects[0], run.effects[2], run.effects[1]]
    assert broken(run.check(effects=late, groups=[skips])) == {"G9"}
    run.note("redrive", "invoke", group=GROUP.name, id="id-2")
    assert not run.check(effects=late, groups=[skips]).broken
    assert broken(run.check(effects=late)) == {"G9"}


def test_without_tx_a_dead_letter_may_have_been_handled(run):
    loose = msgspec.structs.replace(GROUP, exactly_once=False)
    assert not run.check(held=[held(2)], groups=[loose]).broken
    assert broken(run.check(held=[held(2)], effects=[run.effects[0], run.effects[2]], groups=[loose])) == {"G9"}


def test_attempts_used_up_without_a_dead_letter_break_g20(run):
    for _ in range(3):
        run.deliver("id-3", "fail")
        run.deliver("id-3")
    assert broken(run.check(effects=run.effects[:2])) == {"G20", "G5", "G7"}


def test_parked_behind_a_dead_letter_is_conserved(run):
    report = run.check(effects=run.effects[:1], held=[held(2), held(3, "parked", 0)])
    report.require("G5", "G20")


def test_a_log_that_reorders_one_producer_breaks_g9(run):
    swapped = [
        run.log[0],
        msgspec.structs.replace(run.log[2], position=2),
        msgspec.structs.replace(run.log[1], position=3),
    ]
    run.records = [record for record in run.records if record.ph != "ok"]
    assert "G9" in broken(run.check(log=swapped))


def test_a_message_nobody_published_breaks_g3(run):
    extra = envelope(4)
    assert broken(run.check(log=[*run.log, extra], effects=[*run.effects, Effect(GROUP.name, "id-4")])) == {"G3"}


def test_changed_bytes_break_g3(run):
    changed = [*run.log[:2], msgspec.structs.replace(run.log[2], data=b'{"producer":"p","pseq":3,"x":1}')]
    assert broken(run.check(log=changed)) == {"G3"}


def test_a_failure_that_happened_breaks_g4(run):
    run.records = [r for r in run.records if not (r.op == "publish" and r.ph == "ok" and r.id == "id-3")]
    run.note("publish", "fail", id="id-3", reason="StoreUnavailable")
    assert broken(run.check()) == {"G4"}


def test_an_unknown_outcome_may_be_either(run):
    run.records = [r for r in run.records if not (r.op == "publish" and r.ph == "ok" and r.id == "id-3")]
    run.note("publish", "unknown", id="id-3")
    run.note("publish", "invoke", id="id-8")
    run.note("publish", "unknown", id="id-8")
    assert not run.check().broken


def test_a_failure_after_an_unknown_outcome_leaves_it_unknown(run):
    run.records = [r for r in run.records if not (r.op == "publish" and r.ph == "ok" and r.id == "id-3")]
    run.note("publish", "unknown", id="id-3")
    run.note("publish", "fail", id="id-3", reason="StoreUnavailable")
    assert not run.check().broken


def test_one_id_at_two_positions_breaks_g4(run):
    twice = msgspec.structs.replace(run.log[0], position=4)
    assert "G4" in broken(run.check(log=[*run.log, twice]))


def test_a_hole_in_the_log_breaks_g14(run):
    moved = [*run.log[:2], msgspec.structs.replace(run.log[2], position=4)]
    assert broken(run.check(log=moved)) == {"G14"}


def test_a_reader_that_saw_another_message_at_a_position_breaks_g14(run):
    run.note("read", "ok", id="id-9", pos=2)
    assert broken(run.check()) == {"G14"}


def test_redeliveries_without_a_fault_break_g8_and_a_fault_allows_those_in_flight(run):
    run.deliver("id-1")
    assert broken(run.check()) == {"G8"}
    run.note("fault", "invoke", target=7, reason="kill")
    assert not run.check().broken


def test_a_retry_after_a_failure_is_no_redelivery(run):
    run.deliver("id-1", "fail")
    run.deliver("id-1")
    assert not run.check().broken


def owned(run, *ids):
    """The effects, with the store's word that their workers held the lease, but for `ids`."""
    return [msgspec.structs.replace(each, owned=each.id not in ids) for each in run.effects]


def test_a_commit_after_somebody_took_over_breaks_g10_and_g26(run):
    run.deliver("id-3", member=8)
    assert broken(run.check(effects=owned(run, "id-3"))) == {"G8", "G10", "G26"}
    run.note("fault", "invoke", target=7, reason="stop")
    assert broken(run.check(effects=owned(run, "id-3"))) == {"G10", "G26"}


def test_a_commit_without_a_lease_breaks_g10_even_where_nobody_took_over(run):
    assert broken(run.check(effects=owned(run, "id-3"))) == {"G10"}


@pytest.mark.parametrize("reason", ["stop", "kill", "answer lost"])
def test_a_process_that_lost_its_lease_in_any_way_may_call_a_handler_in_vain(run, reason):
    run.note("fault", "invoke", target=8, reason=reason)
    run.deliver("id-3", member=8)
    run.check(effects=owned(run)).require("G10", "G26")


def test_who_held_the_lease_is_not_judged_where_the_store_was_not_asked(run):
    run.note("fault", "invoke", target=8, reason="stop")
    run.deliver("id-3", member=8)
    report = run.check()
    assert not report.broken
    assert report.verdicts["G10"].status == report.verdicts["G26"].status == "NOT EXERCISED"


def test_a_transaction_whose_row_and_messages_disagree_breaks_g2(run):
    for tag, outcome in (("t1", "ok"), ("t2", "fail"), ("t3", "unknown")):
        run.note("commit", "invoke", txn=tag)
        run.note("commit", outcome, txn=tag)
    tagged = [run.log[0], run.log[1], run.log[2]]
    assert broken(run.check(rows=frozenset({"t1"}), log=tagged)) == {"G2"}
    assert broken(run.check(rows=frozenset({"t1", "t2"}), log=tagged)) == {"G2", "G4"}
    assert broken(run.check(rows=frozenset(), log=tagged)) == {"G1"}


def stream(*versions):
    return [envelope(n, type_="Added", stream="c-1", version=v, txn=f"t{n}") for n, v in enumerate(versions, start=1)]


def append(run, txn, outcome, **facts):
    run.note("append", "invoke", txn=txn, stream="c-1")
    run.note("append", outcome, txn=txn, stream="c-1", **facts)


@pytest.mark.parametrize(("versions", "found"), [((1, 2, 3), set()), ((1, 3, 4), {"G12"}), ((1, 2, 2), {"G12"})])
def test_gaps_and_doubles_in_a_stream_break_g12(versions, found):
    run = Run()
    run.records = []
    for n, version in enumerate(versions, start=1):
        append(run, f"t{n}", "ok", version=version, pos=n)
    assert broken(run.check(log=stream(*versions), effects=[])) >= found
    assert bool(found) == bool(broken(run.check(log=stream(*versions), effects=[])))


def test_a_conflict_that_nobody_caused_breaks_g12():
    run = Run()
    run.records = []
    append(run, "t1", "ok", version=1, pos=1)
    append(run, "t2", "fail", version=1, reason="WrongVersion")
    assert broken(run.check(log=stream(1), effects=[])) == {"G12"}
    append(run, "t2", "ok", version=2, pos=2)
    assert not run.check(log=stream(1, 2), effects=[]).broken


def test_a_version_given_out_after_a_later_one_was_acknowledged_breaks_g12():
    run = Run()
    run.records = []
    append(run, "t2", "ok", version=2, pos=2)
    append(run, "t1", "ok", version=1, pos=1)
    assert broken(run.check(log=stream(1, 2), effects=[])) == {"G12"}


def test_a_read_model_that_differs_from_the_fold_breaks_g16(run):
    assert broken(run.check(views=[ReadModel("totals", {"a": 2}, {"a": 3})])) == {"G16"}
    assert broken(run.check(views=[ReadModel("totals", {"a": 3, "b": 1}, {"a": 3})])) == {"G16"}
    run.check(views=[ReadModel("totals", {"a": 3}, {"a": 3})]).require("G16")


@pytest.mark.parametrize(
    "changes", [{"attempt": 2}, {"reason": ""}, {"envelope": msgspec.structs.replace(envelope(3), data=b"{}")}]
)
def test_a_dead_letter_that_lost_something_breaks_g20(run, changes):
    assert broken(run.check(effects=run.effects[:2], held=[held(3, **changes)])) == {"G20"}


def test_an_unreadable_message_that_was_acknowledged_breaks_g21(run):
    run.note("publish", "invoke", id="id-3", reason="unreadable")
    run.records.sort(key=lambda record: record.reason is None)
    assert "G21" in broken(run.check(effects=run.effects[:2]))
    run.check(effects=run.effects[:2], held=[held(3, attempt=1)]).require("G21")


def drained(run, code="0", took=1.0):
    now = next(run.ticks) * 1_000_000
    run.note("drain", "invoke", t=now, target=7)
    run.note("drain", "ok", t=now + int(took * 1e9), target=7, reason=code)
    return now


def test_a_clean_drain_holds(run):
    drained(run)
    run.check().require("G24")


@pytest.mark.parametrize(("code", "took"), [("-9", 1.0), ("1", 1.0), ("0", 31.0)])
def test_a_drain_that_ends_badly_or_late_breaks_g24(run, code, took):
    drained(run, code, took)
    assert broken(run.check()) == {"G24"}


def test_a_delivery_begun_after_sigterm_breaks_g24(run):
    at = drained(run)
    late = Record(at + 500_000_000, 0.0, 7, "deliver", "invoke", group=GROUP.name, id="id-3", member=7)
    run.records = [r for r in run.records if not (r.op == "deliver" and r.id == "id-3")]
    run.records.append(late)
    assert broken(run.check()) == {"G24"}


def test_a_cancelled_delivery_that_was_acknowledged_breaks_g24(run):
    drained(run)
    run.deliver("id-3", "unknown")
    assert broken(run.check(effects=run.effects[:2])) == {"G24", "G5", "G7"}


def test_work_of_a_killed_process_must_come_again_in_time(run):
    run.note("fault", "invoke", target=7, reason="kill")
    again = run.records[-1].t + 3_000_000_000
    others = [*run.effects[:2], msgspec.structs.replace(run.effects[2], member=8)]
    assert broken(run.check(effects=others, recovery=12.0)) == {"G25"}
    run.note("deliver", "invoke", t=again, pid=8, member=8, group=GROUP.name, id="id-3")
    run.check(effects=others, recovery=12.0).require("G25")
    assert broken(run.check(effects=others, recovery=2.0)) == {"G25"}


def test_a_torn_line_costs_only_itself(tmp_path):
    path = tmp_path / "history.jsonl"
    history = History(path)
    history.note("publish", "invoke", id="x")
    with path.open("ab") as file:
        file.write(b'\n{"t":1,"wall":1.0,"pid":')
    history.note("publish", "ok", id="x", pos=1)
    history.close()
    assert [record.ph for record in read_history(path)] == ["invoke", "ok"]


def test_the_checker_is_linear():
    def judge(n):
        log = [envelope(position, key=f"k{position % 40}") for position in range(1, n + 1)]
        records = [
            Record(e.position, 0.0, 1, "publish", ph, id=e.id, pos=e.position) for e in log for ph in ("invoke", "ok")
        ]
        effects = [Effect(GROUP.name, e.id) for e in log]
        begin = time.process_time()
        check(records, Final(log, effects, [], {GROUP.name: n}, [GROUP])).require("G5", "G7", "G9")
        return time.process_time() - begin

    judge(1_000)
    assert judge(40_000) < 12 * max(judge(10_000), 0.01)
