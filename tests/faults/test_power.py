"""The power is cut between any two writes to the disk: everything acknowledged before is there."""

import pytest

from tests.faults.power import recorded
from tests.faults.sizes import LONG, STATES

pytestmark = [pytest.mark.usefixtures("strace"), pytest.mark.timeout(3600 if LONG else 120)]


@pytest.mark.proves("G1", "G2")
def test_a_power_loss_loses_nothing_acknowledged(scene):
    found = recorded(scene, STATES)
    print(f"{found.states} states of the disk, {found.acknowledged} acknowledged, {len(found.lost)} with a loss")
    assert found.states >= STATES // 2
    assert found.acknowledged > 20
    assert found.damaged == []
    assert found.lost == []
