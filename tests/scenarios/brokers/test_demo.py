"""The demo over a broker: its apps share nothing else, and it ends with the same figures."""

import json
import signal
import sqlite3
import subprocess
import time
from contextlib import closing
from pathlib import Path

import pytest

from tests.scenarios.test_demo import DEMO, EXPECTED, figures

LISTENING = ["board", "alerts", "aircraft", "flights"]
SPEAKING = ["names", "tower"]
"""Where the broker keeps no history, those who listen are started first."""


@pytest.mark.timeout(300)  # emulators of SNS and SQS take their time
def test_the_figures_are_the_same_over_a_broker(broker_url: str, tmp_path: Path) -> None:
    assert figures("--broker", broker_url, "--store", f"sqlite:{tmp_path}/flights.db") == EXPECTED


@pytest.mark.timeout(300)
def test_the_figures_are_the_same_when_every_app_is_a_process_of_its_own(broker_url: str, tmp_path: Path) -> None:
    options = ["--json", "--broker", broker_url, "--store", f"sqlite:{tmp_path}/flights.db"]

    def start(app: str) -> subprocess.Popen[str]:
        with (tmp_path / f"{app}.log").open("w") as log:
            return subprocess.Popen([*DEMO, *options, "--only", app], stdout=subprocess.PIPE, stderr=log, text=True)

    running = {app: start(app) for app in LISTENING}
    try:
        end = time.monotonic() + 240
        while not all("subscribed" in (tmp_path / f"{app}.log").read_text() for app in LISTENING):
            assert time.monotonic() < end, LISTENING
            time.sleep(0.1)
        running |= {app: start(app) for app in SPEAKING}
        while shown(tmp_path / "flights-board.db") != EXPECTED["events"]:
            assert time.monotonic() < end, shown(tmp_path / "flights-board.db")
            time.sleep(0.1)
        for process in running.values():
            process.send_signal(signal.SIGTERM)
        said = {app: process.communicate(timeout=30)[0] for app, process in running.items()}
    finally:
        for process in running.values():
            process.kill()
            process.communicate()
    assert {app: process.returncode for app, process in running.items()} == dict.fromkeys(running, 0)
    assert json.loads(said["board"]) == EXPECTED


def shown(store: Path) -> int:
    """How many events the board shows."""
    try:
        with closing(sqlite3.connect(store)) as connection:
            sql = "SELECT coalesce(sum(flights + departed + arrived + cancelled), 0) FROM punctuality"
            return int(connection.execute(sql).fetchone()[0])
    except sqlite3.OperationalError:
        return 0
