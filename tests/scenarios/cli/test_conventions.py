"""What holds for every command: forms of output, exit codes, errors in three lines, odd terminals, closed pipes."""

import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.scenarios.cli.conftest import place
from tests.scenarios.cli.terminal import TIDINGS, Done, on_terminal, settings, started, tidings

COMMANDS = [
    "",
    *"new run demo status tail doctor events dead projection".split(),
    *(f"events {name}" for name in "ls show trace".split()),
    *(f"dead {name}" for name in "ls show redrive discard".split()),
    *(f"projection {name}" for name in "ls rebuild".split()),
]
READING = ["status", "tail", "events ls", "events show 1", "events trace 2", "dead ls", "dead show 1", "projection ls"]


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.bad_input(53)
def test_every_command_explains_itself(command: str, tmp_path: Path) -> None:
    done = tidings(*command.split(), "--help", cwd=tmp_path)
    assert done.code == 0
    assert done.out.startswith(f"Usage: {'tidings ' + command if command else 'tidings'}")
    assert done.err == ""


@pytest.mark.bad_input(53)
def test_a_newcomer_without_an_app_gets_the_help(tmp_path: Path) -> None:
    done = tidings(cwd=tmp_path)
    assert done.code == 0
    assert "new         Make a folder" in done.out


def test_without_a_command_it_shows_how_the_app_here_stands_and_what_to_do_next(shop: Path) -> None:
    done = tidings(cwd=shop)
    assert done.code == 0
    assert ["shop.send_receipt", "0", "0.0", "0", "0", "1", "0"] in done.rows
    assert "next: tidings dead ls" in done.err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ("stats", "did you mean `tidings status`?"),
        ("dead redriv", "did you mean `tidings dead redrive`?"),
        ("frobnicate", "there are new, run, demo"),
        ("status --ap", "No such option"),
        ("run --workers many", "'many' is not a valid integer"),
        ("run --workers 0", "0 is not in the range"),
        ("events ls --limit -1", "-1 is not in the range"),
        ("events show", "Missing argument 'ID'"),
        ("status -o yaml", "'yaml' is not one of"),
        ("dead show one", "'one' is not a valid integer"),
        ("dead redrive 99999999999999999999", "not in the range"),
        ("tail --since yesterday", "neither an age nor a time"),
        ("status --app app:app --store sqlite:shop.db", "both --app and --store"),
    ],
)
@pytest.mark.bad_input(53)
def test_a_wrong_command_line_is_answered_in_three_lines(shop: Path, arguments: str, told: str) -> None:
    done = tidings(*arguments.split(), cwd=shop)
    assert done.code == 2
    assert done.out == ""
    what, why, fix = done.err.splitlines()
    assert what.startswith("error[TID-601]: ")
    assert why.startswith("  why: ")
    assert fix.startswith("  fix: ")
    assert told in done.err


@pytest.mark.parametrize(
    "arguments", ["run --drain nan", "run --workers 2 --drain nan", "status --max-age nan", "demo --speed nan"]
)
@pytest.mark.bad_input(53)
def test_what_is_not_a_number_is_in_no_range(shop: Path, arguments: str) -> None:
    done = tidings(*arguments.split(), cwd=shop)
    assert done.code == 2, done.err
    assert "is nan" in done.err
    assert len(done.err.splitlines()) == 3


@pytest.mark.parametrize("command", READING)
def test_data_goes_to_stdout_as_one_envelope(shop: Path, command: str) -> None:
    done = tidings(*command.split(), "-o", "json", cwd=shop)
    assert done.code == 0, done.err
    if command == "tail":  # a stream has no end to close an envelope at: a line is an event
        assert [json.loads(line)["position"] for line in done.out.splitlines()][:3] == [1, 2, 3]
    else:
        assert set(json.loads(done.out)) == {"ok", "data", "warnings", "version"}


def test_an_error_is_an_envelope_too(shop: Path) -> None:
    done = tidings("events", "show", "nobody", "-o", "json", cwd=shop)
    assert done.code == 3
    envelope = json.loads(done.out)
    assert (envelope["ok"], envelope["data"], envelope["error"]["code"]) == (False, None, "TID-404")
    assert envelope["error"]["fix"] in done.err


def test_a_pipe_gets_tab_separated_values_and_a_terminal_a_table(shop: Path) -> None:
    piped = tidings("dead", "ls", cwd=shop)
    assert piped.out.splitlines()[0] == "id\tgroup\ttype\tkey\tattempts\tsince\treason"
    shown = on_terminal("dead", "ls", cwd=shop, width=160)
    assert "\t" not in shown.out
    assert "no such mailbox: bad@example.com" in shown.out


@pytest.mark.bad_input(54)
def test_no_color_is_respected(shop: Path) -> None:
    coloured = on_terminal("dead", "show", "99", cwd=shop)
    assert "\x1b[" in coloured.out
    for command in ("dead ls", "dead show 99", "status", "run nowhere:app"):
        assert "\x1b[3" not in on_terminal(*command.split(), cwd=shop, NO_COLOR="1").out
    assert "\x1b[" not in on_terminal("dead", "show", "99", cwd=shop, TERM="dumb").out


@pytest.mark.parametrize("command", [*READING, "", "--help", "dead redrive --help", "doctor"])
@pytest.mark.bad_input(54)
def test_a_terminal_of_twenty_columns_is_enough(shop: Path, command: str) -> None:
    done = on_terminal(*command.split(), cwd=shop, width=20)
    assert done.code == 0
    assert "error[" not in done.out


@pytest.mark.parametrize("command", [*READING, "", "--help", "doctor"])
@pytest.mark.bad_input(54)
def test_a_locale_without_unicode_is_enough(shop: Path, command: str) -> None:
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii"}
    done = tidings(*command.split(), cwd=shop, **plain)
    assert done.code == 0, done.err
    assert done.out.isascii()
    shown = on_terminal(*command.split(), cwd=shop, **plain)
    assert shown.code == 0
    assert "error[" not in shown.out


def test_json_is_json_in_every_locale(shop: Path) -> None:
    place("Phở 🍜", cwd=shop)
    done = tidings("events", "ls", "--key", "Phở 🍜", "-o", "json", cwd=shop, PYTHONIOENCODING="latin-1")
    assert done.out.isascii()
    assert done.data[0]["data"]["email"] == "Phở 🍜@example.com"
    assert done.data[0]["key"] == "Phở 🍜"


def in_shell(line: str, cwd: Path) -> Done:
    """Run a line of shell in which TIDINGS stands for the command."""
    shell = ["bash", "-c", line.replace("TIDINGS", " ".join(TIDINGS))]
    done = subprocess.run(shell, cwd=cwd, env=settings(), capture_output=True, text=True, check=False, timeout=30)
    return Done(done.returncode, done.stdout, done.stderr)


@pytest.mark.parametrize("command", ["events ls", "tail -n 100", "--help", "events ls -o ndjson"])
@pytest.mark.bad_input(54)
def test_a_reader_that_has_enough_is_no_error(shop: Path, command: str) -> None:
    done = in_shell(f"TIDINGS {command} | head -1; echo ${{PIPESTATUS[0]}}", shop)
    assert done.out.splitlines()[-1] == "0"
    assert done.err == ""


def test_a_reader_that_leaves_a_stream_ends_it_quietly(shop: Path) -> None:
    follow = [*TIDINGS, "tail", "-f"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(follow, cwd=shop, env=settings(), **pipes) as stream:
        stream.stdout.readline()
        stream.stdout.close()
        place("more", cwd=shop)
        assert stream.wait(30) == 0
        assert stream.stderr.read() == b""


def test_a_full_disk_under_the_output_is_told(shop: Path) -> None:
    done = in_shell("TIDINGS events ls > /dev/full", shop)
    assert done.code == 1
    assert "error[TID-607]" in done.err
    assert "No space left" in done.err
    assert "Traceback" not in done.err


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", ">&- 2>&-"])
@pytest.mark.bad_input(54)
def test_closed_streams_are_survived(shop: Path, closed: str) -> None:
    done = in_shell(f"TIDINGS status {closed}", shop)
    assert done.code == 0
    assert "Traceback" not in done.err


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_long_look_ends_when_told(shop: Path, number: signal.Signals, code: int) -> None:
    with started("tail", "-f", cwd=shop) as tail:
        tail.until(lambda: tail.out.count("\n") > 3)
        tail.send(number)
        assert tail.ended() == code
    assert "Traceback" not in tail.log


def test_an_error_nobody_foresaw_is_three_lines_and_a_traceback_on_demand(shop: Path) -> None:
    broken = {"PYTHONPATH": str(shop / "path")}
    (shop / "path").mkdir()
    (shop / "path" / "rich.py").write_text("raise ZeroDivisionError('odd')\n")
    done = tidings("status", "-o", "table", cwd=shop, **broken)
    assert done.code == 1
    assert done.err.splitlines()[-3] == "error[TID-699]: ZeroDivisionError: odd"
    assert "rich.py" in tidings("status", "-o", "table", cwd=shop, TIDINGS_DEBUG="1", **broken).err


def test_help_is_quick(tmp_path: Path) -> None:
    def seconds() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([*TIDINGS, "--help"], cwd=tmp_path, env=os.environ, stdout=subprocess.DEVNULL, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime

    assert min(seconds() for _ in range(7)) < 0.25


def test_help_loads_no_engine(tmp_path: Path) -> None:
    show = "import sys, tidings.ops.cli.root; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", show], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert not {"asyncio", "sqlite3", "rich", "tidings.runtime.app"} & set(done.stdout.split())
