"""`python -m benchmarks [--only NAME]... [--quick]`: measure, print a table, keep the figures."""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from benchmarks import handlers, idle_memory, latency, publish, report, streams
from benchmarks.measure import QUICK, Effort, Others, Result, measure

FIGURES = (*publish.FIGURES, *streams.FIGURES, *handlers.FIGURES, *latency.FIGURES, *idle_memory.FIGURES)
RESULTS = Path(__file__).parent / "results"


def main() -> int:
    """Measure what was asked for; 0 unless a figure could not be measured at all."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="Measure tidings against bare loops and peers."
    )
    parser.add_argument(
        "--only", action="append", metavar="NAME", help="figures whose name contains this; may be repeated"
    )
    parser.add_argument("--quick", action="store_true", help="few and short rounds: does it run, not how fast")
    parser.add_argument(
        "--patient",
        type=float,
        default=0.0,
        metavar="SECONDS",
        help="on a busy machine: how long each side may wait for quiet moments to have its rounds in",
    )
    asked = parser.parse_args()
    effort = replace(QUICK if asked.quick else Effort(), patience=asked.patient)

    figures = [figure for figure in FIGURES if not asked.only or any(name in figure.name for name in asked.only)]
    if not figures:
        names = ", ".join(figure.name for figure in FIGURES)
        parser.error(f"no figure is called like {' or '.join(asked.only)}; there are {names}")

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the folder of the run is removed
    RESULTS.mkdir(exist_ok=True)
    others = Others()
    results: list[Result] = []
    # On the disk of the repository: /tmp may be memory, where a flush costs nothing and every ratio lies.
    with tempfile.TemporaryDirectory(prefix="run-", dir=RESULTS) as folder:
        results.extend(measure(figures, Path(folder), effort, say))
    say("")
    report.show(results, others.share())
    whole = not asked.only and not asked.quick
    report.write(results, RESULTS / ("latest.jsonl" if whole else "partial.jsonl"), others.share())
    return 1 if any(result.error for result in results) else 0


def say(doing: str) -> None:
    """On a terminal, one line that changes; elsewhere nothing, so that logs hold the table alone."""
    if sys.stderr.isatty():
        print(f"\r\033[K{doing[:100]}", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
