"""The hard cases of RabbitMQ: what comes back, what is left open, what is refused, and who sends something odd."""

import asyncio
import contextlib
import json
import logging
import subprocess
import time
from datetime import UTC, datetime
from urllib.parse import urlsplit

import pika
import pytest

from tests.scenarios.brokers.test_carrying import at_work
from tests.servers.rabbitmq import RabbitmqServer
from tidings import App, Key, event
from tidings.brokers.rabbitmq import RabbitBroker, intake
from tidings.brokers.rabbitmq import broker as adapter
from tidings.core.arrival import Confirmed, Rejected, Unknown
from tidings.errors import BadUrl, BrokerRefused, BrokerUnavailable, Unreadable
from tidings.testing.conformance.broker.making import drained, envelope, publish, read
from tidings.testing.proxy import Proxy

SECRET = "hunter2"


@event(topic="notes")
class Noted:
    note_id: Key[str]
    text: str


@pytest.fixture
async def connect(rabbitmq_url):
    """(app, *topics, url=, options=) -> an open broker that has subscribed."""
    async with contextlib.AsyncExitStack() as stack:

        async def connect(app, *topics, url=rabbitmq_url, options=""):
            broker = RabbitBroker(url + options, app)
            stack.push_async_callback(broker.close)
            await broker.open()
            if topics:
                await broker.subscribe(topics)
            return broker

        yield connect


@pytest.fixture
def stranger(rabbitmq_url):
    """Somebody else's channel to the same vhost."""
    connection = pika.BlockingConnection(pika.URLParameters(rabbitmq_url))
    yield connection.channel()
    connection.close()


@pytest.fixture(scope="module")
def strict(rabbitmq, servers):
    """A server that waits for a settlement for a second, not for half an hour, and takes small messages only."""
    server = servers.make(RabbitmqServer, settings={"consumer_timeout": "1000", "max_message_size": "100000"})
    (server.folder / "advanced.config").write_text("[{rabbit, [{channel_tick_interval, 500}]}].\n")
    server.start()
    return server


@pytest.fixture
def strict_url(strict):
    with strict.vhost() as url:
        yield url


@pytest.fixture
def proxy(rabbitmq):
    with Proxy(rabbitmq.port) as proxy:
        yield proxy


def vhost(url):
    return urlsplit(url).path[1:]


async def until(true, seconds=10.0):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not come to that"
        await asyncio.sleep(0.02)


# ---- what comes back -------------------------------------------------------------------------------------------------


@pytest.mark.proves("G4")
async def test_a_message_that_comes_back_is_not_blamed_on_another_of_the_same_id(connect) -> None:
    billing = await connect("billing", "orders")
    for number in range(50):
        results = await billing.publish([envelope("orders", id=f"{number}"), envelope("nobody", id=f"{number}")])
        assert results == [Confirmed(), Confirmed()]
    assert billing._publisher.unrouted == {"nobody": 50}
    assert sorted(int(read(each).id) for each in await drained(billing, 50)) == list(range(50))


async def test_what_nobody_asked_for_is_confirmed_counted_and_told_once(connect, caplog) -> None:
    caplog.set_level(logging.INFO, "tidings.rabbitmq")
    shop = await connect("shop")
    await publish(shop, [envelope("nobody", key=f"{n}") for n in range(5)])
    assert shop._publisher.unrouted == {"nobody": 5}
    assert [each.getMessage() for each in caplog.records if "nobody has subscribed" in each.getMessage()] != []
    assert len(caplog.records) == 1


async def test_what_comes_back_of_a_topic_this_app_asked_for_is_sent_again_and_not_lost(connect, stranger) -> None:
    billing = await connect("billing", "orders")
    stranger.queue_unbind("billing.orders", "tidings.orders", "#")
    (result,) = await billing.publish([envelope(id="a")])
    assert isinstance(result, Unknown)
    assert "no queue takes" in result.reason
    stranger.queue_bind("billing.orders", "tidings.orders", "#")
    await publish(billing, [envelope(id="a")])
    assert [read(each).id for each in await drained(billing, 1)] == ["a"]


# ---- what is left open -----------------------------------------------------------------------------------------------


async def test_delivery_tags_of_a_connection_that_is_gone_settle_nothing_and_break_nothing(
    connect, proxy, rabbitmq_url
) -> None:
    billing = await connect("billing", "orders", url=proxy.url(rabbitmq_url))
    shop = await connect("shop")
    await publish(shop, [envelope(key=f"{n}") for n in range(10)])
    stale = await drained(billing, 10, settle=False)
    proxy.cut()
    again = await shown(billing, 10)
    await billing.settle(stale)
    assert {read(each).id for each in again} == {read(each).id for each in stale}
    await billing.settle(again)
    await publish(shop, [envelope(id="after")])
    assert [read(each).id for each in await shown(billing, 1)] == ["after"]
    assert await billing.waiting() == 1


async def shown(broker, count):
    """What arrives, not settled, whatever happens to the connection."""
    found = []
    end = time.monotonic() + 15.0
    while len(found) < count and time.monotonic() < end:
        with contextlib.suppress(BrokerUnavailable):
            found += await broker.fetch(1000, 0.5)
    return found


async def test_what_is_settled_in_any_order_is_acknowledged_once(connect) -> None:
    billing = await connect("billing", "orders")
    await publish(await connect("shop"), [envelope(key=f"{n}") for n in range(10)])
    taken = await drained(billing, 10, settle=False)
    for some in (taken[7:9], taken[2:5], taken[0:1], taken[1:2], taken[9:], taken[5:7]):
        await billing.settle(some)
    await asyncio.sleep(0.2)
    assert await billing.waiting() == 0
    assert billing._consumer.trouble is None
    await billing.close()
    assert await drained(await connect("billing", "orders"), 0, quiet=0.5) == []


async def test_a_channel_that_is_closed_for_a_late_settlement_is_opened_again(connect, strict_url) -> None:
    billing, shop = await connect("billing", "orders", url=strict_url), await connect("shop", url=strict_url)
    await publish(shop, [envelope(id="late")])
    (late,) = await drained(billing, 1, settle=False)
    (again,) = await shown(billing, 1)
    await billing.settle([late])
    await billing.settle([again])
    await publish(shop, [envelope(id="next")])
    (following,) = await shown(billing, 1)
    assert [read(each).id for each in (late, again, following)] == ["late", "late", "next"]


# ---- who reconnects must consume -------------------------------------------------------------------------------------


async def test_a_consumer_that_connects_again_consumes_again(connect, proxy, rabbitmq_url) -> None:
    billing = await connect("billing", "orders", url=proxy.url(rabbitmq_url))
    shop = await connect("shop")
    for number in range(3):
        await publish(shop, [envelope(id=f"{number}")])
        end = time.monotonic() + 10.0
        while f"{number}" not in {read(each).id for each in await settled(billing, 1)}:  # an earlier one may come again
            assert time.monotonic() < end
        proxy.cut()
        await asyncio.sleep(0.1)


async def settled(broker, count):
    found = await shown(broker, count)
    await broker.settle(found)
    return found


async def test_a_queue_that_is_deleted_is_declared_again(connect, stranger) -> None:
    billing = await connect("billing", "orders")
    before = billing._consumer._intakes["billing.orders"].receipt
    stranger.queue_delete("billing.orders")
    await until(lambda: billing._consumer._intakes["billing.orders"].receipt not in {None, before})
    await publish(await connect("shop"), [envelope(id="after")])
    assert [read(each).id for each in await settled(billing, 1)] == ["after"]


async def test_a_consumer_that_the_server_forgot_is_found_by_the_silence(connect, monkeypatch) -> None:
    monkeypatch.setattr(intake, "WATCH", 0.2)
    billing = await connect("billing", "orders")
    raw = billing._consumer._intakes["billing.orders"].receipt._channel.raw
    billing._thread.send(raw.basic_cancel, raw.consumer_tags[0])
    await asyncio.sleep(0.1)
    await publish(await connect("shop"), [envelope(id="after")])
    assert [read(each).id for each in await settled(billing, 1)] == ["after"]


async def test_another_worker_takes_over_what_one_has_left(connect) -> None:
    first, second = await connect("billing", "orders"), await connect("billing", "orders")
    shop = await connect("shop")
    await publish(shop, [envelope(id=f"{n}", key="k") for n in range(10)])
    taken = await drained(first, 10, settle=False)
    await first.settle(taken[:3])
    await first.close()
    assert [read(each).id for each in await drained(second, 7)] == [f"{n}" for n in range(3, 10)]


async def test_acknowledgements_are_gathered_and_nothing_waits_for_them(connect, monkeypatch) -> None:
    monkeypatch.setattr(adapter, "LEISURE", 60.0)
    shop, narrow = await connect("shop"), await connect("narrow", "orders", options="?prefetch=1")
    wide = await connect("wide", "orders")
    await publish(shop, [envelope(id=f"{n}", key="k") for n in range(5)])
    assert [read(each).id for each in await drained(narrow, 5)] == ["0", "1", "2", "3", "4"]
    await drained(wide, 5)
    assert len(wide._settled) == 5
    assert await wide.waiting() == 0
    await publish(shop, [envelope(id="5", key="k")])
    await drained(wide, 1)
    await wide.close()
    assert await (await connect("wide", "orders")).waiting() == 0


@pytest.mark.proves("G9")
async def test_workers_come_to_share_the_shards_and_each_key_stays_in_order(connect) -> None:
    workers = [await connect("billing", "orders", options="?shards=4") for _ in range(2)]
    shop = await connect("shop", options="?shards=4")
    logged: list = []
    seen: set = set()
    working = dict.fromkeys(workers, 0)

    async def work(worker):
        while True:
            taken = await worker.fetch(20, 0.2)
            for each in map(read, taken):  # as a log: what is known is not taken again
                if each.id not in seen:
                    seen.add(each.id)
                    logged.append(each)
                    working[worker] += 1
            await worker.settle(taken)

    tasks = [asyncio.create_task(work(worker)) for worker in workers]
    end = time.monotonic() + 25.0
    number = 0
    while not all(working.values()) or number < 40:
        assert time.monotonic() < end, working
        assert set(await shop.publish([envelope(key=f"k-{n}", id=f"{n}/{number:05}") for n in range(16)])) == {
            Confirmed()
        }
        number += 1
    await until(lambda: len(logged) == 16 * number)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    for key in range(16):
        assert [each.id for each in logged if each.key == f"k-{key}"] == [f"{key}/{n:05}" for n in range(number)]


# ---- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.bad_input(37)
async def test_a_queue_with_other_arguments_is_told_as_a_difference(connect, stranger) -> None:
    stranger.queue_declare("billing.orders", durable=True)
    billing = await connect("billing")
    with pytest.raises(BrokerRefused) as caught:
        await billing.subscribe(["orders"])
    assert "queue billing.orders has x-single-active-consumer none, needed is 'true'" in caught.value.what
    assert 'x-queue-type="quorum"' in caught.value.what
    assert "delete the queue billing.orders" in caught.value.cure
    with pytest.raises(BrokerRefused):
        await billing.fetch(1, 0.1)
    assert stranger.queue_declare("billing.orders", passive=True).method.message_count == 0
    stranger.queue_delete("billing.orders")
    await until(lambda: billing._consumer.trouble is None)  # mended by others, found out by itself


@pytest.mark.bad_input(37)
async def test_a_user_who_may_not_is_told_what_to_permit(connect, rabbitmq, rabbitmq_url) -> None:
    name = vhost(rabbitmq_url)
    rabbitmq.call("PUT", "users/ada", {"password": SECRET, "tags": ""})
    rabbitmq.call("PUT", f"permissions/{name}/ada", {"configure": "^$", "write": "^tidings.orders$", "read": "^$"})
    await connect("billing", "orders", "mail")
    ada = rabbitmq_url.replace("guest:guest", f"ada:{SECRET}")
    poor = await connect("poor", url=ada)
    with pytest.raises(BrokerRefused, match="refused for user 'ada'") as caught:
        await poor.subscribe(["orders"])
    assert "set_permissions" in caught.value.cure
    assert SECRET not in str(caught.value)
    (refused,) = await poor.publish([envelope()])
    assert isinstance(refused, Unknown)
    assert "set_permissions" in refused.reason
    # With the topology left to others, only one of the exchanges takes what she sends; that one suffers from nothing.
    sender = await connect("sender", url=ada, options="?topology=none")
    for _ in range(20):
        results = await sender.publish([envelope("mail", key="a"), envelope("orders", key="b")])
        if results[1] == Confirmed():
            break
        await asyncio.sleep(0.1)
    assert [type(each) for each in results] == [Unknown, Confirmed]
    assert "tidings.mail" in results[0].reason
    assert [type(each) for each in await sender.publish([envelope("mail"), envelope("orders")])] == [Unknown, Confirmed]


@pytest.mark.bad_input(37)
async def test_a_vhost_a_password_or_a_server_that_is_not_there_is_told_by_name(rabbitmq, rabbitmq_url) -> None:
    server = f"127.0.0.1:{rabbitmq.port}"
    for url, kind, words in (
        (f"amqp://guest:guest@{server}/nope", BrokerRefused, "no vhost 'nope'"),
        (f"amqp://guest:{SECRET}@{server}/", BrokerRefused, "refuses the user 'guest'"),
        (f"amqp://ada:{SECRET}@localhost:1/", BrokerUnavailable, "cannot be reached: Connection refused"),
        (f"amqps://ada:{SECRET}@{server}/", BrokerUnavailable, "no TLS connection"),
    ):
        broker = RabbitBroker(url, "shop")
        with pytest.raises(kind, match=words) as caught:
            await broker.open()
        assert caught.value.cure
        assert SECRET not in f"{caught.value}{broker.url}{broker._settings!r}{broker.look()}"
        assert [each.verdict for each in broker.look()] == ["fail"]
        assert await broker.publish([envelope()]) == [Unknown("the broker is not open")]
        await broker.close()


async def test_one_that_could_not_be_opened_can_be_once_the_server_is_there(rabbitmq_url, proxy) -> None:
    from tidings.testing.proxy import REFUSE

    broker = RabbitBroker(proxy.url(rabbitmq_url), "shop")
    proxy.suffer(REFUSE)
    with pytest.raises(BrokerUnavailable):
        await broker.open()
    proxy.heal()
    await broker.open()
    await publish(broker, [envelope()])
    await broker.close()


@pytest.mark.bad_input(15)
async def test_what_the_server_finds_too_large_is_refused_and_the_rest_gets_there(connect, strict_url) -> None:
    shop = await connect("shop", "orders", url=strict_url)
    batch = [envelope(key=f"{n}", data=b'"%s"' % (b"x" * (150_000 if n == 3 else 100))) for n in range(8)]
    results = await shop.publish(batch)
    assert isinstance(results[3], Rejected)
    assert "100,000 (max_message_size" in results[3].reason
    again = [each for each, result in zip(batch, results, strict=True) if isinstance(result, Unknown)]
    assert set(await shop.publish(again)) <= {Confirmed()}
    arrived, wanted = set[str](), {each.id for each in batch if each is not batch[3]}
    while arrived != wanted:  # those in doubt may have been there before
        arrived |= {read(each).id for each in await settled(shop, 1)}


async def test_what_the_server_finds_too_large_goes_beside_it_where_there_is_a_place(strict_url, tmp_path) -> None:
    url = f"{strict_url}?claims=file:{tmp_path}"
    shop, billing = (App(f"sqlite:{tmp_path}/{name}.db", broker=url, name=name) for name in ("shop", "billing"))
    seen = []

    @billing.on(Noted)
    async def note(noted: Noted) -> None:
        seen.append(noted)

    sent = [Noted("n-1", "x" * 300_000), Noted("n-1", "b")]
    async with at_work(billing, shop), shop:
        await shop.publish(*sent)
        await until(lambda: seen == sent, 30.0)


@pytest.mark.bad_input(37)
@pytest.mark.proves("G28")
async def test_a_server_that_is_short_of_memory_is_waited_for(connect, strict, strict_url, caplog) -> None:
    shop = await connect("shop", url=strict_url)
    await publish(shop, [envelope()])
    control(strict, "set_vm_memory_high_watermark", "absolute", "1")
    try:
        shop._publisher.deadline = 2.0
        (result,) = await shop.publish([envelope()])
        assert isinstance(result, Unknown)
        assert "takes no messages: low on memory" in result.reason
        assert [each.name for each in shop.look() if each.verdict == "fail"] == ["alarm"]
        assert "takes no messages" in caplog.text
        shop._publisher.deadline = 60.0  # the server's own command line takes its time
        waiting = asyncio.ensure_future(shop.publish([envelope()]))
        await asyncio.sleep(0.2)
        assert not waiting.done()
    finally:
        control(strict, "set_vm_memory_high_watermark", "0.4")
    assert await waiting == [Confirmed()]
    assert all(each.verdict == "ok" for each in shop.look())


def control(server, *words):
    """What an operator does at the server."""
    program = server._lib / "rabbitmq" / "bin" / "rabbitmqctl"
    subprocess.run([program, *words], env=server._options()["env"], check=True, capture_output=True, timeout=60)


# ---- topology --------------------------------------------------------------------------------------------------------


async def test_what_is_missing_is_named_where_it_is_only_verified(connect, stranger) -> None:
    billing = await connect("billing", options="?topology=verify")
    with pytest.raises(BrokerRefused) as caught:
        await billing.subscribe(["orders"])
    assert "lacks exchange tidings.orders, queue billing.orders" in caught.value.what
    await connect("billing", "orders")  # declares
    await until(lambda: billing._consumer.trouble is None)
    await billing.subscribe(["orders"])
    stranger.queue_delete("billing.orders")
    stranger.queue_declare("billing.orders", durable=True)
    other = await connect("billing", options="?topology=verify")
    with pytest.raises(BrokerRefused, match="x-queue-type"):
        await other.subscribe(["orders"])


async def test_a_topology_of_others_is_used_as_it_is(connect, stranger) -> None:
    stranger.exchange_declare("company.orders", "fanout", durable=True)
    stranger.queue_declare("company./billing.orders", durable=True)
    stranger.queue_bind("company./billing.orders", "company.orders")
    options = "?topology=none&prefix=company."
    billing = await connect("billing", "orders", options=options)
    await publish(await connect("shop", options=options), [envelope(id="a")])
    assert [read(each).id for each in await settled(billing, 1)] == ["a"]
    with pytest.raises(BrokerRefused, match="no queue"):
        await (await connect("mail", options=options)).subscribe(["orders"])


async def test_a_missing_exchange_of_others_takes_nothing_else_down(connect) -> None:
    await connect("billing", "orders")
    shop = await connect("shop", options="?topology=none")
    for _ in range(20):
        results = await shop.publish([envelope("missing", key="a"), envelope("orders", key="b")])
        if results[1] == Confirmed():
            break
    assert isinstance(results[0], Unknown)
    assert "tidings.missing" in results[0].reason
    assert results[1] == Confirmed()


@pytest.mark.parametrize("shards", [1, 2])
async def test_a_prefix_keeps_environments_apart(connect, shards) -> None:
    trial, real = (f"?shards={shards}&prefix={each}" for each in ("trial-", "real-"))
    billing = [await connect("billing", "orders", options=each) for each in (trial, real)]
    for number, options in enumerate([trial, real, trial, real]):
        await publish(await connect("shop", options=options), [envelope(id=str(number))])
    found = [sorted(read(each).id for each in await settled(broker, 2)) for broker in billing]
    assert found == [["0", "2"], ["1", "3"]]


def test_the_topology_is_a_value_and_plain_commands() -> None:
    broker = RabbitBroker("amqp://localhost/shop?shards=2", "billing.eu")
    assert [each.kind for each in broker.topology(["orders"])] == [
        *("queue", "exchange", "exchange", "binding", "queue", "binding", "queue", "binding")
    ]
    lines = broker.export(["orders"]).splitlines()
    assert lines[1] == "rabbitmqadmin --vhost=shop declare exchange name='tidings.orders' type=topic durable=true"
    assert 'queue name=\'billing/eu.orders/1\' durable=true arguments=\'{"x-queue-type": "quorum"' in lines[6]
    assert lines[-1].endswith(
        "source='billing/eu.orders' destination='billing/eu.orders/1' destination_type=queue routing_key='1'"
    )


# ---- strangers -------------------------------------------------------------------------------------------------------

EVENT = {"specversion": "1.0", "id": "1", "source": "/else", "type": "OrderPlaced", "partitionkey": "k-1"}
STRUCTURED = json.dumps({**EVENT, "data": {"a": 1}}, separators=(",", ":")).encode()


@pytest.mark.bad_input(42, 44)
async def test_what_strangers_publish_arrives_whatever_they_call_their_headers(connect, stranger) -> None:
    billing = await connect("billing", "orders")

    def send(body, **properties):
        stranger.basic_publish("tidings.orders", "some.key", body, pika.BasicProperties(**properties))

    for prefix in ("cloudEvents_", "cloudEvents:", "ce-", "ce_", "CE-"):
        headers = {f"{prefix}{name}": value for name, value in EVENT.items()}
        send(b'{"a":1}', headers=headers, content_type="application/json")
    send(STRUCTURED, content_type="application/cloudevents+json")
    send(STRUCTURED)
    odd = {
        "bytes": b"\xff",
        "none": None,
        "list": [1, {}],
        "dict": {"a": 1},
        "when": datetime.now(UTC),
        "ce-n": 7,
        "ce-t": True,
    }
    send(
        b'{"a":1}',
        headers={**odd, **{f"ce-{name}": value for name, value in EVENT.items()}},
        content_type="application/json",
    )
    found = await settled(billing, 8)
    assert [(read(each).id, read(each).key, read(each).data) for each in found] == [("1", "k-1", b'{"a":1}')] * 8
    assert all(each.key is None for each in found)
    assert found[-1].headers["ce-n"] == "7"
    assert found[-1].headers["ce-t"] == "true"
    assert "bytes" not in found[-1].headers


@pytest.mark.bad_input(42)
@pytest.mark.proves("G21")
async def test_garbage_arrives_with_its_raw_bytes_and_stops_nobody(connect, stranger) -> None:
    billing = await connect("billing", "orders")
    garbage = [b"", b"\xff\xfe", b'{"specversion":', b"\x80\x04K\x01."]
    for body in garbage:
        stranger.basic_publish("tidings.orders", "", body, pika.BasicProperties(content_encoding="gzip"))
    # What RabbitMQ carries and pika cannot read: a moment that no calendar has.
    moment = b"\x04when" + b"T" + b"\xff" * 8
    stranger.basic_publish("tidings.orders", "", b"odd", Raw(moment, content_type="text/plain"))
    await publish(await connect("shop"), [envelope(id="after")])
    found = await settled(billing, 6)
    assert [each.body for each in found[:5]] == [*garbage, b"odd"]
    assert found[4].headers == {"content-type": "text/plain"}
    for each in found[:5]:
        with pytest.raises(Unreadable):
            read(each)
    assert read(found[5]).id == "after"


class Raw(pika.BasicProperties):
    """Properties whose table of headers is given as bytes."""

    def __init__(self, table, content_type):
        super().__init__(content_type=content_type)
        self.table = table

    def encode(self):
        kind = self.content_type.encode()
        return [
            b"\xa0\x00",  # content-type and headers
            bytes([len(kind)]) + kind,
            len(self.table).to_bytes(4, "big") + self.table,
        ]


async def test_what_we_publish_can_be_read_without_us(connect, stranger) -> None:
    await connect("billing", "orders")
    await (await connect("billing")).close()
    stranger.queue_declare("theirs")
    stranger.queue_bind("theirs", "tidings.orders", "#")
    await publish(await connect("shop"), [envelope(key="Zoë", id="a", data=b'{"a":1}')])
    _, properties, body = stranger.basic_get("theirs", auto_ack=True)
    assert body == b'{"a":1}'
    assert properties.content_type == "application/json"
    assert properties.delivery_mode == 2
    assert properties.headers["cloudEvents_id"] == "a"
    assert properties.headers["cloudEvents_partitionkey"] == "Zoë"
    assert properties.headers["cloudEvents_specversion"] == "1.0"


async def test_keys_of_any_length_are_carried(connect) -> None:
    billing = await connect("billing", "orders")
    keys = ["k" * 512, "€" * 170, "a.b.#.*", " "]
    await publish(await connect("shop"), [envelope(key=key) for key in keys])
    assert [read(each).key for each in await settled(billing, 4)] == keys


# ---- the URL ---------------------------------------------------------------------------------------------------------


@pytest.mark.bad_input(32)
@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("amqp://localhost/?shard=2", "did you mean shards"),
        ("amqp://localhost/?shards=0", "from 1 to 64"),
        ("amqp://localhost/?prefetch=many", "from 1 to 65535"),
        ("amqp://localhost/?topology=maybe", "declare, verify, none"),
        ("amqp://localhost/?ca=x.pem", "ca is for connections with TLS. use amqps://"),
        ("amqp://localhost/?verify=verify_none", "verify is for connections with TLS"),
        ("amqps://localhost/?verify=no", "verify_peer, verify_none"),
        ("amqps://localhost/?ca=a.pem&cacertfile=b.pem", "ca and cacertfile mean the same"),
        ("amqps://localhost/?ca=/no/such/file.pem", "ca cannot be read"),
        (f"amqp://ada:{SECRET}@localhost:port/", "a port is a number"),
        ("amqp://localhost/?prefix=" + "p" * 70, "at most 63"),
    ],
)
def test_a_url_that_cannot_be_used_is_told_with_the_cure(url, words) -> None:
    with pytest.raises(BadUrl) as caught:
        RabbitBroker(url, "shop")
    assert words in str(caught.value)
    assert SECRET not in str(caught.value)


def test_user_and_password_may_come_from_the_environment(monkeypatch) -> None:
    monkeypatch.setenv("TIDINGS_AMQP_USER", "ada")
    monkeypatch.setenv("TIDINGS_AMQP_PASSWORD", SECRET)
    found = RabbitBroker("amqp://localhost/shop", "shop")._settings
    assert (found.user, found.password, found.vhost, found.port) == ("ada", SECRET, "shop", 5672)
    assert SECRET not in repr(found)


async def test_closing_leaves_what_is_under_way_in_doubt(connect, proxy, rabbitmq_url) -> None:
    from tidings.testing.proxy import STALL

    shop = await connect("shop", url=proxy.url(rabbitmq_url))
    await publish(shop, [envelope()])
    proxy.suffer(STALL)
    publishing = asyncio.ensure_future(shop.publish([envelope(), envelope("payments")]))
    await asyncio.sleep(0.2)
    began = time.monotonic()
    await shop.close()
    assert [type(each) for each in await publishing] == [Unknown, Unknown]
    assert time.monotonic() - began < 5.0
