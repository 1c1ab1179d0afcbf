"""PostgreSQL for whoever asks for it: real servers, shared by all tests of a run, a new database for each test."""

import os
from collections.abc import Iterator

import pytest

from tests.servers.binaries import CURE, installations
from tests.servers.postgres import PostgresServer, PostgresServers
from tidings.testing.proxy import Proxy

MAJORS = [installation.major for installation in installations()]


def name_of(major: int | None) -> str:
    return f"postgresql-{major or 'missing'}"


@pytest.fixture(scope="session")
def postgres_servers() -> Iterator[PostgresServers]:
    """Makes servers; `make()` one where a test needs settings or a server of its own."""
    if not MAJORS:
        reason = f"there is no PostgreSQL on this machine: {CURE}"
        # Where every run counts, a proof that was left out is a failure.
        pytest.fail(reason) if "CI" in os.environ else pytest.skip(reason)
    servers = PostgresServers()
    yield servers
    servers.close()


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
