"""What the page about guarantees says of the last run is what that run has shown."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from tests import proofs

RESULTS = """<testsuites><testsuite>
<testcase name="a"><properties><property name="proves" value="G9 SNS/SQS 0"/></properties></testcase>
<testcase name="b"><properties>
    <property name="proves" value="G9 SQLite 1200"/><property name="proves" value="G1 SQLite 7"/>
</properties></testcase>
<testcase name="c"><properties><property name="proves" value="G9 SQLite 0"/></properties></testcase>
<testcase name="d"><properties><property name="proves" value="G2 SQLite 5"/></properties><failure/></testcase>
<testcase name="e"><properties><property name="proves" value="G2 Kafka 0"/></properties><skipped/></testcase>
</testsuite></testsuites>"""


@pytest.fixture
def page(tmp_path, monkeypatch):
    page = tmp_path / "page.md"
    page.write_text(f"before\n{proofs.BEGIN}\nold\n{proofs.END}\nafter\n")
    monkeypatch.setattr(proofs, "PAGE", page)
    return page


@pytest.fixture
def run(tmp_path, monkeypatch):
    def run(results, *options):
        path = tmp_path / "results.xml"
        path.write_text(results)
        monkeypatch.setattr("sys.argv", ["proofs", str(path), *options])
        proofs.main()

    return run


def test_what_passed_is_on_the_page_and_what_failed_is_not(page, run):
    run(RESULTS)
    assert page.read_text() == (
        f"before\n{proofs.BEGIN}\n"
        "| Number | SQLite | PostgreSQL | Kafka | RabbitMQ | SNS/SQS |\n|---|---|---|---|---|---|\n"
        "| G1 | 1 (7) |  |  |  |  |\n| G9 | 2 (1,200) |  |  |  | 1 |\n"
        f"{proofs.END}\nafter\n"
    )


def test_a_page_that_says_more_than_the_run_has_shown_is_found(page, run):
    run(RESULTS)
    before = page.read_text()
    run(RESULTS.replace("1200", "13"), "--check")
    with pytest.raises(SystemExit, match="no test of it has passed: G1 on SQLite, G9 on SQLite"):
        run(RESULTS.replace("SQLite", "Kafka"), "--check")
    assert page.read_text() == before


def test_what_could_not_run_here_is_not_missing(page, run):
    run(RESULTS)
    page.write_text(page.read_text().replace("| G9 |", "| G2 |  |  | 1 |  |  |\n| G9 |"))
    run(RESULTS, "--check")


@pytest.mark.parametrize(
    ("name", "asked", "claims"),
    [
        ("test_g9_keys_are_in_order[sqlite]", ["tmp_path"], ["G9 SQLite 0"]),
        ("test_g9_keys_are_in_order", ["tmp_path", "postgres_store_url"], ["G9 PostgreSQL 0"]),
        ("test_g9_keys_are_in_order", ["postgres_url", "kafka_url"], ["G9 Kafka 0"]),
        ("test_nothing_is_lost", ["sqs_url"], []),
    ],
)
def test_a_test_names_what_it_proves_and_where(name, asked, claims):
    item = SimpleNamespace(name=name, fixturenames=asked, path=Path("test_it.py"), user_properties=[])
    item.iter_markers = lambda _: []
    proofs.note_claims(item)
    assert item.user_properties == [("proves", claim) for claim in claims]


def test_a_marker_names_what_a_test_proves():
    item = SimpleNamespace(name="test_it", path=Path("tests/faults/test_rabbitmq.py"), user_properties=[])
    item.iter_markers = lambda _: [SimpleNamespace(args=("G1", "G5"))]
    proofs.note_claims(item)
    assert item.user_properties == [("proves", "G1 RabbitMQ 0"), ("proves", "G5 RabbitMQ 0")]
