"""Every example is a program that runs in an empty folder and prints what it says it prints."""

import ast
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
PROMISE = "It prints:\n\n"
LONGEST_FIRST_PROGRAM = 12  # lines of code, without imports


def run(program: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, program], cwd=folder, capture_output=True, text=True, check=False)


def promised(program: Path) -> str:
    """The output that the docstring of a program promises."""
    said = ast.get_docstring(ast.parse(program.read_text()))
    return textwrap.dedent(said.partition(PROMISE)[2]).strip()


def code_lines(source: str) -> set[int]:
    """Numbers of the lines that hold code, without imports, docstrings and comments."""
    lines: set[int] = set()
    for node in ast.parse(source).body:
        docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if not docstring and not isinstance(node, ast.Import | ast.ImportFrom):
            decorators = getattr(node, "decorator_list", [])
            first = min([node.lineno, *(each.lineno for each in decorators)])
            lines |= {number for number in range(first, node.end_lineno + 1) if source.splitlines()[number - 1].strip()}
    return lines


@pytest.mark.parametrize("name", ["notification", "state_transfer", "event_sourcing"])
def test_an_example_prints_what_it_says(name: str, tmp_path: Path) -> None:
    program = EXAMPLES / f"{name}.py"
    done = run(program, tmp_path)
    assert (done.stdout.strip(), done.returncode) == (promised(program), 0), done.stderr


@pytest.mark.parametrize("name", ["first", "notification", "state_transfer", "event_sourcing"])
def test_an_example_runs_once_more_where_it_ran_before(name: str, tmp_path: Path) -> None:
    for _ in range(2):
        done = run(EXAMPLES / f"{name}.py", tmp_path)
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["first", "notification", "state_transfer", "event_sourcing"])
def test_an_example_prints_the_same_on_postgresql(name: str, tmp_path: Path, newest_postgres_url: str) -> None:
    """Nothing is changed but the URL."""
    program = tmp_path / f"{name}.py"
    program.write_text(re.sub(r'"sqlite:[^"]*"', f'"{newest_postgres_url}"', (EXAMPLES / f"{name}.py").read_text()))
    done = run(program, tmp_path)
    assert not list(tmp_path.glob("*.db"))
    assert (done.stdout, done.returncode) == (run(EXAMPLES / f"{name}.py", tmp_path).stdout, 0), done.stderr


def test_the_first_program_runs(tmp_path: Path) -> None:
    done = run(EXAMPLES / "first.py", tmp_path)
    assert (done.stdout, done.returncode) == ("receipt for o-1 to ada@example.com\n", 0), done.stderr


def test_the_first_program_fits_in_twelve_lines() -> None:
    assert len(code_lines((EXAMPLES / "first.py").read_text())) <= LONGEST_FIRST_PROGRAM


def test_every_example_is_tested() -> None:
    tested = {"first", "notification", "state_transfer", "event_sourcing"}
    tested |= {f"with_{name}" for name in ("fastapi", "flask", "litestar", "starlette")}  # see test_integrations
    assert {path.stem for path in EXAMPLES.glob("*.py")} == tested
