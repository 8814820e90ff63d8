"""The process the optimizer runs in, so that a solve can be late, crash or be abandoned alone.

python -m scheduler.solver_host FD
"""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from multiprocessing.connection import Connection

from optimizer.milp.scale.workers import ThreadWorkers
from optimizer.outcome import SharedPrices
from optimizer.solve import solve
from scheduler.child import NICENESS
from scheduler.steady import steadied
from sites.clock import SystemClock
from sites.errors import HinterlandError


def main() -> None:
    """Answer (problem, plan in force or None) with ("ok", outcome) or ("failed", why). What shared
    limits were worth in one solve is where the next one begins.
    """
    os.nice(NICENESS)
    connection = Connection(int(sys.argv[1]))
    connection.send(("ready", None))
    workers = ThreadWorkers(os.cpu_count() or 1)
    known: SharedPrices | None = None
    while True:
        try:
            problem, before = connection.recv()
        except EOFError:
            return
        try:
            outcome = solve(
                problem, clock=SystemClock(), start=before, workers=workers, known=known
            )
            known = outcome.prices or known
            told = steadied(problem, replace(outcome, prices=None), before=before)
            connection.send(("ok", told))
        except HinterlandError as fault:
            connection.send(("failed", str(fault)))


if __name__ == "__main__":
    main()
