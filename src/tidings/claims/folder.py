"""A folder that all apps of a broker share."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import stat
from pathlib import Path

from tidings.errors import BadUrl, BrokerError, BrokerRefused, BrokerUnavailable, Unreadable


class FolderPlace:
    """Files in one folder. It is never made here: where a disk of the network is missing, nothing is written elsewhere.

    Args:
        url: `file:/shared/claims`.

    Raises:
        BadUrl: It names no absolute path.
    """

    def __init__(self, url: str) -> None:
        found = re.fullmatch(r"file:(?://)?(/[^/].*)", url)
        if found is None:
            raise BadUrl("claims: the path is not absolute", "write claims=file:/shared/claims")
        self._folder = Path(found[1])
        self.url = f"file://{self._folder}"

    def check(self) -> None:
        """Raises BrokerRefused where the folder is not there, or may not be used."""
        if not self._folder.is_dir():
            raise BrokerRefused(f"claims: there is no folder {self._folder}", "make it, or mount it, for all apps")
        if not os.access(self._folder, os.R_OK | os.W_OK | os.X_OK):
            raise BrokerRefused(f"claims: {self._folder} may not be read and written", "let the app's user do both")

    def put(self, name: str, data: bytes) -> None:
        """Write a file, whole and flushed, in place of one of that name."""
        part = self._folder / f".{name}.{secrets.token_hex(8)}"
        try:
            try:
                with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666), "wb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                part.replace(self._folder / name)
            except BaseException:
                with contextlib.suppress(OSError):
                    part.unlink(missing_ok=True)
                raise
            folder = os.open(self._folder, os.O_RDONLY)
            try:
                os.fsync(folder)  # the name, too, must survive a loss of power
            finally:
                os.close(folder)
        except OSError as error:
            raise self._trouble(error, "written") from error

    def get(self, name: str, most: int) -> bytes | None:
        """Read a file. What is no plain file, such as a link that leads out of the folder, counts as missing."""
        try:
            found = os.open(self._folder / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            with os.fdopen(found, "rb") as file:
                return file.read(most) if stat.S_ISREG(os.fstat(found).st_mode) else None
        except OSError as error:
            if self._folder.is_dir() and ((self._folder / name).is_symlink() or isinstance(error, _NOT_THERE)):
                return None
            if isinstance(error, PermissionError) and os.access(self._folder, os.R_OK | os.X_OK):
                what = f"its data may not be read: {self._folder / name}"
                raise Unreadable(what, "let the app's user read it, and see to the umask; then redrive") from error
            raise self._trouble(error, "read") from error

    def _trouble(self, error: OSError, done: str) -> BrokerError:
        what = f"claims: {self._folder} cannot be {done}: {error.strerror or error}"
        return BrokerUnavailable(what, "it is tried again; look at its disk, how it is mounted, and its rights")


_NOT_THERE = (FileNotFoundError, IsADirectoryError)
