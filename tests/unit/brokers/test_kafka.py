"""What a `kafka:` URL says, what becomes of it for the client, and how far a partition is."""

import pytest

from tidings.brokers.kafka import KafkaBroker
from tidings.brokers.kafka.settings import Settings
from tidings.brokers.kafka.share import Known, Share
from tidings.brokers.kafka.standing import Standing, check, unread
from tidings.brokers.kafka.wire import key_from, plain
from tidings.errors import BadUrl, BrokerRefused

SECRET = "canary-s3cret"


@pytest.mark.parametrize(
    ("url", "setting", "value"),
    [
        ("kafka://localhost", "bootstrap.servers", "localhost:9092"),
        ("kafka://a:1?servers=b,c:3,[::1],[::2]:5", "bootstrap.servers", "a:1,b:9092,c:3,[::1]:9092,[::2]:5"),
        ("kafka://[::1]", "bootstrap.servers", "[::1]:9092"),
        ("kafka://a", "security.protocol", "PLAINTEXT"),
        ("kafka://a?tls=true", "security.protocol", "SSL"),
        ("kafka://u:p@a", "security.protocol", "SASL_PLAINTEXT"),
        ("kafka://u:p@a?tls=true", "security.protocol", "SASL_SSL"),
        ("kafka://u:p@a", "sasl.mechanisms", "PLAIN"),
        ("kafka://u:p@a?mechanism=scram-sha-512", "sasl.mechanisms", "SCRAM-SHA-512"),
        ("kafka://u:p%40@a", "sasl.password", "p@"),
        ("kafka://a?prefix=shop.", "group.id", "shop.billing"),
        ("kafka://a", "auto.offset.reset", "error"),
        ("kafka://a", "enable.auto.commit", False),
        ("kafka://a", "isolation.level", "read_committed"),
        ("kafka://a", "partition.assignment.strategy", "cooperative-sticky"),
        ("kafka://a?session=30", "session.timeout.ms", 30_000),
        ("kafka://a?protocol=consumer", "group.protocol", "consumer"),
        ("kafka://a?protocol=consumer", "session.timeout.ms", None),
    ],
)
def test_the_url_becomes_settings_of_the_consumer(url, setting, value):
    assert Settings.of(url, "billing").consumer(print, print).get(setting) == value


def test_the_producer_waits_for_all_copies_and_doubles_nothing_in_a_session():
    settings = Settings.of("kafka://a", "shop").producer(print, timeout=18.0)
    assert (settings["acks"], settings["enable.idempotence"]) == ("all", True)
    assert settings["message.timeout.ms"] == 18_000
    assert settings["partitioner"] == "murmur2_random"


@pytest.mark.bad_input(32)
@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("kafka://a/orders", "names 'orders' after the host.*named by the messages"),
        ("kafka://a?topologie=verify", "did you mean topology"),
        ("kafka://a?topology=create", "topology='create'.*declare or verify or none"),
        ("kafka://a?partitions=0", "partitions='0'.*from 1 to"),
        ("kafka://a?partitions=orders:x", "partitions='x'"),
        ("kafka://a?partitions=6,6", "name each topic once"),
        ("kafka://a?replication=many", "replication='many'"),
        ("kafka://a?servers=b:c", "servers='b:c'"),
        ("kafka://a?prefix=a/b", "prefix='a/b'"),
        ("kafka://a?tls=yes", "tls='yes'.*true or false"),
        ("kafka://a?ca=/nowhere.pem", "add tls=true"),
        ("kafka://a?tls=true&ca=/nowhere.pem", "ca='/nowhere.pem'.*PEM"),
        ("kafka://u@a", "needs a user and a password.*TIDINGS_KAFKA_PASSWORD"),
        ("kafka://a?mechanism=MD5", "mechanism='MD5'"),
        ("kafka://a?mechanism=AWS_MSK_IAM", "add region="),
        ("kafka://a?mechanism=AWS_MSK_IAM&region=eu-central-1", "pip install aws-msk-iam-sasl-signer-python"),
    ],
)
def test_an_option_that_cannot_be_used_is_named_with_the_cure(url, says):
    with pytest.raises(BadUrl, match=says):
        KafkaBroker(url, "shop")


def test_user_and_password_may_come_from_the_environment(monkeypatch):
    monkeypatch.setenv("TIDINGS_KAFKA_USER", "ada")
    monkeypatch.setenv("TIDINGS_KAFKA_PASSWORD", SECRET)
    settings = Settings.of("kafka://a?tls=true", "shop")
    assert (settings.common["sasl.username"], settings.common["sasl.password"]) == ("ada", SECRET)


def test_no_secret_is_shown(monkeypatch):
    monkeypatch.setenv("TIDINGS_KAFKA_CERTKEY_PASSWORD", SECRET)
    broker = KafkaBroker(f"kafka://ada:{SECRET}@a?certkey=/dev/null&tls=true", "shop")
    shown = f"{broker.url} {broker._settings.url!r} {broker.export(['orders'])}"
    assert SECRET not in shown
    assert "certkey=***" in shown


def test_the_position_is_the_first_offset_that_is_not_settled():
    share = Share("orders", 0, 10, Known(6), dirty=False)
    for offset in (10, 12, 13, 20):  # 11 and 14 to 19 were marks of transactions
        share.took(offset)
    share.settled(12)
    assert not share.advance()
    share.settled(10)
    assert share.advance()
    assert share.position == 13
    share.settled(13)
    share.settled(20)
    share.settled(20)
    share.reached(23)
    share.advance()
    assert share.position == 23


def test_what_is_remembered_beside_an_offset_is_read_back():
    for known in (Known(6), Known(12, "Z7Vt1r0XSP6vhWmRhCGm2Q")):
        assert Known.read(known.text()) == known
    for foreign in (None, "", "tidings/1 partitions=six", "tidings/2 partitions=6", "x" * 4096):
        assert Known.read(foreign) is None


@pytest.mark.parametrize(
    ("standing", "says"),
    [
        (Standing(0, 9, None, None, Known(6, "a")), None),
        (Standing(3, 9, 3, Known(6, "a"), Known(6, "a")), None),
        (Standing(9, 9, 9, None, Known(6, "a")), None),
        (Standing(3, 9, 5, Known(6), Known(6, "a")), None),
        (Standing(4, 9, 3, Known(6, "a"), Known(6, "a")), "offset 3, and the 1 messages before 4 are gone"),
        (Standing(0, 9, 10, Known(6, "a"), Known(6, "a")), "offset 10, and the topic ends at 9"),
        (Standing(0, 9, 5, Known(6, "b"), Known(6, "a")), "made anew"),
        (Standing(0, 9, 5, Known(4, "a"), Known(6, "a")), "has 6 partitions, and 4 when"),
    ],
)
def test_a_group_goes_on_only_where_nothing_is_skipped(standing, says):
    settings, there = Settings.of("kafka://a", "billing"), {("orders", 3): standing}
    if says is None:
        check(settings, there, {})
        return
    with pytest.raises(BrokerRefused, match=f"orders.*{says}"):
        check(settings, there, {})


def test_a_change_of_partitions_that_is_known_is_no_error():
    there = {("orders", 3): Standing(0, 9, 5, Known(4, "a"), Known(6, "a"))}
    check(Settings.of("kafka://a", "billing"), there, {"orders": 6})


def test_what_waits_is_counted_from_the_first_offset_that_is_there():
    assert unread([(Standing(5, 9, None, None, Known(6)), 0), (Standing(0, 4, 4, None, Known(6)), 4)]) == 4


@pytest.mark.bad_input(16, 42)
def test_headers_of_others_never_raise():
    headers = {"ce_Id": b"1", "CE-TYPE": b"\xff", "cloudEvents_source": b"x", "a": None, "": b"", "\0": b"\0"}
    assert plain(headers) == {"ce-id": "1", "ce-source": "x", "a": "", "": "", "\0": "\0"}


@pytest.mark.parametrize(
    ("key", "text"), [(b"o-1", "o-1"), (b"", None), (None, None), (b"\xff", None), (b"\x00\x00\x00\x07", None)]
)
def test_a_key_of_others_that_is_no_text_is_none(key, text):
    assert key_from(key) == text
