"""`make servers`: the servers in the background, for whoever wants to try; `make servers-stop` ends them.

`python -m tests.servers.background start` prints lines for a shell to evaluate, and says everything else on stderr.
Data are thrown away at the end.
"""

import fcntl
import json
import shlex
import shutil
import socket
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

from tests.servers.cache import Missing
from tests.servers.caretaker import clear

ROOT = Path(__file__).resolve().parents[2]
RECORD = ROOT / ".servers.json"
"""Where they work, and the URL of each; not kept in the repository."""
OWNER = "owner"
"""A file in their folder that names the checkout that they belong to."""


def start() -> int:
    """Start what does not run yet, all at the same time, and print where each is; 1 if none could be had."""
    folder, urls = recorded()
    if not urls or not all(map(answers, urls.values())):
        stop()
        folder, urls = Path(tempfile.mkdtemp(prefix="tidings-")), {}
        folder.chmod(0o755)  # another user that runs a server passes through
        (folder / OWNER).write_text(str(ROOT))
        record(folder, urls)
    kinds = servers()
    with ThreadPoolExecutor() as pool:
        awaited = {name: pool.submit(begin, folder) for name, begin in kinds.items() if name not in urls}
        for name, future in awaited.items():
            try:
                urls[name] = future.result()
            except (Missing, OSError, RuntimeError) as error:
                print(f"no {name}: {error}", file=sys.stderr)
    record(folder, urls)
    for name in kinds:
        if name in urls:
            print(f"export {name}={shlex.quote(urls[name])}")
    return int(not urls)


def stop() -> None:
    """End the servers of this checkout, and nothing else, and remove what they kept."""
    folder, _ = recorded()
    owner = folder / OWNER
    if owner.is_file() and owner.read_text() == str(ROOT):
        clear(folder)
    RECORD.unlink(missing_ok=True)


def servers() -> dict[str, Callable[[Path], str]]:
    """For each variable what starts a server in a new folder of the given one, and returns its URL."""
    from tests.servers.kafka import KafkaServer
    from tests.servers.postgres import PostgresServer, installation
    from tests.servers.rabbitmq import RabbitmqServer
    from tests.servers.server import Server
    from tests.servers.sqs import SqsServer

    def begin(kind: type[Server], folder: Path, **options: object) -> Server:
        place = folder / kind.__name__
        shutil.rmtree(place, ignore_errors=True)  # of a try that failed
        server = kind(folder=place, **options)
        try:
            server.start()
        except RuntimeError:
            server.kill()
            raise
        return server

    def postgres(folder: Path) -> str:
        server = begin(PostgresServer, folder, installation=installation())
        return server.url(server.create_database(name="tidings"))

    return {
        "TIDINGS_KAFKA_URL": lambda folder: begin(KafkaServer, folder).url,
        "TIDINGS_RABBITMQ_URL": lambda folder: begin(RabbitmqServer, folder).url,
        "TIDINGS_SQS_URL": lambda folder: begin(SqsServer, folder).url,
        "TIDINGS_POSTGRES_URL": postgres,
    }


def record(folder: Path, urls: dict[str, str]) -> None:
    """Note what runs where."""
    RECORD.write_text(json.dumps({"folder": str(folder), "urls": urls}, indent=2))


def recorded() -> tuple[Path, dict[str, str]]:
    """The folder of the servers that were started last, and their URLs."""
    if not RECORD.exists():
        return Path(), {}
    found = json.loads(RECORD.read_text())
    return Path(found["folder"]), found["urls"]


def answers(url: str) -> bool:
    """Does somebody listen where the URL says? The one for SNS and SQS has the address in its query."""
    address = urlsplit(url.partition("endpoint=")[2] or url)
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((address.hostname, address.port)) == 0


def main(what: str) -> int:
    """Do one thing at a time, whoever asks."""
    with RECORD.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if what == "start":
            return start()
        stop()
        return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
