"""A real Apache Kafka of one's own: one node that is broker and controller (KRaft), from Maven's jars."""

import functools
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.servers.cache import Missing, jars
from tests.servers.server import Server, free_ports, listens

VERSION = "4.4.0"
CURE = "apt-get install default-jre-headless maven"
QUICK = ("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto")
"""It starts sooner so, and leaves the other processors to the tests."""
PROTOCOLS = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")
"""What a listener may be called, for what it speaks."""

SETTINGS = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    "num.partitions": "4",
    "auto.create.topics.enable": "false",  # a topic that nobody declared is a mistake that should show
    "broker.heartbeat.interval.ms": "300",
    "broker.session.timeout.ms": "2000",  # after a kill it waits this long for its former self to be given up
    "group.initial.rebalance.delay.ms": "0",  # a lone member need not wait for others
    "offsets.topic.replication.factor": "1",
    "offsets.topic.num.partitions": "1",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "transaction.state.log.num.partitions": "1",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    "share.coordinator.state.topic.num.partitions": "1",
    "log.cleaner.dedupe.buffer.size": "8388608",  # bytes, of a small heap
}


class KafkaServer(Server):
    """Apache Kafka; data survive `kill`, `stop` and what follows.

    Args:
        folder: Not there yet.
        version: 4.0.0 or newer.
        settings: More lines of server.properties: `{"num.partitions": "12"}`.
        listeners: Further ones, by their protocols: SSL, SASL_SSL; their ports are in `ports`.
        heap: Megabytes.
    """

    name = "Kafka"

    def __init__(
        self,
        folder: Path,
        *,
        version: str = VERSION,
        settings: Mapping[str, str] | None = None,
        listeners: Sequence[str] = (),
        heap: int = 384,
    ) -> None:
        self._java = (*java(), *QUICK, f"-Xmx{heap}m", "-Dlog4j2.level=warn", "-cp", f"{libraries(version)}/*")
        super().__init__(folder)
        controller, *further = free_ports(1 + len(listeners))
        self.ports = {"PLAINTEXT": self.port, **dict(zip(listeners, further, strict=True))}
        listening = ",".join(f"{protocol}://127.0.0.1:{port}" for protocol, port in self.ports.items())
        told = {
            **SETTINGS,
            "listeners": f"{listening},CONTROLLER://127.0.0.1:{controller}",
            "advertised.listeners": listening,
            "listener.security.protocol.map": ",".join(f"{name}:{name}" for name in PROTOCOLS)
            + ",CONTROLLER:PLAINTEXT",
            "controller.quorum.voters": f"1@127.0.0.1:{controller}",
            "log.dirs": str(folder / "data"),
            **(settings or {}),
        }
        self._properties = folder / "server.properties"
        self._properties.write_text("".join(f"{name}={value}\n" for name, value in told.items()))
        self._format()

    @classmethod
    def fetch(cls) -> object:
        return java(), libraries()

    @property
    def address(self) -> str:
        """For `bootstrap.servers`."""
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        """Where it is."""
        return f"kafka://{self.address}"

    def _format(self) -> None:
        tool = (*self._java, "kafka.tools.StorageTool", "format", "-t", "tidings-tests-AAAAAAAA", "-c")
        done = subprocess.run([*tool, self._properties], cwd=self.folder, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"Kafka's StorageTool failed:\n{done.stdout}{done.stderr}")

    def _command(self) -> Sequence[object]:
        return (*self._java, "kafka.Kafka", self._properties)

    def _ready(self) -> bool:
        """Does it name itself as a broker? It listens a little earlier than that, and has no room for topics then."""
        from confluent_kafka import KafkaException
        from confluent_kafka.admin import AdminClient

        if not listens(self.port):
            return False
        try:
            return bool(AdminClient({"bootstrap.servers": self.address}).list_topics(timeout=2).brokers)
        except KafkaException:
            return False


@functools.cache
def java() -> tuple[str, ...]:
    """The command of a Java that Kafka can run on.

    Raises:
        Missing: There is none.
    """
    found = shutil.which("java")
    if found is None:
        raise Missing("there is no Java on this machine", CURE)
    said = subprocess.run([found, "-version"], capture_output=True, text=True, check=False).stderr
    version = re.search(r'version "(\d+)', said)
    if version is None or int(version[1]) < 17:
        raise Missing("Kafka needs Java 17 or newer", CURE)
    return (found,)


@functools.cache
def libraries(version: str = VERSION) -> Path:
    """The folder with Kafka's jars, brought by Maven at the first time."""
    return jars(f"kafka-{version}", Path(__file__).with_name("kafka.xml"), f"kafka={version}")
