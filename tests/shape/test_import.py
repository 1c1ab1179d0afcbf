"""`import tidings` is cheap: no driver, no command line, no model library, and little processor time."""

import os
import resource
import statistics
import subprocess
import sys

import pytest

# Loaded when used, never before. One name stands for everything below it.
HEAVY = """
    aio_pika aiobotocore aiohttp aiokafka asyncpg attr attrs boto3 botocore click confluent_kafka django fastapi httpx
    hypothesis opentelemetry pika prometheus_client psycopg pydantic pytest requests rich rich_click sqlalchemy
    starlette uvicorn
""".split()
FLOOR = "import asyncio, msgspec, sqlite3"
DEAREST = 1.3  # times the floor
ROUNDS = 9


def loaded_by(statement: str) -> set[str]:
    """Top-level names in sys.modules after the statement, in a fresh interpreter."""
    show = f"{statement}\nimport sys\nprint(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", show], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def processor_time(statement: str) -> float:
    """User and system seconds of a fresh interpreter that runs the statement."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    # Byte code may be written, so that only the first round compiles, as on any machine.
    settings = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    subprocess.run([sys.executable, "-c", statement], check=True, env=settings)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def ratio(statement: str, floor: str) -> float:
    """Processor time of one statement over another's: medians of alternating runs, after one to warm up."""
    times = [(processor_time(statement), processor_time(floor)) for _ in range(ROUNDS + 1)][1:]
    mine, other = zip(*times, strict=True)
    return statistics.median(mine) / statistics.median(other)


@pytest.mark.parametrize("statement", ["import tidings", "from tidings import *"])
def test_importing_tidings_loads_nothing_heavy(statement: str) -> None:
    at_start = loaded_by("pass")  # an environment may load things by itself
    assert sorted((loaded_by(statement) - at_start) & set(HEAVY)) == []


def test_something_heavy_would_be_seen() -> None:
    assert "click" in loaded_by("import click.core")


def test_importing_tidings_costs_little_more_than_what_it_stands_on() -> None:
    assert ratio("import tidings", FLOOR) <= DEAREST


def test_a_dear_import_would_be_seen() -> None:
    assert (
        ratio(f"{FLOOR}, rich_click, rich.progress, email.mime.text, xml.dom.minidom, unittest.mock", FLOOR) > DEAREST
    )
