"""The checker: compares what clients were told (the history) with what the store holds in the end.

It is a black box. It reads acknowledgements, effects found in tables and ledgers, and a final reading of the log, the
held deliveries and the checkpoints; a handler's word counts only as "it was called". Every check is one pass, O(n).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from itertools import pairwise

from tidings.core.envelope import Envelope
from tidings.core.operations import Held
from tidings.testing.evidence import Evidence, Final, Group
from tidings.testing.history import Record, digest
from tidings.testing.verdict import NAMES, Report, Verdict

SETTLING = 0.25
"""How long after a SIGTERM a process may still begin a delivery, until the signal has reached its loop; seconds."""

Verdicts = dict[str, Verdict]


def check(history: Iterable[Record], final: Final) -> Report:
    """Judge a run.

    Args:
        history: The records of all processes, in the order in which they were written.
        final: What was found in the end.

    Returns:
        A verdict for every guarantee that this checker knows.
    """
    evidence = Evidence(history, final)
    verdicts = {number: Verdict(number) for number in NAMES}
    for judge in (_log, _acknowledged, _origin, _transactions, _streams, _conflicts, _views, _drains, _recovery):
        judge(evidence, verdicts)
    for group in final.groups:
        for of_group in (_conserved, _ordered, _dead, _calls, _owners):
            of_group(evidence, verdicts, group)
    return Report(verdicts)


# ---- what clients were told ------------------------------------------------------------------------------------------


def _log(evidence: Evidence, verdicts: Verdicts) -> None:
    """G14: positions have no gaps. G9: a producer's messages of one key stand in its order. G4: no id stands twice."""
    for first, second in pairwise(evidence.final.log):
        verdicts["G14"].expect(
            second.position == first.position + 1, f"position {second.position} follows {first.position}"
        )
    last: dict[tuple[str, str | None], int] = {}
    for envelope in evidence.final.log:
        facts = evidence.facts[envelope.position]
        if facts.producer is None or facts.pseq is None:
            continue
        lane = (facts.producer, envelope.key)
        before = last.get(lane, 0)
        verdicts["G9"].expect(
            facts.pseq > before, f"log position {envelope.position}: {lane} number {facts.pseq} after {before}"
        )
        last[lane] = max(facts.pseq, before)
    for id_, envelopes in evidence.by_id.items():
        places = {envelope.source: envelope.position for envelope in envelopes}
        verdicts["G4"].expect(len(places) == len(envelopes), f"id {id_} stands twice in the log, last at {places}")


def _acknowledged(evidence: Evidence, verdicts: Verdicts) -> None:
    """G1: "ok" is in the log. G14: where it was told to be. G4: "fail" is not there."""
    for record in (*evidence.ops["publish"], *evidence.ops["append"]):
        name = record.id or record.txn or ""
        if record.ph == "ok":
            logged = evidence.logged(record)
            verdicts["G1"].expect(logged, f"{name} was acknowledged at position {record.pos} and is gone")
            if record.pos and logged:
                verdicts["G14"].expect(evidence.stands(record), f"{name} was told {record.pos}, another one is there")
        elif record.ph == "fail" and evidence.last_word[name] == "fail":
            verdicts["G4"].expect(not evidence.logged(record), f"{name} failed ({record.reason}) and is in the log")
    for record in evidence.ops["read"]:
        verdicts["G14"].expect(evidence.stands(record), f"{record.id} was read at {record.pos}, another one is there")


def _origin(evidence: Evidence, verdicts: Verdicts) -> None:
    """G3: every message of the log was published, by a client or by a handler, and is what was published."""
    for envelope in evidence.final.log:
        source = evidence.invoked.get(envelope.id) or evidence.invoked.get(evidence.facts[envelope.position].txn or "")
        where = f"{envelope.type} {envelope.id} at {envelope.position}"
        if source is None:
            verdicts["G3"].expect(envelope.causation in evidence.by_id, f"{where} was never published")
        elif source.digest is not None:
            same = digest(envelope.type, envelope.key, envelope.data) == source.digest
            verdicts["G3"].expect(same, f"{where} differs from what was published")
    for effect in evidence.final.effects:
        stored = evidence.by_id.get(effect.id)
        verdicts["G3"].expect(stored, f"{effect.group} handled {effect.id}, which is not in the log")
        if stored and effect.digest is not None:
            same = digest(stored[0].type, stored[0].key, stored[0].data) == effect.digest
            verdicts["G3"].expect(same, f"{effect.group} handled {effect.id} with other data than the log has")


def _transactions(evidence: Evidence, verdicts: Verdicts) -> None:
    """G2: a row exists if and only if its messages do. G1 and G4 hold for transactions as they do for messages."""
    rows = evidence.final.rows
    if rows is None:
        return
    for tag in {record.txn for record in evidence.ops["commit"] if record.txn is not None}:
        row, word = tag in rows, evidence.last_word[tag]
        left = "a row without its message" if row else "a message without its row"
        verdicts["G2"].expect(row == (tag in evidence.tags), f"transaction {tag} left {left}")
        if word == "ok":
            verdicts["G1"].expect(row, f"transaction {tag} was acknowledged and is gone")
        elif word == "fail":
            verdicts["G4"].expect(not row, f"transaction {tag} was told to have failed and is there")


# ---- what groups did -------------------------------------------------------------------------------------------------


def _conserved(evidence: Evidence, verdicts: Verdicts, group: Group) -> None:
    """G5: every message took effect or is a dead letter. G7: exactly once, with `tx`."""
    times = Counter(effect.id for effect in evidence.effects[group.name])
    children = Counter(e.causation for e in evidence.final.log if e.type == group.returns)
    dead_keys = {item.envelope.key for item in evidence.held[group.name].values() if item.state == "dead"}
    checkpoint = evidence.final.checkpoints.get(group.name, 0)
    for envelope in evidence.final.log:
        if envelope.type not in group.types or envelope.position <= group.start:
            continue
        held, count = evidence.held[group.name].get(envelope.id), times[envelope.id]
        where = f"{group.name}: {envelope.type} {envelope.id} at {envelope.position}, key {envelope.key},"
        lost = "was skipped" if envelope.position <= checkpoint else "was never reached"
        verdicts["G5"].expect(count or held, f"{where} {lost}")
        if held:
            waits = held.state == "dead" or (held.state == "parked" and envelope.key in dead_keys)
            verdicts["G5"].expect(waits, f"{where} is still held: {held.state}, attempt {held.attempt}, {held.reason}")
        if group.exactly_once:
            wanted = 0 if held else 1
            verdicts["G7"].expect(count == wanted, f"{where} took effect {count} times{' and is held' if held else ''}")
            if group.returns is not None:
                led = children[envelope.id]
                verdicts["G7"].expect(led == wanted, f"{where} led to {led} {group.returns}")


def _ordered(evidence: Evidence, verdicts: Verdicts, group: Group) -> None:
    """G9: the effects of a key come in the order of the log, and none overtakes a dead letter that parks its key."""
    seen: set[str] = set()
    last: dict[str, int] = {}
    parked: dict[str | None, Held] = {}
    for item in sorted(evidence.held[group.name].values(), key=lambda item: -item.position):
        if item.state == "dead" and group.on_dead == "park":
            parked[item.envelope.key] = item
    redriven = {record.id for record in evidence.ops["redrive"] if record.group == group.name}
    for effect in evidence.effects[group.name]:
        if effect.id in seen or effect.id not in evidence.by_id:
            continue
        if group.on_dead == "skip" and effect.id in redriven:
            continue  # the others passed it while it was dead, as was asked for
        seen.add(effect.id)
        key, at = evidence.by_id[effect.id][0].key, evidence.by_id[effect.id][0].position
        if key is None:
            continue
        before, head = last.get(key, 0), parked.get(key)
        verdicts["G9"].expect(at > before, f"{group.name}, key {key}: position {at} took effect after {before}")
        if head is not None and head.envelope.id not in seen:  # without tx, it may have been handled once before
            where = f"{group.name}, key {key}: position {at}"
            verdicts["G9"].expect(at < head.position, f"{where} overtook the dead letter at {head.position}")
        last[key] = max(at, before)


def _dead(evidence: Evidence, verdicts: Verdicts, group: Group) -> None:
    """G20: what used up its attempts is a dead letter, with the original and the reason. G21: so is the unreadable."""
    unreadable = {r.id or "" for r in evidence.ops["publish"] if r.ph == "invoke" and r.reason == "unreadable"}
    held = evidence.held[group.name]
    for id_ in unreadable & evidence.by_id.keys():
        if evidence.by_id[id_][0].type in group.types:
            verdicts["G21"].expect(id_ in held, f"{group.name}: {id_} cannot be read, and was dropped")
    tried = Counter(r.id for r in evidence.ops["deliver"] if r.group == group.name and r.ph == "invoke")
    done = {effect.id for effect in evidence.effects[group.name]}
    for given, times in tried.items():
        if group.attempts is not None and times >= group.attempts and given not in done:
            verdicts["G20"].expect(given in held, f"{group.name}: {given} was tried {times} times, no dead letter")
    for id_, item in held.items():
        if item.state == "dead":
            original = evidence.by_position.get(item.position)
            where = f"{group.name}: dead letter {id_} at {item.position}"
            same = original is not None and _body(original) == _body(item)
            verdicts["G20"].expect(same, f"{where} is not what the log has there")
            verdicts["G20"].expect(item.reason, f"{where} does not say why")
            if group.attempts is not None and id_ not in unreadable:
                spent = f"{item.attempt} of {group.attempts} attempts"
                verdicts["G20"].expect(item.attempt == group.attempts, f"{where} gave up after {spent}: {item.reason}")


def _body(of: Envelope | Held) -> tuple[object, ...]:
    envelope = of.envelope if isinstance(of, Held) else of
    return envelope.id, envelope.type, envelope.key, envelope.headers, envelope.data


def _calls(evidence: Evidence, verdicts: Verdicts, group: Group) -> None:
    """G8: without a fault a handler is called once per attempt; a fault repeats what was in flight, no more."""
    calls = failed = 0
    ids: set[str | None] = set()
    for record in evidence.ops["deliver"]:
        if record.group == group.name:
            calls += record.ph == "invoke"
            failed += record.ph in {"fail", "unknown"}
            ids.add(record.id)
    if not calls:
        return
    faults = sum(record.ph == "invoke" for record in evidence.ops["fault"])
    repeated = calls - failed - len(ids)
    verdicts["G8"].checked += calls - 1
    verdicts["G8"].expect(
        repeated <= faults * group.in_flight,
        f"{group.name}: {repeated:,} repeated, after {faults} faults with {group.in_flight} in flight at each",
    )


def _owners(evidence: Evidence, verdicts: Verdicts, group: Group) -> None:
    """G10: only the owner of a lease commits. G26: also where a delivery was in the hands of several processes.

    Calls prove nothing: a process that does not know yet that it lost its lease calls a handler in vain, before or
    after the new owner does. What counts is who held the lease when an effect was committed.
    """
    callers: dict[str | None, set[int | None]] = defaultdict(set)
    for record in evidence.ops["deliver"]:
        if record.group == group.name and record.ph == "invoke":
            callers[record.id].add(record.member)
    for effect in evidence.effects[group.name]:
        if effect.owned is None:
            continue
        stale = f"{group.name}: {effect.member} committed {effect.id}, and did not hold the lease any more"
        verdicts["G10"].expect(effect.owned, stale)
        if len(callers[effect.id]) > 1:
            verdicts["G26"].expect(effect.owned, stale)


# ---- streams and read models -----------------------------------------------------------------------------------------


def _streams(evidence: Evidence, verdicts: Verdicts) -> None:
    """G12: the versions of a stream are 1, 2, 3... in the order of the log, each told to the caller whose it is."""
    last: dict[str, int] = {}
    tags: dict[tuple[str | None, int | None], str | None] = {}
    for envelope in evidence.final.log:
        if envelope.stream is None:
            continue
        wanted = last.get(envelope.stream, 0) + 1
        verdicts["G12"].expect(
            envelope.version == wanted,
            f"stream {envelope.stream}: version {envelope.version} instead of {wanted} at {envelope.position}",
        )
        last[envelope.stream] = envelope.version or 0
        tags[envelope.stream, envelope.version] = evidence.facts[envelope.position].txn
    for record in evidence.ops["append"]:
        if record.ph == "ok" and record.stream is not None and record.version is not None:
            same = tags.get((record.stream, record.version), "another") in {record.txn, None}
            verdicts["G12"].expect(same, f"stream {record.stream}: {record.txn} was told {record.version}, not its own")


def _conflicts(evidence: Evidence, verdicts: Verdicts) -> None:
    """G12: versions respect real time, and a conflict is told only where somebody else was first."""
    versions = {(envelope.stream, envelope.version) for envelope in evidence.final.log}
    acknowledged: dict[str, int] = {}
    before: dict[tuple[int, str], int] = {}
    for record in evidence.ops["append"]:
        stream, version = record.stream, record.version
        if stream is None:
            continue
        if record.ph == "invoke":
            before[record.pid, stream] = acknowledged.get(stream, 0)
        elif record.ph == "ok" and version is not None:
            earlier = before.get((record.pid, stream), 0)
            verdicts["G12"].expect(
                version > earlier, f"stream {stream}: {version} given out after {earlier} was acknowledged"
            )
            acknowledged[stream] = max(version, acknowledged.get(stream, 0))
        elif record.ph == "fail" and record.reason == "WrongVersion" and version is not None:
            right = (stream, version + 1) in versions or (version > 0 and (stream, version) not in versions)
            verdicts["G12"].expect(right, f"stream {stream}: a conflict at {version}, though nobody else appended")


def _views(evidence: Evidence, verdicts: Verdicts) -> None:
    """G16: a read model holds what a fresh fold over the log gives."""
    for view in evidence.final.views:
        for key in view.live.keys() | view.folded.keys():
            live, folded = view.live.get(key), view.folded.get(key)
            verdicts["G16"].expect(live == folded, f"{view.name}[{key!r}] is {live!r}, and the fold gives {folded!r}")


# ---- lives and deaths of processes -----------------------------------------------------------------------------------


def _drains(evidence: Evidence, verdicts: Verdicts) -> None:
    """G24: after SIGTERM nothing new begins, the end is clean and in time, and cancelled is not acknowledged."""
    asked = {record.target: record.t for record in evidence.ops["drain"] if record.ph == "invoke"}
    if not asked:
        return
    for record in evidence.ops["drain"]:
        if record.ph != "invoke" and record.target in asked:
            took = _seconds(asked[record.target], record.t)
            good = record.reason == "0" and took <= evidence.final.deadline
            verdicts["G24"].expect(good, f"process {record.target} ended with {record.reason} after {took:.2f} s")
    done = {(effect.group, effect.id) for effect in evidence.final.effects}
    for record in evidence.ops["deliver"]:
        work = (record.group or "", record.id or "")
        if record.ph == "invoke" and record.pid in asked:
            late = _seconds(asked[record.pid], record.t)
            verdicts["G24"].expect(late < SETTLING, f"{work} was begun {late:.2f} s after SIGTERM")
        elif record.ph == "unknown":  # the handler was cancelled
            kept = work in done or work[1] in evidence.held[work[0]]
            verdicts["G24"].expect(kept, f"{work} was cancelled, and counted as done")


def _recovery(evidence: Evidence, verdicts: Verdicts) -> None:
    """G25: what a killed process had in hand is in another's within the bound."""
    bound = evidence.final.recovery
    if bound is None:
        return
    killed = {record.target: record.t for record in evidence.ops["fault"] if record.reason == "kill"}
    done = {(effect.group, effect.id, effect.member) for effect in evidence.final.effects}
    waiting: dict[tuple[str, str], int] = {}
    for record in sorted(evidence.ops["deliver"], key=lambda record: record.t):
        if record.ph != "invoke":
            continue
        work = (record.group or "", record.id or "")
        if work in waiting:
            took = _seconds(waiting.pop(work), record.t)
            verdicts["G25"].expect(took <= bound, f"{work} came again {took:.2f} s after the kill")
        if record.pid in killed and (*work, record.member) not in done:
            waiting[work] = killed[record.pid]
    for work in waiting:
        verdicts["G25"].expect(good=False, otherwise=f"{work} was in the hands of a killed process, and stayed there")


def _seconds(begin: int, end: int) -> float:
    return (end - begin) / 1e9
