"""The process reroute tables are worked out in, so that one can be late, crash or be ended alone.

python -m scheduler.fill_host FD
"""

from __future__ import annotations

import os
import sys
from multiprocessing.connection import Connection

from optimizer.reroute_table import fill_detours
from scheduler.child import NICENESS
from sites.errors import HinterlandError


def main() -> None:
    """Answer (problem, plan, running) with ("ok", detours or None) or ("failed", why)."""
    os.nice(NICENESS)
    connection = Connection(int(sys.argv[1]))
    connection.send(("ready", None))
    while True:
        try:
            problem, plan, running = connection.recv()
        except EOFError:
            return
        try:
            connection.send(("ok", fill_detours(problem, plan, running=running)))
        except HinterlandError as fault:
            connection.send(("failed", str(fault)))


if __name__ == "__main__":
    main()
