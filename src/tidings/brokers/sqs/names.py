"""Names of topics, queues and message groups. Different things never share a name.

AWS allows letters, digits, - and _ only, and 80 of them for a queue. What does not fit keeps what can be kept of it and
gets a hash of the whole; a name that looks as if it had one already gets one too.
"""

from __future__ import annotations

import hashlib
import re

from tidings.core.envelope import Envelope

_TOPIC_LENGTH = 256
_QUEUE_LENGTH = 80
_NOT_ALLOWED = re.compile(r"[^A-Za-z0-9_-]")
_HASHED = re.compile(r"-[0-9a-f]{12}")
_GROUP = re.compile(r"[A-Za-z0-9!-/:-@\[-`{-~]{1,128}")
_OURS = ("sha256:", "unkeyed:")


def topic_name(topic: str, *, prefix: str = "", fifo: bool = False) -> str:
    """The name of an SNS topic."""
    end = ".fifo" if fifo else ""
    return f"{prefix}{_allowed(topic, topic, _TOPIC_LENGTH - len(prefix) - len(end))}{end}"


def queue_name(app: str, topic: str, *, prefix: str = "", fifo: bool = False) -> str:
    """The name of the SQS queue in which messages of a topic arrive for an app."""
    end = ".fifo" if fifo else ""
    whole = f"{app}\0{topic}" if "-" in app else ""  # a-b of c is not a of b-c
    return f"{prefix}{_allowed(f'{app}-{topic}', whole, _QUEUE_LENGTH - len(prefix) - len(end))}{end}"


def queues_of(app: str, *, prefix: str = "") -> str:
    """How the names of all queues of an app begin; those of an app with a longer name may begin so too."""
    return f"{prefix}{_NOT_ALLOWED.sub('-', app)}-"


def group_of(envelope: Envelope) -> str:
    """The message group of an envelope: its key, readable where AWS allows that; without a key one of its own."""
    if envelope.key is None:
        return f"unkeyed:{_hash(envelope.id)}"
    if _GROUP.fullmatch(envelope.key) and not envelope.key.startswith(_OURS):
        return envelope.key
    return f"sha256:{_hash(envelope.key)}"


def key_of(group: str | None) -> str | None:
    """The key that a message group tells, None where it tells none."""
    return None if group is None or group.startswith(_OURS) else group


def deduplication_of(envelope: Envelope) -> str:
    """What a FIFO topic knows an envelope by, for five minutes."""
    return _hash(f"{envelope.source}\0{envelope.id}")


def _allowed(text: str, whole: str, room: int) -> str:
    allowed = _NOT_ALLOWED.sub("-", text)
    if allowed == text and whole in {"", text} and len(text) <= room and not _HASHED.fullmatch(text[-13:]):
        return text
    return f"{allowed[: room - 13]}-{_hash(whole or text)[:12]}"


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
