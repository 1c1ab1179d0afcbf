"""The repository speaks of tidings and of nothing else, and a newcomer finds the way at once."""

import re
from pathlib import PurePosixPath

import pytest

from tests.shape.tree import ROOT, kept, texts

FOREIGN = {
    "a path of one machine": r"(?<![\w.:~$})/-])/(home|root|work|Users|mnt|opt|tmp|var/tmp)/[\w.]",
    "a host of a package registry": r"pythonhosted|pypi\.(org|io)|registry\.(npmjs|yarnpkg)|crates\.io|/simple/?\b"
    r"|(?i:artifactory|artifact-registry|devpi|sonatype)|proxy\.golang|maven\.org",
    "a ticket instead of a reason": r"(?i)\b(issue|ticket|bug|pr|pull request) ?#\d|\bissue \d+\b",
    "how a text came about": r"\b(AI|LLM|GPT|Claude|Copilot|Gemini)\b|(?i:\bco-authored-by\b)"
    r"|(?i:\b(this|previous|last|next|earlier) session\b)",
    "work that is left": r"\b(TODO|FIXME|XXX|HACK)\b",
}


def foreign(path: str, text: str) -> list[str]:
    return [
        f"{path}:{number}: {what}: {found[0]!r}"
        for number, line in enumerate(text.splitlines(), 1)
        for what, pattern in FOREIGN.items()
        if (found := re.search(pattern, line))
    ]


def test_no_file_speaks_of_a_machine_a_registry_a_ticket_or_its_making() -> None:
    assert [line for path, text in texts() for line in foreign(path, text)] == []


@pytest.mark.parametrize(
    "line",
    [
        'DATA = "/home/ada/data.jsonl"',
        "see `/root/store.db`",
        "index = https://pypi.org/project",
        "url = https://mirror.example/simple/",
        "# works around issue #12",
        "as decided in issue 3",
        "This file was AI-generated.",
        "kept for the next session",
        "# TODO: retries",
    ],
)
def test_a_foreign_word_is_found(line: str) -> None:
    assert foreign("README.md", line) != []


@pytest.mark.parametrize(
    "line",
    [
        'App("sqlite:///abs/shop.db")',
        "GET /orders/home/page",
        "with Session(engine) as session:",
        "https://example.com/home/page",
        "issued 3 commands; a model generated with make",
        "a simple/plain choice",
    ],
)
def test_a_plain_word_is_not(line: str) -> None:
    assert foreign("README.md", line) == []


def test_the_pins_hold_names_and_versions_only() -> None:
    pin = re.compile(r"[a-z0-9._-]+==[a-z0-9.]+( ; [\w .'<>=!]+)?")
    assert [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not pin.fullmatch(line)] == []


def test_the_root_has_few_doors() -> None:
    entries = {PurePosixPath(path).parts[0] for path in kept()}
    assert len(entries) <= 18, sorted(entries)


@pytest.mark.parametrize("name", [path for path in kept() if re.fullmatch(r"README(\.\w+)?\.md", path)])
def test_a_readme_is_read_in_one_sitting(name: str) -> None:
    assert len((ROOT / name).read_text().splitlines()) < 200


def test_every_link_between_our_pages_leads_somewhere() -> None:
    broken = [
        f"{path}: {target}"
        for path, text in texts()
        if path.endswith(".md")
        for target in re.findall(r"\]\((?!https?://|mailto:|#)([^)#\s]+)", text)
        if not (ROOT / path).parent.joinpath(target).exists()
    ]
    assert broken == []
