"""Ages and times as people write them."""

import pytest

from tidings.ops.cli.failures import BadCommand
from tidings.ops.cli.filters import parse_since

NOW = 1_000_000.0


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30s", NOW - 30),
        ("10m", NOW - 600),
        ("2h", NOW - 7_200),
        ("1.5d", NOW - 129_600),
        (" 1 h ", NOW - 3_600),
        ("1970-01-02", 86_400),
        ("1970-01-01T00:00:01Z", 1),
        ("1970-01-01T01:00:00+01:00", 0),
    ],
)
def test_an_age_or_a_time_is_understood(text: str, seconds: float) -> None:
    assert parse_since(text, NOW) == int(seconds * 1_000_000)


def test_none_means_all() -> None:
    assert parse_since(None, NOW) == 0


@pytest.mark.parametrize("text", ["", "10", "m", "10 weeks", "-5m", "yesterday", "2026-13-01", "1e3s", "9" * 50 + "d"])
def test_anything_else_is_refused_with_examples(text: str) -> None:
    with pytest.raises(BadCommand, match="10m"):
        parse_since(text, NOW)
