"""Names at AWS, what a URL may say, policies of queues, and messages as they are sent."""

import json
import re
import string

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidings.brokers.sqs.names import deduplication_of, group_of, key_of, queue_name, topic_name
from tidings.brokers.sqs.publishing import batches
from tidings.brokers.sqs.settings import read_settings
from tidings.brokers.sqs.topology import allows, cloudformation, policy, topology
from tidings.brokers.sqs.wire import Entry, arrival_of, entry_of
from tidings.core.cloudevent import from_headers
from tidings.errors import BadUrl
from tidings.testing.conformance.broker.making import envelope

LETTERS = string.ascii_letters + string.digits + "-_"
TOPIC = "arn:aws:sns:eu-central-1:123456789012:orders"
names = st.text(st.sampled_from("ab-_.: é"), min_size=1, max_size=8) | st.text("a-", min_size=60, max_size=200)


@given(st.lists(st.tuples(names, names), min_size=2, unique=True), st.booleans())
def test_different_apps_and_topics_have_different_queues_that_aws_allows(pairs, fifo):
    made = [queue_name(app, topic, prefix="shop-", fifo=fifo) for app, topic in pairs]
    assert len(set(made)) == len(pairs)
    assert all(len(name) <= 80 and name.endswith(".fifo") is fifo for name in made)
    assert not set("".join(name.removesuffix(".fifo") for name in made)) - set(LETTERS)


@given(st.lists(names, min_size=2, unique=True), st.booleans())
def test_different_topics_have_different_names_that_aws_allows(topics, fifo):
    made = [topic_name(topic, fifo=fifo) for topic in topics]
    assert len(set(made)) == len(topics)
    assert all(len(name) <= 256 and name.endswith(".fifo") is fifo for name in made)
    assert not set("".join(name.removesuffix(".fifo") for name in made)) - set(LETTERS)


def test_an_ordinary_name_stays_readable_and_no_name_passes_for_another():
    assert topic_name("orders", prefix="shop-", fifo=True) == "shop-orders.fifo"
    assert queue_name("billing", "orders_eu") == "billing-orders_eu"
    assert queue_name("a-b", "c") != queue_name("a", "b-c") == "a-b-c"
    dotted = topic_name("orders.v1")
    assert dotted.startswith("orders-v1-")
    assert topic_name(dotted) != dotted


@given(st.lists(st.text(min_size=1, max_size=150), min_size=2, unique=True))
def test_different_keys_are_different_groups_that_aws_allows(keys):
    groups = [group_of(envelope(key=key)) for key in keys]
    assert len(set(groups)) == len(keys)
    assert all(1 <= len(group) <= 128 and group.isascii() and group.isprintable() for group in groups)
    assert all(key_of(group) in {None, key} for group, key in zip(groups, keys, strict=True))


def test_a_message_without_a_key_is_a_group_of_its_own_and_gets_no_key():
    groups = {group_of(envelope(key=None, id=each)) for each in "ab"}
    assert len(groups) == 2
    assert {key_of(group) for group in groups} == {None}


def test_the_same_id_of_another_source_is_no_copy():
    made = {deduplication_of(envelope(id=id, source=source)) for id in ("1", "2") for source in ("shop", "billing")}
    assert len(made) == 4
    assert {len(each) for each in made} == {64}


@pytest.mark.bad_input(30, 32, 39)
@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("sqs://eu-centrl-1", "did you mean eu-central-1"),
        ("sqs://127.0.0.1:4566", "endpoint= for a host"),
        ("sqs://localhost", "is no region"),
        ("sqs://key:secret@eu-central-1", "credentials come from the environment"),
        ("sqs://eu-central-1/queue", "more than a region"),
        ("sqs://eu-central-1?fifo=yes", "it is one of false, true"),
        ("sqs://eu-central-1?fif=true", "did you mean fifo?"),
        ("sqs://eu-central-1?topology=make", "it is one of declare, verify, none"),
        ("sqs://eu-central-1?prefix=a.b", "letters, digits, - and _"),
        ("sqs://eu-central-1?poll=21", "from 1 to 20"),
        ("sqs://eu-central-1?visibility=0", "from 2 to 3600"),
        ("sqs://eu-central-1?endpoint=http://key:secret@host", "endpoint is no address"),
        ("sqs://eu-central-1?endpoint=127.0.0.1", "endpoint is no address"),
    ],
)
def test_what_a_url_cannot_say_is_named_without_a_secret(url, said):
    with pytest.raises(BadUrl) as told:
        read_settings(url)
    assert said in str(told.value)
    assert "secret" not in str(told.value)


def test_a_url_says_it_all():
    text = (
        "sqs://EU-central-1?fifo=true&endpoint=https://vpce.example&prefix=shop-&topology=verify&poll=20&visibility=60"
    )
    found = read_settings(text)
    assert (found.region, found.fifo, found.endpoint) == ("eu-central-1", True, "https://vpce.example")
    assert (found.prefix, found.topology, found.poll, found.visibility) == ("shop-", "verify", 20, 60)


def statement(**changes):
    made = json.loads(policy("arn:aws:sqs:eu-central-1:123456789012:billing-orders", TOPIC))
    made["Statement"][0] |= changes
    return json.dumps(made)


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        (statement(), True),
        (statement(Principal="*"), True),
        (statement(Principal={"AWS": "*"}), True),
        (statement(Principal={"Service": ["sns.amazonaws.com", "events.amazonaws.com"]}), True),
        (statement(Action=["SQS:SendMessage"]), True),
        (statement(Action="sqs:*"), True),
        (statement(Condition={}), True),
        (statement(Condition={"ArnLike": {"AWS:SourceArn": ["arn:aws:sns:*:123456789012:*"]}}), True),
        ("", False),
        ("{", False),
        ("[]", False),
        (statement(Effect="Deny", Condition={}), False),
        (statement(Action="sqs:ReceiveMessage"), False),
        (statement(Principal={"AWS": "arn:aws:iam::123456789012:root"}), False),
        (statement(Condition={"ArnEquals": {"aws:SourceArn": TOPIC + "-eu"}}), False),
    ],
)
def test_a_policy_that_lets_a_topic_in_is_told_from_one_that_does_not(text, verdict):
    assert allows(text, TOPIC) is verdict


def test_a_batch_has_ten_messages_and_no_more_bytes_than_the_topic_takes():
    sizes = [60, 60, 60, 100, 1, *[1] * 12]
    entries = [(at, Entry({}, size)) for at, size in enumerate(sizes)]
    found = [[entry.size for _, entry in batch] for batch in batches(entries, 120)]
    assert found == [[60, 60], [60], [100, *[1] * 9], [1] * 4]


words = st.text(
    st.characters(exclude_categories=["Cs"]) | st.sampled_from("\0\ufffe\uffff\r\x1f"), min_size=1, max_size=40
)


@given(words, words.filter(lambda key: "\0" not in key))
def test_a_body_is_text_that_xml_has_and_gives_back_the_same_bytes(text, key):
    data = msgspec.json.encode({"ü": text})
    sent = envelope(key=key, data=data)
    request = entry_of(sent, fifo=True).request
    assert not re.search("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", request["Message"])
    message = {"Body": request["Message"], "MessageAttributes": request["MessageAttributes"], "ReceiptHandle": "r"}
    arrival = arrival_of(message, "orders", "billing-orders", "http://q", 0.0)
    found = from_headers(arrival.headers, arrival.body, encoded=False)
    assert (found.data, found.key, found.id) == (data, key, sent.id)


@pytest.mark.parametrize(("queue", "key"), [("billing-orders.fifo", "o-1"), ("billing-orders", None)])
def test_a_group_is_the_key_where_groups_have_an_order(queue, key):
    event = '{"specversion":"1.0","id":"1","source":"/s","type":"T"}'
    message = {"Body": event, "Attributes": {"MessageGroupId": "o-1"}, "ReceiptHandle": "r"}
    assert arrival_of(message, "orders", queue, "http://q", 0.0).read().key == key


def test_the_size_of_a_message_counts_its_attributes():
    entry = entry_of(envelope(), fifo=False)
    assert entry.size == len(entry.request["Message"].encode()) + len("typeStringOrderPlaced")


def test_the_topology_is_a_plain_value_and_a_template():
    settings = read_settings("sqs://eu-central-1?fifo=true&prefix=shop-")
    assert [(each.kind, each.name) for each in topology(settings, "billing", ["orders"])] == [
        ("topic", "shop-orders.fifo"),
        ("queue", "shop-billing-orders.fifo"),
        ("subscription", "shop-orders.fifo -> shop-billing-orders.fifo"),
    ]
    template = json.loads(cloudformation(settings, "billing", ["orders", "payments"]))
    kinds = [each["Type"] for each in template["Resources"].values()]
    assert kinds == 2 * ["AWS::SNS::Topic", "AWS::SQS::Queue", "AWS::SQS::QueuePolicy", "AWS::SNS::Subscription"]
    queue = template["Resources"]["Queue1"]["Properties"]
    assert (queue["FifoQueue"], queue["MessageRetentionPeriod"]) == (True, 1_209_600)
