"""Requests: commands whose sender waits for what their handler returns, until a deadline.

A request carries two attributes more than a command that is sent: `expirytime`, as the CloudEvents extension of that
name defines it, and `replyto`, the app that waits. The answer is a message of its own, to that app alone: it holds what
the handler returned, which is published as ever besides, or why the request was refused. Its cause is the request.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec

from tidings.core.attributes import ANSWER, EXPIRY, REPLY_TO, microseconds, timestamp
from tidings.core.codec import MAX_BYTES, decode_json, encode_json
from tidings.core.envelope import SLOTS, Envelope, Seen
from tidings.core.message import address_of
from tidings.errors import PayloadTooLarge, Unreadable

_MARK = f'"{REPLY_TO}"'.encode()
_APP = re.compile(r"[A-Za-z][A-Za-z0-9_:-]{0,199}")


class Returned(msgspec.Struct, frozen=True):
    """One message that the handler returned: two attributes and the data of its event."""

    type: str
    dataversion: int
    data: msgspec.Raw

    @classmethod
    def of(cls, envelope: Envelope) -> Returned:
        """What is told of an envelope."""
        return cls(envelope.type, envelope.schema, msgspec.Raw(envelope.data or b"null"))


class Answer(msgspec.Struct, frozen=True, omit_defaults=True):
    """The data of an answer.

    Attributes:
        messages: What the handler returned, in order.
        refused: Why the request became a dead letter instead.
    """

    messages: Sequence[Returned] = ()
    refused: str | None = None


class Waiting(msgspec.Struct, frozen=True, gc=False):
    """Who waits for the answer to a request.

    Attributes:
        app: Name of the app that asked.
        until: Its deadline, microseconds since 1970 UTC.
    """

    app: str
    until: int


def as_request(command: Envelope, app: str, until: int) -> Envelope:
    """A command as the request of an app that waits for the answer until a deadline, microseconds since 1970 UTC."""
    headers = decode_json(command.headers) if command.headers else {}
    return msgspec.structs.replace(command, headers=encode_json({**headers, EXPIRY: timestamp(until), REPLY_TO: app}))


def waiting_for(envelope: Seen) -> Waiting | None:
    """Who waits for an answer to a message, if it is a request."""
    if envelope.headers is None or _MARK not in envelope.headers:
        return None
    headers: dict[str, Any] = decode_json(envelope.headers)
    app = headers.get(REPLY_TO)
    try:
        until = microseconds(msgspec.convert(headers.get(EXPIRY), datetime))
    except (msgspec.ValidationError, TypeError, OverflowError):  # somebody else's, who wrote no time with a zone
        return None
    return Waiting(app, until) if isinstance(app, str) and _APP.fullmatch(app) else None


def answer(request: Envelope, to: str, content: Answer, *, app: str, id: str, now: int) -> Envelope:
    """The answer to a request, to be appended together with the acknowledgement.

    Args:
        request: What is answered.
        to: Name of the app that waits.
        content: What the answer says.
        app: Name of the app that answers.
        id: Of the answer.
        now: Microseconds since 1970 UTC.

    Raises:
        PayloadTooLarge: The messages are too large to be sent back together.
    """
    data = encode_json(content)
    if len(data) > MAX_BYTES:
        msg = f"the answer to {request.type} has {len(data):,} bytes of JSON; the limit is {MAX_BYTES:,}"
        raise PayloadTooLarge(msg, "return a reference to the large part", size=len(data), limit=MAX_BYTES)
    return Envelope(
        position=0,
        id=id,
        source=app,
        type=ANSWER,
        schema=1,
        topic=address_of(to),
        key=None,
        slot=now % SLOTS,
        stream=None,
        version=None,
        time=now,
        correlation=request.conversation,
        causation=request.id,
        traceparent=request.traceparent,
        headers=None,
        data=data,
    )


def read_answer(envelope: Envelope) -> Answer:
    """What an answer says.

    Raises:
        Unreadable: It is not of this form.
    """
    try:
        return msgspec.json.decode(envelope.data, type=Answer)
    except msgspec.MsgspecError as error:
        msg = f"the answer {envelope.id} cannot be read: {error}"
        raise Unreadable(msg, "is the app that sent it of the same version of tidings?") from error
