"""Limits that cannot all hold: mended where running replicas break them, else named and priced."""

from __future__ import annotations

from dataclasses import replace

import pytest

from optimizer.outcome import Outcome, SolveStatus
from optimizer.policy import GroupBound
from optimizer.problem import Problem
from optimizer.solve import solve
from tests.optimizer import builders as b

HARD = replace(b.DEFAULT_POLICY, max_shed_basis_points=0)


def refused(problem: Problem) -> Outcome:
    outcome = solve(problem)
    assert outcome.status is SolveStatus.INFEASIBLE
    assert outcome.plan is None
    return outcome


def test_a_broken_limit_is_mended_as_far_as_the_move_limit_lets() -> None:
    policy = replace(b.DEFAULT_POLICY, move_limit_replicas=1)
    problem = b.problem(
        sites=[b.site(pools=[b.pool(count=2)])],
        running={"a/p/v/x1": 4},
        classes=[b.traffic_class(rate_rps=40.0)],
        plan_policy=policy,
    )

    plan = solve(problem).plan
    assert plan is not None
    assert [(g.group.group_id, g.replicas) for g in plan.groups] == [("a/p/v/x1", 3)]


def test_a_broken_limit_is_never_worsened() -> None:
    policy = replace(b.DEFAULT_POLICY, move_limit_replicas=1, max_shed_basis_points=5_000)
    problem = b.problem(  # 300 W run where 250 W are allowed; half of 40 req/s would need a second
        sites=[b.site(budget_w=250.0)],
        running={"a/p/v/x1": 1},
        classes=[b.traffic_class(rate_rps=40.0)],
        plan_policy=policy,
    )

    assert "site_power" in {r.code for r in refused(problem).relaxations}


def test_an_idle_draw_beyond_all_supplies_may_stay_but_serves_nothing_more() -> None:
    policy = replace(b.DEFAULT_POLICY, move_limit_replicas=0)
    supplies = [b.supply("sun", limit_w=100.0, price=0.01), b.supply(limit_w=100.0)]
    problem = b.problem(
        sites=[b.site(supplies=supplies)], running={"a/p/v/x1": 3}, plan_policy=policy
    )

    plan = solve(problem).plan
    assert plan is not None
    assert {u.supply_id: u.power_w for u in plan.supplies} == {"sun": 100.0, "grid": 200.0}
    assert [s.basis_points for s in plan.shed] == [10_000]


@pytest.mark.parametrize(
    ("problem", "code", "subject", "limit", "needed", "price"),
    [
        (
            b.problem(
                sites=[b.site(pools=[b.pool(count=2)])],
                classes=[b.traffic_class(rate_rps=35.0)],
                plan_policy=HARD,
            ),
            "pool_accelerators",
            "a/p",
            2,
            4,
            2.0,
        ),
        (
            b.problem(
                sites=[b.site(budget_w=700.0)],
                classes=[b.traffic_class(rate_rps=35.0)],
                plan_policy=HARD,
            ),
            "site_power",
            "a",
            0.7,
            1.2,
            0.05,
        ),
        (
            b.problem(
                sites=[b.site(supplies=[b.supply(limit_w=500.0)])],
                classes=[b.traffic_class(rate_rps=35.0)],
                plan_policy=HARD,
            ),
            "supply_limit",
            "a/grid",
            0.5,
            1.1,
            0.06,
        ),
        (
            b.problem(
                sites=[b.site("a", pools=[]), b.site("b")],
                links=[b.link("a", "b", bandwidth_bps=20e6, price=0.1)],
                classes=[b.traffic_class(bytes_per_request=1e6)],
                plan_policy=HARD,
            ),
            "link_bandwidth",
            "a--b",
            20.0,
            80.0,
            2.7,  # 60 Mbit/s = 27 GB/h at $0.10
        ),
        (
            b.problem(
                sites=[b.site(pools=[b.pool(count=2)])],
                plan_policy=replace(
                    HARD, replica_bounds=(GroupBound(site_id="a", variant_id="v", fewest=3),)
                ),
            ),
            "replica_floor",
            "a/v",
            3,
            2,
            0.0,
        ),
        (
            b.problem(
                classes=[b.traffic_class(rate_rps=35.0)],
                plan_policy=replace(
                    HARD, replica_bounds=(GroupBound(site_id="a", variant_id="v", most=2),)
                ),
            ),
            "replica_cap",
            "a/v",
            2,
            4,
            0.0,
        ),
        (
            b.problem(
                classes=[b.traffic_class(rate_rps=35.0)],
                plan_policy=replace(HARD, move_limit_replicas=1),
            ),
            "move_limit",
            "fleet",
            1,
            4,
            0.0,
        ),
        (
            b.problem(classes=[b.traffic_class(spread_sites=2)], plan_policy=HARD),
            "spread",
            "c@a",
            10.0,
            20.0,
            0.0,
        ),
        (
            b.problem(
                sites=[b.site(pools=[b.pool(count=2)])],
                classes=[b.traffic_class(rate_rps=25.0)],
                plan_policy=replace(HARD, max_shed_basis_points=1_000),
            ),
            "shed_cap",
            "c",
            1_000,
            2_000,
            225.0,  # 2.5 req/s of 100 tokens: 0.9 Mtok/h at $50 x 5
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_an_infeasible_problem_says_what_to_relax_how_far_and_its_price(
    problem: Problem, code: str, subject: str, limit: float, needed: float, price: float
) -> None:
    outcome = refused(problem)

    [found] = [r for r in outcome.relaxations if r.code == code]
    assert found.subject == subject
    assert (found.limit, found.needed) == pytest.approx((limit, needed))
    assert found.price_usd_per_h == pytest.approx(price)
    assert found.remedy in outcome.message


def test_two_limits_that_bind_together_are_told_together() -> None:
    both = b.problem(
        sites=[b.site(budget_w=700.0, pools=[b.pool(count=2)])],
        classes=[b.traffic_class(rate_rps=35.0)],
        plan_policy=HARD,
    )
    told = {r.code: (r.limit, r.needed) for r in refused(both).relaxations}

    assert told["pool_accelerators"] == (2, 4)
    assert told["site_power"] == pytest.approx((0.7, 1.2))


def test_ways_are_numbered_from_the_cheapest() -> None:
    outcome = refused(
        b.problem(
            sites=[b.site(budget_w=700.0, pools=[b.pool(count=2)])],
            classes=[b.traffic_class(rate_rps=35.0)],
            plan_policy=HARD,
        )
    )

    ways = outcome.ways
    prices = [sum(r.price_usd_per_h for r in way) for way in ways]
    assert [{r.way for r in way} for way in ways] == [{at} for at in range(len(ways))]
    assert len(ways) > 1 and prices == sorted(prices)
    assert any({r.code for r in way} == {"pool_accelerators", "site_power"} for way in ways)


def test_a_class_no_site_may_serve_is_told_so() -> None:
    nowhere = b.ResidencyPolicy(
        policy_id="nowhere", processing_countries=("SE",), transit_countries=("DE",)
    )
    problem = b.problem(
        policies=[b.ANYWHERE, nowhere],
        classes=[b.traffic_class(policy_id="nowhere")],
        plan_policy=HARD,
    )

    assert "no site may serve it" in refused(problem).message
