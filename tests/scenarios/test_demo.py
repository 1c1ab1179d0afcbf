"""The flights demo ends with the independently computed figures, whatever is done to it."""

import gzip
import json
import os
import pty
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest

from tidings import App
from tidings.core.operations import Held
from tidings.demo.datafile import BLIZZARD

EXPECTED = json.loads((Path(__file__).parent / "blizzard.json").read_text())
DEMO = [sys.executable, "-m", "tidings", "demo"]
KILLS = 6
LINES = gzip.decompress(BLIZZARD.read_bytes()).splitlines()


def fly(*options: object, **more: Any) -> subprocess.CompletedProcess[str]:
    """Run the demo to its end."""
    command = [*DEMO, *map(str, options)]
    return subprocess.run(command, capture_output=True, text=True, check=False, **more)


def figures(*options: object, **more: Any) -> dict[str, Any]:
    """The figures that a run prints."""
    done = fly("--json", *options, **more)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def ask(store: Path, sql: str) -> list[tuple[Any, ...]]:
    """Rows of a store that nobody has open."""
    connection = sqlite3.connect(store)
    try:
        return connection.execute(sql).fetchall()
    finally:
        connection.close()


async def dead_letters(store: Path) -> list[Held]:
    """The dead letters of a store, oldest first."""
    async with App(f"sqlite:{store}", name="visitor") as app:
        return list(await app.store.held(state="dead"))


def effects(store: Path) -> dict[str, Any]:
    """What handlers did to a store, each of which must have happened once."""
    return {
        "mails": ask(store, "SELECT flight_id, text FROM mail ORDER BY 1, 2"),
        "legs": ask(store, "SELECT tailnum, flight_id, chain FROM leg ORDER BY 1, 2"),
        "names": ask(store, "SELECT (SELECT count(*) FROM carriers), (SELECT count(*) FROM airports)"),
    }


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of a run that nothing happened to."""
    store = tmp_path_factory.mktemp("undisturbed") / "flights.db"
    assert figures("--store", f"sqlite:{store}") == EXPECTED
    return store


def data(folder: Path, lines: list[bytes]) -> Path:
    """A file of these lines."""
    path = folder / "flights.jsonl"
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    return path


def flight(line: bytes) -> str:
    return json.loads(line)["subject"]


def shuffled(lines: list[bytes], seed: int) -> list[bytes]:
    """The lines in another order, in which those of one flight keep theirs."""
    rng = random.Random(seed)
    of_flight = {key: list(group) for key, group in groupby(sorted(lines, key=flight), key=flight)}
    order = [key for key, group in of_flight.items() for _ in group]
    rng.shuffle(order)
    return [of_flight[key].pop(0) for key in order]


def test_the_figures_are_those_computed_independently_and_nothing_is_left_behind(tmp_path: Path) -> None:
    assert figures(env=os.environ | {"TMPDIR": str(tmp_path)}) == EXPECTED
    assert list(tmp_path.iterdir()) == []


async def test_every_mail_is_counted_once_and_what_cannot_be_sent_is_a_dead_letter(undisturbed: Path) -> None:
    mails = [flight_id for flight_id, _ in effects(undisturbed)["mails"]]
    alerts = EXPECTED["cancelled"] + EXPECTED["departed_60_or_more_late"]
    assert len(mails) == len(set(mails))
    dead = await dead_letters(undisturbed)
    assert len(mails) + len(dead) == alerts
    assert 0 < len(dead) < alerts / 50


def test_the_board_has_the_names_from_its_replicas(undisturbed: Path) -> None:
    assert effects(undisturbed)["names"] == [(16, 107)]
    told = fly("--store", f"sqlite:{undisturbed}").stdout
    assert "Delta Air Lines" in told
    assert "LaGuardia" in told


@pytest.mark.parametrize(
    "disturb",
    [lambda lines: lines, lambda lines: [*lines, *lines], lambda lines: [line for line in lines for _ in range(2)]],
    ids=["the same", "all of it twice", "every line twice"],
)
def test_the_same_file_again_changes_nothing(
    disturb: Callable[[list[bytes]], list[bytes]], undisturbed: Path, tmp_path: Path
) -> None:
    before = effects(undisturbed)
    assert figures("--store", f"sqlite:{undisturbed}", "--data", data(tmp_path, disturb(LINES))) == EXPECTED
    assert effects(undisturbed) == before


def test_repeated_reports_under_new_ids_change_nothing(undisturbed: Path, tmp_path: Path) -> None:
    before = effects(undisturbed)
    renamed = [line.replace(b'{"id":"', b'{"id":"again-', 1) for line in LINES[:500]]
    assert figures("--store", f"sqlite:{undisturbed}", "--data", data(tmp_path, renamed)) == EXPECTED
    assert effects(undisturbed) == before


@pytest.mark.parametrize("seed", range(2))
def test_shuffled_and_doubled_input_gives_the_same(seed: int, undisturbed: Path, tmp_path: Path) -> None:
    store = tmp_path / "flights.db"
    lines = shuffled([*LINES, *LINES], seed)
    assert figures("--store", f"sqlite:{store}", "--data", data(tmp_path, lines)) == EXPECTED
    assert effects(store) == effects(undisturbed)


@pytest.fixture(scope="module")
def duration(undisturbed: Path) -> float:
    """Seconds that a run takes here and now."""
    began = time.monotonic()
    assert figures() == EXPECTED
    return time.monotonic() - began


@pytest.mark.parametrize("stretch", range(KILLS))
def test_killed_at_any_moment_it_ends_with_the_same_figures(
    stretch: int, duration: float, undisturbed: Path, tmp_path: Path
) -> None:
    store = tmp_path / "flights.db"
    seed = random.randrange(2**32)
    print(f"seed {seed}")  # shown when it fails
    rng = random.Random(seed)
    kills = 0
    # First somewhere in this stretch of the run, then anywhere in the rest.
    for delay in ((stretch + rng.random()) / KILLS * duration, rng.random() * duration):
        run = subprocess.Popen([*DEMO, "--json", "--store", f"sqlite:{store}"], stdout=subprocess.DEVNULL)
        try:
            run.wait(delay)
        except subprocess.TimeoutExpired:
            run.kill()
            kills += 1
        assert run.wait() in (0, -signal.SIGKILL)
    print(f"{kills} kills")
    assert figures("--store", f"sqlite:{store}") == EXPECTED
    assert effects(store) == effects(undisturbed)


def test_two_at_once_on_one_store_share_the_work(undisturbed: Path, tmp_path: Path) -> None:
    store = tmp_path / "flights.db"
    command = [*DEMO, "--json", "--store", f"sqlite:{store}"]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) for _ in range(2)]
    assert [json.loads(run.communicate()[0]) for run in both] == [EXPECTED, EXPECTED]
    assert effects(store) == effects(undisturbed)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_by_a_signal_it_drains_and_goes_on_later(number: int, tmp_path: Path) -> None:
    store = f"sqlite:{tmp_path}/flights.db"
    slow = [*DEMO, "--json", "--store", store, "--speed", "20000"]
    run = subprocess.Popen(slow, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert run.stderr is not None
    while not run.stderr.readline().startswith("fed "):  # a tenth is done
        assert run.poll() is None
    run.send_signal(number)
    out, err = run.communicate()
    assert (out, run.returncode) == ("", 128 + number), err
    assert "goes on" in err
    assert figures("--store", store) == EXPECTED


def test_it_is_paced_by_the_times_of_the_file(tmp_path: Path) -> None:
    hour = data(tmp_path, [LINES[0], *(line for line in LINES if b'"time":"2013-02-07T11:00' in line)])
    assert json.loads(LINES[0])["time"] == "2013-02-07T10:00:00Z"
    began = time.monotonic()
    assert fly("--data", hour, "--speed", 3600).returncode == 0
    assert time.monotonic() - began >= 1.0  # an hour at 3,600 times real time


async def test_a_line_that_cannot_be_used_is_put_aside_and_the_rest_goes_on(tmp_path: Path) -> None:
    store = tmp_path / "flights.db"
    bad = [
        b'{"id":"1","type":"flight.departed"',
        b"\xff\xfe",
        b'{"id":"2","type":"flight.diverted","time":"2013-02-08T10:00:00Z","data":{}}',
        LINES[0].replace(b'"flight":1117', b'"flight":"one"'),
        LINES[0].replace(b'"flight":1117', b'"flight":1118'),  # the id of another line, and something else in it
    ]
    done = fly("--json", "--store", f"sqlite:{store}", "--data", data(tmp_path, [LINES[0], *bad, *LINES[1:]]))
    assert json.loads(done.stdout) == EXPECTED
    assert done.stderr.count("put aside") == len(bad)
    kept = [letter.envelope.data for letter in await dead_letters(store) if letter.group == "tower.quarantine"]
    assert kept == bad


async def test_what_cannot_be_is_refused_and_kept_for_a_human(tmp_path: Path) -> None:
    store = tmp_path / "flights.db"
    first = json.loads(LINES[0])
    lie = {**first, "id": "lie", "type": "flight.arrived", "data": {"flight_id": first["subject"], "delay": 5}}
    done = figures("--store", f"sqlite:{store}", "--data", data(tmp_path, [LINES[0], json.dumps(lie).encode()]))
    assert (done["flights"], done["arrived"]) == (1, 0)
    [letter] = await dead_letters(store)
    assert (letter.group, "is scheduled" in letter.reason) == ("flights.flight", True)


@pytest.mark.parametrize(
    ("content", "code", "says"),
    [
        (None, 3, "there is no file"),
        (b"", 1, "holds no flight report"),
        (b"\x89PNG\r\n\x1a\n" + bytes(range(256)), 1, "holds no flight report"),
        (b'{"some": "other data"}\n' * 1000, 1, "holds no flight report"),
        (BLIZZARD.read_bytes()[:50_000], 1, "cannot be read to its end"),
        (b"\x1f\x8b and nothing that follows from it", 1, "cannot be read to its end"),
    ],
    ids=["missing", "empty", "picture", "other data", "cut off", "not gzip after all"],
)
def test_a_bad_file_is_refused_in_three_lines(content: bytes | None, code: int, says: str, tmp_path: Path) -> None:
    path = tmp_path / "flights.jsonl.gz"
    if content is not None:
        path.write_bytes(content)
    done = fly("--store", f"sqlite:{tmp_path}/flights.db", "--data", path)
    assert (done.stdout, done.returncode) == ("", code)
    what, why, fix = done.stderr.splitlines()
    assert says in what
    assert str(path) in what
    assert why.strip().startswith("why: ")
    assert fix.strip().startswith("fix: ")
    assert not (tmp_path / "flights.db").exists()


def test_a_folder_as_file_and_memory_as_store_are_refused(tmp_path: Path) -> None:
    assert "cannot be read" in fly("--data", tmp_path).stderr
    done = fly("--store", "sqlite::memory:")
    assert (done.returncode, "share one store" in done.stderr) == (2, True)


def test_elsewhere_than_on_a_terminal_it_prints_plain_lines_and_an_end(undisturbed: Path) -> None:
    done = fly("--store", f"sqlite:{undisturbed}")
    assert (done.returncode, "\x1b" in done.stdout + done.stderr) == (0, False)
    assert (
        "1,614 flights: 749 departed, 64 of them an hour late or more; 746 arrived; 865 were cancelled." in done.stdout
    )


def on_terminal(command: list[str]) -> Iterator[str]:
    """What a command writes to its terminal."""
    child, terminal = pty.fork()
    if child == 0:
        os.environ.update(TERM="xterm-256color", COLUMNS="100", LINES="40")
        os.environ.pop("NO_COLOR", None)
        os.execv(command[0], command)
    while True:
        try:
            yield os.read(terminal, 4096).decode(errors="replace")
        except OSError:  # it closed its end
            break
    os.close(terminal)
    assert os.waitpid(child, 0)[1] == 0


def test_on_a_terminal_it_shows_live_progress_and_then_tables() -> None:
    seen = "".join(on_terminal(DEMO))
    assert "flights" in seen
    assert "3974/3974" in seen
    assert "dead" in seen
    assert "New York" not in seen
    assert "━" in seen
    assert "American Airlines" in seen
