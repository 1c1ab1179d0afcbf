"""Messages from strangers: kept, escaped, never obeyed; and messages that kill whoever handles them."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.scenarios.bad_input.telling import Order
from tests.scenarios.cli.terminal import Done, settings, tidings
from tidings import App, Envelope, Retry

ONCE = Retry(attempts=1)


def foreign(**more: Any) -> bytes:
    """A CloudEvent from somebody else; `...` leaves an attribute out."""
    given = {"specversion": "1.0", "id": "1", "source": "/stranger", "type": "Order", "subject": "a"}
    given |= {"data": {"order_id": "a", "items": []}, **more}
    return json.dumps({name: value for name, value in given.items() if value is not ...}).encode()


@pytest.mark.bad_input(9)
async def test_a_name_that_stands_twice_is_quarantined_in_either_mode(url: str) -> None:
    twice = b'{"order_id": "a", "order_id": "b"}'
    binary = {
        "ce-specversion": "1.0",
        "ce-id": "1",
        "ce-source": "/s",
        "ce-type": "Order",
        "content-type": "application/json",
    }
    structured = b'{"specversion":"1.0","id":"1","source":"/s","type":"Order","data":' + twice + b"}"
    async with App(url) as app:
        for body, headers in ((twice, binary), (structured, {}), (b'{"id":"1","id":"2"}', {})):
            assert await app.receive(body, headers) == 0
        held = await app.store.held(group="shop.quarantine")
        assert [each.envelope.data for each in held] == [twice, structured, b'{"id":"1","id":"2"}']
        assert all("twice in one object" in each.reason for each in held)
        assert await app.store.head() == 0


@pytest.mark.bad_input(7, 8, 42)
async def test_what_cannot_be_decoded_is_kept_byte_for_byte_and_nothing_is_unpickled(url: str, tmp_path: Path) -> None:
    bomb = b"cposix\nsystem\n(S'touch %s/pwned'\ntR." % str(tmp_path).encode()
    bodies = [
        b"",
        b"\xff" * 20,
        foreign()[:-3],
        foreign().decode().encode("utf-16"),
        b"\xef\xbb\xbf" + foreign(),
        b"\x1f\x8b\x08" + bytes(100),
        foreign(data=...)[:-1] + b',"data":' + b"9" * 5000 + b"}",
        foreign(data=...)[:-1] + b',"data":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b"x" * 2_000_000,
        bomb,
    ]
    async with App(url) as app:
        for body in bodies:
            assert await app.receive(body) == 0
        assert await app.receive(bomb, {"content-type": "application/x-python-serialize"}) == 0
        held = await app.store.held(group="shop.quarantine")
        assert [each.envelope.data for each in held] == [*bodies, bomb]
        assert all(each.reason.isprintable() and each.state == "dead" for each in held)
        for wrong in ("text", None, 5):
            with pytest.raises(ValueError, match="give the body as bytes"):
                await app.receive(wrong)  # type: ignore[arg-type] - the point
    assert not (tmp_path / "pwned").exists()


@pytest.mark.bad_input(43)
async def test_each_group_parks_or_skips_behind_what_it_cannot_read_and_both_keep_it(url: str) -> None:
    seen: dict[str, list[str]] = {"parks": [], "skips": []}
    app = App(url)

    @app.on(Order, retry=ONCE)
    async def parks(order: Order, envelope: Envelope) -> None:
        seen["parks"].append(envelope.id)

    @app.on(Order, retry=ONCE, on_dead="skip")
    async def skips(order: Order, envelope: Envelope) -> None:
        seen["skips"].append(envelope.id)

    async with app:
        for number, attributes in enumerate(
            (
                {"data": {}},
                {"data": {"order_id": 7, "items": []}},
                {"dataversion": 9},
                {"data": ...},
                {"type": "Unknown"},
                {},
            )
        ):
            await app.receive(foreign(id=str(number), **attributes))
        await app.receive(foreign(id="other", subject="b", data={"order_id": "b", "items": [], "extra": 1, "more": 2}))
        await app.run(until_idle=True)
        states = {
            group: [(each.envelope.id, each.state) for each in await app.store.held(group=f"shop.{group}")]
            for group in seen
        }
        assert await app.store.head() == 7, "what nobody knows is kept in the log"
    assert {group: sorted(ids) for group, ids in seen.items()} == {"parks": ["other"], "skips": ["5", "other"]}
    assert states["parks"] == [("0", "dead"), *((number, "parked") for number in "1235")]
    assert states["skips"] == [(number, "dead") for number in "0123"]


@pytest.mark.bad_input(45)
async def test_control_attributes_of_strangers_are_ignored_in_both_modes(url: str) -> None:
    got: list[Envelope] = []
    app = App(url)

    @app.on(Order, retry=Retry(attempts=2, initial=0.001))
    async def note(_order: Order, envelope: Envelope) -> None:
        got.append(envelope)
        raise ValueError("no")

    forged = {"tidingsattempt": -1, "tidingsepoch": 10**9, "tidingsposition": 5, "traceparent": "00-forged"}
    binary = {f"ce-{name}": str(value) for name, value in forged.items()} | {"tidings-attempt": "1000000000"}
    base = {
        "ce-specversion": "1.0",
        "ce-id": "2",
        "ce-source": "/s",
        "ce-type": "Order",
        "content-type": "application/json",
    }
    async with app:
        await app.receive(foreign(**forged, streamid="account:a", streamversion=99))
        await app.receive(b'{"order_id":"b","items":[]}', base | binary)
        await app.run(until_idle=True)
        held = await app.store.held()
        assert [(each.state, each.attempt) for each in held] == [("dead", 2)] * 2, "attempts are counted here"
    assert sorted({each.position for each in got}) == [1, 2]
    assert {(each.stream, each.version, each.traceparent, each.headers) for each in got} == {(None, None, None, None)}


@pytest.mark.bad_input(46)
async def test_the_identity_of_an_event_is_its_source_and_id(url: str) -> None:
    async with App(url) as app:
        first = await app.receive(foreign(id="same", source="/one"))
        second = await app.receive(foreign(id="same", source="/two"))
        third = await app.publish(Order("a"), id="same")
        assert [first, second, third] == [1, 2, 3]
        assert await app.receive(foreign(id="same", source="/two")) == second
        with pytest.raises(Exception, match="'same' from '/two' is taken at position 2") as caught:
            await app.receive(foreign(id="same", source="/two", data={"order_id": "z", "items": []}))
        assert getattr(caught.value, "code", "") == "TID-302"
        assert await app.store.head() == 3


@pytest.mark.bad_input(47)
async def test_times_are_kept_in_utc_and_order_is_the_log_s(url: str) -> None:
    got: list[str] = []
    app = App(url)

    @app.on(Order)
    async def note(_order: Order, envelope: Envelope) -> None:
        got.append(envelope.id)

    times = ["2999-01-01T00:00:00Z", "0001-01-01T00:00:00Z", "2020-01-01T00:00:00+14:00"]
    async with app:
        for time in times:
            await app.receive(foreign(id=time.replace(":", ""), time=time))
        assert await app.receive(foreign(id="naive", time="2020-01-01T00:00:00")) == 0
        assert await app.receive(foreign(id="words", time="yesterday")) == 0
        await app.run(until_idle=True)
        stored = [each.time for each in await app.store.read(0, 10, 10)]
    assert got == [time.replace(":", "") for time in times]
    assert stored[2] == 1_577_786_400_000_000


HOSTILE = "\x1b[2J\x1b]0;pwned\x07\r\nerror: fake line\u202e\u0085\u2028<script>alert(1)</script>[bold red]x[/] 'q'"


@pytest.mark.bad_input(48, 50)
async def test_no_field_moves_a_cursor_forges_a_line_or_is_formatted_in_any_output(
    url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    app = App(url)
    code = "%s %d {0.__init__.__globals__} {} ${jndi:ldap://x} __proto__ __class__ %(asctime)s"

    @app.on(Order, retry=ONCE)
    async def breaks(order: Order) -> None:
        raise ValueError(f"{order.extra}")

    async with app:
        await app.publish(Order(HOSTILE, extra=HOSTILE + code + "x" * 900_000))
        await app.publish(Order(code, extra={code: code, "__proto__": {"__class__": code}}), headers={"note": code})
        await app.receive(foreign(id="a\u202eb %s {0}", subject=f"{HOSTILE}2", note="a\u202eb"))
        await app.receive(HOSTILE.encode() + code.encode(), {"x-" + HOSTILE: HOSTILE})
        await app.run(until_idle=True)
        held = await app.store.held()
        assert len(held) == 4
        assert code in held[1].reason
    for record in caplog.records:
        assert record.getMessage().isprintable(), record.getMessage()[:200]
        assert len(record.getMessage()) < 3_000
    commands = [
        "status",
        "events ls",
        "events show 2",
        "events show 1 -o json",
        "dead ls -o ndjson",
        "dead show 1",
        "dead redrive --all --dry-run",
    ]
    for command, done in zip(commands, await shown(tmp_path, commands), strict=True):
        text = done.out + done.err
        assert done.code == 0, text
        assert {char for char in text if not char.isprintable()} <= {"\n", "\t"}, command
        assert "\nerror: fake line" not in text
        assert "-o" in command or max(map(len, text.splitlines())) < 11_000, "a line that is too long is cut"
        assert command != "events show 2" or text.count(code) >= 2, "as it was written"


async def shown(folder: Path, commands: list[str]) -> list[Done]:
    """What commands print about the store in a folder."""
    store = ("--store", "sqlite:shop.db")
    return await asyncio.gather(
        *(asyncio.to_thread(tidings, *command.split(), *store, cwd=folder) for command in commands)
    )


@pytest.mark.bad_input(49)
async def test_data_damaged_behind_our_back_is_quarantined_and_everything_else_flows(url: str, tmp_path: Path) -> None:
    got: list[str] = []
    app = App(url)

    @app.on(Order)
    async def note(order: Order) -> None:
        got.append(order.order_id)

    async with app:
        await app.publish(Order("a"), Order("b"), Order("c"))
    connection = sqlite3.connect(tmp_path / "shop.db")
    connection.execute("UPDATE tidings_log SET data = x'00ff7b' WHERE position = 2")
    connection.commit()
    connection.close()
    async with app:
        await app.run(until_idle=True)
        (held,) = await app.store.held()
    assert sorted(got) == ["a", "c"]
    assert (held.state, held.attempt, held.envelope.data) == ("dead", 1, b"\x00\xff\x7b")
    assert "Order cannot be read" in held.reason


@pytest.mark.bad_input(51)
async def test_an_event_without_data_is_quarantined_where_no_record_can_be_gone(url: str) -> None:
    app = App(url)

    @app.on(Order, on_dead="skip")
    async def note(_order: Order) -> None: ...

    async with app:
        assert await app.receive(foreign(id="none", data=...)) == 1
        assert await app.receive(foreign(id="null", data=None)) == 2
        await app.run(until_idle=True)
        assert [(each.envelope.id, each.state) for each in await app.store.held()] == [
            ("none", "dead"),
            ("null", "dead"),
        ]


POISON = """
import asyncio, os, sys
from tidings import App, Retry
from tests.scenarios.bad_input.telling import Order
app = App(sys.argv[1], lease=0.5)
@app.on(Order, retry=Retry(attempts=2))
async def poisoned(order):
    if order.order_id == "poison":
        os._exit(9)
asyncio.run(app.run(until_idle=True))
"""


@pytest.mark.bad_input(52)
async def test_a_message_that_kills_the_process_is_a_dead_letter_after_its_attempts(url: str) -> None:
    async with App(url) as app:
        await app.publish(Order("good"), Order("poison"), Order("fine"))
    codes: list[int] = []
    while 0 not in codes:
        assert len(codes) < 6, "it kills for ever"
        command = [sys.executable, "-c", POISON, url]
        root = Path(__file__).parents[3]
        done = await asyncio.to_thread(subprocess.run, command, cwd=root, env=settings(), check=False, timeout=30)
        codes.append(done.returncode)
    assert set(codes) == {9, 0}
    async with App(url) as app:
        (held,) = await app.store.held()
        (backlog,) = await app.store.backlog()
    assert (held.envelope.key, held.state) == ("poison", "dead")
    assert held.attempt >= 2
    assert "worker stopped" in held.reason
    assert backlog.lag == 0
