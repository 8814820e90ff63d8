"""One golden LP file per row family, and one for the objective, of one tiny fleet in `tiny_fleet`.

A changed row is a changed formulation: read the difference, then delete the file and run the tests
twice (the first run writes it and fails).
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from optimizer.arcs import find_arcs
from optimizer.milp.constraints import FAMILIES
from optimizer.milp.formulate import formulate
from optimizer.milp.model import Formulation, lp_text
from optimizer.policy import GroupBound
from optimizer.problem import Problem
from optimizer.solve import solve
from tests.optimizer import builders as b

GOLDEN = Path(__file__).parent / "lp"
NAMES = tuple(family.__name__ for family in FAMILIES)


def tiny_fleet() -> Problem:
    """Two sites, one link, two variants, two classes: every row family has at least one row."""
    policy = replace(
        b.DEFAULT_POLICY,
        utilisation_ceiling=0.8,
        carbon_usd_per_t=50.0,
        migration_usd_per_gib=2.0,
        move_limit_replicas=6,
        max_shed_basis_points=2_500,
        replica_bounds=(GroupBound(site_id="a", variant_id="v", fewest=1, most=3),),
    )
    sun = b.supply("sun", limit_w=500.0, price=0.02)
    return b.problem(
        sites=[
            b.site("a", pue=1.2, budget_w=2_000.0, supplies=[sun, b.supply(carbon_g=300.0)]),
            b.site("b", country="FR", budget_w=1_500.0, fixed_price=3.0),
        ],
        links=[b.link("a", "b", price=0.05, bandwidth_bps=1e6)],
        markets=[b.market(accesses={"a": 5.0, "b": 20.0})],
        variants=[b.variant("v"), b.variant("w", quality=0.5)],
        points=[b.point("v"), b.point("w", decode_tok_s=2_000.0, full_w=250.0)],
        services={"chat": ["v"], "fast": ["v", "w"]},
        classes=[
            b.traffic_class("c1", bytes_per_request=2_000.0),
            b.traffic_class("c2", service_id="fast", rate_rps=4.0, spread_sites=2, priority=2),
        ],
        plan_policy=policy,
        running={"a/p/v/x1": 2},
    )


def formulation() -> Formulation:
    problem = tiny_fleet()
    return formulate(problem, find_arcs(problem).arcs)


def compare(name: str, text: str) -> None:
    path = GOLDEN / f"{name}.lp"
    if not path.exists():
        path.write_text(text, encoding="ascii")
        pytest.fail(f"{path.name} was missing; written now, read it and run again")
    assert text == path.read_text(encoding="ascii")


@pytest.mark.parametrize("family", NAMES)
def test_rows_are_as_written(family: str) -> None:
    text = lp_text(formulation(), family=family)

    assert f"_{family}(" in text, f"{family} has no row in the tiny fleet"
    compare(family, text)


def test_objective_is_as_written() -> None:
    head, _, _ = lp_text(formulation()).partition("s.t.")
    compare("objective", head)


def test_every_family_has_its_file_and_no_file_lacks_its_family() -> None:
    assert {p.stem for p in GOLDEN.glob("*.lp")} == {*NAMES, "objective"}


def test_writing_one_family_leaves_the_model_whole() -> None:
    one = formulation()
    before = lp_text(one)
    lp_text(one, family="throughput")

    assert lp_text(one) == before


def test_the_tiny_fleet_has_a_plan() -> None:
    outcome = solve(tiny_fleet())

    assert outcome.plan is not None, outcome.message
    assert outcome.plan.gap < 1e-3


def test_the_same_text_under_every_hash_seed() -> None:
    code = (
        "from tests.optimizer.milp.test_golden import formulation, tiny_fleet\n"
        "from optimizer.milp.model import lp_text\n"
        "from optimizer.solve import solve\n"
        "print(lp_text(formulation()), solve(tiny_fleet()).plan.plan_digest)"
    )
    root = Path(__file__).parents[3]
    texts = {
        subprocess.run(
            [sys.executable, "-c", code],
            cwd=root,
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        ).stdout
        for seed in ("1", "4242")
    }

    assert len(texts) == 1
