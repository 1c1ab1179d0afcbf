"""Kafka, RabbitMQ, SNS and SQS, as the tests of the adapters find them."""

import json
import os
import subprocess
import sys
from contextlib import closing
from urllib.parse import parse_qs, urlsplit

import boto3
import pika
import pika.exceptions
import psutil
import pytest
from botocore.exceptions import EndpointConnectionError
from confluent_kafka import Consumer, KafkaException, Producer
from confluent_kafka.admin import AdminClient, NewTopic

from tests.servers.kafka import KafkaServer
from tests.servers.server import ended, listens
from tests.servers.test_postgres import within
from tests.shape.tree import ROOT

# ---- Kafka -----------------------------------------------------------------------------------------------------------


def make_topic(server, topic, **options):
    # The client is kept until it has answered: without one, its answers never come.
    admin = AdminClient({"bootstrap.servers": server.address})
    admin.create_topics([NewTopic(topic, **options)])[topic].result(10)


def produce(server, topic, value):
    producer = Producer({"bootstrap.servers": server.address, "acks": "all", "enable.idempotence": True})
    producer.produce(topic, value)
    assert producer.flush(10) == 0


def consume(server, topic, count):
    settings = {"bootstrap.servers": server.address, "group.id": topic, "auto.offset.reset": "earliest"}
    with closing(Consumer({**settings, "group.protocol": "consumer", "enable.auto.commit": False})) as consumer:
        consumer.subscribe([topic])
        return [message.value() for message in consumer.consume(count, 30)]


def test_kafka_takes_and_gives_messages(kafka, kafka_url, prefix):
    assert kafka_url == f"kafka://{kafka.address}"
    make_topic(kafka, f"{prefix}orders")
    produce(kafka, f"{prefix}orders", b"1")
    assert consume(kafka, f"{prefix}orders", 1) == [b"1"]


def test_kafka_keeps_what_it_confirmed_when_it_is_killed(kafka_server, prefix):
    make_topic(kafka_server, f"{prefix}orders")
    produce(kafka_server, f"{prefix}orders", b"1")
    before = kafka_server.processes()
    kafka_server.kill()
    assert all(map(ended, before))
    with pytest.raises(KafkaException):
        AdminClient({"bootstrap.servers": kafka_server.address}).list_topics(timeout=0.2)
    kafka_server.start()
    produce(kafka_server, f"{prefix}orders", b"2")
    assert sorted(consume(kafka_server, f"{prefix}orders", 2)) == [b"1", b"2"]


def test_kafka_commits_transactions(kafka, prefix):
    make_topic(kafka, f"{prefix}orders")
    producer = Producer({"bootstrap.servers": kafka.address, "transactional.id": prefix})
    producer.init_transactions(30)
    for value, end in [(b"1", producer.abort_transaction), (b"2", producer.commit_transaction)]:
        producer.begin_transaction()
        producer.produce(f"{prefix}orders", value)
        end(10)
    assert consume(kafka, f"{prefix}orders", 1) == [b"2"]


def test_kafka_makes_no_topic_that_nobody_declared(kafka, prefix):
    admin = AdminClient({"bootstrap.servers": kafka.address})
    assert admin.list_topics(f"{prefix}orders", timeout=10).topics[f"{prefix}orders"].error is not None


def test_a_kafka_of_ones_own_has_the_settings_it_was_given(kafka, servers):
    server = servers.make(KafkaServer, settings={"num.partitions": "7"})
    lines = (server.folder / "server.properties").read_text().splitlines()
    assert [line for line in lines if line.startswith("num.partitions=")] == ["num.partitions=7"]


# ---- RabbitMQ --------------------------------------------------------------------------------------------------------


def test_each_test_has_a_vhost_of_its_own(rabbitmq, rabbitmq_url):
    with closing(pika.BlockingConnection(pika.URLParameters(rabbitmq_url))) as connection:
        channel = connection.channel()
        channel.queue_declare("orders", durable=True, arguments={"x-queue-type": "quorum"})
    assert rabbitmq.queue(urlsplit(rabbitmq_url).path[1:], "orders")["type"] == "quorum"
    assert [queue["name"] for queue in rabbitmq.call("GET", "queues/%2F")] == []


def test_rabbitmq_spreads_keys_over_queues(rabbitmq_url):
    with closing(pika.BlockingConnection(pika.URLParameters(rabbitmq_url))) as connection:
        channel = connection.channel()
        channel.exchange_declare("orders", "x-consistent-hash", durable=True)
        for queue in ("0", "1"):
            channel.queue_declare(queue)
            channel.queue_bind(queue, "orders", routing_key="1")
        channel.confirm_delivery()
        for key in range(50):
            channel.basic_publish("orders", str(key), b"", mandatory=True)
        counts = [channel.queue_declare(queue, passive=True).method.message_count for queue in ("0", "1")]
    assert sum(counts) == 50
    assert all(counts)


def test_rabbitmq_keeps_what_it_confirmed_when_it_is_killed(rabbitmq_server):
    with rabbitmq_server.vhost() as url:
        connection = pika.BlockingConnection(pika.URLParameters(url))
        channel = connection.channel()
        channel.queue_declare("orders", durable=True, arguments={"x-queue-type": "quorum"})
        connection.sleep(1.5)  # a younger queue may be lost
        channel.confirm_delivery()
        channel.basic_publish("", "orders", b"1", pika.BasicProperties(delivery_mode=2), mandatory=True)
        before = rabbitmq_server.processes()
        rabbitmq_server.kill()
        assert all(map(ended, before))
        with pytest.raises(pika.exceptions.AMQPError):
            channel.queue_declare("orders", passive=True)
        rabbitmq_server.start()
        with closing(pika.BlockingConnection(pika.URLParameters(url))) as connection:
            assert connection.channel().basic_get("orders", auto_ack=True)[2] == b"1"


# ---- SNS and SQS -----------------------------------------------------------------------------------------------------


def client(service, url):
    endpoint = parse_qs(urlsplit(url).query)["endpoint"][0]
    return boto3.client(service, endpoint_url=endpoint, region_name=urlsplit(url).netloc)


def test_what_is_published_to_sns_arrives_in_sqs(sqs_url, moto_url, prefix):
    for url in (sqs_url, moto_url):
        sqs, sns = client("sqs", url), client("sns", url)
        queue = sqs.create_queue(QueueName=f"{prefix}orders")["QueueUrl"]
        arn = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
        topic = sns.create_topic(Name=f"{prefix}orders")["TopicArn"]
        sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn, Attributes={"RawMessageDelivery": "true"})
        sns.publish(TopicArn=topic, Message=json.dumps({"order": 1}))
        (message,) = sqs.receive_message(QueueUrl=queue, WaitTimeSeconds=5)["Messages"]
        assert json.loads(message["Body"]) == {"order": 1}


def test_sqs_is_killed_and_comes_back_with_nothing_where_it_was(sqs_server, prefix):
    sqs = client("sqs", sqs_server.url)
    sqs.create_queue(QueueName=f"{prefix}orders")
    sqs_server.kill()
    with pytest.raises(EndpointConnectionError):
        sqs.list_queues()
    sqs_server.start()
    assert sqs.list_queues(QueueNamePrefix=prefix).get("QueueUrls", []) == []


# ---- all of them -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fixture", ["kafka", "rabbitmq", "sqs"])
def test_a_server_is_open_to_this_machine_only(request, fixture):
    server = request.getfixturevalue(fixture)
    open_to = {
        connection.laddr.ip
        for process in server.processes()
        for connection in process.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN
    }
    assert open_to <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}
    assert open_to


def test_a_suspended_server_answers_nothing_until_it_goes_on(sqs_server):
    sqs_server.suspend()
    try:
        assert listens(sqs_server.port)  # the system takes the connection
        assert not within(0.5, lambda: any(process.status() == "running" for process in sqs_server.processes()))
    finally:
        sqs_server.resume()
    assert client("sqs", sqs_server.url).list_queues()["ResponseMetadata"]["HTTPStatusCode"] == 200


ORPHANS = """
from tests.servers.rabbitmq import RabbitmqServer
from tests.servers.servers import Servers
from tests.servers.sqs import SqsServer
import time
servers = Servers()
rabbitmq, sqs = servers.make(RabbitmqServer), servers.make(SqsServer)
rabbitmq.start()
sqs.start()
print(servers.folder, *(process.pid for process in [*rabbitmq.processes(), *sqs.processes()]), flush=True)
time.sleep(60)
"""


def test_no_server_is_left_when_the_tests_are_killed(rabbitmq, sqs):
    with subprocess.Popen([sys.executable, "-c", ORPHANS], cwd=ROOT, stdout=subprocess.PIPE, text=True) as tests:
        folder, *pids = tests.stdout.readline().split()
        processes = [psutil.Process(int(pid)) for pid in pids]
        tests.kill()
        assert within(20, lambda: all(map(ended, processes)))
    assert within(10, lambda: not os.path.exists(folder))  # noqa: PTH110 - a word is enough
    assert rabbitmq.call("GET", "overview")["node"] == "tidings@localhost"
