"""How commands are declared: with rich-click on a terminal, with click elsewhere, where its plain help is wanted.

The two have the same interface. Not importing the rich one is two thirds of the time `tidings --help | less` takes.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING or sys.stdout is None or not sys.stdout.isatty():
    import click
    from click import Command, Group
else:
    import rich_click as click
    from rich_click import RichCommand as Command
    from rich_click import RichGroup as Group

__all__ = ["Command", "Group", "click"]
