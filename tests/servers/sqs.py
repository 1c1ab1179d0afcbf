"""SNS and SQS of one's own: emulators, each in an environment of its own.

None of them proves what AWS does with copies and order on several machines: they speak the protocol, and no more.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from tests.servers.authority import Authority
from tests.servers.cache import environment
from tests.servers.server import Server

REGION = "us-east-1"
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": REGION}
"""What every AWS client must have, and no emulator looks at."""


def command_line() -> Path:
    """The program `aws`: it pins the version of the library that we use as well, and so has a place of its own."""
    return environment("awscli-1.46.3", "awscli==1.46.3") / "aws"


class SqsServer(Server):
    """Ministack: SNS and SQS, FIFO ones too. Data are in memory: gone after `stop` or `kill`, queues included.

    Args:
        folder: Not there yet.
    """

    name = "SNS/SQS"

    packages: ClassVar[tuple[str, ...]] = ("ministack==1.5.33",)
    environment: ClassVar[str] = "ministack-1.5.33"
    """What its environment is called in the cache: another one for other packages."""

    def __init__(self, folder: Path) -> None:
        self._bin = self.fetch()
        super().__init__(folder)

    @classmethod
    def fetch(cls) -> Path:
        return environment(cls.environment, *cls.packages)

    @property
    def endpoint(self) -> str:
        """For `endpoint_url` of a client."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        """Where it is."""
        return f"sqs://{REGION}?endpoint={self.endpoint}"

    def _command(self) -> Sequence[object]:
        return (self._bin / "ministack",)

    def _options(self) -> Mapping[str, object]:
        listen = {"GATEWAY_PORT": str(self.port), "BIND_HOST": "127.0.0.1", "SERVICES": "sqs,sns"}
        return {"env": {"PATH": os.environ["PATH"], "HOME": str(self.folder), **CREDENTIALS, **listen}}


class MotoServer(SqsServer):
    """Moto, the second opinion, which is S3 as well. Slower, and kinder to mistakes; data are in memory as well.

    Args:
        folder: Not there yet.
        authority: Where it is to speak TLS, who signed its certificate.
    """

    name = "SNS/SQS (moto)"

    packages = ("moto==5.2.5", "moto[s3,sns,sqs]", "flask", "flask-cors")
    environment = "moto-5.2.5-s3"

    def __init__(self, folder: Path, *, authority: Authority | None = None) -> None:
        super().__init__(folder)
        self._tls = () if authority is None else ("-s", "-c", authority.cert, "-k", authority.key)

    @property
    def endpoint(self) -> str:
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    def _command(self) -> Sequence[object]:
        return (self._bin / "moto_server", "-H", "127.0.0.1", "-p", self.port, *self._tls)
