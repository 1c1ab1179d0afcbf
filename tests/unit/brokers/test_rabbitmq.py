"""Frames of RabbitMQ are read and written as pika does it, wherever they begin and end, on a thread of their own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from pika import frame, spec

from tidings.brokers.rabbitmq import connection
from tidings.brokers.rabbitmq.thread import LoopThread
from tidings.brokers.rabbitmq.wire import headers_of, plain, properties_of, sent_in
from tidings.testing.conformance.broker.making import envelope

PROPERTIES = spec.BasicProperties
OURS = properties_of(*headers_of(envelope("orders", "o-1", data=b'{"n":1}')), "1.2")
OTHERS = {
    "as we send them": OURS,
    "no headers": PROPERTIES(content_type="application/json", headers={}, delivery_mode=2, message_id="1"),
    "transient": PROPERTIES(content_type="application/json", headers={"a": "b"}, delivery_mode=1, message_id="1"),
    "letters": PROPERTIES(content_type="text/plain", headers={"größe": "ä" * 300}, delivery_mode=2, message_id="ü"),
    "a number": PROPERTIES(content_type="a/b", headers={"a": "b", "n": 7}, delivery_mode=2, message_id="1"),
    "bytes": PROPERTIES(content_type="a/b", headers={"a": b"\xff"}, delivery_mode=2, message_id="1"),
    "a time": PROPERTIES(content_type="a/b", headers={"a": datetime(2026, 1, 1, tzinfo=UTC)}, message_id="1"),
    "nothing": PROPERTIES(),
    "more": PROPERTIES(content_type="a/b", headers={"a": "b"}, delivery_mode=2, message_id="1", app_id="x"),
}


@pytest.mark.parametrize("properties", OTHERS.values(), ids=OTHERS)
def test_a_header_is_read_as_pika_reads_it(properties: spec.BasicProperties) -> None:
    data = frame.Header(3, 70_000, properties).marshal()
    found, theirs = connection._read_frame(data), frame.decode_frame(data)[1]
    assert (found.channel_number, found.body_size) == (3, 70_000)
    assert plain(sent_in(found.properties)) == plain(sent_in(theirs.properties))
    assert vars(found.properties) | {"headers": None} == vars(theirs.properties) | {"headers": None}


def test_what_we_send_is_read_without_pika(monkeypatch) -> None:
    monkeypatch.delattr(frame, "decode_frame")
    assert plain(connection._read_frame(frame.Header(3, 7, OURS).marshal()).properties.headers) == plain(OURS.headers)


@pytest.mark.parametrize("size", [1, 3, 7, 8, 100, 100_000])
def test_frames_are_read_in_order_however_they_arrive(size: int) -> None:
    deliver = spec.Basic.Deliver("us", 1, False, "tidings.orders", "o-1")
    sent = [frame.Method(1, deliver), frame.Header(1, 9, OURS), frame.Body(1, b"AMQP body"), frame.Heartbeat()] * 5
    raw, found = object.__new__(connection._Raw), []
    raw._frame_buffer, raw.bytes_received, raw.connection_state = b"", 0, raw.CONNECTION_OPEN
    raw._process_frame = found.append
    data = b"".join(each.marshal() for each in sent)
    for at in range(0, len(data), size):
        raw._on_data_available(data[at : at + size])
    assert [type(each) for each in found] == [type(each) for each in sent]
    assert [each.fragment for each in found if type(each) is frame.Body] == [b"AMQP body"] * 5
    assert raw.bytes_received == len(data)
    assert raw._frame_buffer == b""


@pytest.mark.parametrize("content_type", ["application/json", None])
@pytest.mark.parametrize("headers", [{}, {"cloudEvents_id": "1"}, {"größe": "ä" * 300, "cloudEvents_key": ""}])
def test_properties_are_written_as_pika_writes_them(headers: dict[str, str], content_type: str | None) -> None:
    theirs = PROPERTIES(content_type=content_type, headers=headers, delivery_mode=2, message_id="7.1234")
    assert b"".join(properties_of(headers, content_type, "7.1234").encode()) == b"".join(theirs.encode())


def test_a_name_that_is_too_long_is_refused_and_not_garbled() -> None:
    with pytest.raises(OverflowError):
        properties_of({"x" * 256: "y"}, None, "1").encode()


async def test_what_another_thread_answers_or_raises_comes_back() -> None:
    apart = LoopThread("apart")

    def later(answer: Callable[[object], object], text: str) -> None:
        asyncio.get_running_loop().call_later(0.01, answer, text * 2)

    def fail(_answer: object) -> None:
        raise LookupError("nothing there")

    try:
        assert await apart.ask(later, "ab") == "abab"
        with pytest.raises(LookupError, match="nothing there"):
            await apart.ask(fail)
        with pytest.raises(TimeoutError):  # and an answer that nobody waits for any more does no harm
            async with asyncio.timeout(0.001):
                await apart.ask(later, "ab")
        assert await apart.ask(later, "c") == "cc"
    finally:
        await apart.close()
