"""Claims: what is too large for a broker lies elsewhere, and the message says where and which (CloudEvents `dataref`).

The name it lies under follows from the message and its data. What a stranger wrote names no file and opens no address.
"""

from __future__ import annotations

import hashlib
import re
from typing import Any, NamedTuple
from urllib.parse import quote

import msgspec

from tidings.core.attributes import CLAIM
from tidings.core.cloudevent import MAX_EVENT
from tidings.core.codec import decode_json, encode_json
from tidings.core.envelope import Envelope
from tidings.core.strict import read_json
from tidings.errors import Unreadable

LARGEST = 10_000_000
"""Largest encoded message of an app that has a place for claims, bytes: a worker has some of them in memory."""

_REF, _DIGEST, _SIZE = CLAIM
_DIGITS = re.compile(r"[0-9a-f]{64}")
_BYTES = re.compile(r"[1-9][0-9]{0,8}")


class Claim(NamedTuple):
    """Data that lie elsewhere.

    Attributes:
        name: What they are called there: hexadecimal digits and a dash.
        digest: SHA-256 of them, in hexadecimal digits.
        size: Bytes.
    """

    name: str
    digest: str
    size: int


def claim_of(envelope: Envelope) -> Claim:
    """The claim of a message that has its data with it; the same message has the same one, however often it is sent."""
    digest = hashlib.sha256(envelope.data).hexdigest()
    return Claim(_name(envelope, digest), digest, len(envelope.data))


def referring(envelope: Envelope, claim: Claim, place: str) -> Envelope:
    """The message as it travels while its data lie elsewhere.

    Args:
        envelope: With its data.
        claim: Of it.
        place: URL of where they lie.
    """
    headers: dict[str, Any] = decode_json(envelope.headers) if envelope.headers else {}
    where = quote(f"{place.rstrip('/')}/{claim.name}", safe="/:-._~")
    headers |= {_REF: where, _DIGEST: claim.digest, _SIZE: claim.size}
    return msgspec.structs.replace(envelope, headers=encode_json(headers), data=b"")


def refers(envelope: Envelope) -> bool:
    """True for a message from a broker whose data lie elsewhere."""
    return not envelope.data and envelope.headers is not None and _REF in decode_json(envelope.headers)


def claim_in(envelope: Envelope) -> Claim:
    """What a message refers to.

    Raises:
        Unreadable: Its data are somewhere, but it is no claim of ours that says where.
    """
    headers = decode_json(envelope.headers or b"{}")
    digest, size = str(headers.get(_DIGEST)), str(headers.get(_SIZE))
    name = _name(envelope, digest)
    numbers = _DIGITS.fullmatch(digest) and _BYTES.fullmatch(size) and int(size) <= LARGEST + MAX_EVENT
    if not numbers or str(headers.get(_REF)).rpartition("/")[2] != name:
        what = f"its data are at {where_of(envelope)}, which is no claim of tidings"
        raise Unreadable(what, "send them in the event")
    return Claim(name, digest, int(size))


def where_of(envelope: Envelope) -> str:
    """Where the data of a message lie, as its sender wrote it, for people."""
    return repr(decode_json(envelope.headers or b"{}").get(_REF))[:200]


def redeemed(envelope: Envelope, claim: Claim, data: bytes | None) -> Envelope:
    """The whole message, as it was before its data were left elsewhere.

    Args:
        envelope: That refers to them.
        claim: In it.
        data: What lies there; None for nothing.

    Raises:
        Unreadable: They are missing, or are not what was left there, or no JSON.
    """
    if data is None:
        cure = "put it back if there is a copy, then redrive; keep claims for longer than any message waits"
        raise Unreadable(f"its data are missing: nothing is at {where_of(envelope)}", cure)
    if len(data) != claim.size or hashlib.sha256(data).hexdigest() != claim.digest:
        what = f"its data were changed: {where_of(envelope)} is not what was left there, {claim.size:,} bytes"
        raise Unreadable(what, "put it back if there is a copy, then redrive")
    read_json(data, "its data")
    rest = {name: value for name, value in decode_json(envelope.headers or b"{}").items() if name not in CLAIM}
    return msgspec.structs.replace(envelope, headers=encode_json(rest) if rest else None, data=data)


def fingerprint(envelope: Envelope) -> str:
    """SHA-256, in hexadecimal digits, of what tells a message from all others: its source and its id."""
    return hashlib.sha256(f"{envelope.source}\0{envelope.id}".encode()).hexdigest()


def _name(envelope: Envelope, digest: str) -> str:
    """Of its id and its content: who takes an id for something else overwrites nothing."""
    return f"{fingerprint(envelope)[:32]}-{digest}"
