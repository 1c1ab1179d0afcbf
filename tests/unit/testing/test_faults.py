"""The processes that suffer faults."""

import gc
import os

import pytest

from tidings.testing.faults import Child


class Left:
    """Garbage of the parent: it ends whoever cleans it up."""

    def __init__(self) -> None:
        self.me, self.owner = self, os.getpid()

    def __del__(self) -> None:
        if os.getpid() != self.owner:
            os._exit(7)


@pytest.fixture
def garbage():
    gc.disable()
    Left()
    yield
    gc.enable()


def test_a_child_cleans_up_nothing_of_its_parent(garbage) -> None:
    assert Child(lambda _: gc.collect()).wait() == 0
