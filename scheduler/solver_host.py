"""The process the optimizer runs in, so that a solve can be late, crash or be abandoned alone.

python -m scheduler.solver_host FD
"""

from __future__ import annotations

import os
import sys
from multiprocessing.connection import Connection

from optimizer.solve import solve
from sites.clock import SystemClock
from sites.errors import HinterlandError

NICENESS = 5
"""Below the control loop, which shares the machine and must keep hearing heartbeats."""


def main() -> None:
    """Answer ``(problem, start plan or None)`` with ``("ok", outcome)`` or ``("failed", why)``."""
    os.nice(NICENESS)
    connection = Connection(int(sys.argv[1]))
    connection.send(("ready", None))
    while True:
        try:
            problem, start = connection.recv()
        except EOFError:
            return
        try:
            connection.send(("ok", solve(problem, clock=SystemClock(), start=start)))
        except HinterlandError as fault:
            connection.send(("failed", str(fault)))


if __name__ == "__main__":
    main()
