"""Scenes for the fault tests, and why some of them cannot be played on a machine."""

import gc
import os
import subprocess
from pathlib import Path

import pytest

from tests.faults.processes import Scene
from tests.proofs import note_reports
from tidings.testing.faults import strace_reason


@pytest.fixture
def scene(tmp_path, request):
    gc.freeze()  # what is loaded stays shared with the children
    found = Scene(tmp_path)
    yield found
    found.close()
    note_reports(request.node, found.reports)
    gc.unfreeze()


@pytest.fixture
def broker(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """URL of a broker, or of a corner of one that nobody else uses."""
    get = request.getfixturevalue
    match getattr(request, "param", "sqlite"):
        case "kafka":
            return f"{get('kafka_url')}?prefix={get('prefix')}"
        case "rabbitmq":
            return str(get("rabbitmq_url"))
        case "sqs-fifo":
            return f"{get('sqs_url')}&fifo=true&poll=1&visibility=4&prefix={get('prefix')}"
        case "sqlite-claims":
            (tmp_path / "claims").mkdir()
            return f"sqlite:{tmp_path}/broker.db?claims=file:{tmp_path}/claims&claims_over=0"
        case _:
            return f"sqlite:{tmp_path}/broker.db"


LEASE = 1.0


@pytest.fixture
def make_scene(tmp_path, request):
    """Makes the one scene of a test on a store anywhere."""
    gc.freeze()
    scenes = []

    def make(url):
        scenes.append(Scene(tmp_path, store=url, options={"lease": LEASE}))
        return scenes[-1]

    yield make
    for scene in scenes:
        scene.close()
        note_reports(request.node, scene.reports)
    gc.unfreeze()


@pytest.fixture
def make_disk():
    """Makes a small file system of a folder."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount a small file system to fill")
    made = []

    def make(folder, size):
        mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(folder)]
        done = subprocess.run(mount, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            pytest.skip(f"no small file system can be mounted here: {done.stderr.strip()}")
        made.append(folder)
        return folder

    yield make
    for folder in made:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture(scope="session")
def strace():
    reason = strace_reason()
    if reason is not None:
        pytest.skip(f"no system call can be traced or made to fail: {reason}")
