"""Taking in messages from outside: what can be read goes to the log, what cannot is kept raw, never dropped."""

from __future__ import annotations

from collections.abc import Mapping

from tidings.core.codec import encode_json
from tidings.core.delivery import printable
from tidings.core.envelope import Envelope
from tidings.core.operations import Held
from tidings.errors import TidingsError, Unreadable
from tidings.runtime.clock import Clock
from tidings.runtime.verbs import Verbs

GROUP = "quarantine"


async def quarantined(verbs: Verbs, app: str, body: bytes, headers: Mapping[str, str]) -> int:
    """Append a CloudEvent to the log and return its position; keep what is unreadable and return 0."""
    try:
        return await verbs.receive(body, headers)
    except Unreadable as error:
        await verbs.keep(unreadable(app, body, headers, error, verbs.clock))
        return 0


def unreadable(app: str, body: bytes, headers: Mapping[str, str], error: TidingsError, clock: Clock) -> Held:
    """What cannot be taken in, as it is kept: raw, among the dead letters of `<app>.quarantine`."""
    now = clock.now()
    raw = Envelope(
        position=0,
        id=clock.id(),
        source=app,
        type="unreadable",
        schema=1,
        topic=None,
        key=None,
        slot=0,
        stream=None,
        version=None,
        time=now,
        correlation=None,
        causation=None,
        traceparent=None,
        headers=encode_json({printable(str(name)): printable(str(value)) for name, value in headers.items()})
        if headers
        else None,
        data=bytes(body),
    )
    reason = f"{type(error).__name__}: {error.what}"
    place = -1 - int(clock.draw() * 2**53)  # it has none in the log; no two may share one
    return Held(0, f"{app}.{GROUP}", place, "dead", 0, 0, raw, reason, since=now)
