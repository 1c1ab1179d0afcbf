"""A user's own project, with no plugin, no flag and no settings: both checkers see exactly the lines that are wrong."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

USER_CODE = """\
from __future__ import annotations

from typing import Union

import attrs
import msgspec
import pydantic

from tidings import App, Envelope, Gone, Key, Tag, Transaction, command, event, state


@event(topic="orders")
class Placed:
    order_id: Key[str]
    total: int = 0


@event(topic="orders")
class Paid(msgspec.Struct, frozen=True):
    order_id: Key[str]


@event
@attrs.frozen
class Packed:
    order_id: Key[int]
    box: Tag[str]


@command
class Pack(pydantic.BaseModel):
    order_id: Key[int]


@state(topic="customers")
class Customer:
    customer_id: Key[str]


Anything = Placed | Paid | Packed
app = App("sqlite::memory:")


@app.on(Placed)
async def one(order: Placed) -> Paid:
    return Paid(order.order_id)


@app.on(Placed | Paid)
async def two(order: Placed | Paid, tx: Transaction) -> None: ...


@app.on(Union[Placed, Paid])
def old_style(order: Placed | Paid, envelope: Envelope) -> list[Paid]:
    return [Paid(order.order_id)]


@app.on(Anything)
async def alias(message: Anything, envelope: Envelope, tx: Transaction) -> None: ...


@app.on(Placed)
async def wider(message: Anything) -> None: ...


@app.on(Customer | Gone)
async def tombstones(customer: Customer | Gone) -> None: ...


@app.on(Pack)
async def pack(it: Pack) -> Packed:
    return Packed(it.order_id, box="small")


async def fetch_total(order: Placed) -> int:
    return order.total


@app.on(Placed, fetch=fetch_total)
async def fetched(order: Placed, total: int) -> None: ...


@app.on(Placed)  # wrong: for another event
async def another(order: Paid) -> None: ...


@app.on(Placed | Paid)  # wrong: for a part of the union
async def part(order: Placed) -> None: ...


@app.on(Customer | Gone)  # wrong: tombstones are asked for and not taken
async def no_tombstones(customer: Customer) -> None: ...


@app.on(Placed, fetch=fetch_total)  # wrong: the fetched value is a number
async def fetched_text(order: Placed, total: str) -> None: ...


app.on(7)  # wrong: no type
Placed(5)  # wrong: the key is text
Packed(1, box=2)  # wrong: the tag is text
Placed("o", 1).total = 2  # wrong: events do not change


async def calls() -> None:
    answer: Paid = await one(Placed("o"))
    await one(answer)  # wrong: a decorated function keeps its types
"""

WRONG = {number for number, line in enumerate(USER_CODE.splitlines(), 1) if "# wrong" in line}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "user.py").write_text(USER_CODE)
    return tmp_path


def lines_mypy_refuses(folder: Path) -> set[int]:
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file=", f"--cache-dir={folder}/cache", "user.py"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    return {int(number) for number in re.findall(r"^user\.py:(\d+): error", done.stdout, re.MULTILINE)}


def lines_pyright_refuses(folder: Path) -> set[int]:
    command = [sys.executable, "-m", "basedpyright", "--outputjson", f"--pythonpath={sys.executable}"]
    (folder / "pyrightconfig.json").write_text('{"typeCheckingMode": "standard"}')
    done = subprocess.run([*command, "user.py"], cwd=folder, capture_output=True, text=True, check=False)
    found = json.loads(done.stdout)["generalDiagnostics"]
    return {each["range"]["start"]["line"] + 1 for each in found if each["severity"] == "error"}


@pytest.mark.parametrize("lines_refused", [lines_mypy_refuses, lines_pyright_refuses])
def test_a_handler_for_the_wrong_event_is_a_type_error_and_the_right_ones_are_not(
    lines_refused: Callable[[Path], set[int]], project: Path
) -> None:
    assert lines_refused(project) == WRONG


def test_the_user_code_does_what_it_says(project: Path) -> None:
    """What both checkers take, runs: all of it but the lines marked wrong, and the handlers below them."""
    right = USER_CODE.partition("\n\n@app.on(Placed)  # wrong")[0]
    (project / "user.py").write_text(right + "\n\nprint(len(app.subscriptions()))\n")
    done = subprocess.run([sys.executable, "user.py"], cwd=project, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("8\n", "")
