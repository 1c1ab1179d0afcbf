"""Failing: what becomes of a delivery whose attempt failed, and of those of its key that are in memory."""

from __future__ import annotations

import logging
import traceback
from typing import TYPE_CHECKING

from tidings.core.delivery import printable, settle
from tidings.core.operations import Delivery
from tidings.errors import Unreadable
from tidings.runtime.intake import WAITS
from tidings.runtime.settlement import Ended

if TYPE_CHECKING:
    from tidings.runtime.pump import Pump

log = logging.getLogger("tidings")


def fail(pump: Pump, delivery: Delivery, error: BaseException) -> None:
    """Decide what becomes of a delivery whose attempt failed, and park those of its key that wait in memory."""
    row = pump.intake.rows.get(delivery.held)
    envelope = delivery.envelope
    trace = "" if isinstance(error, Unreadable) else "".join(traceback.format_exception(error))
    it = pump.subscription
    held = settle(row, delivery, error, trace, it.retry, pump.clock.draw(), pump.clock.now(), pump.group)
    level = logging.ERROR if held.state == "dead" else logging.WARNING
    log.log(level, "%s: %s %s: %s", pump.group, envelope.type, printable(envelope.id), held.history[-1])
    told = pump.answering.refused(envelope, held.reason) if held.state == "dead" else ()
    pump.ended.others.append(Ended(delivery, held, told))
    if envelope.key is not None and not (held.state == "dead" and it.on_dead == "skip"):
        pump.intake.failing[envelope.key] = envelope
        pump.intake.release(pump.lanes.drop(lambda other: other.envelope.key == envelope.key), WAITS)
