"""Doorbells: who commits finds those who wait, however it looks for them."""

from __future__ import annotations

import errno
import mmap
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tidings.stores.sqlite.doorbell import Doorbell


def refused(*_args: object, **_options: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.fixture
def full(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """A disk that takes no bytes, until it is undone."""
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", refused)
        yield patch


def rings(caller: Doorbell, listener: Doorbell) -> int:
    """How often a bell is heard that is bound now, when it is rung twice."""
    bell = listener.bind()
    assert bell is not None
    caller.ring()
    caller.ring()
    heard = len(bell.recv(1)) + len(bell.recv(1))
    with pytest.raises(BlockingIOError):
        bell.recv(1)
    listener.unbind(bell)
    return heard


def test_a_bell_that_is_bound_later_is_rung_by_who_has_looked_before(tmp_path: Path) -> None:
    caller, listener = Doorbell(tmp_path), Doorbell(tmp_path)
    caller.ring()
    assert caller._mark is not None
    assert rings(caller, listener) == 2
    assert rings(caller, listener) == 2  # another bell, after the first was taken away
    caller.close()
    listener.close()


def test_it_is_rung_where_the_mark_cannot_be_mapped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mmap, "mmap", refused)
    caller, listener = Doorbell(tmp_path), Doorbell(tmp_path)
    caller.ring()
    assert caller._mark is None
    assert rings(caller, listener) == 2
    caller.close()
    listener.close()


def test_what_a_full_disk_does_not_hold_is_not_mapped(tmp_path: Path, full: pytest.MonkeyPatch) -> None:
    caller, listener = Doorbell(tmp_path), Doorbell(tmp_path)
    assert caller._mark is None  # to look at it would end the process
    caller.ring()
    assert listener.bind() is None
    full.undo()
    assert rings(caller, listener) == 2
    caller.close()
    listener.close()
