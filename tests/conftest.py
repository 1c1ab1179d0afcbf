"""Real servers for whoever asks for them, shared by all tests of a run; a new database or vhost for each test.

A server that a test may stop, kill and suspend is shared as well, by those that do so: whoever asks for it finds it
running, with what earlier tests left in it.
"""

import contextlib
import fcntl
import os
import signal
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import pytest

from tests.proofs import note_claims
from tests.servers.authority import Authority
from tests.servers.binaries import installations
from tests.servers.cache import Missing
from tests.servers.kafka import KafkaServer
from tests.servers.postgres import PostgresServer, PostgresServers, installation
from tests.servers.rabbitmq import RabbitmqServer
from tests.servers.servers import Servers
from tests.servers.sqs import CREDENTIALS, MotoServer, SqsServer, command_line
from tidings.testing.proxy import Proxy

T = TypeVar("T")
FETCHED = {
    "kafka": KafkaServer.fetch,
    "rabbitmq": RabbitmqServer.fetch,
    "sqs": SqsServer.fetch,
    "moto": MotoServer.fetch,
    "awscli": command_line,
}
"""Begins the names of fixtures -> fetches what they are made of."""
KILLED = "to be killed"

GATE, ROOM = (os.open(path, os.O_RDONLY) for path in (Path(__file__).parent, Path(__file__)))
"""To be locked by tests that run side by side: by who enters, and while one is inside."""

MAJORS = [installation.major for installation in installations()]


def name_of(major: int | None) -> str:
    return f"postgresql-{major or 'missing'}"


def pytest_configure() -> None:
    """Where a shell runs the tests in the background it has Ctrl-C ignored, and so would the programs under test."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Fetch what the chosen tests need, before the first of them begins: a test has only so many seconds."""
    if session.config.option.collectonly:
        return
    wanted = {name.partition("_")[0] for item in session.items for name in getattr(item, "fixturenames", ())}
    with ThreadPoolExecutor() as pool:
        for name in sorted(wanted & set(FETCHED)):
            pool.submit(FETCHED[name])  # whoever asks for what could not be had is told so


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Keep other tests out while one has to be alone; it holds the gate while it waits, or they would never let it."""
    fcntl.flock(GATE, fcntl.LOCK_EX)
    try:
        fcntl.flock(ROOM, fcntl.LOCK_EX if item.get_closest_marker("alone") else fcntl.LOCK_SH)
    finally:
        fcntl.flock(GATE, fcntl.LOCK_UN)
    try:
        return (yield)
    finally:
        fcntl.flock(ROOM, fcntl.LOCK_UN)  # explicitly, as children that live on have it too


def pytest_itemcollected(item: pytest.Item) -> None:
    """Keep with each test what it proves."""
    note_claims(item)


def had(get: Callable[[], T]) -> T:
    """What the call returns; the test is skipped where that is not to be had."""
    try:
        return get()
    except Missing as missing:
        # Where every run counts, a proof that was left out is a failure.
        pytest.fail(str(missing)) if "CI" in os.environ else pytest.skip(str(missing))


@pytest.fixture(scope="session")
def servers() -> Iterator[Servers]:
    """Makes servers; `make(KafkaServer, settings=...)` one where a test needs settings or a server of its own."""
    with contextlib.closing(Servers()) as servers:
        yield servers


@pytest.fixture
def prefix() -> str:
    """For the names of topics and queues: no other test has the same."""
    return f"t{uuid.uuid4().hex[:8]}-"


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Certificates for servers and clients that speak TLS."""
    return had(lambda: Authority(tmp_path_factory.mktemp("authority")))


# ---- Kafka -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def kafka(servers: Servers) -> KafkaServer:
    """A server that all tests share. Not to be stopped or killed."""
    return had(lambda: servers.shared(KafkaServer))


@pytest.fixture
def kafka_url(kafka: KafkaServer) -> str:
    """Where Kafka is. Topics are to have names of their own: see `prefix`."""
    return kafka.url


@pytest.fixture
def kafka_server(servers: Servers) -> KafkaServer:
    """A server to be stopped, killed and started at will."""
    return had(lambda: servers.shared(KafkaServer, KILLED))


# ---- RabbitMQ --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def rabbitmq(servers: Servers) -> RabbitmqServer:
    """A server that all tests share. Not to be stopped or killed."""
    return had(lambda: servers.shared(RabbitmqServer))


@pytest.fixture
def rabbitmq_url(rabbitmq: RabbitmqServer) -> Iterator[str]:
    """A new vhost."""
    with rabbitmq.vhost() as url:
        yield url


@pytest.fixture
def rabbitmq_server(servers: Servers) -> RabbitmqServer:
    """A server to be stopped, killed and started at will; `vhost()` makes a new vhost."""
    return had(lambda: servers.shared(RabbitmqServer, KILLED))


# ---- SNS and SQS -----------------------------------------------------------------------------------------------------


@pytest.fixture
def aws_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """What AWS clients find in their environment, also those of processes that a test starts."""
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)


@pytest.fixture(scope="session")
def sqs(servers: Servers) -> SqsServer:
    """A server that all tests share. Not to be stopped or killed."""
    return had(lambda: servers.shared(SqsServer))


@pytest.fixture
def sqs_url(sqs: SqsServer, aws_credentials: None) -> str:
    """Where SNS and SQS are. Topics and queues are to have names of their own: see `prefix`."""
    return sqs.url


@pytest.fixture
def sqs_server(servers: Servers, aws_credentials: None) -> SqsServer:
    """A server to be stopped, killed and started at will; it forgets everything then."""
    return had(lambda: servers.shared(SqsServer, KILLED))


@pytest.fixture
def moto_url(servers: Servers, aws_credentials: None) -> str:
    """Where another SNS and SQS are, for a second opinion."""
    return had(lambda: servers.shared(MotoServer)).url


@pytest.fixture(scope="session")
def awscli() -> Path:
    """The program `aws`; give it `--endpoint-url`, and ask for `aws_credentials`."""
    return had(command_line)


# ---- PostgreSQL ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def postgres_servers() -> Iterator[PostgresServers]:
    """Makes servers; `make()` one where a test needs settings or a server of its own."""
    had(installation)
    with contextlib.closing(PostgresServers()) as servers:
        yield servers


@pytest.fixture(scope="session", params=MAJORS or [None], ids=name_of)
def postgres(request: pytest.FixtureRequest, postgres_servers: PostgresServers) -> PostgresServer:
    """A quick server that all tests share, of each major version in turn. Not to be stopped or killed."""
    return postgres_servers.shared(request.param)


@pytest.fixture
def postgres_url(postgres: PostgresServer) -> Iterator[str]:
    """A new database on every major version in turn."""
    with postgres.database() as url:
        yield url


@pytest.fixture
def postgres_store_url(postgres: PostgresServer) -> Iterator[str]:
    """An empty store on every major version in turn."""
    with postgres.store() as url:
        yield url


@pytest.fixture
def newest_postgres_url(postgres_servers: PostgresServers) -> Iterator[str]:
    """A new database named shop on a quick server of the newest major version."""
    with postgres_servers.shared().database(name="shop") as url:
        yield url


@pytest.fixture
def durable_postgres(postgres_servers: PostgresServers) -> PostgresServer:
    """A server of the newest major version that flushes its commits. To be stopped, killed and started at will."""
    return postgres_servers.shared(durable=True)


@pytest.fixture
def durable_postgres_url(durable_postgres: PostgresServer) -> Iterator[str]:
    """A new database on the server that may be killed."""
    with durable_postgres.database() as url:
        yield url


@pytest.fixture
def postgres_proxy(durable_postgres: PostgresServer) -> Iterator[Proxy]:
    """A network that can be broken, before that server: `postgres_proxy.url(durable_postgres_url)`."""
    with Proxy(durable_postgres.port) as proxy:
        yield proxy
