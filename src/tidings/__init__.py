"""tidings: event notification, event-carried state transfer and event sourcing, on one file or across services.

The public names. Importing this loads no driver, no web framework and no command line; heavier parts load when used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tidings import errors
from tidings.core.envelope import Envelope
from tidings.core.guarantees import Needs
from tidings.core.message import Gone, Key, Tag, command, event, state
from tidings.core.outcome import Again, Dead
from tidings.core.retry import Retry
from tidings.core.router import Router
from tidings.core.transaction import Transaction

if TYPE_CHECKING:
    from tidings.patterns.decider import Decider
    from tidings.patterns.projection import Projection
    from tidings.patterns.replica import Replica
    from tidings.runtime.app import App
    from tidings.runtime.lifecycle import run

__version__ = "0.1.0"

__all__ = [
    "Again",
    "App",
    "Dead",
    "Decider",
    "Envelope",
    "Gone",
    "Key",
    "Needs",
    "Projection",
    "Replica",
    "Retry",
    "Router",
    "Tag",
    "Transaction",
    "command",
    "errors",
    "event",
    "run",
    "state",
]

_LAZY = {
    "App": "tidings.runtime.app",
    "Decider": "tidings.patterns.decider",
    "Projection": "tidings.patterns.projection",
    "Replica": "tidings.patterns.replica",
    "run": "tidings.runtime.lifecycle",
}


def __getattr__(name: str) -> object:
    """Load a heavier part on first use."""
    if name not in _LAZY:
        msg = f"module 'tidings' has no attribute {name!r}"
        raise AttributeError(msg)
    from importlib import import_module

    found = getattr(import_module(_LAZY[name]), name)
    globals()[name] = found
    return found
