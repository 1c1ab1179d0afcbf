"""What a run has proven: which guarantee, on which store or broker. It is written down with the results of the tests.

A test proves the guarantee that its name begins with (`test_g9_...`), those of its marker (`@pytest.mark.proves("G9")`)
and those that the checker has judged in it. `python -m tests.proofs RESULTS` writes what has passed into the page; with
`--check` it compares, and fails where the page claims what this run did not prove.
"""

import argparse
import re
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from tidings.testing.verdict import Report

PAGE = Path(__file__).resolve().parent.parent / "docs" / "guarantees.md"
PLACES = {
    "kafka": "Kafka",
    "rabbitmq": "RabbitMQ",
    "sqs": "SNS/SQS",
    "moto": "SNS/SQS",
    "postgres": "PostgreSQL",
    "sqlite": "SQLite",
}
"""Word in what a test asks for -> where it runs. The first one counts: an app at a broker has a store as well."""
COLUMNS = ("SQLite", "PostgreSQL", "Kafka", "RabbitMQ", "SNS/SQS")
BEGIN, END = "<!-- What has passed: made by `make guarantees` -->", "<!-- until here -->"

Proven = Mapping[str, Mapping[str, tuple[int, int]]]
"""Guarantee -> place -> (tests that passed, facts that their checkers looked at)."""


def place(item: pytest.Item) -> str:
    """Where a test runs."""
    params = getattr(getattr(item, "callspec", None), "params", {})
    asked = " ".join([*map(str, params.values()), *getattr(item, "fixturenames", ()), item.path.stem]).lower()
    return next((name for word, name in PLACES.items() if word in asked), "SQLite")


def note_claims(item: pytest.Item) -> None:
    """Write down what a test proves if it passes."""
    numbers = {f"G{found[1]}" for found in [re.match(r"test_g(\d+)_", item.name)] if found}
    numbers.update(number for marker in item.iter_markers("proves") for number in marker.args)
    for number in sorted(numbers):
        item.user_properties.append(("proves", f"{number} {place(item)} 0"))


def note_reports(item: pytest.Item, reports: Iterable[Report]) -> None:
    """Write down what the checker has found to hold, and of how many facts it is sure."""
    for report in reports:
        if not report.broken:  # else it was a planted bug that had to be found
            for verdict in report.verdicts.values():
                if verdict.checked:
                    claim = f"{verdict.guarantee} {place(item)} {verdict.checked}"
                    item.user_properties.append(("proves", claim))


def read(results: Path) -> tuple[Proven, set[tuple[str, str]]]:
    """What the tests of a run have proven, and (guarantee, place) of those that were skipped.

    Args:
        results: As `pytest --junitxml` writes them.
    """
    found: dict[str, dict[str, tuple[int, int]]] = defaultdict(dict)
    skipped: set[tuple[str, str]] = set()
    for case in ET.parse(results).iter("testcase"):
        facts: dict[tuple[str, str], int] = defaultdict(int)
        for each in case.iter("property"):
            if each.get("name") == "proves":
                number, where, count = re.fullmatch(r"(G\d+) (.+) (\d+)", each.get("value", "")).groups()
                facts[number, where] += int(count)
        if case.find("skipped") is not None:
            skipped.update(facts)
        elif case.find("failure") is None and case.find("error") is None:
            for (number, where), count in facts.items():
                tests, before = found[number].get(where, (0, 0))
                found[number][where] = tests + 1, before + count
    return found, skipped


def table(proven: Proven) -> str:
    """The same for the page."""
    lines = [f"| Number | {' | '.join(COLUMNS)} |", "|---" * (len(COLUMNS) + 1) + "|"]
    for number in sorted(proven, key=lambda number: int(number[1:])):
        cells = [_cell(*proven[number].get(where, (0, 0))) for where in COLUMNS]
        lines.append(f"| {number} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(tests: int, facts: int) -> str:
    return f"{tests:,} ({facts:,})" if facts else f"{tests:,}" if tests else ""


def claimed(page: str) -> set[tuple[str, str]]:
    """(guarantee, place) of every cell of the page that is not empty."""
    _, _, rest = page.partition(BEGIN)
    rows = re.findall(r"^\| (G\d+) \|(.*)\|$", rest.partition(END)[0], re.MULTILINE)
    return {
        (number, where)
        for number, cells in rows
        for where, cell in zip(COLUMNS, cells.split("|"), strict=True)
        if cell.strip()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Write what a run has proven into docs/guarantees.md.")
    parser.add_argument("results", type=Path, help="written by pytest --junitxml")
    parser.add_argument("--check", action="store_true", help="change nothing, fail where the page claims more")
    given = parser.parse_args()
    page = PAGE.read_text("utf-8")
    proven, skipped = read(given.results)
    if given.check:
        missing = {(number, where) for number, where in claimed(page) - skipped if where not in proven.get(number, {})}
        if missing:
            names = ", ".join(f"{number} on {where}" for number, where in sorted(missing))
            sys.exit(f"{PAGE.name} says that this is proven, but no test of it has passed: {names}")
    else:
        before, _, rest = page.partition(BEGIN)
        _, _, after = rest.partition(END)
        PAGE.write_text(f"{before}{BEGIN}\n{table(proven)}\n{END}{after}", "utf-8")


if __name__ == "__main__":
    main()
