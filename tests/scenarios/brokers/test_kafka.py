"""What is hard about Kafka: each case has happened to somebody."""

import asyncio
import contextlib
import threading
import time

import confluent_kafka
import pytest
from confluent_kafka import OFFSET_END, OFFSET_INVALID, Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewPartitions

from tidings.brokers.kafka import KafkaBroker, cluster, receiver, sender
from tidings.brokers.kafka.buffer import Buffer
from tidings.brokers.kafka.settings import Settings
from tidings.core.arrival import Confirmed, Rejected, Unknown
from tidings.errors import BrokerRefused, BrokerUnavailable
from tidings.testing.conformance.broker.making import drained, envelope, publish, read


@pytest.fixture
def url(kafka_url, prefix):
    return f"{kafka_url}?prefix={prefix}"


@pytest.fixture
async def connect(url):
    """(app, *topics, more="&option=value") -> a broker that is open and subscribed."""
    opened = []

    async def connect(app, *topics, more=""):
        broker = KafkaBroker(url + more, app)
        opened.append(broker)
        await broker.open()
        if topics:
            await broker.subscribe(topics)
        return broker

    yield connect
    await asyncio.gather(*(broker.close() for broker in opened))


@pytest.fixture
def admin(kafka):
    return AdminClient({"bootstrap.servers": kafka.address})


@pytest.fixture
def raw(kafka):
    """A producer with plain settings, as other programs have."""
    return Producer({"bootstrap.servers": kafka.address})


def committed(kafka, group, topic, partitions=6):
    asking = Consumer({"bootstrap.servers": kafka.address, "group.id": group})
    found = asking.committed([TopicPartition(topic, number) for number in range(partitions)], timeout=10)
    asking.close()
    return {each.partition: each.offset for each in found if each.offset != OFFSET_INVALID}


def reset(kafka, group, topic, offsets, metadata=""):
    """What `kafka-consumer-groups --reset-offsets` does."""
    tool = Consumer({"bootstrap.servers": kafka.address, "group.id": group})
    places = [TopicPartition(topic, at, offset, metadata=metadata) for at, offset in offsets.items()]
    tool.commit(offsets=places, asynchronous=False)
    tool.close()


def sent(count, keys=24):
    return [envelope(key=f"k-{n % keys}", id=f"{n}") for n in range(count)]


async def arriving(broker):
    """The id of the next message, however often the broker cannot be reached before."""
    async with asyncio.timeout(15):
        while True:
            with contextlib.suppress(BrokerUnavailable):
                if taken := await broker.fetch(1, 1.0):
                    await broker.settle(taken)
                    return read(taken[0]).id
            await asyncio.sleep(0.05)


# ---- threads ---------------------------------------------------------------------------------------------------------


async def test_one_thread_alone_touches_the_consumer(connect, monkeypatch):
    callers = set()

    class Watched(Consumer):
        def __getattribute__(self, name):
            callers.add((name, threading.current_thread().name))
            return super().__getattribute__(name)

    monkeypatch.setattr(receiver, "Consumer", Watched)
    billing, shop = await connect("billing", "orders"), await connect("shop")
    await publish(shop, sent(50))
    assert len(await drained(billing, 50)) == 50
    await billing.waiting()
    await billing.close()
    assert {name for name, _ in callers} >= {"subscribe", "poll", "consume", "commit", "incremental_assign", "close"}
    assert len({thread for _, thread in callers}) == 1


async def test_no_call_starves_while_messages_come_without_end(connect):
    billing, shop = await connect("billing", "orders"), await connect("shop")
    stopped = False

    async def keep_publishing():
        while not stopped:
            await shop.publish([envelope(key=None) for _ in range(200)])

    publishing = asyncio.create_task(keep_publishing())
    try:
        for _ in range(20):
            taken = await billing.fetch(500, 5.0)
            assert taken
            await billing.settle(taken)
            async with asyncio.timeout(3.0):
                await billing.waiting()
        async with asyncio.timeout(3.0):
            await billing.close()
    finally:
        stopped = True
        await publishing


async def test_the_loop_is_not_blocked_while_nobody_answers(monkeypatch):
    monkeypatch.setattr(cluster, "PATIENCE", 2.0)
    broker = KafkaBroker("kafka://127.0.0.1:1", "shop")
    began, longest = time.monotonic(), 0.0
    opening = asyncio.create_task(broker.open())
    while not opening.done():
        before = time.monotonic()
        await asyncio.sleep(0.01)
        longest = max(longest, time.monotonic() - before)
    with pytest.raises(BrokerUnavailable, match=r"(?i)connecting: .*refused"):
        await opening
    assert time.monotonic() - began < 15
    assert longest < 1.0


# ---- publishing ------------------------------------------------------------------------------------------------------


def wound(producer, code):
    """Make the client itself see a fatal error, as where a broker says that another producer took its place."""
    import ctypes
    from pathlib import Path

    (library,) = Path(confluent_kafka.__file__).parent.parent.glob("confluent_kafka.libs/librdkafka*.so*")
    handle = ctypes.c_void_p.from_address(id(producer) + object.__basicsize__)
    fatal = ctypes.CDLL(str(library)).rd_kafka_test_fatal_error
    fatal.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p]
    fatal(handle, code, b"planted by a test")


@pytest.mark.parametrize("name", ["_FENCED", "OUT_OF_ORDER_SEQUENCE_NUMBER"])
async def test_a_second_producer_fenced_is_replaced(connect, name):
    shop, billing = await connect("shop"), await connect("billing", "orders")
    await publish(shop, [envelope(id="before")])
    wound(shop._sender._producer, getattr(confluent_kafka.KafkaError, name))
    results = [await shop.publish([envelope(id="after")])]
    while results[-1] != [Confirmed()]:
        assert isinstance(results[-1][0], Unknown)
        assert len(results) < 100
        await asyncio.sleep(0.05)
        results.append(await shop.publish([envelope(id="after")]))
    found = [read(each).id for each in await drained(billing, 2, quiet=0.5)]
    assert list(dict.fromkeys(found)) == ["before", "after"]


@pytest.mark.proves("G4")
async def test_what_nobody_confirms_is_unknown_and_never_confirmed(servers, monkeypatch, prefix):
    """A server that is stopped: the client takes the messages, and nobody else does."""
    from tests.servers.kafka import KafkaServer

    monkeypatch.setattr(sender, "TIMEOUT", 2.0)
    server = servers.shared(KafkaServer, "to be killed")
    shop = KafkaBroker(f"{server.url}?prefix={prefix}", "shop")
    await shop.open()
    assert await shop.publish([envelope()]) == [Confirmed()]
    server.suspend()
    try:
        began = time.monotonic()
        results = await shop.publish([envelope(key=f"{n}") for n in range(10)])
        assert time.monotonic() - began < 10
        assert all(isinstance(each, Unknown) for each in results), results
    finally:
        server.resume()
    while await shop.publish([envelope(key="z")]) != [Confirmed()]:
        await asyncio.sleep(0.1)
    await shop.close()


async def test_a_topic_that_takes_less_says_how_many_bytes(connect, admin, prefix):
    from confluent_kafka.admin import NewTopic

    small = NewTopic(f"{prefix}orders", 1, 1, config={"max.message.bytes": "2000"})
    admin.create_topics([small])[f"{prefix}orders"].result()
    shop = await connect("shop", more="&topology=none")
    data = b'"' + bytes(str(list(range(5000))), "ascii")[:30_000].replace(b'"', b"") + b'"'
    [result] = await shop.publish([envelope(data=data)])
    assert isinstance(result, Rejected)
    assert f"{len(data):,} bytes" in result.reason
    with pytest.raises(BrokerRefused, match=r"max.message.bytes=2000"):
        await connect("billing", "orders")


async def test_a_deleted_topic_is_declared_anew_when_something_is_published(connect, admin, prefix, monkeypatch):
    monkeypatch.setattr(sender, "TIMEOUT", 3.0)
    shop = await connect("shop")
    await publish(shop, [envelope()])
    admin.delete_topics([f"{prefix}orders"])[f"{prefix}orders"].result()
    async with asyncio.timeout(30):
        while (result := await shop.publish([envelope()])) != [Confirmed()]:
            assert isinstance(result[0], Unknown)


async def test_a_key_lies_where_the_clients_of_java_put_it(connect, kafka, prefix):
    def murmur2(data):  # org.apache.kafka.common.utils.Utils
        length, m, mask = len(data), 0x5BD1E995, 0xFFFFFFFF
        h = (0x9747B28C ^ length) & mask
        for at in range(0, length - length % 4, 4):
            k = int.from_bytes(data[at : at + 4], "little") * m & mask
            k = (k ^ k >> 24) * m & mask
            h = h * m & mask ^ k
        if tail := data[length - length % 4 :]:
            h = (h ^ int.from_bytes(tail, "little")) * m & mask
        h = (h ^ h >> 13) * m & mask
        return h ^ h >> 15

    billing, shop = await connect("billing", "orders"), await connect("shop")
    await publish(shop, [envelope(key=key) for key in ("c-1", "Zoë", "a", "order-4711")])
    for each in await drained(billing, 4):
        share = each.token.share
        assert share.partition == (murmur2(each.key.encode()) & 0x7FFFFFFF) % 6


# ---- receiving -------------------------------------------------------------------------------------------------------


async def test_pause_purging_prefetch_loses_nothing_and_reorders_nothing(connect, monkeypatch):
    """Nobody fetches for a while: little is kept, the group is served, and then everything comes in order."""
    monkeypatch.setattr(receiver, "PAUSE", 0.2)
    billing, shop = await connect("billing", "orders"), await connect("shop")
    await publish(shop, wanted := sent(6000, keys=500))
    for _ in range(3):
        await asyncio.sleep(0.8)
        assert billing._receiver.buffer.size <= 2_100
        async with asyncio.timeout(10):
            while not billing._receiver._paused:
                await asyncio.sleep(0.05)
        taken = await billing.fetch(1000, 5.0)
        await billing.settle(taken)
        wanted_ids = {each.id for each in wanted} - {read(each).id for each in taken}
        wanted = [each for each in wanted if each.id in wanted_ids]
    found = [read(each) for each in await drained(billing, len(wanted))]
    assert sorted(each.id for each in found) == sorted(each.id for each in wanted)
    for key in {each.key for each in found}:
        numbers = [int(each.id) for each in found if each.key == key]
        assert numbers == sorted(numbers)


LARGE = b'"' + b"x" * 200_000 + b'"'
BOUND = 9_000_000
"""Bytes that are fetched ahead at most."""


async def flooded(connect):
    """An app for which far more waits than may be fetched ahead."""
    billing, shop = await connect("billing", "orders"), await connect("shop")
    for _ in range(10):
        await publish(shop, [envelope(key=f"{n}", data=LARGE) for n in range(20)])
    return billing


@pytest.mark.proves("G27")
async def test_memory_is_bounded_however_much_waits(connect):
    billing = await flooded(connect)
    await asyncio.sleep(1.5)
    assert billing._receiver.buffer.size * len(LARGE) < BOUND
    assert len(await drained(billing, 200)) == 200


async def test_fetching_ahead_without_a_bound_is_found(connect, monkeypatch):
    """M15 is planted: whatever waits is fetched."""
    monkeypatch.setattr(Buffer, "room", 1000)
    billing = await flooded(connect)
    async with asyncio.timeout(15):
        while billing._receiver.buffer.size * len(LARGE) < BOUND:
            await asyncio.sleep(0.05)


@pytest.mark.proves("G6")
async def test_a_rebalance_with_work_in_flight_skips_nothing(connect, kafka, prefix):
    first, shop = await connect("billing", "orders"), await connect("shop")
    await publish(shop, sent(60))
    taken = await drained(first, 60, settle=False)
    second = await connect("billing", "orders")
    again = []
    while not again:  # what the second one got of the partitions; it settles nothing
        await first.fetch(1000, 0.1)
        again = await second.fetch(1000, 0.5)
    again += await drained(second, 0, settle=False, quiet=1.0)
    moved = {each.token.share.partition for each in again}
    assert 0 < len(moved) < 6
    await first.settle(taken)  # of partitions that are not its own any more, too
    await asyncio.sleep(0.5)
    await first.close()
    await second.close()
    offsets = committed(kafka, f"{prefix}billing", f"{prefix}orders")
    assert {number for number, offset in offsets.items() if offset == 0} >= moved
    third = await connect("billing", "orders")
    found = {read(each).id for each in await drained(third, 0, quiet=1.5)}
    assert found == {read(each).id for each in again}


async def test_a_consumer_that_reconnects_but_no_longer_consumes_begins_anew(connect):
    billing, shop = await connect("billing", "orders"), await connect("shop")
    await publish(shop, [envelope(id="before")])
    assert len(await drained(billing, 1)) == 1
    working = billing._receiver
    working.silence = 0.3
    done = threading.Event()

    def lie_down(consumer):  # on the thread that may
        if not done.is_set():
            consumer.incremental_unassign(consumer.assignment())
            done.set()

    take = working._take
    working._take = lambda consumer: (lie_down(consumer), take(consumer))
    assert await asyncio.to_thread(done.wait, 5)
    await publish(shop, [envelope(id="after")])
    assert await arriving(billing) == "after"


async def test_it_subscribes_again_when_it_connects_again(connect):
    """After any trouble that ends the client itself."""
    billing, shop = await connect("billing", "orders"), await connect("shop")
    for number in range(3):
        await publish(shop, [envelope(id=f"{number}")])
        while await arriving(billing) != f"{number}":
            pass  # one that was settled too late comes again
        billing._receiver._failed = BrokerUnavailable("the client has ended")


# ---- offsets ---------------------------------------------------------------------------------------------------------


async def consumed(connect, count=40):
    """An app that received and settled messages, and is away."""
    shop, billing = await connect("shop"), await connect("billing", "orders")
    await publish(shop, sent(count))
    assert len(await drained(billing, count)) == count
    await billing.close()
    return shop


@pytest.mark.bad_input(38)
@pytest.mark.proves("G11")
async def test_a_committed_offset_that_no_longer_exists_is_an_error_and_not_a_jump(connect, kafka, admin, prefix):
    shop = await consumed(connect)
    topic, group = f"{prefix}orders", f"{prefix}billing"
    await publish(shop, sent(40))
    before = committed(kafka, group, topic)
    gone = [TopicPartition(topic, number, offset + 1) for number, offset in before.items()]
    for future in admin.delete_records(gone).values():
        future.result()
    with pytest.raises(BrokerRefused) as refused:
        await connect("billing", "orders")
    what = refused.value
    offset = before[what.data["partition"]]
    assert f"topic {topic}, partition {what.data['partition']}" in what.what
    assert f"offset {offset}" in what.what
    assert f"1 messages before {offset + 1} are gone" in what.what
    assert f"--group {group} --topic {topic} --reset-offsets" in what.cure
    assert committed(kafka, group, topic) == before
    reset(kafka, group, topic, {each.partition: each.offset for each in gone})
    billing = await connect("billing", "orders")
    assert len(await drained(billing, 34, quiet=0.5)) == 34


@pytest.mark.proves("G11")
async def test_an_offset_that_vanishes_under_a_running_worker_is_an_error_until_it_is_mended(
    connect, kafka, admin, prefix, monkeypatch
):
    monkeypatch.setattr(receiver, "_SLOWEST", 0.5)
    monkeypatch.setattr(receiver, "PAUSE", 0.1)
    consumer = Settings.consumer  # reads little ahead now, so that something is left at the broker
    less = {"queued.max.messages.kbytes": 1000, "queued.min.messages": 1}
    monkeypatch.setattr(Settings, "consumer", lambda *arguments: consumer(*arguments) | less)
    topic, group = f"{prefix}orders", f"{prefix}billing"
    billing, shop = await connect("billing", "orders"), await connect("shop")
    billing._receiver.silence = 1.0
    await publish(shop, [envelope(key="k", id=f"{n}") for n in range(3)])
    assert len(await drained(billing, 3)) == 3
    for _ in range(4):
        await publish(shop, [envelope(key=None, data=b'"' + b"x" * 900_000 + b'"') for _ in range(12)])
    await billing.fetch(1, 5.0)
    ends = {number: billing._cluster.bounds([(topic, number)])[topic, number][1] for number in range(6)}
    for future in admin.delete_records([TopicPartition(topic, *each) for each in ends.items()]).values():
        future.result()
    with pytest.raises(BrokerRefused, match=r"gone unread"):
        await fetch_for_ever(billing)
    reset(kafka, group, topic, ends)
    await publish(shop, [envelope(key="k", id="mended")])
    async with asyncio.timeout(30):
        while True:
            try:
                taken = await billing.fetch(10, 0.5)
            except BrokerRefused:
                await asyncio.sleep(0.1)
                continue
            if "mended" in {read(each).id for each in taken}:
                break


async def fetch_for_ever(broker):
    async with asyncio.timeout(30):
        while True:
            await broker.fetch(100, 0.5)


async def test_a_topic_made_anew_is_read_from_its_beginning(connect, admin, prefix):
    shop = await consumed(connect)
    admin.delete_topics([f"{prefix}orders"])[f"{prefix}orders"].result()  # and with it, what groups had committed
    await shop.close()
    await asyncio.sleep(0.5)
    await publish(await connect("shop"), again := sent(60))
    found = await drained(await connect("billing", "orders"), 60)
    assert {read(each).id for each in found} == {each.id for each in again}


async def test_an_offset_of_another_topic_with_that_name_is_an_error_and_not_a_jump(connect, kafka, prefix):
    await consumed(connect)
    topic, group = f"{prefix}orders", f"{prefix}billing"
    reset(kafka, group, topic, {3: 1}, "tidings/1 partitions=6 topic=Z7Vt1r0XSP6vhWmRhCGm2Q")
    with pytest.raises(BrokerRefused, match=r"partition 3: .* offset 1, which was in another topic of that name"):
        await connect("billing", "orders")


async def test_a_group_that_is_new_begins_with_the_earliest_and_has_a_place_from_then_on(connect, kafka, prefix):
    await publish(await connect("shop"), sent(40))
    billing = await connect("billing", "orders")
    assert len(await drained(billing, 40, settle=False)) == 40
    await asyncio.sleep(0.5)
    assert committed(kafka, f"{prefix}billing", f"{prefix}orders") == dict.fromkeys(range(6), 0)


async def test_a_group_that_begins_with_the_latest_is_found_to_miss_what_was_there(connect, monkeypatch):
    """M18 is planted."""
    monkeypatch.setattr(receiver, "OFFSET_BEGINNING", OFFSET_END)
    await publish(await connect("shop"), sent(40))
    assert await drained(await connect("billing", "orders"), 0, quiet=2.0) == []


@pytest.mark.bad_input(38)
async def test_other_partitions_stop_an_app_until_it_says_that_it_knows(connect, admin, prefix):
    shop = await consumed(connect)
    topic = f"{prefix}orders"
    admin.create_partitions([NewPartitions(topic, 9)])[topic].result()
    with pytest.raises(BrokerRefused, match=r"has 9 partitions, and 6 when") as refused:
        await connect("billing", "orders")
    assert "partitions=orders:9" in refused.value.cure
    with pytest.raises(BrokerRefused, match="has 9 partitions, not 12"):
        await connect("billing", "orders", more="&partitions=12")
    knowing = await connect("billing", "orders", more="&partitions=orders:9")
    await publish(shop, [envelope(key="k", id="later")])
    assert [read(each).id for each in await drained(knowing, 1)] == ["later"]
    await knowing.close()
    await connect("billing", "orders")  # it is remembered


async def test_aborted_and_unfinished_transactions_of_others_do_not_show(connect, kafka, prefix):
    billing = await connect("billing", "orders")
    other = Producer({"bootstrap.servers": kafka.address, "transactional.id": f"{prefix}other"})
    other.init_transactions(30)
    for number, end in enumerate([other.commit_transaction, other.abort_transaction, other.commit_transaction]):
        other.begin_transaction()
        for at in range(10):
            other.produce(f"{prefix}orders", key=f"{at}", value=b"{}", headers={"n": f"{number}"})
        other.flush(30)
        end(30)
    found = await drained(billing, 20, quiet=0.5)
    assert {each.headers["n"] for each in found} == {"0", "2"}
    async with asyncio.timeout(10):  # the marks of transactions are no messages that wait
        while await billing.waiting():
            await billing.fetch(1, 0.1)


# ---- on the wire -----------------------------------------------------------------------------------------------------


async def test_what_others_publish_arrives_readable(connect, raw, prefix):
    billing = await connect("billing", "orders")
    attributes = {"id": "1", "source": "kcat", "type": "OrderPlaced", "specversion": "1.0", "partitionkey": "o-1"}
    binary = [(f"ce_{name}", value) for name, value in attributes.items()]
    event = b'{"id":"2","source":"kcat","type":"OrderPlaced","specversion":"1.0","subject":"o-2","data":{"total":7}}'
    topic = f"{prefix}orders"
    raw.produce(topic, key="o-1", value=b'{"total":7}', headers=[*binary, ("content-type", "application/json")])
    raw.produce(topic, key="o-2", value=event, headers={"content-type": "application/cloudevents+json; charset=utf-8"})
    raw.produce(topic, value=event.replace(b'"2"', b'"3"'))  # kcat -P, nothing else
    raw.produce(topic, key="o-1", value=None, headers=[("CE_ID", "4"), *binary[1:]])
    raw.flush(10)
    found = {(each := read(arrival)).id: each for arrival in await drained(billing, 4)}
    assert [found[id].data for id in "1234"] == [b'{"total":7}', b'{"total":7}', b'{"total":7}', b""]
    assert [found[id].key for id in "1234"] == ["o-1", "o-2", "o-2", "o-1"]


@pytest.mark.proves("G21")
async def test_garbage_arrives_raw_and_is_settled_like_anything_else(connect, raw, prefix):
    billing = await connect("billing", "orders")
    topic = f"{prefix}orders"
    raw.produce(topic, key=b"\xff\xfe", value=b"\xff\x00\xfe", headers=[("\u20ac", b"\xff"), ("ce_id", b"\xff")])
    raw.produce(topic, key=b"", value=b"", headers=[("a", None), ("a", b"1"), ("a", b"2"), ("ce_id", None)])
    raw.produce(topic)
    raw.flush(10)
    found = await drained(billing, 3)
    assert sorted(each.body for each in found) == [b"", b"", b"\xff\x00\xfe"]
    assert {each.key for each in found} == {None}
    assert {"a": "2", "ce-id": ""} in [each.headers for each in found]
    assert all(topic in str(each.place) for each in found)
    await asyncio.sleep(0.5)
    assert await billing.waiting() == 0


async def test_others_read_what_we_publish(connect, kafka, prefix):
    await publish(await connect("shop"), [envelope(key="o-1", id="1", data=b'{"total":7}')])
    other = Consumer({"bootstrap.servers": kafka.address, "group.id": prefix, "auto.offset.reset": "earliest"})
    other.subscribe([f"{prefix}orders"])
    message = other.poll(15)
    other.close()
    headers = dict(message.headers())
    assert (message.key(), message.value()) == (b"o-1", b'{"total":7}')
    assert headers["content-type"] == b"application/json"
    assert headers["ce_specversion"] == b"1.0"
    assert (headers["ce_id"], headers["ce_partitionkey"], headers["ce_topic"]) == (b"1", b"o-1", b"orders")


# ---- topics ----------------------------------------------------------------------------------------------------------


@pytest.mark.bad_input(38)
async def test_topics_that_are_missing_are_named_with_the_commands_that_make_them(connect, prefix, kafka):
    with pytest.raises(BrokerRefused, match=f"topics are missing: {prefix}orders") as refused:
        await connect("billing", "orders", more="&topology=verify")
    assert f"kafka-topics --bootstrap-server {kafka.address} --create --if-not-exists --topic {prefix}orders" in str(
        refused.value
    )
    shop = await connect("shop", more="&topology=none")
    [result] = await shop.publish([envelope()])
    assert isinstance(result, Unknown)
    assert "missing" in result.reason


async def test_the_topology_is_shown_and_exported(connect, prefix):
    broker = KafkaBroker(f"kafka://localhost?prefix={prefix}&partitions=12,payments:3&replication=3", "shop")
    shown = broker.topology(["orders", "payments"])
    assert [(each.name, each.settings["partitions"], each.settings["replication"]) for each in shown] == [
        (f"{prefix}orders", "12", "3"),
        (f"{prefix}payments", "3", "3"),
    ]
    assert "--partitions 12 --replication-factor 3" in broker.export(["orders"])
    assert "--config min.insync.replicas=2" in broker.export(["orders"])


async def test_a_topic_that_kafka_cannot_name_is_refused_by_name(connect):
    shop = await connect("shop")
    [result] = await shop.publish([envelope("shop:orders")])
    assert isinstance(result, Rejected)
    assert "'shop:orders'" in result.reason
    with pytest.raises(BrokerRefused, match="'shop:orders'"):
        await connect("billing", "shop:orders")


@pytest.mark.bad_input(38)
async def test_more_copies_than_brokers_are_refused(connect):
    with pytest.raises(BrokerRefused, match="INVALID_REPLICATION_FACTOR") as refused:
        await connect("billing", "orders", more="&replication=3")
    assert "replication=" in refused.value.cure


def test_the_doctor_sees_whether_it_is_there(url, monkeypatch):
    monkeypatch.setattr(cluster, "PATIENCE", 2.0)
    assert KafkaBroker(url, "shop").look()[0].verdict == "ok"
    [check] = KafkaBroker("kafka://127.0.0.1:1", "shop").look()
    assert (check.name, check.verdict) == ("connection", "fail")
    assert "refused" in check.found.lower()
