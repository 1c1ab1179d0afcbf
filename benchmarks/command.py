"""The command lines of all benchmarks: which figures, how much effort, which servers; a table, a file of figures."""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from benchmarks import report
from benchmarks.measure import QUICK, Effort, Figure, Result, measure, price_of_a_flush
from benchmarks.quiet import Others
from tests.servers.server import Server
from tests.servers.servers import Servers

RESULTS = Path(__file__).parent / "results"
PATIENCE = 15.0
"""Seconds for which each side waits for quiet moments if nobody says otherwise; on a quiet machine it takes none."""
S = TypeVar("S", bound=Server)


def command(
    name: str,
    description: str,
    figures: Sequence[Figure],
    file: str,
    serve: Callable[[Path], AbstractContextManager[object]] = nullcontext,
) -> int:
    """Measure what was asked for, print a table, keep the figures; 0 unless one could not be measured at all.

    Args:
        name: Of the module.
        description: For `--help`.
        figures: In the order of the table.
        file: Where a whole run keeps its figures, without the ending.
        serve: Starts what all sides share, with its data in a folder; ends it afterwards.
    """
    parser = argparse.ArgumentParser(prog=f"python -m {name}", description=description)
    parser.add_argument(
        "--only", action="append", metavar="NAME", help="figures whose name contains this; may be repeated"
    )
    parser.add_argument("--quick", action="store_true", help="few and short rounds: does it run, not how fast")
    parser.add_argument(
        "--patient",
        type=float,
        metavar="SECONDS",
        help=f"how long each side may wait for quiet moments to have its rounds in; else {PATIENCE:g}, with --quick 0",
    )
    parser.add_argument(
        "--flush",
        type=float,
        metavar="MS",
        help="on a disk that flushes at once: let strace make every flush take so much longer, on all sides",
    )
    asked = parser.parse_args()
    if asked.flush is not None and not _is_traced():
        if shutil.which("strace") is None:
            parser.error("--flush needs strace: apt-get install strace")
        os.execvp("strace", [*slower(asked.flush), sys.executable, "-m", name, *sys.argv[1:]])
    effort = QUICK if asked.quick else Effort(patience=PATIENCE)
    if asked.patient is not None:
        effort = replace(effort, patience=asked.patient)
    chosen = [each for each in figures if not asked.only or any(part in each.name for part in asked.only)]
    if not chosen:
        names = ", ".join(each.name for each in figures)
        parser.error(f"no figure is called like {' or '.join(asked.only)}; there are {names}")

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the folder of the run is removed
    RESULTS.mkdir(exist_ok=True)
    others = Others()
    results: list[Result] = []
    # On the disk of the repository: /tmp may be memory, where a flush costs nothing and every ratio lies.
    with tempfile.TemporaryDirectory(prefix="run-", dir=RESULTS) as folder, serve(Path(folder)):
        flush = price_of_a_flush(Path(folder))
        results.extend(measure(chosen, Path(folder), effort, say))
    say("")
    report.show(results, others.share(), flush)
    if asked.only or asked.quick:
        file = "partial"
    elif asked.flush is not None:
        file += "-slower"
    report.write(results, RESULTS / f"{file}.jsonl", others.share(), flush)
    return 1 if any(result.error for result in results) else 0


def slower(flush: float) -> list[str]:
    """What runs a program so that every flush of it and of its children takes longer. Args: flush: by milliseconds."""
    delay = f"inject=fdatasync,fsync:delay_exit={round(1_000 * flush)}"
    return ["strace", "-f", "--seccomp-bpf", "-qq", "-e", "trace=fdatasync,fsync", "-e", delay, "-o", os.devnull]


def _is_traced() -> bool:
    return "TracerPid:\t0\n" not in Path("/proc/self/status").read_text()


def say(doing: str) -> None:
    """On a terminal, one line that changes; elsewhere nothing, so that logs hold the table alone."""
    if sys.stderr.isatty():
        print(f"\r\033[K{doing[:100]}", end="", file=sys.stderr, flush=True)


def served(kind: type[S], place: list[S]) -> Callable[[Path], AbstractContextManager[object]]:
    """For `command`: a server of its own, in `place` while it runs."""

    @contextmanager
    def serve(folder: Path) -> Iterator[None]:
        with closing(Servers(folder)) as servers:
            place.append(servers.shared(kind))
            yield

    return serve
