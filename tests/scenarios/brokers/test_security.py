"""Brokers that encrypt and ask who is there: what works, and what is said within seconds where it does not."""

import asyncio
import json
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import pytest
from confluent_kafka.admin import AdminClient, ScramCredentialInfo, ScramMechanism, UserScramCredentialUpsertion

from tests.scenarios.brokers.test_carrying import OrderPlaced, at_work, until
from tests.scenarios.cli.terminal import tidings
from tests.servers.authority import Authority
from tests.servers.kafka import KafkaServer
from tests.servers.rabbitmq import RabbitmqServer
from tests.servers.server import free_ports
from tests.servers.servers import Servers
from tests.servers.sqs import MotoServer
from tidings import App, errors
from tidings.core.arrival import Confirmed
from tidings.runtime.connect import make_broker
from tidings.testing.conformance.broker.making import envelope

USER, PASSWORD, WRONG = "ada", "s3cr3t-canary", "wr0ng-canary"
PATIENCE = 20.0
"""Seconds within which an error must be told, on a machine that is busy; it takes 1 to 7."""

Urls = dict[str, str]
"""By what the URL is for."""


@pytest.fixture(scope="module")
def kafka_urls(kafka, servers: Servers, authority: Authority) -> Urls:
    """A Kafka that is spoken to with TLS: on one port by password, on the other one by certificate."""
    login = "org.apache.kafka.common.security.{} required{};"
    scram = login.format("scram.ScramLoginModule", "")
    server = servers.make(
        KafkaServer,
        listeners=("SSL", "SASL_SSL"),
        settings={
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": str(authority.both),
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": str(authority.ca),
            "listener.name.ssl.ssl.client.auth": "required",
            "sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512",
            "listener.name.sasl_ssl.plain.sasl.jaas.config": login.format(
                "plain.PlainLoginModule", f' user_{USER}="{PASSWORD}"'
            ),
            "listener.name.sasl_ssl.scram-sha-256.sasl.jaas.config": scram,
            "listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config": scram,
        },
    )
    server.start()
    admin = AdminClient({"bootstrap.servers": server.address})
    for mechanism in (ScramMechanism.SCRAM_SHA_256, ScramMechanism.SCRAM_SHA_512):
        known = UserScramCredentialUpsertion(USER, ScramCredentialInfo(mechanism, 4096), PASSWORD.encode())
        admin.alter_user_scram_credentials([known])[USER].result(30)
    by_password, by_certificate = (f"127.0.0.1:{server.ports[each]}" for each in ("SASL_SSL", "SSL"))
    trusting = f"tls=true&ca={authority.ca}"
    known = f"kafka://{USER}:{PASSWORD}@{by_password}"
    return {
        "plain": f"{known}?{trusting}",
        "scram-256": f"{known}?{trusting}&mechanism=SCRAM-SHA-256",
        "scram-512": f"{known}?{trusting}&mechanism=SCRAM-SHA-512",
        "environment": f"kafka://{by_password}?{trusting}",
        "certificate": f"kafka://{by_certificate}?{trusting}&cert={authority.client}&certkey={authority.client_key}",
        "wrong password": f"kafka://{USER}:{WRONG}@{by_password}?{trusting}",
        "wrong scram": f"kafka://{USER}:{WRONG}@{by_password}?{trusting}&mechanism=SCRAM-SHA-512",
        "no certificate": f"kafka://{by_certificate}?{trusting}",
        "unknown authority": f"{known}?tls=true",
        "other authority": f"{known}?tls=true&ca={authority.stranger}",
        "other host": f"{known}?{trusting}".replace("127.0.0.1", "localhost"),
        "no tls": known,
        "no login": f"kafka://{by_password}?{trusting}",
        "tls on a plain port": f"kafka://{server.address}?{trusting}",
    }


@pytest.fixture(scope="module")
def rabbitmq_urls(rabbitmq, servers: Servers, authority: Authority) -> Urls:
    """A RabbitMQ with a port for TLS, which takes passwords and certificates."""
    (port,) = free_ports(1)
    options = {
        "cacertfile": authority.ca,
        "certfile": authority.cert,
        "keyfile": authority.key,
        "verify": "verify_peer",
        "fail_if_no_peer_cert": "false",
    }
    server = servers.make(
        RabbitmqServer,
        plugins=["rabbitmq_auth_mechanism_ssl"],
        settings={
            "listeners.ssl.default": f"127.0.0.1:{port}",
            **{f"ssl_options.{name}": str(value) for name, value in options.items()},
            "auth_mechanisms.1": "PLAIN",
            "auth_mechanisms.2": "EXTERNAL",
            "ssl_cert_login_from": "common_name",
        },
    )
    server.start()
    server.call("PUT", f"users/{USER}", {"password": PASSWORD, "tags": ""})
    server.call("PUT", f"permissions/%2F/{USER}", {"configure": ".*", "write": ".*", "read": ".*"})
    at = f"127.0.0.1:{port}/"
    known = f"amqps://{USER}:{PASSWORD}@{at}"
    files = f"cert={authority.client}&certkey={authority.client_key}"
    return {
        "password": f"{known}?ca={authority.ca}",
        "standard names": f"{known}?cacertfile={authority.ca}&certfile={authority.client}"
        f"&keyfile={authority.client_key}&verify=verify_peer",
        "environment": f"amqps://{at}?ca={authority.ca}",
        "certificate": f"amqps://{at}?ca={authority.ca}&{files}&mechanism=external",
        "unverified": f"{known}?verify=verify_none",
        "wrong password": f"amqps://{USER}:{WRONG}@{at}?ca={authority.ca}",
        "unknown authority": known,
        "other authority": f"{known}?ca={authority.stranger}",
        "other host": f"{known}?ca={authority.ca}".replace("127.0.0.1", "localhost"),
        "no tls": known.replace("amqps:", "amqp:"),
        "tls on a plain port": f"amqps://{USER}:{PASSWORD}@127.0.0.1:{server.port}/?ca={authority.ca}",
    }


@pytest.fixture(scope="module")
def sqs_urls(sqs, servers: Servers, authority: Authority) -> Urls:
    """An SNS and SQS behind https."""
    server = servers.make(MotoServer, authority=authority)
    server.start()
    return {"environment": server.url, "unknown authority": server.url}


WORKING = [
    *(("kafka", which) for which in ("plain", "scram-256", "scram-512", "environment", "certificate")),
    *(("rabbitmq", which) for which in ("password", "standard names", "environment", "certificate", "unverified")),
    ("sqs", "environment"),
]
FAILING = [
    ("kafka", "wrong password", "Authentication failed", "check user, password, mechanism="),
    ("kafka", "wrong scram", "Authentication failed", "check user, password, mechanism="),
    ("kafka", "no certificate", "", "it wants a certificate of ours that it trusts: cert= and certkey="),
    ("kafka", "unknown authority", "certificate verify failed", "ca=/path/to/ca.pem"),
    ("kafka", "other authority", "certificate verify failed", "ca=/path/to/ca.pem"),
    ("kafka", "other host", "certificate verify failed", "and the host as the certificate does"),
    ("kafka", "no tls", "no broker answers", "add tls=true"),
    ("kafka", "no login", "", "a user and a password"),
    ("kafka", "tls on a plain port", "", "leave out tls=true"),
    ("rabbitmq", "wrong password", "refuses the user 'ada'", "check the user and the password"),
    ("rabbitmq", "unknown authority", "its certificate is not trusted", "?ca=/path/to/ca.pem"),
    ("rabbitmq", "other authority", "its certificate is not trusted", "?ca=/path/to/ca.pem"),
    ("rabbitmq", "other host", "its certificate is not trusted", "the host"),
    ("rabbitmq", "no tls", "ended the connection before it said anything", "amqps://"),
    ("rabbitmq", "tls on a plain port", "no TLS connection", "is this its port for TLS"),
    ("sqs", "unknown authority", "certificate verify failed", "AWS_CA_BUNDLE"),
]


@pytest.fixture
def url_of(
    request: pytest.FixtureRequest, authority: Authority, monkeypatch: pytest.MonkeyPatch, prefix: str
) -> Callable[[str, str], str]:
    """(broker, what for) -> the URL; what it needs of the environment is there."""

    def url_of(broker: str, which: str) -> str:
        url = str(request.getfixturevalue(f"{broker}_urls")[which])
        if which == "environment":
            for name in ("KAFKA", "AMQP"):
                monkeypatch.setenv(f"TIDINGS_{name}_USER", USER)
                monkeypatch.setenv(f"TIDINGS_{name}_PASSWORD", PASSWORD)
            monkeypatch.setenv("AWS_CA_BUNDLE", str(authority.ca))
        if broker == "sqs":
            request.getfixturevalue("aws_credentials")
        return f"{url}{'&' if '?' in url else '?'}prefix={prefix}"

    return url_of


@pytest.mark.parametrize(("broker", "which"), WORKING)
async def test_messages_are_carried_where_the_settings_are_right(broker, which, url_of, tmp_path: Path, caplog) -> None:
    url = url_of(broker, which)
    shop, billing = (App(f"sqlite:{tmp_path}/{name}.db", broker=url, name=name) for name in ("shop", "billing"))
    seen: list[str] = []

    @billing.on(OrderPlaced)
    async def bill(order: OrderPlaced) -> None:
        seen.append(order.order_id)

    async with at_work(shop, billing), shop:
        await shop.publish(OrderPlaced("o-1", 1))
        await until(lambda: seen == ["o-1"])
    verdicts = {each.name: each.verdict for each in await asyncio.to_thread(make_broker(url, "shop").look)}
    assert verdicts.get("encryption", "ok") == ("warn" if which == "unverified" else "ok")
    assert ("whoever answers is taken for the server" in caplog.text) is (which == "unverified")
    assert PASSWORD not in caplog.text


@pytest.mark.bad_input(32)
@pytest.mark.parametrize(("broker", "which", "what", "cure"), FAILING)
async def test_what_is_wrong_is_told_with_the_cure_within_seconds(
    broker, which, what, cure, url_of, tmp_path: Path, caplog
) -> None:
    url = url_of(broker, which)
    for tell in (running, publishing):
        caplog.clear()
        began = time.monotonic()
        told = await tell(url, tmp_path, caplog)
        assert time.monotonic() - began < PATIENCE, tell
        assert what in told, tell
        assert cure in told, tell
        assert PASSWORD not in told, tell
        assert WRONG not in told, tell
    shown = json.dumps(tidings("doctor", "--broker", url, "-o", "json", cwd=tmp_path).data, ensure_ascii=False)
    (failed,) = (each for each in json.loads(shown) if each["verdict"] == "fail")
    assert what in failed["found"]
    assert cure in failed["fix"]
    assert PASSWORD not in shown
    assert WRONG not in shown


async def running(url: str, folder: Path, caplog: pytest.LogCaptureFixture) -> str:
    """What an app says that is run: the error that ends it, or what it logs while it waits."""
    app = App(f"sqlite:{folder}/shop.db", broker=url, name="shop")
    run = asyncio.create_task(app.run())
    try:
        await until(lambda: run.done() or "trying again" in caplog.text, PATIENCE)
    finally:
        app.stop()
    try:
        await run
    except errors.BrokerRefused as error:
        return f"{error} {caplog.text}"
    return caplog.text


async def publishing(url: str, folder: Path, caplog: pytest.LogCaptureFixture) -> str:
    """What somebody is told who opens the broker to publish."""
    broker = make_broker(url, "shop")
    try:
        await broker.open()
        (result,) = await broker.publish([envelope(topic="orders")])
        assert not isinstance(result, Confirmed), folder
    except errors.BrokerError as error:
        return f"{error} {broker!r} {vars(broker)} {caplog.text}"
    finally:
        await broker.close()
    return f"{result} {caplog.text}"


def test_a_password_in_a_url_may_have_any_character(authority: Authority) -> None:
    broker = make_broker(f"kafka://ada:{quote('p@:/?#% ', safe='')}@localhost?tls=true&ca={authority.ca}", "shop")
    assert "p@" not in f"{vars(broker)}"
