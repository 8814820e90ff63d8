"""One golden LP file per row family that a horizon changes, of two hours of one small site.

A changed row is a changed formulation: read the difference, then delete the file and run the tests
twice (the first run writes it and fails).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from optimizer.arcs import find_arcs
from optimizer.milp.constraints import HORIZON_FAMILIES
from optimizer.milp.day import Horizon, Hour, formulate_hours
from optimizer.milp.model import Formulation, lp_text
from optimizer.problem import Problem
from optimizer.schedule import born_rates, hour_problem
from sites.traffic import Tenant
from tests.optimizer import builders as b
from tests.optimizer import days

GOLDEN = Path(__file__).parent / "lp_day"
NAMES = (
    "demand_balance",
    "deferral_window",
    "throughput",
    "replica_change",
    "surrogate",
    "shed_cap",
    "spread",
    "move_limit",
    "tenant_budget",
    "carbon_cap",
    "site_open",
)


def two_hours() -> Problem:
    """One group that loads for a quarter of an hour, 2 replicas running, power dear then cheap; one
    class that may wait an hour, of which 3 req/s already do, and one that may not.
    """
    supply = replace(days.supply_at([1.0], then=0.2), carbon_g_per_kwh=(500.0,))
    return replace(
        b.problem(
            sites=[b.site("a", supplies=[supply], pools=[b.pool(count=4)], fixed_price=2.0)],
            points=[b.point(start_ms=900_000.0)],
            classes=[
                days.class_at("now", [10.0, 20.0], priority=2),
                days.class_at("wait", [5.0, 5.0], deferrable_h=1, spread_sites=2),
            ],
            running={"a/p/v/x1": 2},
            plan_policy=replace(
                b.DEFAULT_POLICY,
                utilisation_ceiling=0.8,
                migration_usd_per_gib=2.0,
                move_limit_replicas=3,
                max_shed_basis_points=2_500,
                carbon_cap_g_per_h=400.0,
            ),
        ),
        tenants=(Tenant(tenant_id="t", residency_policy_id="any", budget_usd_per_h=4.0),),
    )


def horizon() -> tuple[Formulation, ...]:
    problem = two_hours()
    hours = tuple(
        Hour(
            problem=hour_problem(
                problem, at, rates=born_rates(problem, at), running=problem.running
            )
        )
        for at in range(2)
    )
    arcs = find_arcs(problem).arcs
    asked = Horizon(
        hours=hours, arcs=arcs, left=2, planned=2, method="test", pending={"wait": {1: 3.0}}
    )
    return formulate_hours(asked)


def compare(name: str, text: str) -> None:
    path = GOLDEN / f"{name}.lp"
    if not path.exists():
        path.write_text(text, encoding="ascii")
        pytest.fail(f"{path.name} was missing; written now, read it and run again")
    assert text == path.read_text(encoding="ascii")


@pytest.mark.parametrize("family", NAMES)
def test_rows_of_two_hours_are_as_written(family: str) -> None:
    text = lp_text(horizon()[0], family=family)

    assert f"_{family}(" in text, f"{family} has no row in the two hours"
    compare(family, text)


def test_the_cost_of_two_hours_is_as_written() -> None:
    head, _, _ = lp_text(horizon()[0]).partition("s.t.")
    compare("objective", head)


def test_no_file_lacks_its_family() -> None:
    assert {p.stem for p in GOLDEN.glob("*.lp")} == {*NAMES, "objective"}
    assert {family.__name__ for family in HORIZON_FAMILIES} <= set(NAMES)
