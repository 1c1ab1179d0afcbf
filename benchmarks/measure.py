"""How a figure is measured: ours and its floor in alternating rounds of one run, the median of the rounds.

A side is a context manager over a folder of its own. Entering it prepares (opens files, fills a backlog); what it
yields runs one round and returns a `Sample`. Only the round is timed.
"""

from __future__ import annotations

import gc
import os
import statistics
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.quiet import Patience


@dataclass(frozen=True)
class Effort:
    """How much work a run does.

    Attributes:
        rounds: Rounds of every side; five or more for figures worth quoting.
        seconds: Length of a round that counts what it gets done in a given time.
        events: Events of the longest log to project; other backlogs are shares of it.
        patience: Seconds that each side may wait for others to leave the machine alone; see `quiet`.
    """

    rounds: int = 5
    seconds: float = 0.6
    events: int = 100_000
    patience: float = 0.0


QUICK = Effort(rounds=2, seconds=0.1, events=5_000)


@dataclass(frozen=True)
class Sample:
    """What one round of one side found.

    Attributes:
        operations: How many were done.
        seconds: Wall time they took.
        cpu: CPU seconds of the process that did them, all threads, user and system.
        latencies: Seconds, one for each operation, where the round measured them.
        mebibytes: Memory, where the round measured it.
    """

    operations: int = 1
    seconds: float = 1.0
    cpu: float = 0.0
    latencies: Sequence[float] = ()
    mebibytes: float = 0.0


Round = Callable[[], Sample]
Side = Callable[[Path, Effort], AbstractContextManager[Round]]
Score = Callable[[Sample], float]


# ---- scores: always larger when better, so that one rule reads every ratio -------------------------------------------


def rate(sample: Sample) -> float:
    """Operations a second."""
    return sample.operations / sample.seconds


def per_cpu_second(sample: Sample) -> float:
    """Operations a CPU second; 40,000 is 25 us each."""
    return sample.operations / sample.cpu


def idleness(sample: Sample) -> float:
    """Seconds of waiting for each CPU second spent; 100 is 1 % of a core."""
    return sample.seconds / max(sample.cpu, 1e-9)


def thrift(sample: Sample) -> float:
    """Reciprocal of the memory used; below 0.1 MiB everything counts as 0.1."""
    return 1 / max(sample.mebibytes, 0.1)


def promptness(share: float) -> Score:
    """Reciprocal of the latency that this share of the operations stayed under."""

    def score(sample: Sample) -> float:
        ordered = sorted(sample.latencies)
        return 1 / ordered[min(len(ordered) - 1, int(share * len(ordered)))]

    return score


def milliseconds(score: float) -> str:
    """Writes the reciprocal of a latency as the latency."""
    return f"{1_000 / score:.2f} ms"


def latency_of(share: float) -> Mapping[str, Any]:
    """How a figure reads and shows the latency that this share of the operations stayed under."""
    return {"score": promptness(share), "shown": milliseconds, "unit": "1/s, reciprocal of the latency"}


CPU: Mapping[str, Any] = {
    "score": per_cpu_second,
    "shown": lambda score: f"{1e6 / score:.1f} us",
    "unit": "operations a CPU second",
}
"""How a figure reads and shows the CPU time of an operation."""


# ---- figures ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One line of the table.

    Attributes:
        name: Stable, `family.figure`; what `--only` looks for.
        title: In words.
        ours: The side with tidings.
        floor: The side it is compared with: a bare loop, a peer, or a limit.
        target: The ratio to reach.
        score: Reads one number out of a sample, larger when better.
        shown: Writes a score for people; a latency as milliseconds, not as its reciprocal.
        unit: Of the score.
        note: What the floor does, in a few words.
        rounds: Where one round says it all, or many short ones, which take as long together, say more than a few that
            are long: the machine changes its speed from one second to the next. Else as many as the effort asks for.
    """

    name: str
    title: str
    ours: Side
    floor: Side
    target: float
    score: Score = rate
    shown: Callable[[float], str] = "{:,.0f}/s".format
    unit: str = "ops/s"
    note: str = ""
    rounds: int | None = None


Row = tuple[str, str, Side, Side, float, str]
"""Name within its family, title, ours, floor, target and note of a figure."""


def family(name: str, *rows: Row, **others: Any) -> tuple[Figure, ...]:
    """Figures whose names begin alike, one a line. Args: others: fields that all of them share."""
    names = ("name", "title", "ours", "floor", "target", "note")
    figures = (dict(zip(names, row, strict=True)) for row in rows)
    return tuple(Figure(**each | {"name": f"{name}.{each['name']}"}, **others) for each in figures)


@dataclass(frozen=True)
class Result:
    """What the rounds of one figure say.

    Attributes:
        figure: Which.
        ours: Median score of our side.
        floor: Median score of the floor.
        ratio: ours / floor.
        low: Smallest ratio of two samples of the same round.
        high: Largest one.
        cpu: Median CPU microseconds per operation, ours.
        floor_cpu: The same of the floor; 0 for a limit.
        rounds: How many.
        error: Traceback of the side that failed, or "".
    """

    figure: Figure
    ours: float = 0.0
    floor: float = 0.0
    ratio: float = 0.0
    low: float = 0.0
    high: float = 0.0
    cpu: float = 0.0
    floor_cpu: float = 0.0
    rounds: int = 0
    error: str = ""

    @property
    def met(self) -> bool:
        """True where the median ratio reaches the target."""
        return not self.error and self.ratio >= self.figure.target


def limit(sample: Sample) -> Side:
    """A floor that is a number: the limit itself."""

    @contextmanager
    def side(_folder: Path, _effort: Effort) -> Iterator[Round]:
        yield lambda: sample

    return side


def measure(figures: Sequence[Figure], folder: Path, effort: Effort, say: Callable[[str], None]) -> Iterator[Result]:
    """Measure figures; neighbours that share a side share its rounds.

    Args:
        figures: In the order of the table.
        folder: Where the sides make their folders.
        effort: How much work.
        say: Told what is going on, one line at a time.

    Yields:
        One result for each figure, in order.
    """
    patience = Patience()
    for number, together in enumerate(_families(figures)):
        names = ", ".join(figure.name for figure in together)
        sides = list(dict.fromkeys(side for figure in together for side in (figure.floor, figure.ours)))
        rounds = max(figure.rounds or effort.rounds for figure in together)
        samples, errors = _alternate(
            sides,
            folder / str(number),
            replace(effort, rounds=rounds, seconds=effort.seconds * min(1, effort.rounds / rounds)),
            patience,
            lambda doing, names=names: say(f"{names}: {doing}"),
        )
        for figure in together:
            error = errors.get(figure.ours) or errors.get(figure.floor)
            yield Result(figure, error=error) if error else _judge(figure, samples[figure.ours], samples[figure.floor])


def _families(figures: Sequence[Figure]) -> Iterator[list[Figure]]:
    together: list[Figure] = []
    for figure in figures:
        sides = {side for other in together for side in (other.ours, other.floor)}
        if together and not {figure.ours, figure.floor} & sides:
            yield together
            together = []
        together.append(figure)
    yield together


def _alternate(
    sides: Sequence[Side], folder: Path, effort: Effort, patience: Patience, say: Callable[[str], None]
) -> tuple[dict[Side, list[Sample]], dict[Side, str]]:
    """Let every side have one round after the other, beginning with another side each time."""
    samples: dict[Side, list[Sample]] = {side: [] for side in sides}
    errors: dict[Side, str] = {}
    with ExitStack() as stack:
        turns: dict[Side, Round] = {}
        for number, side in enumerate(sides):
            say("preparing")
            own = folder / str(number)
            own.mkdir(parents=True)
            try:
                turns[side] = stack.enter_context(side(own, effort))
            except Exception:  # noqa: BLE001 - one broken side must not hide the other figures
                errors[side] = traceback.format_exc()
        patience.last(effort.patience * len(turns))
        for turn in range(effort.rounds):
            say(f"round {turn + 1} of {effort.rounds}")
            for step in range(len(sides)):
                side = sides[(turn + step) % len(sides)]
                if side in errors:
                    continue
                gc.collect()
                try:
                    samples[side].append(patience.give(turns[side]))
                except Exception:  # noqa: BLE001 - as above
                    errors[side] = traceback.format_exc()
    return samples, errors


def _judge(figure: Figure, ours: Sequence[Sample], floor: Sequence[Sample]) -> Result:
    our_scores, floor_scores = [figure.score(sample) for sample in ours], [figure.score(sample) for sample in floor]
    pairs = [one / other for one, other in zip(our_scores, floor_scores, strict=True)]
    our_median, floor_median = statistics.median(our_scores), statistics.median(floor_scores)
    return Result(
        figure,
        ours=our_median,
        floor=floor_median,
        ratio=our_median / floor_median,
        low=min(pairs),
        high=max(pairs),
        cpu=statistics.median(1e6 * sample.cpu / sample.operations for sample in ours),
        floor_cpu=statistics.median(1e6 * sample.cpu / sample.operations for sample in floor),
        rounds=len(pairs),
    )


# ---- clocks ----------------------------------------------------------------------------------------------------------


class Stopwatch:
    """Wall and CPU time from its making until `sample`."""

    def __init__(self) -> None:
        self.started, self.cpu = time.perf_counter(), time.process_time()

    def sample(self, operations: int, latencies: Sequence[float] = ()) -> Sample:
        """The time since then, as a sample of that many operations."""
        return Sample(
            operations, time.perf_counter() - self.started, time.process_time() - self.cpu, latencies=latencies
        )


def during(seconds: float) -> Iterator[int]:
    """Count from 0 for so many seconds."""
    until = time.perf_counter() + seconds
    number = 0
    while time.perf_counter() < until:
        yield number
        number += 1


def price_of_a_flush(folder: Path) -> float:
    """Milliseconds that fdatasync takes after 4 KiB more of a file; the median of two hundred."""
    page, took = bytes(4096), []
    with (folder / "flushed").open("wb", buffering=0) as file:
        for _ in range(200):
            file.write(page)
            began = time.perf_counter()
            os.fdatasync(file.fileno())
            took.append(time.perf_counter() - began)
    return 1_000 * statistics.median(took)
