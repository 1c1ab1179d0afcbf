"""What most events are is read straight from the headers of the client, and comes to what the long way makes of it."""

from __future__ import annotations

from itertools import combinations_with_replacement

import pytest

from tidings.brokers.kafka import wire as kafka
from tidings.brokers.rabbitmq import wire as rabbitmq
from tidings.core.arrival import Arrival
from tidings.core.binding import PLAIN, Binding
from tidings.core.cloudevent import STRUCTURED, to_text
from tidings.core.envelope import Envelope
from tidings.errors import Unreadable
from tidings.testing.conformance.store.making import envelope as made

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

ODD: dict[str, list[str | None]] = {
    "content-type": [None, "Application/JSON", "text/plain", STRUCTURED],
    "content-encoding": ["gzip", "identity"],
    "ce-specversion": [None, "0.3"],
    "ce-id": [None, "", "x" * 600, "a\nb", "\u00fc"],
    "ce-source": [None, "", "no reference", "%zz", "a/b"],
    "ce-type": [None, "", "tidings.state-again", "tidings.x", "T" * 300, "T\n"],
    "ce-subject": [None, "other", ""],
    "ce-partitionkey": [None, "", "k" * 600, "\u00fc" * 300, "nul\0"],
    "ce-time": [
        *(None, "", "yesterday", "2024-02-30T00:00:00Z", "2024-02-29T12:00:00+07:00", "2024-02-29T12:00:00"),
        *("20240229T120000Z", "2024-02-29T12:00:00\\u005a", '2024-02-29T12:00:00Z" '),
    ],
    "ce-dataversion": [None, "0", "2", "x", "9" * 12],
    "ce-datacontenttype": ["application/json", "text/plain"],
    "ce-dataschema": ["urn:x"],
    "ce-topic": [None, "", "elsewhere", "T" * 300],
    "ce-streamid": [None, "", "state:OrderPlaced:k-1", "state:OrderPlaced:other", "account-1", "s" * 2000],
    "ce-streamversion": [None, "", "7", "-1"],
    "ce-correlationid": [None, "c-1", ""],
    "ce-causationid": ["c-2", "c\x7f"],
    "ce-traceparent": [None, TRACE, "00-zz", "00-\n"],
    "ce-tenant": ["acme"],
    "ce-data": ["x"],
    "place": ["anywhere"],
}

USUAL = {
    "ce-specversion": "1.0",
    "ce-id": "1",
    "ce-source": "shop",
    "ce-type": "OrderPlaced",
    "ce-time": "2024-02-29T12:00:00.000001Z",
    "ce-subject": "k-1",
    "ce-partitionkey": "k-1",
    "ce-dataversion": "1",
    "ce-topic": "orders",
    "ce-streamid": "state:OrderPlaced:k-1",
    "ce-streamversion": "7",
    "ce-traceparent": TRACE,
    "content-type": "application/json",
}


@pytest.mark.parametrize("body", [b"{}", b"", b"{"])
def test_the_short_way_reads_as_the_long_one_does(body: bytes) -> None:
    odd = [(name, value) for name, values in ODD.items() for value in values]
    for pair in combinations_with_replacement(odd, 2):
        headers = {name: value.encode() for name, value in (USUAL | dict(pair)).items() if value is not None}
        assert read(headers, body, short=True) == read(headers, body, short=False), pair


def read(headers: dict[str, bytes], body: bytes, *, short: bool) -> Envelope | str:
    with pytest.MonkeyPatch.context() as patch:
        if not short:
            patch.setattr(Binding, "usual", lambda *_: None)
        try:
            return Arrival("orders", body, headers, "here").read()
        except Unreadable as error:
            return str(error)


@pytest.mark.parametrize(
    ("binding", "prefix"), [(PLAIN, "ce-"), (kafka.BINDING, "ce_"), (rabbitmq.BINDING, "cloudEvents_")]
)
def test_what_we_send_is_read_in_the_short_way(binding: Binding, prefix: str) -> None:
    sent = made("k-1", topic="orders", traceparent=TRACE, correlation="c", causation="d", data=b"{}")
    attributes = {name: text.encode() for name, text in to_text(sent).items()}
    headers = {"content-type": attributes.pop("datacontenttype")}
    headers |= {f"{prefix}{name}": text for name, text in attributes.items()}
    assert binding.usual(headers, sent.data) == sent


def test_a_key_of_the_broker_is_that_of_a_message_which_names_none() -> None:
    headers = {name: value for name, value in USUAL.items() if name not in {"ce-subject", "ce-partitionkey"}}
    assert Arrival("orders", b"{}", headers, "here", "k-2").read().key == "k-2"
    assert Arrival("orders", b"{}", headers | {"ce-subject": "k-3"}, "here", "k-2").read().key == "k-3"
    event = b'{"specversion":"1.0","id":"1","source":"/s","type":"T","subject":null}'
    assert Arrival("orders", event, {}, "here", "k-2").read().key == "k-2"
    assert Arrival("orders", event.replace(b"null", b'"k-3"'), {}, "here", "k-2").read().key == "k-3"


@pytest.mark.parametrize(
    "odd",
    [
        {b"x": b""},
        {1: 2},
        {None: b""},
        {"ce-id": object()},
        {"ce-id": None},
        {"ce-\ud800": b""},
        {"x": "\ud800"},
    ],
)
def test_headers_of_any_kind_take_the_long_way(odd: dict[object, object]) -> None:
    assert PLAIN.usual({name: value.encode() for name, value in USUAL.items()} | odd, b"{}") is None
