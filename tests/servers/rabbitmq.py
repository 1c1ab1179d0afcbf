"""A real RabbitMQ of one's own: Debian's, without being installed."""

import contextlib
import functools
import http.client
import itertools
import json
import os
import shlex
import shutil
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

from tests.servers.cache import Missing, fetch_with, kept
from tests.servers.server import Server, free_ports, listens

CURE = "apt-get install rabbitmq-server"
INSTALLED = Path("/usr/lib")
PLUGINS = ("rabbitmq_consistent_hash_exchange", "rabbitmq_management")
USER, PASSWORD = "guest", "guest"


class RabbitmqServer(Server):
    """RabbitMQ; durable queues with persistent messages survive `kill`, `stop` and what follows.

    A quorum queue does so from its first second on: RabbitMQ 3.10 notes its name in a table that is written every half
    second, and a queue that was declared just before a `kill` is there afterwards, but nothing can be got from it.

    It shares nothing with an installed one: node, ports, data, cookie and the port mapper (epmd) are its own.

    Args:
        folder: Not there yet.
        settings: More lines of rabbitmq.conf.
        plugins: More of them.
    """

    name = "RabbitMQ"

    def __init__(self, folder: Path, *, settings: Mapping[str, str] | None = None, plugins: Sequence[str] = ()) -> None:
        self._lib = programs()
        super().__init__(folder)
        self.management, self._mapper, self._nodes = free_ports(3)
        self._numbers = itertools.count(1)
        told = {
            "listeners.tcp.default": f"127.0.0.1:{self.port}",
            "management.tcp.ip": "127.0.0.1",
            "management.tcp.port": self.management,
            "log.file": "false",
            "log.console": "true",
            "log.console.level": "warning",
            **(settings or {}),
        }
        (folder / "rabbitmq.conf").write_text("".join(f"{name} = {value}\n" for name, value in told.items()))
        (folder / "plugins").write_text(f"[{','.join([*PLUGINS, *plugins])}].\n")

    @classmethod
    def fetch(cls) -> object:
        return programs()

    @property
    def url(self) -> str:
        """Its own vhost, which all share."""
        return f"amqp://{USER}:{PASSWORD}@127.0.0.1:{self.port}/"

    @contextlib.contextmanager
    def vhost(self) -> Iterator[str]:
        """The URL of a new vhost, for the length of a block."""
        name = f"test-{next(self._numbers)}"
        self.call("PUT", f"vhosts/{name}")
        try:
            yield self.url + name
        finally:
            if self.running:
                self.call("DELETE", f"vhosts/{name}")

    def call(self, method: str, path: str, body: object = None) -> object:
        """Call the management API: `call("GET", "queues")`.

        Args:
            method: GET, PUT, POST, DELETE.
            path: Behind `/api/`.
            body: What is sent as JSON.

        Raises:
            OSError: It does not answer.
            RuntimeError: It refuses.
        """
        link = http.client.HTTPConnection("127.0.0.1", self.management, timeout=10)
        with contextlib.closing(link):
            secret = b64encode(f"{USER}:{PASSWORD}".encode()).decode()
            said = None if body is None else json.dumps(body)
            link.request(method, f"/api/{path}", said, {"Authorization": f"Basic {secret}"})
            answer = link.getresponse()
            text = answer.read().decode()
            if answer.status >= 300:
                raise RuntimeError(f"RabbitMQ answers {answer.status} to {method} {path}: {text}")
            return json.loads(text) if text else None

    def queue(self, vhost: str, name: str) -> object:
        """What the management API knows of a queue; its counts are some seconds old."""
        return self.call("GET", f"queues/{quote(vhost, safe='')}/{quote(name, safe='')}")

    def _command(self) -> Sequence[object]:
        # The port mapper is ours: one that Erlang starts by itself would outlive everybody.
        mapper = next(self._lib.glob("erlang/erts-*/bin/epmd"))
        server = self._lib / "rabbitmq" / "bin" / "rabbitmq-server"
        return ("sh", "-c", f"{shlex.quote(str(mapper))} & exec {shlex.quote(str(server))}")

    def _options(self) -> Mapping[str, object]:
        folder = self.folder
        return {
            "env": {
                "PATH": f"{self._lib / 'erlang' / 'bin'}:{os.environ['PATH']}",
                "HOME": str(folder),  # Erlang's cookie
                "LANG": "C.UTF-8",
                "ERL_EPMD_ADDRESS": "127.0.0.1",
                "ERL_EPMD_PORT": str(self._mapper),
                "RABBITMQ_CONF_ENV_FILE": os.devnull,
                "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
                "RABBITMQ_ADVANCED_CONFIG_FILE": str(folder / "advanced.config"),
                "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"),
                "RABBITMQ_MNESIA_BASE": str(folder / "data"),
                "RABBITMQ_LOG_BASE": str(folder),
                "RABBITMQ_NODENAME": "tidings@localhost",
                "RABBITMQ_DIST_PORT": str(self._nodes),
                "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-start_epmd false -kernel inet_dist_use_interface {127,0,0,1}",
                "RUNNING_UNDER_SYSTEMD": "true",  # Erlang takes the script's place, and our signals
            }
        }

    def _ready(self) -> bool:
        if not listens(self.port):
            return False
        try:
            return bool(self.call("GET", "vhosts"))
        except (OSError, RuntimeError):
            return False


@functools.cache
def programs() -> Path:
    """The folder that has `erlang` and `rabbitmq`: Debian's own, or its packages unpacked in the cache.

    Raises:
        Missing: This is not a Debian, or the packages could not be fetched.
    """
    if all((INSTALLED / name).exists() for name in ("erlang", "rabbitmq")):
        return INSTALLED
    try:
        return kept("rabbitmq", _unpack) / "usr" / "lib"
    except Missing as error:
        raise Missing("there is no RabbitMQ on this machine", CURE) from error


def _unpack(folder: Path) -> None:
    """Installed, it would be started at once, as a service on the ports that everyone knows. Unpacked, it is not."""
    for name in ("lists/partial", "cache/archives/partial"):
        (folder / "apt" / name).mkdir(parents=True)
    apt = ("-o", f"Dir::State::Lists={folder}/apt/lists", "-o", f"Dir::Cache={folder}/apt/cache")
    if os.getuid() == 0:
        apt += ("-o", "APT::Sandbox::User=root")  # apt's own user cannot write into our folder
    fetch_with("apt-get", "-qq", *apt, "update")
    wanted = ("--recurse", "--no-recommends", "--no-suggests", "--no-conflicts", "--no-breaks", "--no-replaces")
    names = fetch_with("apt-cache", *apt, "depends", *wanted, "rabbitmq-server").split("\n")
    ours = [name for name in names if name.startswith(("erlang-", "rabbitmq-server"))]
    fetch_with("apt-get", "-qq", *apt, "download", *ours, cwd=folder / "apt")
    for package in (folder / "apt").glob("*.deb"):
        fetch_with("dpkg-deb", "--extract", package, folder)
    shutil.rmtree(folder / "apt")
    erl = folder / "usr/lib/erlang/bin/erl"
    erl.write_text(erl.read_text().replace("ROOTDIR=/usr/lib/erlang", f"ROOTDIR={folder}/usr/lib/erlang"))
