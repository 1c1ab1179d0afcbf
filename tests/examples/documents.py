"""The pages that people read, their code blocks, and a stage on which the blocks of a page are played in order.

What a block promises depends on its language: `python` is part of a tested file, or runs; `console` holds commands
(`$ ...`), each with the output it is to give, in which `...` stands for anything; `text` is a drawing.
"""

import ast
import asyncio
import doctest
import inspect
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import time
import types
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TESTED = [*sorted((ROOT / "examples").rglob("*.py")), *sorted((ROOT / "tests" / "examples").glob("test_*.py"))]

_FENCE = re.compile(r"```(\w*)\n(.*?)```\n", re.DOTALL)
_HEADING = re.compile(r"#+ ")
EXTRA = re.compile(r"pip install '(\.|tidings)\[[a-z]+\]'")
_PATIENCE = 30.0  # seconds until a worker must have said that it works


@dataclass(frozen=True)
class Block:
    """One fenced block.

    Attributes:
        page: Path of the page.
        line: Number of its first line.
        section: Number of headings above it.
        language: "python", "console", "text".
        text: What is inside.
    """

    page: Path
    line: int
    section: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def pages() -> list[Path]:
    """The pages in the root and in docs."""
    return [*sorted(ROOT.glob("README*.md")), *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page, in order."""
    text = page.read_text("utf-8")
    found = []
    for fence in _FENCE.finditer(text):
        above = _FENCE.sub("", text[: fence.start()])
        section = sum(1 for line in above.splitlines() if _HEADING.match(line))
        found.append(Block(page, text.count("\n", 0, fence.start()) + 2, section, fence[1], fence[2]))
    return found


# ---- python ----------------------------------------------------------------------------------------------------------


def chunks(source: str) -> list[list[str]]:
    """The paragraphs of a source, each with its common indentation taken away."""
    return [textwrap.dedent(part).strip("\n").splitlines() for part in re.split(r"\n\s*\n", source.strip("\n"))]


def is_part_of(source: str, whole: str) -> bool:
    """True where every paragraph of a source stands in a file, line by line, in the same order."""
    lines = whole.splitlines()
    begin = 0
    for chunk in chunks(source):
        for at in range(begin, len(lines) - len(chunk) + 1):
            if textwrap.dedent("\n".join(lines[at : at + len(chunk)])).splitlines() == chunk:
                begin = at + len(chunk)
                break
        else:
            return False
    return True


def origin_of(block: Block) -> Path | None:
    """The tested file that a block is taken from."""
    return next((path for path in TESTED if is_part_of(block.text, path.read_text("utf-8"))), None)


# ---- the stage -------------------------------------------------------------------------------------------------------


@dataclass
class Stage:
    """A folder with a copy of the examples, in which the blocks of one page are played.

    Attributes:
        folder: Empty at first.
        database: URL that stands in for those of PostgreSQL that the page exports.
    """

    folder: Path
    database: str = ""
    module: types.ModuleType = field(default_factory=lambda: types.ModuleType("page"))
    workers: list[tuple[subprocess.Popen[bytes], Path, str]] = field(default_factory=list)
    section: int = 0

    def __post_init__(self) -> None:
        for path in (ROOT / "examples").glob("*.py"):
            shutil.copy(path, self.folder)
        self.env = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "NO_COLOR": "1"}
        self.env.pop("TIDINGS_APP", None)

    def play(self, block: Block) -> None:
        """Play one block; raises where it does not do what the page says."""
        if block.section != self.section:
            self.curtain()
            self.section = block.section
        if block.language == "python":
            self._python(block)
        elif block.language == "console":
            for command, promised in commands(block):
                self._command(block, command, promised)

    def _python(self, block: Block) -> None:
        sys.modules[self.module.__name__] = self.module  # annotations are looked up where a class was defined
        source = "\n" * (block.line - 1) + block.text
        code = compile(source, str(block.page), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        result = eval(code, vars(self.module))
        if inspect.iscoroutine(result):
            asyncio.run(result)

    def _command(self, block: Block, command: str, promised: str) -> None:
        if command.startswith("make "):
            targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
            assert command.split()[1] in targets, f"{block}: there is no {command!r}"
        elif command.startswith("pip install "):
            wanted = command.partition(" #")[0].rstrip()
            assert wanted == "pip install ." or EXTRA.fullmatch(wanted)  # test_wheel builds what it installs
        elif command.startswith("cd "):
            self.folder = self.folder / command.split()[1]
        elif command.startswith("export "):
            name, _, value = command.removeprefix("export ").partition("=")
            place, _, options = value.partition("?")
            is_real = not place.startswith("postgresql:")
            self.env[name] = value if is_real else f"{self.database}{options and f'?{options}'}"
        elif command.startswith("tidings run"):
            self._start(command, promised)
        else:
            done = subprocess.run(
                ["bash", "-c", command],
                cwd=self.folder,
                env=self.env,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                check=False,
            )
            code = int(found[1]) if (found := re.search(r"# exits with (\d+)", command)) else 0
            printed = done.stdout.decode()
            assert done.returncode == code, f"{block}: $ {command}\n{printed}\nexit code {done.returncode}"
            compare(f"{block}: $ {command}", promised, printed)

    def _start(self, command: str, promised: str) -> None:
        """Start a worker, as in another terminal, and wait until it works."""
        told = self.folder / f"worker-{len(self.workers)}.txt"
        with told.open("wb") as out:
            worker = subprocess.Popen(["bash", "-c", f"exec {command}"], cwd=self.folder, env=self.env, stderr=out)
        self.workers.append((worker, told, promised))
        until = time.monotonic() + _PATIENCE
        count = int(found[1]) if (found := re.search(r"--workers (\d+)", command)) else 1
        while told.read_text().count(" works on ") < count:
            assert worker.poll() is None, told.read_text()
            assert time.monotonic() < until, told.read_text()
            time.sleep(0.02)

    def curtain(self) -> None:
        """Stop the workers that the last section started, as Ctrl-C would."""
        for worker, told, promised in self.workers:
            worker.send_signal(signal.SIGINT)
            assert worker.wait(_PATIENCE) == 0, told.read_text()
            compare(str(told), promised, told.read_text())
        self.workers.clear()


def commands(block: Block) -> Iterator[tuple[str, str]]:
    """The commands of a console block, each with the output that the page shows."""
    for part in re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]:
        command, _, promised = part.partition("\n")
        yield command, promised


def compare(what: str, promised: str, printed: str) -> None:
    """Fail where a program printed something else; the width of blanks does not matter, `...` is anything."""
    if promised.strip():
        flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
        agrees = doctest.OutputChecker().check_output(promised, printed, flags)
        assert agrees, f"{what}\npromised:\n{promised}\nprinted:\n{printed}"
