"""`python -m benchmarks.rabbitmq [--only NAME]... [--quick]`: tidings on RabbitMQ beside pika's callback connection.

It starts a server of its own and removes it. All sides have the same server, payload, headers, quorum queue and
confirms; a message counts as published when it is confirmed, and as received when it is acknowledged.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys
import tempfile
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pika

from benchmarks import report
from benchmarks.__main__ import RESULTS, say
from benchmarks.measure import QUICK, Effort, Figure, Others, Round, Sample, Stopwatch, measure
from benchmarks.shop import encode, order
from tests.servers.rabbitmq import RabbitmqServer
from tests.servers.servers import Servers
from tidings.brokers.rabbitmq import RabbitBroker
from tidings.brokers.rabbitmq.wire import address_of, headers_of, properties_of
from tidings.core.arrival import Confirmed
from tidings.core.envelope import Envelope
from tidings.testing.conformance.broker.making import envelope

SERVER: list[RabbitmqServer] = []
IN_FLIGHT = 100
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


async def receive(url: str, envelopes: Sequence[Envelope]) -> Sample:
    """Fetch what there is, settle it."""
    await publish(url, envelopes[1:])
    async with opened(url, "billing") as broker:
        await broker.subscribe([TOPIC])
        watch, done = Stopwatch(), 0
        while done < len(envelopes):
            arrivals = await broker.fetch(500, 5.0)
            assert arrivals
            await broker.settle(arrivals)
            done += len(arrivals)
        return watch.sample(done)


def ours(work: Callable[[str, Sequence[Envelope]], Coroutine[Any, Any, Sample]]) -> Any:
    """A side with tidings; every round begins with an empty queue."""

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


def raw_receive(url: str, envelopes: Sequence[Envelope]) -> Sample:
    """Consume, acknowledging each hundred at once."""
    asyncio.run(publish(url, envelopes[1:]))
    found: list[Sample] = []

    def begin(channel: Any) -> None:
        watch = Stopwatch()

        def note(_: object, method: Any, _properties: object, _body: bytes) -> None:
            if method.delivery_tag % IN_FLIGHT == 0 or method.delivery_tag == len(envelopes):
                channel.basic_ack(method.delivery_tag, multiple=True)
            if method.delivery_tag == len(envelopes):
                found.append(watch.sample(len(envelopes)))
                channel.connection.close()

        channel.basic_qos(prefetch_count=1000, callback=lambda _: channel.basic_consume(QUEUE, note))

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


FIGURES = (
    Figure(
        name="rabbitmq.publish_100",
        title="publish with confirms, 100 in flight",
        ours=ours(publish),
        floor=raw(raw_publish),
        target=0.6,
        note="floor: pika's callback connection",
    ),
    Figure(
        name="rabbitmq.receive",
        title="fetch and settle",
        ours=ours(receive),
        floor=raw(raw_receive),
        target=0.6,
        note="floor: pika's callback connection, an ack for each 100",
    ),
)


def main() -> int:
    """Measure what was asked for; 0 unless a figure could not be measured at all."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rabbitmq", description=__doc__)
    parser.add_argument("--only", action="append", metavar="NAME", help="figures whose name contains this")
    parser.add_argument("--quick", action="store_true", help="few and short rounds: does it run, not how fast")
    asked = parser.parse_args()
    figures = [figure for figure in FIGURES if not asked.only or any(name in figure.name for name in asked.only)]
    RESULTS.mkdir(exist_ok=True)
    # On the disk of the repository: /tmp may be memory, where a flush costs nothing and every ratio lies.
    with (
        tempfile.TemporaryDirectory(prefix="run-", dir=RESULTS) as folder,
        contextlib.closing(Servers(Path(folder))) as servers,
    ):
        SERVER.append(servers.shared(RabbitmqServer))
        others = Others()
        results = list(measure(figures, Path(folder), QUICK if asked.quick else Effort(), say))
    say("")
    report.show(results, others.share())
    report.write(results, RESULTS / "rabbitmq.jsonl", others.share())
    return 1 if any(result.error for result in results) else 0


if __name__ == "__main__":
    sys.exit(main())
