"""How much of each fault a run plays: little by default, a campaign under `make faults` (TIDINGS_KILLS=10000)."""

import os

KILLS = int(os.environ.get("TIDINGS_KILLS", "600"))
LONG = KILLS >= 10_000

ZOMBIES = 100 if LONG else 20
SERVER_KILLS = 100 if LONG else 8
ROUNDS = 20 if LONG else 1
"""Times that connections run out, or the disk fills up."""
WRITING = 40.0 if LONG else 2.5
"""Seconds in which a crowd writes; for a minute the server lets a transaction be idle."""
DRAINS = 1000 if LONG else 200
POINTS = 0 if LONG else 12
"""Exact places tried for each system call, evenly over the scenario; 0 tries them all."""
STATES = 20_000 if LONG else 600
"""States of a disk after a power loss."""

BROKER_KILLS = 100 if LONG else 3
"""kill -9 of a broker's server under load."""
BROKER_WORKERS = 100 if LONG else 5
"""kill -9 of workers that receive from a broker."""
CUTS = 600 if LONG else 60
"""Ways in which the network to a broker breaks."""
SIDE_BY_SIDE = 3
"""Networks that break at the same time, each with a publisher and workers of its own: mostly they are waited for."""
CHANGES = 120 if LONG else 40
"""Workers that come or go."""
