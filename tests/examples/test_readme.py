"""The pages tell the truth: their code runs, their commands print what is shown, their lists are complete."""

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.__main__ import FIGURES
from tests import proofs
from tests.examples.documents import ROOT, Block, Stage, blocks, commands, is_part_of, origin_of, pages
from tests.shape.test_source import REFUSED, REFUSED_IN_CLASSES
from tidings import errors
from tidings.core.operations import State
from tidings.errors import TidingsError
from tidings.ops.cli import failures
from tidings.testing.verdict import NAMES

ENGLISH, VIETNAMESE = ROOT / "README.md", ROOT / "README.vi.md"
DOCS = ROOT / "docs"
MOST_LINES_OF_A_DECISION = 60
MANY = 20

PLAYED = [page for page in pages() if page != VIETNAMESE and any(block.language != "text" for block in blocks(page))]


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


# ---- code ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", pages(), ids=name_of)
def test_every_block_says_what_it_is(page: Path) -> None:
    assert [str(block) for block in blocks(page) if block.language not in {"python", "console", "text"}] == []


@pytest.mark.parametrize("page", PLAYED, ids=name_of)
def test_the_code_of_a_page_does_what_the_page_says(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    monkeypatch.chdir(tmp_path)
    speaks_to_a_server = "export STORE=postgresql:" in page.read_text("utf-8")
    stage = Stage(tmp_path, request.getfixturevalue("newest_postgres_url") if speaks_to_a_server else "")
    try:
        for block in blocks(page):
            if block.language == "python" and (page == ENGLISH or origin_of(block)):
                assert origin_of(block), f"{block} is in no tested file"
            else:
                stage.play(block)
        stage.curtain()
    finally:
        for worker, _, _ in stage.workers:
            worker.kill()
            worker.wait()


def test_the_first_program_of_the_readme_is_the_first_example() -> None:
    first = next(block for block in blocks(ENGLISH) if block.language == "python")
    _, _, program = (ROOT / "examples" / "first.py").read_text().partition('"""\n\n')
    assert first.text == program


@pytest.mark.parametrize(
    ("part", "whole", "found"),
    [
        ("b = 2\nc = 3", "a = 1\nb = 2\nc = 3\n", True),
        ("a = 1\n\nc = 3", "a = 1\nb = 2\nc = 3\n", True),
        ("f()", "def g():\n    f()\n", True),
        ("c = 3\n\na = 1", "a = 1\nb = 2\nc = 3\n", False),
        ("a = 1\nc = 3", "a = 1\nb = 2\nc = 3\n", False),
        ("a = 2", "a = 1\n", False),
    ],
)
def test_a_snippet_is_compared_paragraph_by_paragraph(part: str, whole: str, *, found: bool) -> None:
    assert is_part_of(part, whole) is found


# ---- two languages ---------------------------------------------------------------------------------------------------


def outline(page: Path) -> Iterator[str]:
    """What a page is made of, whatever its language: headings, list entries, columns, links, code."""
    text = re.sub(r"```.*?```", "```", page.read_text("utf-8"), flags=re.DOTALL)
    for line in text.splitlines():
        if found := re.match(r"#+|- |```", line):
            yield found[0]
        elif line.startswith("|"):
            yield f"{line.count('|')} columns"
        for target in re.findall(r"\]\(([^)\s]+)\)", line):
            if not target.startswith("README"):
                yield target


def code_of(block: Block) -> object:
    if block.language == "console":
        return [(re.sub(r"\s+#.*", "", command), promised) for command, promised in commands(block)]
    return block.text


def test_the_vietnamese_readme_is_built_like_the_english_one() -> None:
    assert list(outline(VIETNAMESE)) == list(outline(ENGLISH))


def test_the_vietnamese_readme_has_the_same_code() -> None:
    assert [code_of(block) for block in blocks(VIETNAMESE)] == [code_of(block) for block in blocks(ENGLISH)]


# ---- figures ---------------------------------------------------------------------------------------------------------


def claimed(page: Path) -> dict[str, float]:
    """Figure -> ratio, from the rows of a page that name a figure of the benchmarks."""
    rows = re.findall(r"^\|.*`([a-z]+\.\w+)` *\|.*?\| *([\d.]+) *\|", page.read_text("utf-8"), re.MULTILINE)
    return {name: float(ratio) for name, ratio in rows}


def measured() -> dict[str, dict[str, object]]:
    """The figures kept in the repository, by name; a run that is not committed yet does not count."""
    show = ["git", "-C", str(ROOT), "show", "HEAD:benchmarks/results/latest.jsonl"]
    lines = subprocess.run(show, capture_output=True, text=True, check=False).stdout.splitlines()
    return {each["name"]: each for each in map(json.loads, lines)}


@pytest.mark.parametrize("page", [ENGLISH, VIETNAMESE], ids=name_of)
def test_figures_are_those_that_were_measured(page: Path) -> None:
    found, kept = claimed(page), measured()
    assert set(found) <= {figure.name for figure in FIGURES}
    wrong = {
        name: f"{ratio} is claimed; measured {kept[name]['ratio']}, rounds {kept[name]['ratio_low']} to "
        f"{kept[name]['ratio_high']}"
        for name, ratio in found.items()
        if kept and not float(str(kept[name]["ratio_low"])) <= ratio <= float(str(kept[name]["ratio_high"]))
    }
    assert wrong == {}


# ---- lists that are complete -----------------------------------------------------------------------------------------


def every(cls: type[TidingsError]) -> Iterator[type[TidingsError]]:
    """The classes below one in the error tree that have a code of their own."""
    for below in cls.__subclasses__():
        if "code" in vars(below) and below.__module__ in {errors.__name__, failures.__name__}:
            yield below
        yield from every(below)


def test_the_index_of_errors_has_them_all() -> None:
    page = (DOCS / "errors.md").read_text("utf-8")
    rows = re.findall(r"^\| (TID-\d+) \| `(\w+)` \| (yes|no) \| (\d+) \|", page, re.MULTILINE)
    wanted = {
        (cls.code, cls.__name__, "yes" if cls.transient else "no", str(failures.exit_code(cls(""))))
        for cls in every(TidingsError)
    }
    assert rows == sorted(wanted)


def test_every_guarantee_that_is_judged_or_tested_is_written_down() -> None:
    page = (DOCS / "guarantees.md").read_text("utf-8").partition(proofs.BEGIN)[0]
    written = dict(re.findall(r"^\| (G\d+) \| ([^|]+?) \|", page, re.MULTILINE))
    tests = [*(ROOT / "tests").rglob("*.py"), *(ROOT / "src/tidings/testing/conformance").rglob("*.py")]
    named = {f"G{number}" for path in tests for number in re.findall(r"\bdef test_g(\d+)_", path.read_text("utf-8"))}
    assert named - set(written) == set()
    assert {number: name for number, name in NAMES.items() if written.get(number) != name} == {}


def test_a_fault_test_that_a_guarantee_names_requires_it() -> None:
    page = (DOCS / "guarantees.md").read_text("utf-8")
    claims = [
        (number, test)
        for number, row in re.findall(r"^\| (G\d+) \|(.*)$", page, re.MULTILINE)
        for test in re.findall(r"\b(test_(?:kills|crash_points|zombies|poison|drain|disk))\b", row)
    ]
    sources = {test: (ROOT / f"tests/faults/{test}.py").read_text("utf-8") for _, test in claims}
    assert len(claims) > MANY
    assert [(number, test) for number, test in claims if f'"{number}"' not in sources[test]] == []


@pytest.mark.parametrize(
    "page", [ENGLISH, VIETNAMESE, DOCS / "guarantees.md", *sorted(DOCS.rglob("0*.md"))], ids=name_of
)
def test_a_test_that_a_page_names_exists(page: Path) -> None:
    text = page.read_text("utf-8")
    paths = [*(ROOT / "tests").rglob("*.py"), *(ROOT / "src/tidings/testing/conformance").rglob("*.py")]
    known = {name for path in paths for name in re.findall(r"\bdef (test_\w+)\(", path.read_text("utf-8"))}
    known |= {path.stem for path in paths}
    assert set(re.findall(r"`(test_\w+)`", text)) - known == set()


def test_the_diagram_of_a_delivery_shows_every_state() -> None:
    page = (DOCS / "delivery.md").read_text("utf-8")
    diagram = next(block.text for block in blocks(DOCS / "delivery.md") if block.language == "text")
    for state in State.__args__:  # type: ignore[attr-defined]
        assert re.search(rf"\b{state}\b", diagram), state
        assert re.search(rf"^\| `{state}` \|", page, re.MULTILINE), state


def test_the_glossary_has_a_better_word_for_every_refused_one() -> None:
    rows = [line.split("|") for line in (DOCS / "glossary.md").read_text("utf-8").splitlines() if line.startswith("|")]
    instead = " ".join(re.sub(r"\W+", "_", row[3].lower()) for row in rows)
    assert [word for word in (*REFUSED, *REFUSED_IN_CLASSES, "snapshot") if word.lower() not in instead] == []


# ---- decisions -------------------------------------------------------------------------------------------------------

DECISIONS = sorted((DOCS / "decisions").glob("*.md"))


@pytest.mark.parametrize("page", DECISIONS, ids=name_of)
def test_a_decision_is_short_and_has_its_parts(page: Path) -> None:
    lines = page.read_text("utf-8").splitlines()
    assert len(lines) <= MOST_LINES_OF_A_DECISION
    needed = ["## Decision", "## Evidence", "## Consequences"]
    assert [line for line in lines if line in needed] == needed


def test_decisions_are_numbered_without_gaps() -> None:
    assert [page.name[:4] for page in DECISIONS] == [f"{number:04}" for number in range(1, len(DECISIONS) + 1)]
