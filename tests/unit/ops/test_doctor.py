"""Single findings of the doctor."""

from tidings.ops import doctor


def test_a_clock_before_this_program_was_written_is_wrong() -> None:
    assert doctor._clock(0.0).verdict == "fail"
    assert doctor._clock(1_800_000_000.0).verdict == "ok"
