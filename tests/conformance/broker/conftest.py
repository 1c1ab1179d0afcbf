"""A real Kafka for whoever asks for it."""

import os
import uuid
from collections.abc import Iterator

import pytest

from tests.servers.cache import Missing
from tests.servers.kafka import KafkaServer


@pytest.fixture(scope="session")
def kafka_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    if url := os.environ.get("TIDINGS_KAFKA_URL"):
        yield url
        return
    try:
        server = KafkaServer(tmp_path_factory.mktemp("kafka") / "server")
    except Missing as missing:
        pytest.fail(str(missing)) if "CI" in os.environ else pytest.skip(str(missing))
    server.start()
    yield server.url
    server.stop()


@pytest.fixture
def prefix() -> str:
    return f"t{uuid.uuid4().hex[:8]}-"
