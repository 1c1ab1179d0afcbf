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


LEASE = 1.0


@pytest.fixture
def make_scene(tmp_path):
    """Makes the one scene of a test on a store anywhere."""
    gc.freeze()
    scenes = []

    def make(url):
        scenes.append(Scene(tmp_path, store=url, options={"lease": LEASE}))
        return scenes[-1]

    yield make
    for scene in scenes:
        scene.close()
    gc.unfreeze()


@pytest.fixture(scope="session")
def strace():
    reason = strace_reason()
    if reason is not None:
        pytest.skip(f"no system call can be traced or made to fail: {reason}")
