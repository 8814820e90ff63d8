"""The search for one large component against what is known or found otherwise."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from benchmarks.fleets import cflp, facility_location
from optimizer.milp.whole.solve import solve_whole
from optimizer.outcome import SolveStatus
from optimizer.problem import Problem
from optimizer.solve import solve
from optimizer.verify import check_plan
from sites.clock import ManualClock
from tests.optimizer import builders

RELATIVE = 1e-6
SOME = ("cap41", "cap51", "cap64", "cap74", "cap81", "cap94", "cap104")
ROUNDED = 1e-4
"""What whole basis points may cost a plan."""


@pytest.mark.parametrize("name", SOME)
def test_published_optimum(data_dir: Path, name: str) -> None:
    folder = data_dir / "cflp"
    with (folder / "optima.csv").open(encoding="utf-8", newline="") as table:
        optima = {row["instance"]: float(row["optimum"]) for row in csv.DictReader(table)}

    outcome = solve_whole(cflp(folder / f"{name}.txt"))

    assert outcome.plan is not None, outcome.message
    assert outcome.bound_usd_per_h == pytest.approx(optima[name], rel=RELATIVE)
    assert outcome.plan.cost.total_usd_per_h == pytest.approx(optima[name], rel=ROUNDED)


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(problem=builders.rich_problems())
def test_random_problems_cost_what_the_plain_search_says(problem: Problem) -> None:
    problem = replace(problem, plan_policy=replace(problem.plan_policy, gap_limit=1e-6))
    plain, whole = solve(problem), solve_whole(problem)

    assert whole.status is not SolveStatus.FAULT, whole.message
    assert (whole.plan is None) == (plain.plan is None)
    if whole.plan is None or plain.plan is None:
        return
    assert check_plan(problem, whole.plan) == ()
    cheapest = min(whole.plan.cost.total_usd_per_h, plain.plan.cost.total_usd_per_h)
    slack = 2e-6 * abs(cheapest) + 1e-6
    assert whole.bound_usd_per_h <= cheapest + slack
    assert plain.bound_usd_per_h <= cheapest + slack
    assert whole.bound_usd_per_h == pytest.approx(plain.bound_usd_per_h, rel=5e-6, abs=1e-6)
