"""`tidings topology` and `tidings doctor --broker`: what an app needs at its broker, and how that stands."""

import json
from pathlib import Path

import pytest

from tests.scenarios.cli.terminal import tidings

APP = """
from tidings import App, Key, event


@event(topic="orders")
class OrderPlaced:
    order_id: Key[str]


app = App("sqlite:shop.db", broker={broker!r}, name="shop")


@app.on(OrderPlaced)
async def pack(order: OrderPlaced) -> None: ...
"""
BROKERS = {
    "kafka://localhost:9092": ("topic", "orders", "kafka-topics --bootstrap-server localhost:9092 --create"),
    "amqp://localhost": ("queue", "shop.orders", "rabbitmqadmin declare queue name='shop.orders'"),
    "sqs://eu-central-1?fifo=true": ("queue", "shop-orders.fifo", '"QueueName": "shop-orders.fifo"'),
    "sqlite:shared.db": ("group", "shop.arrivals", "tidings migrate up --store"),
}


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    (tmp_path / "app.py").write_text(APP.format(broker="kafka://localhost:9092"))
    return tmp_path


@pytest.mark.parametrize("url", BROKERS)
def test_what_an_app_needs_is_shown_and_exported_without_a_server(shop: Path, url: str) -> None:
    kind, name, command = BROKERS[url]
    rows = tidings("topology", "show", "--broker", url, "-o", "json", cwd=shop).data
    assert (kind, name) in {(row["kind"], row["name"]) for row in rows}
    done = tidings("topology", "export", "--broker", url, cwd=shop)
    assert done.code == 0
    assert command in done.out


def test_the_broker_is_the_apps_own_unless_another_is_given(shop: Path) -> None:
    assert "orders" in tidings("topology", "show", "-o", "ids", cwd=shop).out.split()
    (shop / "app.py").write_text(APP.format(broker=None))
    refused = tidings("topology", "show", cwd=shop)
    assert refused.code == 2
    assert "the app shop has no broker" in refused.err


def test_the_doctor_says_what_a_broker_promises_and_that_it_is_not_there(shop: Path) -> None:
    done = tidings("doctor", "--broker", "kafka://127.0.0.1:1", "-o", "json", cwd=shop)
    found = {row["check"]: (row["verdict"], row["found"]) for row in done.data}
    assert done.code == 5
    assert found["broker"][0] == "ok"
    assert "in order" in found["broker"][1]
    assert found["connection"][0] == "fail"


def test_the_doctor_finds_nothing_wrong_with_real_brokers(
    shop: Path, kafka_url: str, rabbitmq_url: str, sqs_url: str
) -> None:
    for url in (kafka_url, rabbitmq_url, sqs_url):
        done = tidings("doctor", "--broker", url, "-o", "json", cwd=shop)
        checks = json.dumps(done.data)
        assert {row["verdict"] for row in done.data if row["check"] != "app"} <= {"ok", "warn"}, checks


@pytest.mark.parametrize("place", ["kafka://{}", "amqp://{}", "postgresql://{}/shop"])
def test_a_password_is_never_shown(shop: Path, place: str) -> None:
    for command in (("doctor", "--broker"), ("topology", "show", "--broker"), ("topology", "export", "--broker")):
        done = tidings(*command, place.format("ada:s3cr3t@127.0.0.1:1"), cwd=shop)
        assert "s3cr3t" not in done.out + done.err
