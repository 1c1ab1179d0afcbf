"""The power is cut between any two writes to the disk: everything acknowledged before is there."""

import os

import pytest

from tests.faults.power import recorded

STATES = int(os.environ.get("TIDINGS_STATES", "600"))

pytestmark = pytest.mark.usefixtures("strace")


def test_a_power_loss_loses_nothing_acknowledged(scene):
    found = recorded(scene, STATES)
    print(f"{found.states} states of the disk, {found.acknowledged} acknowledged, {len(found.lost)} with a loss")
    assert found.states >= STATES // 2
    assert found.acknowledged > 20
    assert found.damaged == []
    assert found.lost == []
