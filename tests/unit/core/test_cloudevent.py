"""CloudEvents 1.0 out and in: nothing is lost on the way, and what is no event is unreadable, with the reason."""

from __future__ import annotations

import base64
import gzip
import json
import pickle
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from cloudevents.core.bindings.http import (
    HTTPMessage,
    from_binary_event,
    from_structured_event,
    to_binary_event,
    to_structured_event,
)
from cloudevents.core.v1.event import CloudEvent
from hypothesis import given
from hypothesis import strategies as st

from tidings.core.cloudevent import (
    MAX_EVENT,
    STRUCTURED,
    check_headers,
    from_headers,
    from_json,
    to_headers,
    to_json,
)
from tidings.core.codec import encode_json
from tidings.core.envelope import Envelope, slot_of
from tidings.errors import BadArgument, Unreadable

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
MINIMAL = {"specversion": "1.0", "id": "1", "source": "shop", "type": "OrderPlaced"}


def event(**attributes: Any) -> bytes:
    """A structured event that would be read but for what is given."""
    return json.dumps(MINIMAL | attributes).encode()


# -- round trips -------------------------------------------------------------------------------------------------------

names = st.from_regex(r"[A-Za-z][A-Za-z0-9_.]{0,20}", fullmatch=True).filter(lambda it: not it.startswith("tidings."))
clean = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cn"]), min_size=1, max_size=20)
keys = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=20)
extensions = st.dictionaries(st.from_regex(r"x[a-z0-9]{0,9}", fullmatch=True), clean, max_size=3)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | clean,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(clean, inner, max_size=3),
    max_leaves=5,
)


@st.composite
def envelopes(draw: st.DrawFn) -> Envelope:
    id = draw(clean)
    key = draw(st.none() | keys)
    stream = draw(st.none() | names)
    headers = draw(extensions)
    return Envelope(
        position=0,
        id=id,
        source=draw(names),
        type=draw(names),
        schema=draw(st.integers(1, 2**31 - 1)),
        topic=draw(st.none() | names),
        key=key,
        slot=slot_of(id if key is None else key),
        stream=stream,
        version=None if stream is None else draw(st.integers(1, 2**31 - 1)),
        time=draw(st.integers(1, 253_402_300_799_999_999)),
        correlation=draw(st.none() | names),
        causation=draw(st.none() | names),
        traceparent=draw(st.sampled_from([None, TRACE])),
        headers=encode_json(headers) if headers else None,
        data=draw(st.just(b"") | values.map(encode_json)),
    )


@given(envelopes())
def test_an_envelope_comes_back_as_it_was_in_structured_mode(envelope: Envelope) -> None:
    assert from_json(to_json(envelope), own=True) == envelope
    assert from_headers({"Content-Type": STRUCTURED}, to_json(envelope), own=True) == envelope
    assert from_headers({}, to_json(envelope), own=True) == envelope


@given(envelopes())
def test_an_envelope_comes_back_as_it_was_in_binary_mode(envelope: Envelope) -> None:
    headers = to_headers(envelope)
    assert from_headers(headers, envelope.data, own=True) == envelope
    assert all(value.isascii() and value.isprintable() and " " not in value for value in headers.values())


def test_an_event_of_somebody_else_is_public_and_gets_into_no_history() -> None:
    body = event(streamid="account-1", streamversion=7)
    assert from_json(body).topic == from_headers({}, body).topic == "outside"
    assert (from_json(body).stream, from_json(body).version) == (None, None)
    own = from_json(body, own=True)
    assert (own.topic, own.stream, own.version) == (None, "account-1", 7)


def test_data_stays_byte_for_byte() -> None:
    data = b'{ "total": 1.10, "big": 123456789012345678901234567890, "b":1, "a":[ ] }'
    body = b'{"specversion":"1.0","id":"1","source":"shop","type":"T","data":' + data + b"}"
    assert from_json(body).data == data


def test_times_are_kept_to_the_microsecond_whatever_their_zone() -> None:
    for text, expected in [
        ("2026-11-23T10:00:00Z", datetime(2026, 11, 23, 10, tzinfo=UTC)),
        ("2026-11-23T10:00:00.000001+02:00", datetime(2026, 11, 23, 8, 0, 0, 1, tzinfo=UTC)),
        ("1890-01-01t00:00:00z", datetime(1890, 1, 1, tzinfo=UTC)),
        ("9999-12-31T23:59:59Z", datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)),
    ]:
        time = from_json(event(time=text)).time
        assert datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=time) == expected


def test_an_event_without_a_time_has_time_zero() -> None:
    assert from_json(event()).time == 0
    assert b'"time"' not in to_json(from_json(event()))


def test_the_key_is_the_partition_key_or_else_the_subject() -> None:
    assert from_json(event(subject="s")).key == "s"
    both = from_json(event(subject="s", partitionkey="p"))
    assert both.key == "p"
    assert json.loads(to_json(both))["subject"] == "s"
    assert from_json(to_json(both)) == both


def test_attributes_without_a_field_of_their_own_are_kept() -> None:
    body = event(
        dataschema="https://example.org/s", tracestate="a=b", count=3, urgent=True, datacontenttype="text/json"
    )
    envelope = from_json(body)
    assert json.loads(envelope.headers or b"") == {
        "dataschema": "https://example.org/s",
        "datacontenttype": "text/json",
        "tracestate": "a=b",
        "count": 3,
        "urgent": True,
    }
    assert from_json(to_json(envelope)) == envelope


def test_null_attributes_are_not_set() -> None:
    assert from_json(event(subject=None, time=None, other=None)) == from_json(event())


def test_no_data_is_a_tombstone_and_null_is_data() -> None:
    assert from_json(event()).data == b""
    assert from_json(event(data=None)).data == b"null"
    assert from_headers({"ce-specversion": "1.0", "ce-id": "1", "ce-source": "s", "ce-type": "T"}, b"").data == b""


def test_data_in_base64_is_read() -> None:
    assert from_json(event(data_base64=base64.b64encode(b'{"a": 1}').decode())).data == b'{"a": 1}'


def test_data_that_is_no_json_can_be_sent_on() -> None:
    raw = msgspec.structs.replace(from_json(event(data={})), data=b"\x80\x04raw")
    sent = json.loads(to_json(raw))
    assert base64.b64decode(sent["data_base64"]) == b"\x80\x04raw"
    assert "data" not in sent


def test_headers_are_percent_encoded_as_the_http_binding_says() -> None:
    envelope = msgspec.structs.replace(from_json(event()), key='Euro € 😀 "50%"')
    headers = to_headers(envelope)
    assert headers["ce-subject"] == "Euro%20%E2%82%AC%20%F0%9F%98%80%20%2250%25%22"
    assert "ce-datacontenttype" not in headers
    for lower in (headers["ce-subject"], headers["ce-subject"].lower(), '"Euro%20€ 😀 \\"50%25\\""'):
        read = from_headers(headers | {"ce-subject": lower, "ce-partitionkey": lower}, b"")
        assert (read.key or "").lower() == (envelope.key or "").lower()


# -- beside the SDK of the standard ------------------------------------------------------------------------------------

FULL: dict[str, Any] = {
    "id": "a b%c",
    "source": "/shop?x=1",
    "type": "com.example.placed",
    "specversion": "1.0",
    "time": datetime(2026, 11, 23, 10, tzinfo=UTC),
    "datacontenttype": "application/json",
    "subject": "Tú ca",
    "partitionkey": "Tú ca",
    "tenant": "blue",
}


def test_what_the_sdk_sends_is_read_in_both_modes() -> None:
    for send in (to_structured_event, to_binary_event):
        message = send(CloudEvent(dict(FULL), {"total": 5}))
        envelope = from_headers(message.headers, message.body)
        assert (envelope.id, envelope.source, envelope.type) == ("a b%c", "/shop?x=1", "com.example.placed")
        assert (envelope.key, envelope.time) == ("Tú ca", 1_795_428_000_000_000)
        assert json.loads(envelope.data) == {"total": 5}
        assert json.loads(envelope.headers or b"") == {"tenant": "blue"}


def test_what_we_send_is_read_by_the_sdk_in_both_modes() -> None:
    message = to_structured_event(CloudEvent(dict(FULL), {"total": 5}))
    envelope = from_headers(message.headers, message.body)
    structured = from_structured_event(HTTPMessage({"content-type": STRUCTURED}, to_json(envelope)))
    binary = from_binary_event(HTTPMessage(to_headers(envelope), envelope.data))
    for read in (structured, binary):
        assert {name: read.get_attributes()[name] for name in FULL} == FULL
        assert read.get_data() == {"total": 5}


# -- what is refused ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "is empty"),
        (b"\xff\xff", "not UTF-8: byte 1 is 0xff"),
        (b'{"id":"\xc0\xa0"}', "not UTF-8: byte 8"),
        (event()[:-1], "not JSON: Input data was truncated"),
        (event() + b"x", "trailing characters"),
        (b"\xef\xbb\xbf" + event(), "byte order mark"),
        (event().decode().encode("utf-16"), "UTF-16"),
        (event().decode().encode("utf-16-le"), "UTF-16"),
        (event().decode().encode("utf-32-be"), "UTF-16 or UTF-32"),
        (gzip.compress(b"0" * 1_000_000), "gzip"),
        (b"\x28\xb5\x2f\xfd\x04\x00", "zstd"),
        (pickle.dumps({}), "not UTF-8"),
        (b"null", "not an object"),
        (b"[" + event() + b"]", "one event, not a batch"),
        (b'{"id":"1","id":"2"}', "'id' twice"),
        (b'{"data":{"a":{"x":1,"x":1}}}', "'x' twice"),
        (event(data="DEEP").replace(b'"DEEP"', b"[" * 100 + b"]" * 100), "deeper than 100"),
        (b"[" * 100_000, "deeper than 100"),
        (event(data="N").replace(b'"N"', b"NaN"), "not JSON"),
        (event(data="N").replace(b'"N"', b"-Infinity"), "not JSON"),
        (event(data="N").replace(b'"N"', b"1e400"), "out of range"),
        (event(data="N").replace(b'"N"', b"9" * 5000), "out of range"),
        (event(data="N").replace(b'"N"', b'"\\ud800"'), "not JSON"),
        (event(data="x" * MAX_EVENT), "the limit is 1,065,536"),
        (event(specversion="0.3"), "specversion: .*'0.3'"),
        (event(specversion="2.0"), "specversion: .*'2.0'"),
        (event(specversion=1.0), "specversion is not text"),
        (b'{"id":"1","source":"a","type":"t"}', "specversion: it is missing"),
        (b'{"specversion":"1.0","source":"a","type":"t"}', "id: it is missing"),
        (event(id=""), "id: .*length >= 1"),
        (event(id=7), "id: Expected `str`, got `int`"),
        (event(id=None), "id: it is missing"),
        (event(id="x" * 10_000), "id: .*length <= 512"),
        (event(id="a\r\nb"), r"id holds '\\r' at character 2"),
        (event(source=""), "source: .*length >= 1"),
        (event(source="a b"), "source .* no URI reference"),
        (event(source="50%"), "source .* no URI reference"),
        (event(source="<script>"), "source .* no URI reference"),
        (event(source="x" * 3000), "source: .*length <= 2048"),
        (event(type="x" * 201), "type: .*length <= 200"),
        (event(type="tidings.stop"), "reserved"),
        (event(type="a\x1b[31m"), r"type holds '\\x1b'"),
        (event(time="yesterday"), "time"),
        (event(time="2026-11-23T10:00:00"), "time"),
        (event(time="10000-01-01T00:00:00Z"), "time"),
        (event(time=1_795_428_000), "time"),
        (event(subject="x" * 513), "subject"),
        (event(partitionkey="€" * 200), "key"),
        (event(partitionkey="a\0"), "key"),
        (event(dataversion=0), "dataversion"),
        (event(dataversion="two"), "dataversion"),
        (event(dataversion="9" * 5000), "dataversion"),
        (event(streamversion=-1), "streamversion"),
        (event(correlationid="x" * 513), "correlationid"),
        (event(Upper="x"), "'Upper' is not allowed"),
        (event(**{"a-b": "x"}), "'a-b' is not allowed"),
        (event(__proto__={}), "'__proto__' is not allowed"),
        (event(list=[]), "list is not text"),
        (event(number=2**31), "number is not text"),
        (event(number=1.5), "number is not text"),
        (event(**{f"x{n}": "y" for n in range(65)}), "65 extension attributes"),
        (event(x="y" * 20_000), "extension attributes have"),
        (event(data={}, data_base64="e30="), "both data and data_base64"),
        (event(data_base64="%%%"), "not base64"),
        (event(data_base64=5), "not base64"),
        (event(data_base64="gASV"), "data_base64 is not UTF-8"),
        (event(data_base64=""), "data_base64 is empty"),
        (event(data="x", datacontenttype="text/plain"), "only JSON"),
        (event(data="x", datacontenttype="application/x-python-serialize"), "only JSON"),
        (event(data={}, datacontenttype="application/json; charset=utf-16"), "only JSON"),
        (event(data={}, datacontenttype=5), "only JSON"),
    ],
)
def test_what_is_no_event_is_unreadable_with_the_reason(body: bytes, says: str) -> None:
    with pytest.raises(Unreadable, match=says):
        from_json(body)
    with pytest.raises(Unreadable, match=says):
        from_headers({"content-type": STRUCTURED}, body)


BINARY = {"ce-specversion": "1.0", "ce-id": "1", "ce-source": "s", "ce-type": "T", "content-type": "application/json"}


@pytest.mark.parametrize(
    ("headers", "body", "says"),
    [
        ({"content-encoding": "gzip"}, b"{}", "content-encoding is 'gzip'"),
        ({"content-type": "application/x-python-serialize"}, pickle.dumps({}), "only JSON"),
        ({"content-type": "text/plain"}, b"{}", "only JSON"),
        ({"content-type": "application/json; charset=latin-1"}, b"{}", "only JSON"),
        ({"content-type": "application/cloudevents+avro"}, b"{}", "send one event, as"),
        ({"content-type": "application/cloudevents-batch+json"}, b"[]", "send one event, as"),
        ({"ce-datacontenttype": "text/plain"}, b"{}", "differ"),
        ({}, b"{", "not JSON"),
        ({}, b"x" * (MAX_EVENT + 1), "the limit is"),
        ({"ce-id": ""}, b"{}", "id: .*length >= 1"),
        ({"ce-id": "%C0%A0"}, b"{}", "not UTF-8"),
        ({"ce-id": "50%"}, b"{}", "%25"),
        ({"ce-id": "a%0d%0ab"}, b"{}", r"id holds '\\r'"),
        ({"ce-id": "\ud800"}, b"{}", "not UTF-8"),
        ({"CE-ID": "2"}, b"{}", "comes twice"),
        ({"ce-specversion": "2.0"}, b"{}", "specversion"),
        ({"ce-": "x"}, b"{}", "name '' is not allowed"),
        ({"ce-data": "x"}, b"{}", "name 'data' is not allowed"),
        ({"ce-a-b": "x"}, b"{}", "'a-b' is not allowed"),
        ({"ce-id": b"1"}, b"{}", "is not text"),
        ({"ce-id": "x" * 10_000}, b"{}", "id: .*length <= 512"),
    ],
)
def test_headers_that_are_no_event_are_unreadable_with_the_reason(
    headers: dict[str, Any], body: bytes, says: str
) -> None:
    assert from_headers(BINARY, b"{}").data == b"{}"
    with pytest.raises(Unreadable, match=says):
        from_headers(BINARY | headers, body)


def test_an_event_in_the_wrong_mode_is_unreadable() -> None:
    with pytest.raises(Unreadable, match="there are no ce- headers"):
        from_headers({"content-type": "application/json"}, event())
    with pytest.raises(Unreadable, match="ce-id and the event differ"):
        from_headers({"content-type": STRUCTURED, "ce-id": "other"}, event())
    assert from_headers({"content-type": f"{STRUCTURED}; charset=UTF-8", "ce-id": "1"}, event()).id == "1"


def test_control_headers_of_others_are_ignored() -> None:
    forged = {"tidings-attempt": "-1", "ce-tidingsattempt": "9" * 9, "epoch": "7", "tidings-position": "5"}
    assert from_headers(BINARY | forged, b"{}") == from_headers(BINARY, b"{}")
    assert from_json(event(**{"tidings-attempt": 10**9, "tidingsepoch": "7"})) == from_json(event())
    assert from_json(event(position="99", attempt="3")).position == 0


@pytest.mark.parametrize("trace", ["", "00-x", f"ff{TRACE[2:]}", "00-" + "0" * 32 + TRACE[35:], 5])
def test_a_malformed_trace_is_dropped_and_the_event_kept(trace: object) -> None:
    assert from_json(event(traceparent=trace)).traceparent is None
    assert from_json(event(traceparent=TRACE)).traceparent == TRACE


def test_dangerous_texts_are_only_texts() -> None:
    for text in ("{0.__class__}", "${jndi:ldap://x}", "%s%n", "__proto__", "'; DROP TABLE x", "<img src=x>"):
        assert from_json(event(type=text, x=text)).type == text
        with pytest.raises(Unreadable):
            from_json(event(source=text + "\n"))


texts = st.text(st.characters(categories=None), max_size=30)


@given(
    st.binary(max_size=80)
    | st.dictionaries(texts, values | texts, max_size=4).map(lambda it: json.dumps(MINIMAL | it).encode())
    | st.tuples(st.integers(0, 200), st.binary(max_size=3)).map(lambda it: event(x="y")[: it[0]] + it[1]),
    st.none() | st.dictionaries(st.sampled_from([*BINARY, "CE-X", "content-encoding", "x"]) | texts, texts, max_size=4),
    st.booleans(),
)
def test_any_bytes_and_headers_are_an_event_or_unreadable(
    body: bytes, headers: dict[str, str] | None, binary: bool
) -> None:
    try:
        envelope = from_json(body) if headers is None else from_headers((BINARY if binary else {}) | headers, body)
    except Unreadable:
        return
    if not envelope.data or headers is None or not binary:
        assert from_json(to_json(envelope)) == envelope


# -- headers a user gives ----------------------------------------------------------------------------------------------


def test_headers_a_user_gives_are_extension_attributes() -> None:
    given_ones = {"tenant": "blue", "traceparent": TRACE, "tracestate": "a=b", "x1": "Tú €"}
    assert check_headers(given_ones) == given_ones


@pytest.mark.parametrize(
    ("headers", "says"),
    [
        ({f"x{n}": "" for n in range(65)}, "65 headers"),
        ({5: "x"}, "name '5'"),
        ({"": "x"}, "name ''"),
        ({"Tenant": "x"}, "lower-case"),
        ({"x-tenant": "x"}, "lower-case"),
        ({"ce-id": "x"}, "leave out ce-"),
        ({"CE-ID": "x"}, "leave out ce-"),
        ({"id": "x"}, "'id' is set by tidings"),
        ({"data": "x"}, "'data' is set by tidings"),
        ({"subject": "x"}, "'subject' is set by tidings"),
        ({"partitionkey": "x"}, "'partitionkey' is set by tidings"),
        ({"correlationid": "x"}, "'correlationid' is set by tidings"),
        ({"tidingsattempt": "x"}, "'tidingsattempt' is set by tidings"),
        ({"replyto": "shop"}, "'replyto' is set by tidings"),
        ({"tenant": 5}, "'tenant' is a int"),
        ({"tenant": b"x"}, "'tenant' is a bytes"),
        ({"tenant": None}, "'tenant' is a NoneType"),
        ({"tenant": "a\r\nSet-Cookie: b"}, r"'tenant' holds '\\r' at character 2"),
        ({"tenant": "\0"}, "'tenant' holds"),
        ({"tenant": "\ud800"}, "'tenant' holds"),
        ({"tenant": "\ufffe"}, "'tenant' holds"),
        ({"tenant": "x" * 20_000}, "bytes"),
        ({"traceparent": "mine"}, "W3C"),
        ({"x" * 65: "y"}, "lower-case"),
    ],
)
def test_headers_that_could_not_be_sent_are_refused_by_name(headers: dict[Any, Any], says: str) -> None:
    with pytest.raises(BadArgument, match=says):
        check_headers(headers)
