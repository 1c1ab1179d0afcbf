"""Log lines on stderr."""

import logging
import re

from tidings.ops.cli.loglines import LogLine


def line(level: int, text: str, error: BaseException | None = None) -> str:
    info = (type(error), error, error.__traceback__) if error is not None else None
    record = logging.LogRecord("tidings", level, __file__, 1, text, (), info)
    return LogLine(colour=False).format(record)


def test_a_line_has_the_time_and_where_it_matters_the_level() -> None:
    assert re.fullmatch(r"\d\d:\d\d:\d\d shop works", line(logging.INFO, "shop works"))
    assert re.fullmatch(r"\d\d:\d\d:\d\d warning late", line(logging.WARNING, "late"))


def test_a_message_cannot_pretend_to_be_a_line_of_its_own() -> None:
    shown = line(logging.INFO, "mail to x\r\n21:00:00 error all is lost\x1b[2J")
    first, second = shown.splitlines()
    assert second.startswith("  ")
    assert "\x1b" not in first + second


def test_a_traceback_is_indented_below() -> None:
    shown = line(logging.ERROR, "it failed", ValueError("\x1b[31mred"))
    assert shown.splitlines()[1:] == [r"  ValueError: \x1b[31mred"]


def test_an_empty_message_is_a_line_still() -> None:
    assert line(logging.INFO, "").strip()
