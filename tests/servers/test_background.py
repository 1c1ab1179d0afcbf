"""The servers that run in the background are found again, and end when they are told to, and nobody else does."""

import json
import subprocess
import sys

import psycopg
import pytest

from tests.servers import background, caretaker
from tests.shape.tree import ROOT

TWO_OF_FOUR = """
import sys
from pathlib import Path
from tests.servers import background
from tests.servers.cache import Missing

def missing(folder):
    raise Missing("there is no such thing", "buy one")

kinds = {**background.servers(), "TIDINGS_KAFKA_URL": missing, "TIDINGS_RABBITMQ_URL": missing}
background.RECORD, background.servers = Path(sys.argv[1]), lambda: kinds
sys.exit(background.main(sys.argv[2]))
"""


@pytest.fixture
def make(sqs, postgres_servers, tmp_path, monkeypatch):
    """What `make servers` runs, with the two servers that start soonest; of the others, nobody has any."""
    monkeypatch.setattr(background, "RECORD", tmp_path / ".servers.json")

    def make(what):
        command = [sys.executable, "-c", TWO_OF_FOUR, str(background.RECORD), what]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)

    yield make
    make("stop")


def test_there_is_a_variable_for_each_kind():
    assert list(background.servers()) == [
        "TIDINGS_KAFKA_URL",
        "TIDINGS_RABBITMQ_URL",
        "TIDINGS_SQS_URL",
        "TIDINGS_POSTGRES_URL",
    ]


def test_they_are_started_once_and_stopped(make):
    first = make("start")
    names = [line.partition("=")[0] for line in first.stdout.splitlines()]
    assert names == ["export TIDINGS_SQS_URL", "export TIDINGS_POSTGRES_URL"]
    assert "no TIDINGS_KAFKA_URL: there is no such thing: buy one" in first.stderr
    assert make("start").stdout == first.stdout

    show = f'{first.stdout}\necho "$TIDINGS_POSTGRES_URL"'
    url = subprocess.run(["sh", "-c", show], capture_output=True, text=True, check=True).stdout.strip()
    psycopg.connect(url).close()

    folder, urls = background.recorded()
    make("stop")
    assert not any(map(background.answers, urls.values()))
    assert not folder.exists()


def test_they_are_started_again_when_they_are_gone(make):
    before = make("start").stdout
    caretaker.clear(background.recorded()[0])
    after = make("start").stdout
    assert len(after.splitlines()) == len(before.splitlines())
    assert after != before


def test_a_folder_of_others_is_left_alone(tmp_path, monkeypatch):
    record, theirs = tmp_path / ".servers.json", tmp_path / "theirs"
    theirs.mkdir()
    monkeypatch.setattr(background, "RECORD", record)
    record.write_text(json.dumps({"folder": str(theirs), "urls": {}}))
    background.main("stop")
    assert theirs.exists()
    assert not record.exists()


def test_a_process_that_only_works_in_the_folder_is_left_alone(tmp_path):
    folder = tmp_path / "folder"
    (folder / "KafkaServer").mkdir(parents=True)
    with subprocess.Popen(["sleep", "60"], cwd=folder / "KafkaServer") as reader:
        (folder / "KafkaServer" / caretaker.NOTE).write_text(str(reader.pid + 1_000_000))
        caretaker.clear(folder)
        assert reader.poll() is None
        reader.kill()
    assert not folder.exists()
