"""Messages as SNS and SQS carry them: structured CloudEvents in the body, and their type beside it."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec

from tidings.brokers.sqs.names import deduplication_of, group_of, key_of
from tidings.core.arrival import Arrival
from tidings.core.attributes import JSON
from tidings.core.cloudevent import STRUCTURED, to_json
from tidings.core.codec import decode_json, encode_json
from tidings.core.envelope import Envelope

_ILLEGAL = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that XML 1.0 has not, and therefore no message."""

_PREFIX = re.compile(r"(?:ce|cloudevents)[-_:](?=.)")


class Entry(NamedTuple):
    """An envelope, ready to be published.

    Attributes:
        request: Its entry in a batch, without the id that it has there.
        size: Bytes of body and attributes, as AWS counts them.
    """

    request: dict[str, Any]
    size: int


class Receipt(NamedTuple):
    """What it takes to settle a message.

    Attributes:
        queue: URL of its queue.
        handle: Of this delivery of it.
        group: Its message group, "" in a standard queue.
        until: When it comes again, by the monotonic clock.
    """

    queue: str
    handle: str
    group: str
    until: float


def entry_of(envelope: Envelope, *, fifo: bool) -> Entry:
    """The entry of an envelope in a batch."""
    body = _body(envelope)
    request: dict[str, Any] = {"Message": body}
    size = len(body.encode())
    if not _ILLEGAL.search(envelope.type):  # one to filter by; each would cost a fifth of publishing
        request["MessageAttributes"] = {"type": {"DataType": "String", "StringValue": envelope.type}}
        size += len("typeString") + len(envelope.type.encode())
    if fifo:
        request["MessageGroupId"] = group_of(envelope)
        request["MessageDeduplicationId"] = deduplication_of(envelope)
    return Entry(request, size)


def arrival_of(message: Mapping[str, Any], topic: str, queue: str, url: str, until: float) -> Arrival:
    """What arrived: raw, or in the envelope that SNS puts around it where raw delivery is off.

    Args:
        message: As SQS returned it.
        topic: Where it was published.
        queue: Name of the queue.
        url: Of the queue.
        until: When it comes again if it is not settled, by the monotonic clock.
    """
    text: str = message.get("Body", "")
    headers = _headers(message.get("MessageAttributes", {}), "DataType", "StringValue")
    if (unwrapped := _unwrapped(text)) is not None:
        text = unwrapped["Message"]
        headers = _headers(unwrapped.get("MessageAttributes"), "Type", "Value") | headers
    body = text.encode("utf-8", "surrogatepass")
    if "content-type" not in headers and "ce-specversion" not in headers and b'"specversion"' in body:
        headers["content-type"] = STRUCTURED
    group = message.get("Attributes", {}).get("MessageGroupId")
    return Arrival(
        topic,
        body,
        headers,
        f"{queue}, message {message.get('MessageId', 'without an id')}",
        key_of(group) if queue.endswith(".fifo") else None,  # elsewhere a group asks for a fair share, not for order
        Receipt(url, message["ReceiptHandle"], group or "", until),
    )


def _body(envelope: Envelope) -> str:
    body = to_json(envelope).decode()
    if not _ILLEGAL.search(body):
        return body
    data = envelope.data.decode("utf-8", "replace")
    if data and data in body and _ILLEGAL.search(data):  # an escape would do, but would not give back the same bytes
        event = decode_json(to_json(msgspec.structs.replace(envelope, data=b"")))
        event.setdefault("datacontenttype", JSON)
        event["data_base64"] = base64.b64encode(envelope.data).decode()
        body = encode_json(event).decode()
    return _ILLEGAL.sub(lambda found: f"\\u{ord(found[0]):04x}", body)


def _headers(attributes: object, kind: str, value: str) -> dict[str, str]:
    """Message attributes that are text, by their names as CloudEvents bindings with headers write them."""
    found: dict[str, str] = {}
    for name, each in attributes.items() if isinstance(attributes, dict) else ():
        if isinstance(each, dict) and isinstance(each.get(value), str) and not str(each.get(kind)).startswith("Binary"):
            found.setdefault(_PREFIX.sub("ce-", str(name).lower(), count=1), each[value])
    return found


def _unwrapped(text: str) -> dict[str, Any] | None:
    """The envelope of SNS, None where there is none."""
    if '"Notification"' not in text or '"TopicArn"' not in text:
        return None
    try:
        found = decode_json(text.encode())
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
    ours = isinstance(found, dict) and found.get("Type") == "Notification" and isinstance(found.get("Message"), str)
    return found if ours and "specversion" not in found else None
