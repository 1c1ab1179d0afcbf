"""The file of reports: one JSON object a line, plain or compressed with gzip."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from datetime import datetime
from importlib.resources import files
from itertools import islice
from pathlib import Path
from typing import Annotated

import msgspec

from tidings.demo.messages import RecordArrival, RecordCancellation, RecordDeparture, RecordSchedule
from tidings.errors import NotFound, TidingsError

BLIZZARD = Path(str(files("tidings.demo") / "data" / "blizzard_2013-02-08_09.jsonl.gz"))
"""New York's airports on 8 and 9 February 2013; data/PROVENANCE.md says where it comes from."""

LONGEST = 100_000
"""Bytes of a line that are read at once; what is longer comes in pieces, none of which is a report."""

SAMPLE = 100
"""A file without a report among so many lines is a file of something else."""


class Line(msgspec.Struct, tag_field="type"):
    """One line: `type` says what happened to the flight, `data` has what the command to record it needs."""

    id: str
    time: Annotated[datetime, msgspec.Meta(tz=True)]


class Scheduled(Line, tag="flight.scheduled"):
    """A flight is planned."""

    data: RecordSchedule


class Departed(Line, tag="flight.departed"):
    """A flight left."""

    data: RecordDeparture


class Arrived(Line, tag="flight.arrived"):
    """A flight came down."""

    data: RecordArrival


class Cancelled(Line, tag="flight.cancelled"):
    """A flight will not leave."""

    data: RecordCancellation


AnyLine = Scheduled | Departed | Arrived | Cancelled

parse = msgspec.json.Decoder(AnyLine).decode
"""The line that these bytes hold; raises `msgspec.MsgspecError` or `UnicodeDecodeError`."""

Unreadable = (msgspec.MsgspecError, UnicodeDecodeError)


class BadDataFile(TidingsError):
    """The data is one JSON object a line, as in the demo's own file, plain or compressed with gzip."""

    code = "TID-651"


def lines(path: Path) -> Iterator[bytes]:
    """The lines of a file, without empty ones.

    Raises:
        NotFound: There is no such file.
        BadDataFile: It cannot be read to its end.
    """
    try:
        with path.open("rb") as file:
            packed = file.read(2) == b"\x1f\x8b"
            file.seek(0)
            with gzip.GzipFile(fileobj=file) if packed else file as content:
                pieces = iter(lambda: content.readline(LONGEST), b"")
                yield from filter(None, map(bytes.strip, pieces))
    except FileNotFoundError as error:
        raise NotFound(f"there is no file {path}", "check --data, or leave it out to see the blizzard") from error
    except (OSError, EOFError, zlib.error) as error:
        raise BadDataFile(f"{path} cannot be read to its end", "copy or download the file again") from error


def count_lines(path: Path) -> int:
    """The number of lines, after reading the whole file once, so that nothing is published from half a file.

    Raises:
        NotFound: There is no such file.
        BadDataFile: It cannot be read, or it holds something else.
    """
    if not any(map(_is_report, islice(lines(path), SAMPLE))):
        cure = "give the path of a file of flight reports, or leave out --data to see the blizzard"
        raise BadDataFile(f"{path} holds no flight report in its first {SAMPLE} lines", cure)
    return sum(1 for _ in lines(path))


def _is_report(raw: bytes) -> bool:
    try:
        parse(raw)
    except Unreadable:
        return False
    return True
