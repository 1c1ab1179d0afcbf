"""Scenes for the fault tests, and why some of them cannot be played on a machine."""

import gc

import pytest

from tests.faults.processes import Scene
from tidings.testing.faults import strace_reason


@pytest.fixture
def scene(tmp_path):
    gc.freeze()  # what is loaded stays shared with the children
    found = Scene(tmp_path)
    yield found
    found.close()
    gc.unfreeze()


@pytest.fixture(scope="session")
def strace():
    reason = strace_reason()
    if reason is not None:
        pytest.skip(f"no system call can be traced or made to fail: {reason}")
