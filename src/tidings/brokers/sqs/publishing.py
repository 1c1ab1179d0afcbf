"""Publishes batches, and tells by name what became of every message of them."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from tidings.brokers.sqs.connection import Clients, is_missing, trouble
from tidings.brokers.sqs.declaring import MAX_TOPIC_BYTES, Place
from tidings.brokers.sqs.settings import Settings
from tidings.brokers.sqs.wire import Entry
from tidings.core.arrival import Confirmed, Rejected, Result, Unknown
from tidings.core.envelope import Envelope
from tidings.errors import BrokerRefused

BATCH = 10
"""Messages that SNS takes in one call."""

MAX_DATA = MAX_TOPIC_BYTES - 32_768
"""Bytes of data in one message; what is left of what a topic takes is for its attributes."""

Numbered = tuple[int, Entry]
"""An entry, and where its result belongs."""


class TopicGone(Exception):
    """The topic is not there any more."""


def batches(entries: Sequence[Numbered], limit: int) -> Iterator[list[Numbered]]:
    """Entries in batches that a topic takes.

    Args:
        entries: None is larger than the limit.
        limit: Bytes of a batch.
    """
    batch: list[Numbered] = []
    size = 0
    for each in entries:
        if batch and (len(batch) == BATCH or size + each[1].size > limit):
            yield batch
            batch, size = [], 0
        batch.append(each)
        size += each[1].size
    if batch:
        yield batch


def too_large(envelope: Envelope, entry: Entry, place: Place) -> Rejected | None:
    """The verdict on what will never be taken: more data than is promised, or attributes that have no room beside."""
    if (size := len(envelope.data)) > MAX_DATA:
        return Rejected(f"its data has {size:,} bytes; {MAX_DATA:,} are taken", too_large=True)
    if entry.size > place.limit:
        what = f"it has {entry.size:,} bytes with its attributes; {place.name} takes {place.limit:,}"
        return Rejected(what, too_large=True)
    return None


class Publishing:
    """Publishes to topics. Every method blocks."""

    def __init__(self, clients: Clients, settings: Settings) -> None:
        self._clients = clients
        self._settings = settings

    def publish(self, place: Place, waiting: deque[list[Numbered]], results: list[Result], deadline: float) -> None:
        """Publish batches one after the other until none is left; several threads may share them.

        Args:
            place: The topic.
            waiting: The batches; each is taken out by whoever publishes it.
            results: Where results are put as they come in.
            deadline: When to stop sending, by the monotonic clock.

        Raises:
            TopicGone: The topic was deleted; what has no result yet keeps the one it had.
        """
        while waiting and time.monotonic() < deadline:
            try:
                batch = waiting.popleft()
            except IndexError:  # another thread was quicker
                return
            for (at, _), result in zip(batch, self._published(place, batch), strict=True):
                results[at] = result

    def _published(self, place: Place, batch: Sequence[Numbered]) -> list[Result]:
        requests = [{"Id": str(number), **entry.request} for number, (_, entry) in enumerate(batch)]
        try:
            answer = self._clients.sns.publish_batch(TopicArn=place.arn, PublishBatchRequestEntries=requests)
        except (ClientError, BotoCoreError) as error:
            if is_missing(error):
                raise TopicGone(place.name) from error
            return self._failed(place, batch, error)
        except Exception as error:  # noqa: BLE001 - whatever it was, the messages may be there
            return [Unknown(f"{type(error).__name__}: {error}")] * len(batch)
        found: dict[str, Result] = {each["Id"]: Confirmed() for each in answer.get("Successful", [])}
        found |= {each["Id"]: verdict(each) for each in answer.get("Failed", [])}
        silence = Unknown(f"{place.name} said nothing of it in its answer")
        return [found.get(request["Id"], silence) for request in requests]

    def _failed(self, place: Place, batch: Sequence[Numbered], error: Exception) -> list[Result]:
        """Results of a batch that was refused as a whole: the one message that is wrong must not hold up the others."""
        meaning = trouble(error, self._settings, f"publish to the topic {place.name}")
        wrong = isinstance(error, ClientError) and isinstance(meaning, BrokerRefused) and not meaning.cure
        if wrong and len(batch) > 1:
            return [result for each in batch for result in self._published(place, [each])]
        return [Rejected(str(meaning)) if wrong else Unknown(str(meaning))] * len(batch)


def verdict(failed: dict[str, Any]) -> Result:
    """What an entry that failed means, in an answer whose status is 200."""
    code = str(failed.get("Code", ""))
    reason = " ".join(f"{code}: {failed.get('Message', '')}".split())[:300]
    mendable = code.upper().startswith("KMS") or any(word in code for word in ("Thrott", "Authoriz", "AccessDenied"))
    return Rejected(reason) if failed.get("SenderFault") and not mendable else Unknown(reason)
