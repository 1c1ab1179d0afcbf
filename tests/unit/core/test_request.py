"""A request says who waits and until when; what others may have written there says nothing."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from tests.unit.core.test_cloudevent import MINIMAL
from tidings.core.cloudevent import from_json, to_headers, to_json
from tidings.core.codec import encode_json
from tidings.core.envelope import Envelope
from tidings.core.request import Answer, Returned, Waiting, answer, as_request, read_answer, waiting_for
from tidings.errors import PayloadTooLarge, Unreadable

UNTIL = 1_700_000_000_123_456
ASK = from_json(json.dumps({**MINIMAL, "type": "AskPrice", "tags": '["item:tea"]'}).encode())


def test_a_request_keeps_its_headers_and_comes_through_the_wire_to_the_microsecond() -> None:
    request = as_request(ASK, "shop", UNTIL)
    assert json.loads(request.headers or b"") == {
        "tags": '["item:tea"]',
        "expirytime": "2023-11-14T22:13:20.123456Z",
        "replyto": "shop",
    }
    assert to_headers(request)["ce-replyto"] == "shop"
    assert waiting_for(from_json(to_json(request))) == Waiting("shop", UNTIL)
    assert waiting_for(ASK) is None


@pytest.mark.parametrize(
    "headers",
    [
        {"replyto": "shop"},
        {"expirytime": "2023-11-14T22:13:20Z"},
        {"replyto": "shop", "expirytime": "2023-11-14T22:13:20"},
        {"replyto": "shop", "expirytime": "tomorrow"},
        {"replyto": "shop", "expirytime": 7},
        {"replyto": "shop", "expirytime": True},
        {"replyto": "shop.states", "expirytime": "2023-11-14T22:13:20Z"},
        {"replyto": "", "expirytime": "2023-11-14T22:13:20Z"},
        {"replyto": "../shop", "expirytime": "2023-11-14T22:13:20Z"},
        {"replyto": 7, "expirytime": "2023-11-14T22:13:20Z"},
    ],
)
def test_what_does_not_say_who_waits_until_when_is_no_request(headers: dict[str, Any]) -> None:
    assert waiting_for(msgspec.structs.replace(ASK, headers=encode_json(headers))) is None


def given(content: Answer) -> Envelope:
    return answer(as_request(ASK, "shop", UNTIL), "shop", content, app="prices", id="a-1", now=UNTIL - 1)


def test_an_answer_goes_to_who_asked_and_names_its_cause() -> None:
    returned = msgspec.structs.replace(ASK, type="Price", schema=2, data=b'{"amount":7}')
    found = given(Answer([Returned.of(returned)]))
    assert (found.topic, found.source, found.causation, found.correlation) == ("tidings.shop", "prices", "1", "1")
    assert found.data == b'{"messages":[{"type":"Price","dataversion":2,"data":{"amount":7}}]}'
    [message] = read_answer(from_json(to_json(found))).messages
    assert (message.type, message.dataversion, bytes(message.data)) == ("Price", 2, b'{"amount":7}')
    assert read_answer(given(Answer(refused="no"))) == Answer(refused="no")


def test_an_answer_that_is_too_large_or_of_another_form_is_told() -> None:
    large = msgspec.structs.replace(ASK, data=encode_json("x" * 600_000))
    with pytest.raises(PayloadTooLarge, match="the answer to AskPrice has 1,2"):
        given(Answer([Returned.of(large)] * 2))
    with pytest.raises(Unreadable, match="the answer a-1 cannot be read"):
        read_answer(msgspec.structs.replace(given(Answer()), data=b'{"messages":7}'))
