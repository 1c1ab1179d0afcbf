"""`manage.py tidings`: the command line of tidings, with Django set up first."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from django.conf import settings  # type: ignore[import-untyped]
from django.core.management.base import BaseCommand  # type: ignore[import-untyped]


class Command(BaseCommand):  # type: ignore[misc]  # Django has no types
    """Hands its arguments on."""

    help = "Run handlers, look at dead letters, and all else that `tidings` does: manage.py tidings --help"

    def run_from_argv(self, argv: Sequence[str]) -> None:
        """Run `manage.py tidings ...` and end the process with its exit code."""
        from tidings.ops.cli import main

        if app := getattr(settings, "TIDINGS_APP", None):
            os.environ.setdefault("TIDINGS_APP", app)
        program = Path(argv[0])  # manage.py, which knows the settings; or `python -m django`, which is told
        main(argv[2:], [*(["-m", "django"] if program.name == "__main__.py" else [str(program)]), argv[1]])
