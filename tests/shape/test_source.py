"""The source keeps its size and its words: one concept per file, one word per concept."""

import ast
import re
from collections.abc import Iterator

import pytest

from tests.shape.tree import SOURCE, modules

LONGEST = 400
VAGUE_MODULES = {"base", "common", "helper", "helpers", "manager", "managers", "misc", "util", "utils"}

# Refused in the public names of classes and functions; docs/glossary.md has the word to use instead.
REFUSED = """
    aggregate bookmark dedup entity firehose forwarder helper listener manager nack orchestrator
    packet poison projector QoS reprocess requeue saga util workflow
    domain_event integration_event parking_lot routing_key unit_of_work
""".split()
# Refused as the name of a thing; as a verb or beside another noun in a function they are plain English.
REFUSED_IN_CLASSES = """
    action agent backend cache callback capabilities channel cursor delta document driver engine exchange frame guard
    item job label notification offset revision runner sequence session signal task transform transport view wrapper
""".split()
# A word belongs where it is the concept itself, or where somebody else's protocol uses it.
ALLOWED = {
    "snapshot": {"patterns/snapshot.py"},
    "channel": {"brokers/rabbitmq/connection.py"},
    "exchange": {"brokers/rabbitmq/topology.py"},
}


def words(name: str) -> str:
    """`UnitOfWork`, `units_of_work` -> `unit_of_work`: lower case, singular, one form for every style."""
    parts = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+", name)
    return "_".join(part.lower().removesuffix("s") if len(part) > 3 else part.lower() for part in parts)


def refused(path: str, source: str) -> Iterator[str]:
    """The public class and function names of a module that use a refused word."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) or node.name.startswith("_"):
            continue
        listed = [*REFUSED, "snapshot", *(REFUSED_IN_CLASSES if isinstance(node, ast.ClassDef) else ())]
        for word in listed:
            if f"_{words(word)}_" in f"_{words(node.name)}_" and path not in ALLOWED.get(word, ()):
                yield f"{path}:{node.lineno}: {node.name} says {word!r}"


def test_no_module_is_longer_than_a_reader_can_hold() -> None:
    lengths = {str(path.relative_to(SOURCE)): len(path.read_text().splitlines()) for path in modules()}
    assert {path: length for path, length in lengths.items() if length > LONGEST} == {}


def test_every_module_is_named_after_a_concept() -> None:
    assert [path for path in modules() if VAGUE_MODULES & {path.stem, path.parent.name}] == []


def test_public_names_use_the_words_of_the_glossary() -> None:
    found = [line for path in modules() for line in refused(str(path.relative_to(SOURCE)), path.read_text())]
    assert found == []


@pytest.mark.parametrize(
    "source",
    [
        "class OrderAggregate: ...",
        "class AggregateRoots: ...",
        "class UnitOfWork: ...",
        "class Saga: ...",
        "class QoS: ...",
        "class Store:\n    def nack(self): ...",
        "async def requeue_all(): ...",
        "def take_snapshot(): ...",
        "class MessageListener: ...",
        "class TaskRunner: ...",
    ],
)
def test_a_refused_word_is_found(source: str) -> None:
    assert list(refused("core/part.py", source)) != []


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("patterns/snapshot.py", "class Snapshot: ..."),
        ("core/lanes.py", "def next_in_view(): ..."),
        ("core/lanes.py", "class _Cursor: ..."),
        ("core/lanes.py", "class Enact: ..."),
        ("core/lanes.py", "class Itemised: ..."),
    ],
)
def test_a_word_that_only_looks_alike_is_not(path: str, source: str) -> None:
    assert list(refused(path, source)) == []
