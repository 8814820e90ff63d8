"""Ctrl-C while HiGHS searches: the best plan so far with its bound, and at once."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

CHILD = """
from dataclasses import replace
from optimizer.solve import solve
from tests.optimizer.milp.cases import tough

solve(tough(node_limit=20))
problem = tough(node_limit=10**9, sites=16, times=3.0)
policy = replace(problem.plan_policy, gap_limit=0.0, time_limit_s=200.0)
print("ready", flush=True)
outcome = solve(replace(problem, plan_policy=policy))
print(outcome.status, outcome.plan.hit_limit, 0 < outcome.bound_usd_per_h, flush=True)
"""


def test_an_interrupted_search_answers_with_its_best_plan() -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD],
        cwd=Path(__file__).parents[3],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert child.stdout is not None
        assert child.stdout.readline().strip() == "ready"
        time.sleep(3.0)  # the search is under way; by itself it takes half a minute and more
        child.send_signal(signal.SIGINT)
        told, _ = child.communicate(timeout=60)
    finally:
        child.kill()
        child.wait(timeout=10)

    assert told.strip() == "limit interrupt True"
