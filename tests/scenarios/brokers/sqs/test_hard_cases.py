"""The hard cases of SNS and SQS."""

import asyncio
import json
import re
import subprocess
import sys
import time

import pytest

from tidings.brokers.sqs import SqsBroker
from tidings.core.arrival import Confirmed, Rejected, Unknown
from tidings.core.cloudevent import from_headers
from tidings.errors import BrokerRefused, BrokerUnavailable, Unreadable
from tidings.testing.conformance.broker.making import drained, envelope, publish, read


def ids(arrivals):
    return [read(each).id for each in arrivals]


# ---- what is published -----------------------------------------------------------------------------------------------


async def test_entries_that_fail_under_http_200_are_told_by_name(connect, meddler, meddled):
    failing = {
        "1": (b"InvalidParameter", b"true"),
        "3": (b"InternalError", b"false"),
        "4": (b"KMSAccessDenied", b"true"),
    }

    def change(action, _, answer):
        if action != "PublishBatch":
            return answer
        body = answer[1]
        for number, (code, fault) in failing.items():
            found = re.search(rb"<member><Id>%b</Id>.*?</member>" % number.encode(), body)[0]
            failed = b"<member><Id>%b</Id><Code>%b</Code><Message>no</Message><SenderFault>%b</SenderFault></member>"
            body = body.replace(found, b"").replace(b"<Failed>", b"<Failed>" + failed % (number.encode(), code, fault))
        return 200, body

    meddler.change = change
    shop = await connect("shop", at=meddled)
    found = await shop.publish([envelope(key=f"{n}") for n in range(6)])
    assert [type(each) for each in found] == [Confirmed, Rejected, Confirmed, Unknown, Unknown, Confirmed]
    assert (found[1].reason, found[3].reason) == ("InvalidParameter: no", "InternalError: no")


async def test_those_who_publish_to_a_new_topic_at_once_make_it_together(connect, meddler, meddled):
    actions = []

    def note(action, _, answer):
        actions.append(action)
        return answer

    meddler.change = note
    shop = await connect("shop", at=meddled)
    found = await asyncio.gather(*(shop.publish([envelope("brandnew", f"k-{n}")]) for n in range(20)))
    assert found == [[Confirmed()]] * 20
    assert actions.count("CreateTopic") == 1


async def test_an_entry_of_which_the_answer_says_nothing_is_unknown(connect, meddler, meddled):
    meddler.change = lambda action, _, answer: (
        (200, re.sub(rb"<member><Id>0</Id>.*?</member>", b"", answer[1])) if action == "PublishBatch" else answer
    )
    shop = await connect("shop", at=meddled)
    first, second = await shop.publish([envelope(key="a"), envelope(key="b")])
    assert (type(first), second) == (Unknown, Confirmed())


async def test_one_message_that_spoils_its_batch_does_not_hold_up_the_others(connect, meddler, meddled):
    error = b"<Error><Type>Sender</Type><Code>InvalidParameter</Code><Message>bad</Message></Error>"
    refusal = b"<ErrorResponse>" + error + b"</ErrorResponse>"
    meddler.change = lambda action, body, answer: (
        (400, refusal) if action == "PublishBatch" and b"poison" in body else answer
    )
    shop = await connect("shop", at=meddled)
    found = await shop.publish([envelope(key=f"{n}", id="poison" if n == 3 else f"{n}") for n in range(5)])
    assert [type(each) for each in found] == [Confirmed, Confirmed, Confirmed, Rejected, Confirmed]


async def test_what_is_published_again_after_a_lost_answer_arrives_once_in_fifo(connect, meddler, meddled):
    receiver = await connect("billing", "orders", fifo="true")
    meddler.change = lambda action, _, answer: (503, b"") if action == "PublishBatch" else answer
    shop = await connect("shop", at=meddled, fifo="true")
    (result,) = await shop.publish([envelope(id="1")])
    assert isinstance(result, Unknown), result
    meddler.change = None
    await publish(shop, [envelope(id="1"), envelope(id="2"), envelope(id="1", source="other")])
    found = await drained(receiver, 3, quiet=0.5)
    assert [(read(each).id, read(each).source) for each in found] == [("1", "shop"), ("2", "shop"), ("1", "other")]


async def test_many_large_messages_are_spread_over_batches_that_the_topic_takes(connect):
    receiver = await connect("billing", "orders")
    data = b'"' + b"x" * 60_000 + b'"'
    await publish(await connect("shop"), [envelope(key=f"{n}", data=data) for n in range(25)])
    assert len(await drained(receiver, 25)) == 25


async def test_characters_that_xml_has_not_arrive_all_the_same(connect):
    receiver = await connect("billing", "orders", fifo="true")
    sent = [
        envelope(key="\x01\ufffe", id="1", data='"\uffff\U0001ffff"'.encode()),
        envelope(key="\x01\ufffe", id="2", data=b'"\\u0000"', headers=b'{"tenant":"acme"}'),
    ]
    await publish(await connect("shop", fifo="true"), sent)
    assert [read(each) for each in await drained(receiver, 2)] == sent


async def test_a_topic_that_was_deleted_is_declared_again_by_the_next_publication(connect, aws, prefix):
    shop = await connect("shop")
    await publish(shop, [envelope()])
    aws.sns.delete_topic(TopicArn=aws.topic(f"{prefix}orders"))
    (result,) = await shop.publish([envelope()])
    assert isinstance(result, Unknown), result
    await publish(shop, [envelope()])


# ---- what arrives ----------------------------------------------------------------------------------------------------


async def test_a_fifo_batch_with_a_failure_in_the_middle_goes_on_in_order_with_another_worker(connect):
    first = await connect("billing", "orders", fifo="true")
    shop = await connect("shop", fifo="true")
    await publish(shop, [envelope(id=f"{n}") for n in range(10)])
    taken = await drained(first, 10, settle=False)
    assert ids(taken) == [f"{n}" for n in range(10)]
    await first.settle(taken[:4])
    second = await connect("billing", "orders", fifo="true")
    await publish(shop, [envelope(id="10"), envelope(key="other", id="other")])
    assert ids(await drained(second, 1, quiet=1.0)) == ["other"]  # nothing overtakes what the first worker has
    began = time.monotonic()
    await first.close()
    found = await drained(second, 7)
    assert ids(found) == [f"{n}" for n in range(4, 11)]
    assert time.monotonic() - began < 10.0  # not the time for which they are invisible


async def test_what_a_worker_took_that_vanished_comes_again_in_order(connect):
    first = await connect("billing", "orders", fifo="true", visibility=3)
    await publish(await connect("shop", fifo="true"), [envelope(id=f"{n}") for n in range(5)])
    assert ids(await drained(first, 5, settle=False)) == [f"{n}" for n in range(5)]
    found = await drained(await connect("billing", "orders", fifo="true", visibility=3), 5)
    assert ids(found) == [f"{n}" for n in range(5)]


async def test_a_receipt_that_ran_out_is_no_error_and_the_message_comes_again(connect):
    slow = await connect("billing", "orders", visibility=2)
    await publish(await connect("shop"), [envelope(id=f"{n}") for n in range(3)])
    taken = await drained(slow, 3, settle=False)
    other = await connect("billing", "orders")
    again = await drained(other, 3, settle=False)
    assert sorted(ids(again)) == sorted(ids(taken))
    await slow.settle(taken)
    await other.settle(again)
    assert await drained(other, 0, quiet=0.5) == []


async def test_entries_that_could_not_be_deleted_are_deleted_by_another_try(connect, meddler, meddled):
    receiver = await connect("billing", "orders", fifo="true", at=meddled)
    await publish(await connect("shop", fifo="true"), [envelope(id=f"{n}") for n in range(10)])
    taken = await drained(receiver, 10, settle=False)
    left, entries = 2, []

    def change(action, body, answer):
        nonlocal left
        if action != "DeleteMessageBatch":
            return answer
        entries.append([each["Id"] for each in json.loads(body)["Entries"]])
        if not left:
            return answer
        left -= 1
        failed = [{"Id": "0", "Code": "InternalError", "SenderFault": False}]
        return 200, json.dumps({"Successful": [], "Failed": failed}).encode()

    meddler.change = change
    await receiver.settle(taken)
    assert [len(each) for each in entries] == [10, 1, 1]
    assert await receiver.waiting() == 0


async def test_a_missing_right_to_delete_is_told_by_the_next_fetch(connect, meddler, meddled):
    receiver = await connect("billing", "orders", at=meddled)
    await publish(await connect("shop"), [envelope()])
    taken = await drained(receiver, 1, settle=False)
    denied = json.dumps({"__type": "com.amazonaws.sqs#AccessDeniedException", "message": "not authorized"}).encode()
    meddler.change = lambda action, _, answer: (403, denied) if action != "PublishBatch" else answer
    await receiver.settle(taken)
    with pytest.raises(BrokerRefused, match="grant the actions"):
        await receiver.fetch(1, 1.5)


async def test_what_nobody_fetches_goes_back_to_the_other_workers(connect):
    idle = await connect("billing", "orders", fifo="true")
    await publish(await connect("shop", fifo="true"), [envelope(id=f"{n}") for n in range(8)])
    taken = await idle.fetch(1, 5.0)
    assert ids(taken) == ["0"]
    await idle.settle(taken)
    busy = await connect("billing", "orders", fifo="true")
    assert ids(await drained(busy, 7)) == [f"{n}" for n in range(1, 8)]


async def test_a_queue_that_was_deleted_is_declared_and_received_from_again(connect, aws, prefix, caplog):
    receiver, shop = await connect("billing", "orders"), await connect("shop")
    await publish(shop, [envelope()])
    assert len(await drained(receiver, 1)) == 1
    aws.sqs.delete_queue(QueueUrl=aws.queue(f"{prefix}billing-orders"))
    end = time.monotonic() + 10.0
    while "is declared again" not in caplog.text and time.monotonic() < end:
        await receiver.fetch(1, 0.2)
    await asyncio.sleep(0.5)
    await publish(shop, [envelope(id="after")])
    assert ids(await drained(receiver, 1)) == ["after"]


# ---- what others send ------------------------------------------------------------------------------------------------

EVENT = {"specversion": "1.0", "id": "7", "source": "/stranger", "type": "OrderPlaced", "data": {"ü": "€"}}


def text(value, kind="String"):
    return {"DataType": kind, "StringValue": value}


async def test_the_envelope_of_sns_is_opened_where_raw_delivery_is_off(connect, aws, prefix):
    receiver = await connect("billing", "orders")
    arn = aws.subscription(f"{prefix}billing-orders")
    aws.sns.set_subscription_attributes(SubscriptionArn=arn, AttributeName="RawMessageDelivery", AttributeValue="false")
    sent = envelope(key="Zoë", data='{"a":"\\u0000€"}'.encode())
    await publish(await connect("shop"), [sent])
    binary = {"ce-specversion": text("1.0"), "ce-id": text("8"), "ce-source": text("/s"), "ce-type": text("T")}
    aws.sns.publish(TopicArn=aws.topic(f"{prefix}orders"), Message='{"a":1}', MessageAttributes=binary)
    found = {each.id: each for each in map(read, await drained(receiver, 2))}
    assert found[sent.id] == sent
    assert (found["8"].type, found["8"].data) == ("T", b'{"a":1}')


@pytest.mark.parametrize("names", ["ce-{}", "ce_{}", "cloudEvents_{}", "CE-{}"])
async def test_what_the_aws_command_line_publishes_is_understood_in_either_mode(connect, aws, prefix, names):
    receiver = await connect("billing", "orders")
    queue = aws.queue(f"{prefix}billing-orders")
    aws.sns.publish(TopicArn=aws.topic(f"{prefix}orders"), Message=json.dumps(EVENT))
    attributes = {names.format("type"): text("OrderPlaced"), "tries": text("3", "Number")}
    aws.sqs.send_message(QueueUrl=queue, MessageBody=json.dumps(EVENT | {"id": "8"}), MessageAttributes=attributes)
    binary = {names.format(name): text(value) for name, value in EVENT.items() if name != "data"}
    binary |= {names.format("id"): text("9"), "Content-Type": text("application/json")}
    aws.sqs.send_message(QueueUrl=queue, MessageBody='{"ü":"€"}', MessageAttributes=binary)
    found = sorted(map(read, await drained(receiver, 3)), key=lambda each: each.id)
    assert [(each.id, each.source, each.type) for each in found] == [(n, "/stranger", "OrderPlaced") for n in "789"]
    assert [json.loads(each.data) for each in found] == [{"ü": "€"}] * 3


@pytest.mark.bad_input(42, 44)
async def test_garbage_arrives_as_it_came_and_is_no_error_of_the_adapter(connect, aws, prefix):
    receiver = await connect("billing", "orders")
    queue = aws.queue(f"{prefix}billing-orders")
    bodies = [
        "{",
        "hello",
        '"Notification" "TopicArn"',
        "[" * 50_000,
        "\ufeff{}",
        '{"Type":"Notification","TopicArn":1}',
    ]
    binary = {"x": {"DataType": "Binary", "BinaryValue": b"\xff"}, "Y": text("1"), "y": text("2")}
    for body in bodies:
        aws.sqs.send_message(QueueUrl=queue, MessageBody=body, MessageAttributes=binary)
    found = await drained(receiver, len(bodies))
    assert sorted(each.body.decode() for each in found) == sorted(bodies)
    for each in found:
        assert each.headers.keys() == {"y"}
        assert each.place.startswith(f"{prefix}billing-orders, message ")
        with pytest.raises(Unreadable):
            from_headers(each.headers, each.body, encoded=False)


async def test_the_message_group_of_a_stranger_is_the_key_of_what_names_none(connect, aws, prefix):
    receiver = await connect("billing", "orders", fifo="true")
    ours = {"MessageGroupId": "c-1", "MessageDeduplicationId": "1"}
    aws.sns.publish(TopicArn=aws.topic(f"{prefix}orders.fifo"), Message=json.dumps(EVENT), **ours)
    await publish(await connect("shop", fifo="true"), [envelope(key=None)])
    assert [each.key for each in await drained(receiver, 2)] == ["c-1", None]


# ---- how it is set up ------------------------------------------------------------------------------------------------


async def test_what_is_declared_keeps_fourteen_days_and_lets_in_its_topic_only(connect, aws, prefix):
    await connect("billing", "orders", fifo="true")
    there = aws.attributes(f"{prefix}billing-orders.fifo")
    assert (there["MessageRetentionPeriod"], there["FifoQueue"]) == ("1209600", "true")
    (statement,) = json.loads(there["Policy"])["Statement"]
    assert statement["Principal"] == {"Service": "sns.amazonaws.com"}
    assert statement["Condition"] == {"ArnEquals": {"aws:SourceArn": aws.topic(f"{prefix}orders.fifo")}}
    found = aws.sns.get_subscription_attributes(SubscriptionArn=aws.subscription(f"{prefix}billing-orders.fifo"))
    assert found["Attributes"]["RawMessageDelivery"] == "true"


async def test_a_queue_without_a_policy_gets_one_and_a_policy_that_keeps_us_out_is_refused(connect, aws, prefix):
    name = f"{prefix}billing-orders"
    aws.sqs.create_queue(QueueName=name)
    await connect("billing", "orders")
    assert "sns.amazonaws.com" in aws.attributes(name)["Policy"]
    policy = json.loads(aws.attributes(name)["Policy"])
    policy["Statement"][0]["Condition"]["ArnEquals"]["aws:SourceArn"] += "-other"
    aws.sqs.set_queue_attributes(QueueUrl=aws.queue(name), Attributes={"Policy": json.dumps(policy)})
    for topology in ("declare", "verify"):
        with pytest.raises(BrokerRefused, match=r"lets sns\.amazonaws\.com send .*orders.*topology export"):
            await connect("billing", "orders", topology=topology)
    assert json.loads(aws.attributes(name)["Policy"]) == policy
    await connect("billing", "orders", topology="none")


async def test_a_filter_that_keeps_messages_away_is_refused(connect, aws, prefix):
    await connect("billing", "orders")
    arn = aws.subscription(f"{prefix}billing-orders")
    policy = json.dumps({"type": ["OrderPlaced"]})
    aws.sns.set_subscription_attributes(SubscriptionArn=arn, AttributeName="FilterPolicy", AttributeValue=policy)
    with pytest.raises(BrokerRefused, match=r"FilterPolicy keeps messages away: \{\"type\""):
        await connect("billing", "orders")


async def test_what_is_missing_is_named_and_not_made_where_it_is_only_verified(connect, aws, prefix):
    with pytest.raises(BrokerRefused, match=f"{prefix}billing-orders is not as needed: it is missing"):
        await connect("billing", "orders", topology="none")
    with pytest.raises(BrokerRefused, match=f"the topic {prefix}orders is not as needed: it is missing"):
        await connect("billing", "orders", topology="verify")
    shop = await connect("shop", topology="verify")
    (result,) = await shop.publish([envelope()])
    assert isinstance(result, Unknown), result
    assert "it is missing" in result.reason
    assert not [arn for arn in aws.topics() if prefix in arn]
    receiver = await connect("billing", "orders")
    await connect("billing", "orders", topology="verify")
    await publish(shop, [envelope()])
    assert len(await drained(receiver, 1)) == 1


async def test_a_queue_that_is_not_subscribed_is_told_where_it_is_only_verified(connect, aws, prefix):
    await connect("billing", "orders")
    aws.sns.unsubscribe(SubscriptionArn=aws.subscription(f"{prefix}billing-orders"))
    with pytest.raises(BrokerRefused, match="it is not subscribed to the topic"):
        await connect("billing", "orders", topology="verify")


@pytest.mark.bad_input(31)
def test_a_missing_boto3_is_told_with_the_line_that_installs_it():
    program = """
import sys
sys.modules["botocore"] = sys.modules["boto3"] = None
from tidings.runtime.connect import make_broker
make_broker("sqs://eu-central-1", "shop")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert "pip install 'tidings[sqs]'" in done.stderr


@pytest.fixture
def nobody(monkeypatch, tmp_path):
    """There are no credentials."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


async def test_an_emulator_on_this_machine_needs_no_credentials(sqs_url, prefix, nobody):
    broker = SqsBroker(f"{sqs_url}&prefix={prefix}", "shop")
    await broker.open()
    [result] = await broker.publish([envelope("orders", "k-1")])
    await broker.close()
    assert isinstance(result, Confirmed)
    assert [each.name for each in broker.look() if each.verdict == "fail"] == []


@pytest.mark.bad_input(39)
async def test_missing_credentials_are_told_with_what_to_set(nobody):
    broker = SqsBroker("sqs://eu-central-1", "shop")
    with pytest.raises(BrokerRefused, match=r"there are no credentials.*AWS_ACCESS_KEY_ID"):
        await broker.open()
    assert [each.name for each in broker.look() if each.verdict == "fail"] == ["credentials"]


@pytest.mark.bad_input(39)
@pytest.mark.parametrize(
    ("code", "cure"),
    [
        ("UnrecognizedClientException", "check the credentials"),
        ("InvalidClientTokenId", "check the credentials"),
        ("ExpiredTokenException", "renew the session credentials"),
        ("SignatureDoesNotMatch", "check the credentials"),
        ("RequestExpired", "set the clock"),
    ],
)
async def test_credentials_that_are_not_accepted_are_told_and_never_shown(
    connect, meddler, meddled, monkeypatch, code, cure
):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "canary")
    answer = json.dumps({"__type": f"com.amazonaws.sqs#{code}", "message": "The security token is invalid"}).encode()
    meddler.change = lambda *_: (403, answer)
    with pytest.raises(BrokerRefused, match=cure) as told:
        await connect("shop", at=meddled)
    assert "canary" not in str(told.value)


async def test_where_nobody_listens_it_is_unavailable_within_its_deadline(connect):
    began = time.monotonic()
    with pytest.raises(BrokerUnavailable, match="check the network and the region"):
        await connect("shop", at="sqs://us-east-1?endpoint=http://127.0.0.1:9")
    assert time.monotonic() - began < 30.0


@pytest.mark.bad_input(39)
async def test_the_doctor_finds_what_will_go_wrong(connect, aws, prefix, sqs_url):
    url = f"{sqs_url}&prefix={prefix}&poll=1"
    await connect("billing", "orders", "payments", "mail")
    assert {each.verdict for each in SqsBroker(url, "billing").look()} == {"ok"}

    dead = aws.sqs.create_queue(QueueName=f"{prefix}dead", Attributes={"MessageRetentionPeriod": "86400"})["QueueUrl"]
    dead_arn = aws.sqs.get_queue_attributes(QueueUrl=dead, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    redrive = json.dumps({"deadLetterTargetArn": dead_arn, "maxReceiveCount": "3"})
    changed = {"MessageRetentionPeriod": "345600", "RedrivePolicy": redrive}
    aws.sqs.set_queue_attributes(QueueUrl=aws.queue(f"{prefix}billing-orders"), Attributes=changed)
    arn = aws.subscription(f"{prefix}billing-orders")
    aws.sns.set_subscription_attributes(SubscriptionArn=arn, AttributeName="RawMessageDelivery", AttributeValue="false")
    aws.sqs.set_queue_attributes(QueueUrl=aws.queue(f"{prefix}billing-payments"), Attributes={"Policy": ""})
    aws.sns.unsubscribe(SubscriptionArn=aws.subscription(f"{prefix}billing-mail"))

    checks = SqsBroker(f"{url}&visibility=5", "billing").look()
    found = " | ".join(f"{each.name.removeprefix('queue ' + prefix)}: {each.found}" for each in checks)
    assert "visibility: what a worker took and lost comes again after 5 s" in found
    assert "billing-orders: raw delivery is off" in found
    assert "billing-orders: what waits longer than 4 days is lost" in found
    assert f"billing-orders: after 3 tries messages go to {prefix}dead" in found
    assert f"{prefix}dead keeps 1 days" in found
    assert "billing-payments: Policy has no statement that lets sns.amazonaws.com send" in found
    assert "billing-mail: it is subscribed to no topic" in found
    assert all(each.fix for each in checks if each.verdict != "ok")
