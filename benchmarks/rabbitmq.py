"""`python -m benchmarks.rabbitmq [--only NAME]... [--quick]`: tidings on RabbitMQ beside pika and FastStream.

It starts a server of its own and removes it. All sides have the same server, payload, headers, quorum queue and
confirms; a message counts as published when it is confirmed, and as received when it is acknowledged.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pika
from faststream import rabbit as fast

from benchmarks import carried
from benchmarks.bare import RATE, Log, messages
from benchmarks.carried import Placed, placed_in
from benchmarks.command import command, served
from benchmarks.measure import Effort, Round, Sample, Side, Stopwatch, family
from benchmarks.shop import encode, order
from tests.servers.rabbitmq import RabbitmqServer
from tidings.brokers.rabbitmq import RabbitBroker
from tidings.brokers.rabbitmq.wire import address_of, headers_of, properties_of
from tidings.core.arrival import Arrival, Confirmed
from tidings.core.envelope import Envelope
from tidings.testing.conformance.broker.making import envelope

SERVER: list[RabbitmqServer] = []
IN_FLIGHT = 100
Work = Callable[[str, Sequence[Envelope]], Coroutine[Any, Any, Sample]]
PREFETCH = 1_000
SHARE = 0.1
"""Of `Effort.events`: messages of a round."""
EXCHANGE, QUEUE, TOPIC = "tidings.orders", "billing.orders", "orders"


def sent(count: int) -> list[Envelope]:
    """As many orders, each with a key of its own."""
    return [envelope(TOPIC, f"o-{n:07}", data=encode(order(f"o-{n:07}", n))) for n in range(count)]


@contextmanager
def corner() -> Iterator[str]:
    """The URL of a vhost in which the queue is declared."""

    async def declare(url: str) -> None:
        async with opened(url, "billing") as broker:
            await broker.subscribe([TOPIC])

    with SERVER[0].vhost() as url:
        asyncio.run(declare(url))
        yield url


@contextlib.asynccontextmanager
async def opened(url: str, app: str) -> Any:
    broker = RabbitBroker(url, app)
    await broker.open()
    yield broker
    await broker.close()


# ---- tidings ---------------------------------------------------------------------------------------------------------


async def publish(url: str, envelopes: Sequence[Envelope]) -> Sample:
    """Batches as a relay has them; each is confirmed before the next."""
    async with opened(url, "shop") as broker:
        await broker.publish(envelopes[:1])
        watch = Stopwatch()
        for start in range(0, len(envelopes), IN_FLIGHT):
            results = await broker.publish(envelopes[start : start + IN_FLIGHT])
            assert all(type(result) is Confirmed for result in results)
        return watch.sample(len(envelopes))


def receive(look: Callable[[Arrival], object] = bool, *, each: bool = False) -> Work:
    """Fetch what there is, settle it. Args: look: at each, in between. each: settle them one by one."""

    async def work(url: str, envelopes: Sequence[Envelope]) -> Sample:
        await publish(url, envelopes[1:])
        async with opened(url, "billing") as broker:
            watch, done = Stopwatch(), 0  # messages come from the moment of the subscription on
            await broker.subscribe([TOPIC])
            while done < len(envelopes):
                arrivals = await broker.fetch(500, 5.0)
                assert arrivals
                for arrival in arrivals:
                    look(arrival)
                    if each:
                        await broker.settle([arrival])
                if not each:
                    await broker.settle(arrivals)
                done += len(arrivals)
            return watch.sample(done)

    return work


# ---- FastStream ------------------------------------------------------------------------------------------------------


def faststream(url: str) -> fast.RabbitBroker:
    """It as it comes, with confirms and a window; it does not log each message."""
    return fast.RabbitBroker(url, logger=None, default_channel=fast.Channel(prefetch_count=PREFETCH))


async def faststream_publish(url: str, envelopes: Sequence[Envelope]) -> Sample:
    """A hundred calls of `publish` at once, all confirmed, and again."""
    exchange = fast.RabbitExchange(EXCHANGE, declare=False)
    async with faststream(url) as broker:

        async def send(each: Envelope) -> None:
            headers, kind = headers_of(each)
            address = {"exchange": exchange, "routing_key": address_of(each), "persist": True, "message_id": each.id}
            await broker.publish(each.data, headers=headers, content_type=kind, **address)

        await send(envelopes[0])
        watch = Stopwatch()
        for start in range(0, len(envelopes), IN_FLIGHT):
            await asyncio.gather(*map(send, envelopes[start : start + IN_FLIGHT]))
        return watch.sample(len(envelopes))


async def faststream_receive(url: str, envelopes: Sequence[Envelope]) -> Sample:
    """A handler that is given orders, each acknowledged after it."""
    await publish(url, envelopes[1:])
    seen, over = 0, asyncio.Event()
    broker = faststream(url)

    @broker.subscriber(fast.RabbitQueue(QUEUE, declare=False))
    async def handle(placed: Placed) -> None:
        nonlocal seen
        seen += 1
        if seen == len(envelopes):
            over.set()

    async with broker:
        watch = Stopwatch()
        await broker.start()
        await over.wait()
        return watch.sample(seen)


def awaited(work: Work) -> Side:
    """A side of which every round begins with an empty queue."""

    @contextmanager
    def side(_folder: Path, effort: Effort) -> Iterator[Round]:
        envelopes = sent(int(SHARE * effort.events))

        def run() -> Sample:
            with corner() as url:
                return asyncio.run(work(url, envelopes))

        yield run

    return side


# ---- pika ------------------------------------------------------------------------------------------------------------


def raw_publish(url: str, envelopes: Sequence[Envelope]) -> Sample:
    """A window of messages, moved on by every confirmation."""
    messages = [(address_of(each), each.data, properties_of(*headers_of(each), each.id)) for each in envelopes]
    found: list[Sample] = []

    def begin(channel: Any) -> None:
        coming, confirmed = iter(messages), 0

        def send(count: int) -> None:
            for _, (key, body, properties) in zip(range(count), coming, strict=False):
                channel.basic_publish(EXCHANGE, key, body, properties, mandatory=True)

        def note(answer: Any) -> None:
            nonlocal confirmed
            # Alone they may come in any order, but with one queue they do not.
            fresh, confirmed = answer.method.delivery_tag - confirmed, answer.method.delivery_tag
            send(fresh)
            if confirmed == len(messages):
                found.append(watch.sample(confirmed))
                channel.connection.close()

        def start(_: object) -> None:
            nonlocal watch
            watch = Stopwatch()
            send(IN_FLIGHT)

        watch = Stopwatch()
        channel.confirm_delivery(note, callback=start)

    _talk(url, begin)
    return found[0]


def raw_receive(each: int) -> Callable[[str, Sequence[Envelope]], Sample]:
    """Consume, acknowledging so many at once."""

    def work(url: str, envelopes: Sequence[Envelope]) -> Sample:
        asyncio.run(publish(url, envelopes[1:]))
        found: list[Sample] = []

        def begin(channel: Any) -> None:
            watch = Stopwatch()

            def note(_: object, method: Any, _properties: object, _body: bytes) -> None:
                if method.delivery_tag % each == 0 or method.delivery_tag == len(envelopes):
                    channel.basic_ack(method.delivery_tag, multiple=each > 1)
                if method.delivery_tag == len(envelopes):
                    found.append(watch.sample(len(envelopes)))
                    channel.connection.close()

            channel.basic_qos(prefetch_count=PREFETCH, callback=lambda _: channel.basic_consume(QUEUE, note))

        _talk(url, begin)
        return found[0]

    return work


def raw_latency(*, kept: bool) -> Side:
    """Publish at a steady rate and receive what arrives, over two channels of one connection.

    Args: kept: with a bare log at either end.
    """

    @contextmanager
    def side(folder: Path, effort: Effort) -> Iterator[Round]:
        outbox, inbox = (Log(folder if kept else None, name) for name in ("outbox", "inbox"))
        yield lambda: _raw_latency(messages(effort), outbox, inbox)
        outbox.close()
        inbox.close()

    return side


def _raw_latency(total: int, outbox: Log, inbox: Log) -> Sample:
    [each] = sent(1)
    properties = properties_of(*headers_of(each), each.id)
    found: list[Sample] = []
    latencies: list[float] = []

    def begin(outgoing: Any) -> None:
        loop, watch = outgoing.connection.ioloop, Stopwatch()

        def send(number: int = 0) -> None:
            began = time.perf_counter()
            outbox.keep(each.data)
            outgoing.basic_publish(EXCHANGE, str(began), each.data, properties, mandatory=True)
            if number + 1 < total:
                due = watch.started + (number + 1) / RATE - time.perf_counter()
                loop.call_later(max(0.0, due), lambda: send(number + 1))

        def note(channel: Any, method: Any, _properties: object, body: bytes) -> None:
            inbox.keep(body)
            latencies.append(time.perf_counter() - float(method.routing_key))
            inbox.handled(len(latencies))
            channel.basic_ack(method.delivery_tag)
            if len(latencies) == total:
                found.append(watch.sample(total, latencies))
                channel.connection.close()

        def start(_: object) -> None:
            nonlocal watch
            watch = Stopwatch()
            send()

        def receive(incoming: Any) -> None:
            incoming.basic_consume(QUEUE, note, callback=start)

        outgoing.confirm_delivery(lambda _: None, callback=lambda _: None)
        outgoing.connection.channel(on_open_callback=receive)

    with corner() as url:
        _talk(url, begin)
    return found[0]


def _talk(url: str, begin: Callable[[Any], object]) -> None:
    connection = pika.SelectConnection(
        pika.URLParameters(url),
        on_open_callback=lambda made: made.channel(on_open_callback=begin),
        on_close_callback=lambda made, _: made.ioloop.stop(),
    )
    connection.ioloop.start()
    connection.ioloop.close()


def raw(work: Callable[[str, Sequence[Envelope]], Sample]) -> Any:
    """A side with pika alone."""

    @contextmanager
    def side(_folder: Path, effort: Effort) -> Iterator[Round]:
        envelopes = sent(int(SHARE * effort.events))

        def run() -> Sample:
            with corner() as url:
                return work(url, envelopes)

        yield run

    return side


PIKA, PEER = "floor: pika's callback connection", "peer: FastStream over aio-pika"
received_raw, received_peer = raw(raw_receive(IN_FLIGHT)), awaited(faststream_receive)
each, together = awaited(receive(placed_in, each=True)), awaited(receive(placed_in))
FIGURES = (
    *family(
        "rabbitmq",
        ("publish_100", "publish with confirms, 100 in flight", awaited(publish), raw(raw_publish), 0.6, PIKA),
        ("publish_100.faststream", "the same", awaited(publish), awaited(faststream_publish), 1.75, PEER),
        ("receive", "fetch and settle", awaited(receive()), received_raw, 0.6, f"{PIKA}, an ack for each 100"),
        ("each.faststream", "fetch, decode and settle, one by one", each, received_peer, 2.3, PEER),
        ("together.faststream", "fetch, decode and settle, together", together, received_peer, 3.4, PEER),
    ),
    *carried.figures("rabbitmq", corner, "pika", raw(raw_receive(1)), received_raw, raw_latency),
)

if __name__ == "__main__":
    sys.exit(command("benchmarks.rabbitmq", __doc__, FIGURES, "rabbitmq", served(RabbitmqServer, SERVER)))
