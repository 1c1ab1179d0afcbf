"""The examples for web frameworks: an order that is placed gets packed, one that is rolled back was never heard of."""

import asyncio
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import httpx
import litestar.testing
import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
PATIENCE = 20.0


@pytest.fixture(params=["sqlite", "postgresql"])
def example(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Callable[[str], ModuleType]:
    """Imports an example as if it had been started in an empty folder; on PostgreSQL its URLs are changed."""
    monkeypatch.chdir(tmp_path)
    urls = {}
    if request.param == "postgresql":
        url = request.getfixturevalue("newest_postgres_url")
        urls = {"sqlite:///shop.db": url.replace("postgresql:", "postgresql+psycopg:"), "sqlite:shop.db": url}

    def load(name: str) -> ModuleType:
        program = tmp_path / f"{name}.py"
        source = (EXAMPLES / f"{name}.py").read_text()
        for ours, theirs in urls.items():
            source = source.replace(ours, theirs)
        program.write_text(source)
        spec = importlib.util.spec_from_file_location(name, program)
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, name, module)
        spec.loader.exec_module(module)
        return module

    return load


def wait_for(orders: Callable[[], dict[str, bool]], wanted: dict[str, bool]) -> None:
    until = time.monotonic() + PATIENCE
    while (found := orders()) != wanted:
        assert time.monotonic() < until, found
        time.sleep(0.02)


def shop_at(client: httpx.Client) -> None:
    """Place an order and have another one rolled back."""
    assert client.post("/orders/o-1?total=5").status_code == 201
    assert client.post("/orders/o-2?total=-1").status_code == 500
    wait_for(lambda: client.get("/orders").json(), {"o-1": True})


@pytest.mark.filterwarnings("ignore:Using `httpx`")  # of the two that starlette can use, litestar can use one
@pytest.mark.parametrize("name", ["with_fastapi", "with_starlette"])
def test_an_order_is_packed_behind_a_server_that_works_itself(name: str, example: Callable[[str], ModuleType]) -> None:
    from starlette.testclient import TestClient

    module = example(name)
    with TestClient(module.web, raise_server_exceptions=False) as client:
        shop_at(client)
    if hasattr(module, "engine"):
        module.engine.dispose()


def test_an_order_is_packed_behind_litestar(example: Callable[[str], ModuleType]) -> None:
    with litestar.testing.TestClient(example("with_litestar").web, raise_server_exceptions=False) as client:
        shop_at(client)


def test_an_order_is_packed_behind_flask_by_a_worker_apart(example: Callable[[str], ModuleType]) -> None:
    module = example("with_flask")
    client = module.web.test_client()
    assert client.post("/orders/o-1?total=5").status_code == 201
    assert client.post("/orders/o-2?total=-1").status_code == 500
    assert client.get("/orders").json == {"o-1": False}
    asyncio.run(module.shop.run(until_idle=True))
    assert client.get("/orders").json == {"o-1": True}
    module.engine.dispose()


def test_an_order_is_packed_behind_django_by_manage_py_tidings_run(tmp_path: Path, newest_postgres_url: str) -> None:
    folder = shutil.copytree(EXAMPLES / "with_django", tmp_path / "site")
    env = {**os.environ, "DATABASE_URL": newest_postgres_url}

    def manage(*arguments: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, "manage.py", *arguments], cwd=folder, env=env, stderr=subprocess.PIPE)

    _, said = (migrating := manage("migrate", "--run-syncdb")).communicate()
    assert migrating.returncode == 0, said.decode()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with (
        ended(manage("tidings", "run", "--workers", "2")) as worker,
        ended(manage("runserver", "--noreload", f"127.0.0.1:{port}")),
    ):
        line = worker.stderr.readline()
        assert b"works on" in line, line.decode() + worker.stderr.read().decode()
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", transport=httpx.HTTPTransport(retries=8)) as client:
            shop_at(client)
    assert worker.returncode == 0
    status = manage("tidings", "status", "-o", "json")
    assert status.wait(PATIENCE) == 0
    status.stderr.close()


@contextmanager
def ended(process: subprocess.Popen[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    """End a process with Ctrl-C when the block ends."""
    try:
        yield process
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=PATIENCE)
