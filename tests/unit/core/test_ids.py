"""Ids are UUIDs of version 7: they sort by time, and within a millisecond by the caller's number."""

from __future__ import annotations

from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from tidings.core.ids import uuid7

times = st.integers(0, 2**48 - 1)
numbers = st.integers(0, 2**74 - 1)


@given(times, numbers)
def test_an_id_is_a_uuid_of_version_7_that_holds_the_time_and_the_number(time: int, number: int) -> None:
    made = UUID(uuid7(time, number))
    assert str(made) == uuid7(time, number)
    assert (made.version, made.variant) == (7, "specified in RFC 4122")
    assert made.int >> 80 == time
    assert (made.int >> 64 & 0xFFF) << 62 | made.int & (2**62 - 1) == number


@given(times, times, numbers, numbers)
def test_ids_sort_by_time_and_then_by_number(one: int, other: int, first: int, second: int) -> None:
    assert (uuid7(one, first) < uuid7(other, second)) == ((one, first) < (other, second))


def test_the_example_of_the_standard() -> None:
    # RFC 9562, appendix A.6
    assert uuid7(0x017F22E279B0, 0xCC3 << 62 | 0x18C4DC0C0C07398F) == "017f22e2-79b0-7cc3-98c4-dc0c0c07398f"
