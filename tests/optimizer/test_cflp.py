"""OR-Library capacitated facility location, put as ordinary fleets: the published optima come out.

How an instance becomes a fleet is `benchmarks.fleets.facility`'s. Source of instances and optima:
OR-Library (Beasley), with the public reference data.
"""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from benchmarks.fleets import CFLP_INSTANCES, cflp
from optimizer.arcs import find_arcs
from optimizer.milp.formulate import attempt, formulate
from optimizer.milp.highs import PointStatus
from optimizer.outcome import SolveStatus
from optimizer.solve import solve

RELATIVE = 1e-6


@pytest.mark.parametrize("name", CFLP_INSTANCES)
def test_published_optimum(data_dir: Path, name: str) -> None:
    folder = data_dir / "cflp"
    with (folder / "optima.csv").open(encoding="utf-8", newline="") as table:
        optima = {row["instance"]: float(row["optimum"]) for row in csv.DictReader(table)}
    problem = cflp(folder / f"{name}.txt")

    made = attempt(formulate(problem, find_arcs(problem).arcs))

    assert made.point.status is PointStatus.PROVEN
    assert made.point.cost == pytest.approx(optima[name], rel=RELATIVE)
    assert made.point.bound <= optima[name] * (1 + RELATIVE)


def test_every_instance_is_tried(data_dir: Path) -> None:
    with (data_dir / "cflp" / "optima.csv").open(encoding="utf-8", newline="") as table:
        assert {row["instance"] for row in csv.DictReader(table)} == set(CFLP_INSTANCES)


def test_a_whole_plan_costs_the_optimum_but_for_rounding(data_dir: Path) -> None:
    problem = cflp(data_dir / "cflp" / "cap71.txt")

    outcome = solve(problem)

    assert outcome.status is SolveStatus.OPTIMAL, outcome.message
    assert outcome.plan is not None
    assert outcome.plan.cost.total_usd_per_h == pytest.approx(932_615.75, rel=1e-4)
