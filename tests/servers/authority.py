"""Certificates made on the spot, by an authority that nobody else trusts."""

import shutil
import subprocess
from pathlib import Path

from tests.servers.cache import Missing

CURE = "apt-get install openssl"


class Authority:
    """Signs certificates of a server at 127.0.0.1 and of a client; all of them are files in PEM format.

    Attributes:
        ca: Its own certificate.
        cert: Of the server.
        key: Of the server's certificate.
        both: The server's key and certificate in one.
        client: Certificate of a client, ada.
        client_key: Its key.
        stranger: Another authority, which signed nothing.

    Raises:
        Missing: There is no openssl.
    """

    def __init__(self, folder: Path) -> None:
        if shutil.which("openssl") is None:
            raise Missing("there is no openssl to make certificates with", CURE)
        self._folder = folder
        self.ca, key = self._make("ca", "authority")
        self.stranger, _ = self._make("stranger", "somebody else")
        signed = ("-CA", self.ca, "-CAkey", key)
        self.cert, self.key = self._make("server", "server", "-addext", "subjectAltName=IP:127.0.0.1", *signed)
        self.client, self.client_key = self._make("client", "ada", *signed)
        self.both = folder / "both.pem"
        self.both.write_text(self.key.read_text() + self.cert.read_text())

    def _make(self, name: str, subject: str, *more: object) -> tuple[Path, Path]:
        cert, key = self._folder / f"{name}.pem", self._folder / f"{name}-key.pem"
        new = ("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2")
        words = (*new, "-subj", f"/CN={subject}", "-keyout", key, "-out", cert, *more)
        subprocess.run(["openssl", *map(str, words)], check=True, capture_output=True)
        return cert, key
