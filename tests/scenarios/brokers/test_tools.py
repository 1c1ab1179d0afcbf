"""Strangers with the usual command line tools: what they publish is handled, and what we publish they can read."""

import asyncio
import json
import shutil
import subprocess

import pytest

from tests.scenarios.brokers.test_carrying import OrderPlaced
from tests.scenarios.brokers.working import at_work, until
from tests.servers.sqs import REGION
from tidings import App

ATTRIBUTES = {"specversion": "1.0", "id": "1", "source": "/till", "type": "OrderPlaced"}
DATA = '{"order_id":"o-1","total":1}'
EVENT = '{"specversion":"1.0","id":"2","source":"/till","type":"OrderPlaced","data":{"order_id":"o-2","total":2}}'
BOTH = {OrderPlaced("o-1", 1), OrderPlaced("o-2", 2)}
GARBAGE = bytes(range(256))


def needs(program, package):
    reason = f"there is no {program} on this machine: apt-get install {package}"
    return pytest.mark.skipif(shutil.which(program) is None, reason=reason)


async def run(*words, sent=b""):
    """What a program says that reads what it is sent; it must end well."""
    command = [str(word) for word in words]
    done = await asyncio.to_thread(subprocess.run, command, input=sent, capture_output=True, timeout=45, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def seen():
    """What the app has handled."""
    return set()


@pytest.fixture
def make(tmp_path, seen):
    """(broker) -> an app that handles orders."""

    def make(broker):
        app = App(f"sqlite:{tmp_path}/shop.db", broker=broker, name="shop")

        @app.on(OrderPlaced)
        async def note(order: OrderPlaced) -> None:
            seen.add(order)

        return app

    return make


async def published(app):
    """An order that the broker has by then."""
    async with app:
        await app.publish(OrderPlaced("o-7", 7), id="7")
    await app.run(until_idle=True)


async def quarantined(app):
    """The bytes of the one message that could not be read."""
    async with app:

        async def kept():
            return await app.store.held(group="shop.quarantine")

        await until(kept)
        [held] = await kept()
        return held.envelope.data


# ---- Kafka -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def kafka_shop(make, kafka_url, prefix):
    return make(f"{kafka_url}?prefix={prefix}")


@pytest.fixture
def kcat(kafka, prefix):
    return ("kcat", "-b", kafka.address, "-t", f"{prefix}orders")


@needs("kcat", "kcat")
async def test_what_kcat_publishes_is_handled(kcat, kafka_shop, seen):
    headers = [word for name, value in ATTRIBUTES.items() for word in ("-H", f"ce_{name}={value}")]
    async with at_work(kafka_shop), kafka_shop:
        await run(*kcat, "-P", "-k", "o-1", "-H", "content-type=application/json", *headers, sent=DATA.encode())
        await run(*kcat, "-P", "-k", "o-2", sent=EVENT.encode())
        await until(lambda: seen == BOTH)
        log = await kafka_shop.store.read(0, await kafka_shop.store.head(), 10)
    assert {each.id: each.key for each in log} == {"1": "o-1", "2": "o-2"}


@needs("kcat", "kcat")
async def test_kcat_reads_what_is_published(kcat, kafka_shop):
    await published(kafka_shop)
    record = json.loads(await run(*kcat, "-C", "-J", "-q", "-c", 1))
    assert (record["key"], json.loads(record["payload"])) == ("o-7", {"order_id": "o-7", "total": 7})
    headers = dict(zip(record["headers"][::2], record["headers"][1::2], strict=True))
    expected = {"ce_specversion": "1.0", "ce_id": "7", "ce_source": "shop", "ce_type": "OrderPlaced"}
    assert headers == headers | expected | {"content-type": "application/json"}


@pytest.mark.proves("G21")
@needs("kcat", "kcat")
async def test_garbage_from_kcat_is_kept_raw(kcat, kafka_shop, tmp_path):
    (tmp_path / "garbage").write_bytes(GARBAGE)
    async with at_work(kafka_shop):
        await run(*kcat, "-P", tmp_path / "garbage")
        assert await quarantined(kafka_shop) == GARBAGE


# ---- RabbitMQ --------------------------------------------------------------------------------------------------------


@pytest.fixture
def amqp_publish(rabbitmq_url):
    return ("amqp-publish", "-u", rabbitmq_url, "-e", "tidings.orders", "-p")


@needs("amqp-publish", "amqp-tools")
async def test_what_amqp_publish_publishes_is_handled(amqp_publish, rabbitmq_url, make, seen):
    headers = [word for name, value in ATTRIBUTES.items() for word in ("-H", f"cloudEvents_{name}: {value}")]
    async with at_work(make(rabbitmq_url)):
        await run(*amqp_publish, "-C", "application/json", *headers, "-b", DATA)
        await run(*amqp_publish, "-C", "application/cloudevents+json", "-b", EVENT)
        await until(lambda: seen == BOTH)


@needs("amqp-consume", "amqp-tools")
async def test_amqp_consume_reads_what_is_published(rabbitmq, rabbitmq_url, make):
    shop = make(rabbitmq_url)
    await shop.run(until_idle=True)  # declares the exchange
    bindings = f"exchanges/{rabbitmq_url.rpartition('/')[2]}/tidings.orders/bindings/source"
    before = rabbitmq.call("GET", bindings)
    consume = ("amqp-consume", "-u", rabbitmq_url, "-e", "tidings.orders", "-r", "#", "-c", 1, "cat")
    consuming = asyncio.create_task(run(*consume))
    await until(lambda: rabbitmq.call("GET", bindings) != before)
    await published(shop)
    assert json.loads(await consuming) == {"order_id": "o-7", "total": 7}


@pytest.mark.proves("G21")
@needs("amqp-publish", "amqp-tools")
async def test_garbage_from_amqp_publish_is_kept_raw(amqp_publish, rabbitmq_url, make):
    shop = make(rabbitmq_url)
    async with at_work(shop):
        await run(*amqp_publish, sent=GARBAGE)
        assert await quarantined(shop) == GARBAGE


# ---- SNS and SQS -----------------------------------------------------------------------------------------------------


@pytest.fixture
def sqs_shop(make, sqs_url, prefix):
    return make(f"{sqs_url}&poll=1&prefix={prefix}")


@pytest.fixture
def aws(awscli, sqs, aws_credentials):
    """(*words) -> what the command line of AWS says, as text."""

    async def aws(*words):
        return (await run(awscli, "--endpoint-url", sqs.endpoint, "--output", "text", *words)).decode().strip()

    return aws


@pytest.fixture
def binary():
    """What `aws` adds to the data of an event in binary mode."""
    attributes = {f"ce_{name}": {"DataType": "String", "StringValue": value} for name, value in ATTRIBUTES.items()}
    return ("--message-attributes", json.dumps(attributes))


async def test_what_aws_publishes_is_handled(aws, binary, sqs_shop, prefix, seen):
    topic = f"arn:aws:sns:{REGION}:000000000000:{prefix}orders"
    async with at_work(sqs_shop):
        await aws("sns", "publish", "--topic-arn", topic, "--message", DATA, *binary)
        await aws("sns", "publish", "--topic-arn", topic, "--message", EVENT)
        await until(lambda: seen == BOTH)


async def test_what_aws_sends_to_the_queue_is_handled(aws, binary, sqs_shop, prefix, seen):
    async with at_work(sqs_shop):
        queue = await aws("sqs", "get-queue-url", "--queue-name", f"{prefix}shop-orders")
        await aws("sqs", "send-message", "--queue-url", queue, "--message-body", DATA, *binary)
        await aws("sqs", "send-message", "--queue-url", queue, "--message-body", EVENT)
        await until(lambda: seen == BOTH)


async def test_aws_reads_what_is_published(aws, sqs_shop, prefix):
    topic = await aws("sns", "create-topic", "--name", f"{prefix}orders")
    queue = await aws("sqs", "create-queue", "--queue-name", f"{prefix}audit")
    arn = f"arn:aws:sqs:{REGION}:000000000000:{prefix}audit"
    subscribe = ("--protocol", "sqs", "--notification-endpoint", arn, "--attributes", "RawMessageDelivery=true")
    await aws("sns", "subscribe", "--topic-arn", topic, *subscribe)
    await published(sqs_shop)
    receive = ("--wait-time-seconds", 20, "--query", "Messages[0].Body")
    event = json.loads(await aws("sqs", "receive-message", "--queue-url", queue, *receive))
    expected = {"specversion": "1.0", "id": "7", "source": "shop", "type": "OrderPlaced"}
    assert event == event | expected | {"data": {"order_id": "o-7", "total": 7}}


@pytest.mark.proves("G21")
async def test_garbage_from_aws_is_kept_raw(aws, sqs_shop, prefix):
    topic = f"arn:aws:sns:{REGION}:000000000000:{prefix}orders"
    async with at_work(sqs_shop):
        await aws("sns", "publish", "--topic-arn", topic, "--message", "no event: \u20ac {")
        assert await quarantined(sqs_shop) == "no event: \u20ac {".encode()
