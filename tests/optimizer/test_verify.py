"""The checker: a clean plan passes; each kind of broken limit, planted alone, is named."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from optimizer.plan import Plan, SupplyUse
from optimizer.policy import GroupBound, PlanPolicy
from optimizer.problem import Problem
from optimizer.verify import check_plan
from tests.optimizer import builders as b

A, B = "a/p/v/x1", "b/p/v/x1"


def codes(problem: Problem, plan: Plan) -> list[str]:
    return [violation.code for violation in check_plan(problem, plan)]


def served_at(problem: Problem, group_id: str, *, replicas: int = 1) -> Plan:
    return b.plan(problem, groups={group_id: replicas}, shares={("c", group_id): 10_000})


def with_policy(problem: Problem, **changes: object) -> Problem:
    policy = replace(problem.plan_policy, **changes)  # type: ignore[arg-type]
    return replace(problem, plan_policy=policy)


@pytest.mark.parametrize("group_id", [A, B])
def test_a_clean_plan_has_no_violation(group_id: str) -> None:
    problem = b.two_sites()
    assert codes(problem, served_at(problem, group_id)) == []


def test_shedding_everything_is_clean() -> None:
    problem = b.two_sites()
    assert codes(problem, b.plan(problem, groups={}, shares={}, shed={"c": 10_000})) == []


def test_a_class_without_demand_may_be_left_out() -> None:
    problem = b.two_sites(classes=[b.traffic_class(rate_rps=0.0)])
    assert codes(problem, b.plan(problem, groups={}, shares={})) == []


def _residency() -> tuple[Problem, Plan]:
    problem = b.two_sites(classes=[b.traffic_class(policy_id="eu")])
    swiss = replace(problem.fleet.sites[1], country="CH")
    fleet = replace(problem.fleet, sites=(problem.fleet.sites[0], swiss))
    problem = replace(problem, fleet=fleet)
    return problem, served_at(problem, B)


def _tags() -> tuple[Problem, Plan]:
    policy = replace(b.ANYWHERE, policy_id="eu", required_tags=("c5",))
    problem = b.two_sites(classes=[b.traffic_class(policy_id="eu")], policies=(b.ANYWHERE, policy))
    return problem, served_at(problem, B)


def _transit_cable() -> tuple[Problem, Plan]:
    problem = b.two_sites(classes=[b.traffic_class(policy_id="eu")])
    fleet = replace(problem.fleet, links=(b.link("a", "b", transit=["CH"]),))
    problem = replace(problem, fleet=fleet)
    return problem, served_at(problem, B)


def _transit_through_a_site() -> tuple[Problem, Plan]:
    problem = b.two_sites(classes=[b.traffic_class(policy_id="eu")])
    fleet = replace(
        problem.fleet,
        sites=(*problem.fleet.sites, b.site("z", country="CH")),
        links=(b.link("a", "z"), b.link("b", "z")),
    )
    problem = replace(problem, fleet=fleet)
    return problem, served_at(problem, B)


def _transit_unstated() -> tuple[Problem, Plan]:
    problem = b.two_sites()
    fleet = replace(problem.fleet, links=(b.link("a", "b", transit=["CH"]),))
    problem = replace(problem, fleet=fleet)
    plan = served_at(problem, B)
    return problem, replace(plan, shares=(replace(plan.shares[0], transit_countries=()),))


def _ingress() -> tuple[Problem, Plan]:
    problem = b.two_sites()
    plan = served_at(problem, B)
    return problem, replace(plan, shares=(replace(plan.shares[0], ingress_site_id="b"),))


def _no_ingress() -> tuple[Problem, Plan]:
    problem = b.two_sites()
    lone = b.market(accesses={"a": 5.0})
    problem = replace(problem, fleet=replace(problem.fleet, markets=(lone,)), lost_sites=("a",))
    return problem, served_at(problem, B)


def _latency() -> tuple[Problem, Plan]:
    problem = b.two_sites(classes=[b.traffic_class(ttft_ms=64.9)])
    return problem, served_at(problem, B)


def _tpot() -> tuple[Problem, Plan]:
    problem = b.two_sites(classes=[b.traffic_class(tpot_ms=9.0)])
    return problem, served_at(problem, B)


def _percentile() -> tuple[Problem, Plan]:
    problem = b.two_sites()
    median = replace(b.point(), percentile=50.0)
    problem = replace(problem, catalog=replace(problem.catalog, serving_points=(median,)))
    return problem, served_at(problem, B)


def _quality() -> tuple[Problem, Plan]:
    problem = b.problem(
        variants=[b.variant(quality=0.8)], classes=[b.traffic_class(quality_floor=0.9)]
    )
    return problem, served_at(problem, A)


def _wrong_variant() -> tuple[Problem, Plan]:
    problem = b.problem(
        variants=[b.variant("v"), b.variant("w")],
        points=[b.point("v"), b.point("w")],
        services={"chat": ["w"]},
    )
    return problem, served_at(problem, A)


def _memory() -> tuple[Problem, Plan]:
    problem = b.problem(points=[b.point(memory_mib=80_001.0)])
    return problem, served_at(problem, A)


def _throughput() -> tuple[Problem, Plan]:
    problem = b.two_sites(classes=[b.traffic_class(rate_rps=10.1)])
    return problem, served_at(problem, A)


def _ceiling() -> tuple[Problem, Plan]:
    problem = b.problem(plan_policy=PlanPolicy(utilisation_ceiling=0.9))
    return problem, served_at(problem, A)


def _accelerators() -> tuple[Problem, Plan]:
    problem = b.two_sites()
    return problem, served_at(problem, A, replicas=5)


def _possible_draw() -> tuple[Problem, Plan]:
    problem = b.problem(sites=[b.site(budget_w=374.0, pue=1.25)])
    return problem, served_at(problem, A)


def _supply() -> tuple[Problem, Plan]:
    problem = b.problem(sites=[b.site(supplies=[b.supply(limit_w=299.0)])])
    return problem, served_at(problem, A)


def _supply_cover() -> tuple[Problem, Plan]:
    problem = b.problem()
    plan = served_at(problem, A)
    less = SupplyUse(site_id="a", supply_id="grid", power_w=299.0)
    cheaper = replace(plan.cost, energy_usd_per_h=0.0299)
    return problem, _honest_gap(replace(plan, supplies=(less,), cost=cheaper))


def _supply_named_twice() -> tuple[Problem, Plan]:
    problem = b.problem(sites=[b.site(supplies=[b.supply(limit_w=200.0)])])
    half = SupplyUse(site_id="a", supply_id="grid", power_w=150.0)
    return problem, replace(served_at(problem, A), supplies=(half, half))


def _idle_draw_exceeded() -> tuple[Problem, Plan]:
    supplies = [b.supply(s, limit_w=100.0, price=0.0) for s in ("grid", "sun")]
    problem = b.problem(sites=[b.site(supplies=supplies)], running={A: 3})
    plan = b.plan(problem, groups={A: 3}, shares={("c", A): 5_000}, shed={"c": 5_000})
    even = tuple(SupplyUse(site_id="a", supply_id=s, power_w=200.0) for s in ("grid", "sun"))
    return problem, replace(plan, supplies=even)  # 400 W where 300 W idle and 200 W are supplied


def _no_number() -> tuple[Problem, Plan]:
    problem = b.two_sites()
    return problem, replace(served_at(problem, A), gap=float("nan"))


def _no_power_number() -> tuple[Problem, Plan]:
    problem = b.problem(sites=[b.site(supplies=[b.supply(price=0.0)])])
    unknown = SupplyUse(site_id="a", supply_id="grid", power_w=float("nan"))
    return problem, replace(served_at(problem, A), supplies=(unknown,))


def _bandwidth() -> tuple[Problem, Plan]:
    problem = b.two_sites(classes=[b.traffic_class(bytes_per_request=1_000.0)])
    fleet = replace(problem.fleet, links=(b.link("a", "b", bandwidth_bps=79_000.0),))
    problem = replace(problem, fleet=fleet)
    return problem, served_at(problem, B)


def _spread() -> tuple[Problem, Plan]:
    problem = b.two_sites(classes=[b.traffic_class(spread_sites=2)])
    return problem, b.plan(problem, groups={A: 1, B: 1}, shares={("c", A): 6_000, ("c", B): 4_000})


def _floor() -> tuple[Problem, Plan]:
    bound = GroupBound(site_id="b", variant_id="v", fewest=1)
    problem = with_policy(b.two_sites(), replica_bounds=(bound,))
    return problem, served_at(problem, A)


def _cap() -> tuple[Problem, Plan]:
    bound = GroupBound(site_id="a", variant_id="v", most=1)
    problem = with_policy(b.two_sites(), replica_bounds=(bound,))
    return problem, served_at(problem, A, replicas=2)


def _moves() -> tuple[Problem, Plan]:
    problem = with_policy(b.two_sites(), move_limit_replicas=1)
    running = b.problem(running={A: 1}).running
    problem = replace(problem, running=running)
    return problem, served_at(problem, B)


def _shed_cap() -> tuple[Problem, Plan]:
    problem = with_policy(b.two_sites(), max_shed_basis_points=100)
    plan = b.plan(problem, groups={A: 1}, shares={("c", A): 9_800}, shed={"c": 200})
    return problem, plan


def _lost() -> tuple[Problem, Plan]:
    problem = b.two_sites(lost_sites=("b",))
    return problem, b.plan(problem, groups={B: 1}, shares={}, shed={"c": 10_000})


def _share_to_lost() -> tuple[Problem, Plan]:
    problem = b.two_sites(lost_sites=("b",))
    return problem, served_at(problem, B)


def _cordoned() -> tuple[Problem, Plan]:
    problem = b.problem(sites=[b.site(cordoned=True)])
    return problem, served_at(problem, A)


def _short_sum() -> tuple[Problem, Plan]:
    problem = b.two_sites()
    return problem, b.plan(problem, groups={A: 1}, shares={("c", A): 9_999})


def _stale() -> tuple[Problem, Plan]:
    problem = b.two_sites()
    return replace(problem, period=1), served_at(problem, A)


def _cost() -> tuple[Problem, Plan]:
    problem = b.two_sites()
    plan = served_at(problem, A)
    return problem, _honest_gap(replace(plan, cost=replace(plan.cost, hardware_usd_per_h=1.9)))


def _gap() -> tuple[Problem, Plan]:
    problem = b.two_sites()
    return problem, replace(served_at(problem, A), gap=0.01)


def _bound() -> tuple[Problem, Plan]:
    problem = b.two_sites()
    plan = served_at(problem, A)
    return problem, _honest_gap(replace(plan, bound_usd_per_h=plan.cost.total_usd_per_h + 1))


def _unknown_class() -> tuple[Problem, Plan]:
    problem = b.two_sites()
    plan = served_at(problem, A)
    return problem, replace(plan, shares=(replace(plan.shares[0], class_id="other"),))


def _absent_group() -> tuple[Problem, Plan]:
    problem = b.two_sites()
    return problem, replace(served_at(problem, A), groups=())


def _honest_gap(plan: Plan) -> Plan:
    cost = plan.cost.total_usd_per_h
    return replace(plan, gap=(cost - plan.bound_usd_per_h) / cost)


PLANTED: dict[Callable[[], tuple[Problem, Plan]], list[str]] = {
    _residency: ["residency"],
    _tags: ["residency"],
    _transit_cable: ["transit"],
    _transit_through_a_site: ["transit"],
    _transit_unstated: ["transit"],
    _ingress: ["ingress"],
    _no_ingress: ["no_ingress"],
    _latency: ["latency"],
    _tpot: ["latency"],
    _percentile: ["latency"],
    _quality: ["quality"],
    _wrong_variant: ["quality"],
    _memory: ["memory"],
    _throughput: ["throughput"],
    _ceiling: ["throughput"],
    _accelerators: ["pool_accelerators"],
    _possible_draw: ["site_power"],
    _supply: ["supply_limit"],
    _supply_cover: ["supply_cover"],
    _supply_named_twice: ["supply_limit"],
    _idle_draw_exceeded: ["supply_limit"],
    _no_number: ["gap"],
    _no_power_number: ["supply_limit", "supply_cover", "cost", "cost", "cost"],
    _bandwidth: ["link_bandwidth"],
    _spread: ["spread"],
    _floor: ["replica_floor"],
    _cap: ["replica_cap"],
    _moves: ["move_limit"],
    _shed_cap: ["shed_cap"],
    _lost: ["site_unavailable"],
    _share_to_lost: ["site_unavailable", "site_unavailable"],
    _cordoned: ["site_unavailable"],
    _short_sum: ["shares_sum"],
    _stale: ["problem_digest"],
    _cost: ["cost"],
    _gap: ["gap"],
    _bound: ["bound"],
    _unknown_class: ["reference"],
    _absent_group: ["reference"],
}


@pytest.mark.parametrize("plant", PLANTED, ids=lambda plant: plant.__name__.strip("_"))
def test_each_broken_limit_is_named_and_nothing_else(
    plant: Callable[[], tuple[Problem, Plan]],
) -> None:
    problem, plan = plant()
    assert codes(problem, plan) == PLANTED[plant]


def test_a_message_says_subject_limit_actual_unit_and_remedy() -> None:
    (violation,) = check_plan(*_possible_draw())
    assert violation.message() == (
        'site "a": site power is 375 W, limit 374 W; drain replicas worth 1 W or raise the budget'
    )


@pytest.mark.parametrize("replicas", [5, 6])
def test_what_runs_beyond_a_limit_may_stay_but_not_grow(replicas: int) -> None:
    problem = b.problem(
        sites=[b.site(budget_w=900.0)], running={A: 5}, plan_policy=b.DEFAULT_POLICY
    )
    expected = [] if replicas == 5 else ["pool_accelerators", "site_power"]
    assert codes(problem, served_at(problem, A, replicas=replicas)) == expected


def test_one_basis_point_of_rounding_is_forgiven_on_flow_limits_only() -> None:
    problem = b.two_sites(classes=[b.traffic_class(rate_rps=20.0)])
    groups, shed = {A: 1}, {"c": 4_999}
    plan = b.plan(problem, groups=groups, shares={("c", A): 5_001}, shed=shed)
    assert codes(problem, plan) == []
    plan = b.plan(problem, groups=groups, shares={("c", A): 5_002}, shed={"c": 4_998})
    assert codes(problem, plan) == ["throughput"]
