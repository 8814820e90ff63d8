"""The large search where the policy says how much of a class may be shed, or shedding is dear."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from optimizer.milp.scale.batch import Job, Search, step
from optimizer.milp.scale.cap_search import keep_shed_cap, sheds_too_much
from optimizer.milp.scale.cluster import Effort
from optimizer.milp.scale.plan_search import relieve
from optimizer.milp.scale.solve import solve_at_scale
from optimizer.outcome import SolveStatus
from optimizer.problem import Problem
from optimizer.solve import solve
from scheduler.cli.plan_text import infeasible_lines
from sites.residency import ResidencyPolicy
from tests.optimizer import builders as b
from tests.optimizer.optima import most_usd_per_h
from tests.optimizer.scale.test_caps import planned, replicas
from tests.optimizer.scale.test_plan_search import begun


@pytest.mark.parametrize("allowed_bp", [0, 100])
def test_next_to_no_traffic_gets_its_replica_where_little_may_be_shed(allowed_bp: int) -> None:
    """A request an hour of 100 tokens costs $0.025/h to shed, and $2 to serve."""
    few = b.traffic_class(rate_rps=1 / 3_600, priority=5)
    problem = b.problem(sites=[b.site(pools=[b.pool(price=2.0)])], classes=[few])
    assert replicas(planned(problem)) == {}
    policy = replace(b.DEFAULT_POLICY, max_shed_basis_points=allowed_bp)
    strict = replace(problem, plan_policy=policy)
    assert replicas(planned(strict)) == {"a/p/v/x1": 1}
    assert solve_at_scale(strict).bound_usd_per_h <= most_usd_per_h(strict)


def at_home(*rates: float) -> Problem:
    """Classes bound to Germany, where one accelerator serves 10 requests/s; France has plenty."""
    classes = [
        b.traffic_class(f"c{at}", rate_rps=rate, policy_id="de") for at, rate in enumerate(rates)
    ]
    home = ResidencyPolicy(policy_id="de", processing_countries=("DE",), transit_countries=None)
    return b.problem(
        sites=[
            b.site("a", country="DE", pools=[b.pool(count=1)]),
            b.site("b", country="FR", pools=[b.pool(count=8)]),
        ],
        links=[b.link("a", "b")],
        policies=[b.ANYWHERE, home],
        classes=[*classes, b.traffic_class("far", rate_rps=30.0)],
        plan_policy=replace(b.DEFAULT_POLICY, max_shed_basis_points=0),
    )


def test_what_few_sites_cannot_serve_of_their_own_is_infeasible_and_says_what_would_help() -> None:
    found = solve_at_scale(at_home(6.0, 9.0))
    assert found.status is SolveStatus.INFEASIBLE
    assert found.only_at == ("a",)
    assert {one.code for one in found.relaxations} == {"pool_accelerators", "shed_cap"}
    more = next(one for one in found.relaxations if one.code == "pool_accelerators")
    assert (more.subject, more.limit, more.needed) == ("a/p", 1, 2)
    head, *ways = infeasible_lines(found)
    assert head == (
        "no plan meets every limit: what only a may answer does not fit there; any one of these is"
        " enough for it:"
    )
    assert len(ways) == 2
    assert solve(at_home(6.0, 9.0)).status is SolveStatus.INFEASIBLE


def test_a_class_that_nobody_may_answer_is_infeasible_where_nothing_may_be_shed() -> None:
    problem = at_home(1.0)
    problem = replace(problem, classes=(b.traffic_class(ttft_ms=1.0), *problem.classes))
    found = solve_at_scale(problem)
    assert found.status is SolveStatus.INFEASIBLE
    assert found.only_at == ()
    assert found.message.startswith("infeasible: no site may answer some classes; any one")


def taken(problem: Problem) -> Search:
    """A search whose one accelerator at home others have already."""
    search = begun(problem)
    frame, ledger = search.frame, search.ledger
    away = np.array([frame.tables.classes.ids.index("far")])
    step(
        search,
        [Job(classes=away, free=(frame.most > 0) & (frame.site == 0))],
        Effort(sites=1, gap=0.0, nodes=1),
    )
    assert ledger.replicas[frame.site == 0].sum() == 1
    return search


def shed(search: Search) -> dict[str, float]:
    """What is shed of each class that sheds anything."""
    parts = zip(search.frame.tables.classes.ids, search.ledger.shed_part.tolist(), strict=True)
    return {class_id: part for class_id, part in parts if part > 1e-6}


def test_others_make_way_for_what_may_not_be_shed() -> None:
    search = taken(at_home(10.0))
    assert shed(search) == pytest.approx({"c0": 1.0, "far": 2 / 3})
    assert len(sheds_too_much(search.ledger)) == 2
    keep_shed_cap(replace(search, is_over=lambda: True))
    assert shed(search) == {}


def test_others_make_way_for_who_costs_much_to_shed_and_once_without_time() -> None:
    problem = at_home(10.0)
    policy = replace(problem.plan_policy, max_shed_basis_points=None)
    late = replace(taken(replace(problem, plan_policy=policy)), is_over=lambda: True)
    price = dict(zip(late.frame.tables.classes.ids, late.frame.shed_usd_per_h, strict=True))
    keep_shed_cap(late)
    relieve(late, above_usd_per_h=0.0)
    assert "c0" in shed(late), "no cap on shedding, and no time"
    relieve(late, above_usd_per_h=price["c0"] + price["far"], at_least=4)
    assert "c0" in shed(late), "nobody costs so much"
    relieve(late, above_usd_per_h=0.0, at_least=4)
    assert shed(late) == {}
