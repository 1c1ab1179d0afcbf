"""Every error of the library has its exit code and its three lines."""

import io
from collections.abc import Iterator

import pytest

from tidings import errors
from tidings.errors import NotFound, StoreUnavailable, TidingsError
from tidings.ops.cli import failures
from tidings.ops.cli.failures import CommandError, exit_code, report

CODES = {
    2: "UsageError NotAMessage BadDeclaration BadHandler BadUrl NeedsNotMet NotOpen BadArgument "
    "BadCommand NoTarget AppNotFound NeedsYes",
    3: "NotFound",
    4: "Conflict WrongVersion IdConflict Fenced GroupConflict Exists",
    75: "OutcomeUnknown NotCaughtUp Overloaded StoreUnavailable StoreFull BrokerUnavailable NoAnswer",
    1: "TidingsError BadPayload PayloadTooLarge Unreadable StoreError WrongStore StoreGone ProjectionChanged "
    "CommandError AppBroken OutputLost Declined Unexpected BrokerError BrokerRefused Refused",
}


def below(cls: type[TidingsError]) -> Iterator[type[TidingsError]]:
    yield cls
    for child in cls.__subclasses__():
        yield from below(child)


OURS = sorted({cls for cls in below(TidingsError) if cls.__module__ in {errors.__name__, failures.__name__}}, key=str)


@pytest.mark.parametrize("cls", OURS)
def test_every_kind_of_error_has_its_exit_code(cls: type[TidingsError]) -> None:
    expected = [code for code, names in CODES.items() if cls.__name__ in names.split()]
    assert [exit_code(cls("what", "cure"))] == expected


def test_codes_are_given_once() -> None:
    codes = [cls.code for cls in OURS if "code" in vars(cls) and cls not in (TidingsError, CommandError)]
    assert len(codes) == len(set(codes))


def told(error: TidingsError) -> list[str]:
    stream = io.StringIO()
    report(error, stream)
    return stream.getvalue().splitlines()


def test_an_error_is_what_why_and_fix() -> None:
    assert told(NotFound("no event x", "see `tidings events ls`")) == [
        "error[TID-404]: no event x",
        "  why: What was asked for is not in the store.",
        "  fix: see `tidings events ls`",
    ]


def test_the_cause_below_is_the_why() -> None:
    error = StoreUnavailable("shop.db cannot be opened", "make it writable")
    error.__cause__ = PermissionError("permission denied")
    assert told(error)[1] == "  why: PermissionError: permission denied"


def test_three_lines_stay_three_lines_whatever_they_say() -> None:
    error = NotFound("a\nb\x1b[2J", "c\r\nd")
    error.__cause__ = ValueError("e\nf\u202e")
    assert len(told(error)) == 3
    assert "\x1b" not in "".join(told(error))


def test_details_come_first() -> None:
    error = failures.AppBroken("app cannot be imported", "correct it")
    error.details = 'File "app.py"\n  boom'
    assert told(error)[:3] == ['File "app.py"', "  boom", "error[TID-604]: app cannot be imported"]
