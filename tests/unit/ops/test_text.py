"""What strangers stored is shown, and does nothing."""

import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidings.ops.cli.text import CELL, iso, lines, one_line, plural, safe_json

ANY_TEXT = st.text(st.characters(exclude_categories=[]), max_size=300)  # lone surrogates, too


def is_harmless(text: str) -> bool:
    """No control, format or surrogate character, and no separator of lines."""
    return not any(
        unicodedata.category(char) in {"Cc", "Cs", "Zl", "Zp"} or unicodedata.bidirectional(char) in BIDI
        for char in text
    )


BIDI = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}


@given(ANY_TEXT)
def test_one_line_is_one_line_of_harmless_characters(text: str) -> None:
    shown = one_line(text, 10_000)
    assert is_harmless(shown)
    assert len(shown.splitlines()) <= 1


@given(ANY_TEXT)
def test_json_means_the_same_and_is_harmless(text: str) -> None:
    written = json.dumps({"text": text}, ensure_ascii=False)
    shown = safe_json(written)
    assert json.loads(shown) == {"text": text}
    assert is_harmless(shown)
    plain = safe_json(written, ascii_only=True)
    assert plain.isascii()
    assert json.loads(plain) == json.loads(json.dumps({"text": text}))


def test_json_keeps_its_line_breaks() -> None:
    assert safe_json('{\n  "a": 1\n}') == '{\n  "a": 1\n}'


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Phở 🍜 résumé", "Phở 🍜 résumé"),
        ("a\tb\r\nc", r"a\tb\r\nc"),
        ("\x1b[31mred\x9b0m", r"\x1b[31mred\x9b0m"),
        ("\u202egnp.exe", r"\u202egnp.exe"),
        ("\ud800", r"\ud800"),
        (42, "42"),
    ],
)
def test_it_reads_like_what_it_is(text: object, shown: str) -> None:
    assert one_line(text) == shown


def test_a_long_text_is_cut_and_says_by_how_much() -> None:
    assert one_line("x" * (CELL + 1_000)) == "x" * CELL + "... (+1,000 characters)"
    assert lines("a\n" + "b" * 20_000)[1].endswith("(+10,000 characters)")


@pytest.mark.parametrize(
    ("microseconds", "shown"),
    [
        (0, "1970-01-01T00:00:00.000Z"),
        (1_360_332_900_123_456, "2013-02-08T14:15:00.123Z"),
        (2**62, str(2**62)),
        (-(2**62), str(-(2**62))),
    ],
)
def test_a_time_is_shown_in_utc_or_as_its_number(microseconds: int, shown: str) -> None:
    assert iso(microseconds) == shown


def test_counts_agree_with_their_words() -> None:
    assert [plural(n, "event") for n in (0, 1, 2_000)] == ["0 events", "1 event", "2,000 events"]
    assert plural(2, "delivery", "deliveries") == "2 deliveries"
