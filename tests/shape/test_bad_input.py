"""Every kind of bad input that is promised to be handled has a test, and the page about it says what is true."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from tests.shape.tree import ROOT
from tidings import errors
from tidings.ops.cli import failures

PAGE = ROOT / "docs" / "bad-input.md"
REQUIRED = {*range(1, 59), *range(69, 73)} - {28}
"""Rows of the page that must have a test. 28 is about processes, which are not there yet."""


def marked(source: str) -> Iterator[tuple[str, int]]:
    """(test, row) for every `@pytest.mark.bad_input(row, ...)` in a file."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
            for decorator in node.decorator_list:
                if isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == "pytest.mark.bad_input":
                    yield from ((node.name, ast.literal_eval(row)) for row in decorator.args)


def proofs() -> dict[int, set[str]]:
    """Row -> the tests that carry its marker, as `file.py::name`."""
    found: dict[int, set[str]] = defaultdict(set)
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        for name, row in marked(path.read_text("utf-8")):
            found[row].add(f"{path.name}::{name}")
    return found


def rows(page: str) -> dict[int, list[str]]:
    """Row -> its cells behind the number."""
    return {
        int(number): [cell.strip() for cell in cells.split(" | ")]
        for number, cells in re.findall(r"^\| (\d+) \| (.*) \|$", page, re.MULTILINE)
    }


def codes() -> set[str]:
    """Every code that an error of ours may have."""
    classes = [*vars(errors).values(), *vars(failures).values()]
    return {each.code for each in classes if isinstance(each, type) and issubclass(each, errors.TidingsError)}


def test_every_row_has_a_test() -> None:
    assert REQUIRED - set(proofs()) == set()


def test_every_row_is_on_the_page_and_no_other() -> None:
    assert set(rows(PAGE.read_text("utf-8"))) == REQUIRED
    assert set(proofs()) - REQUIRED == set()


def test_every_row_of_the_page_names_codes_and_tests_that_exist() -> None:
    known, proven = codes(), proofs()
    for row, (bad, what, code, tests) in rows(PAGE.read_text("utf-8")).items():
        assert bad, row
        assert what, row
        assert set(re.findall(r"TID-\d+", code)) <= known, row
        named = set(re.findall(r"`(\w+\.py::\w+)`", tests))
        assert named, row
        assert named <= proven[row], f"row {row} names what does not carry its marker: {named - proven[row]}"


def test_a_marker_is_found_and_a_missing_one_is_missed(tmp_path: Path) -> None:
    source = "@pytest.mark.bad_input(1, 2)\nasync def test_it(): ...\ndef test_other(): ...\n"
    assert list(marked(source)) == [("test_it", 1), ("test_it", 2)]
