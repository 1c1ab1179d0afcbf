"""Deletes what is safe in the log. What could not be deleted comes again, which is no error: ids are known."""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Sequence
from zlib import crc32

from botocore.exceptions import BotoCoreError, ClientError

from tidings.brokers.sqs.connection import Clients, trouble
from tidings.brokers.sqs.settings import Settings
from tidings.brokers.sqs.wire import Receipt
from tidings.errors import BrokerRefused

BATCH = 10
"""Messages that SQS deletes in one call."""

LANES = 4
"""Calls under way at once for one queue; a message group stays in one lane, and so in order."""

_TRIES = 4
_PAUSE = 0.05  # seconds; doubles

log = logging.getLogger("tidings")


def lanes(receipts: Sequence[Receipt]) -> list[list[Receipt]]:
    """Receipts by queue, spread over lanes."""
    found: defaultdict[tuple[str, int], list[Receipt]] = defaultdict(list)
    for at, each in enumerate(receipts):
        lane = crc32(each.group.encode()) if each.group else at // BATCH
        found[each.queue, lane % LANES].append(each)
    return list(found.values())


def settle(clients: Clients, settings: Settings, lane: Sequence[Receipt], deadline: float) -> BrokerRefused | None:
    """Delete messages of one queue, in order; returns what keeps them from being deleted for good. Blocks."""
    waiting, tries = list(lane), 0
    while waiting and time.monotonic() < deadline:
        batch, rest = waiting[:BATCH], waiting[BATCH:]
        entries = [{"Id": str(at), "ReceiptHandle": each.handle} for at, each in enumerate(batch)]
        try:
            answer = clients.sqs.delete_message_batch(QueueUrl=batch[0].queue, Entries=entries)
        except (ClientError, BotoCoreError) as error:
            meaning = trouble(error, settings, "delete what was received")
            log.debug("messages come again: %s", meaning)
            return meaning if isinstance(meaning, BrokerRefused) else None
        # A receipt that has run out is the sender's fault: the message comes again, and is known then.
        failed = [batch[int(each["Id"])] for each in answer.get("Failed", []) if not each.get("SenderFault")]
        tries = tries + 1 if failed else 0
        if tries == _TRIES:
            failed, tries = [], 0
        if failed:
            time.sleep(_PAUSE * 2**tries)
        waiting = failed + rest  # none of a group overtakes an earlier one that is tried again
    return None
