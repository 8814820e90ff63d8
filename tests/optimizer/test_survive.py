"""Protected classes and the loss of one site: brute force, doctored certificates, limits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import product
from math import inf

import highspy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optimizer.arcs import find_arcs
from optimizer.costs import exposure_usd_per_h, shed_price_usd_per_h, usable_part
from optimizer.greedy import greedy_plan
from optimizer.milp.constraints_survive import SurvivalCut
from optimizer.milp.survive import Losses
from optimizer.outcome import SolveStatus
from optimizer.plan import ExposedTraffic, Plan, SurvivalShare
from optimizer.problem import Problem
from optimizer.reach import Reach
from optimizer.solve import solve
from optimizer.survive import AfterLoss, check_survival, could_be_answered
from optimizer.survive_plan import certified, whole_shares
from sites.fleet import at_period
from sites.units import WHOLE_BP
from tests.optimizer import builders as b
from tests.optimizer import oracle

A, B, C = "a/p/v/x1", "b/p/v/x1", "c/p/v/x1"


def priced(problem: Problem, part: float) -> Problem:
    return replace(problem, plan_policy=replace(problem.plan_policy, exposure_part=part))


def unspread(problem: Problem) -> Problem:
    return replace(
        problem,
        classes=tuple(replace(c, spread_sites=1, spread_zones=1) for c in problem.classes),
    )


def three_sites(classes: list[b.TrafficClass], *, count: int = 4, part: float = 1.0) -> Problem:
    """Sites a, b, c in a ring of links, a the cheapest; market m enters at a, then at b."""
    problem = b.problem(
        sites=[
            b.site(s, pools=[b.pool(count=count, price=p)])
            for s, p in (("a", 1.0), ("b", 2.0), ("c", 3.0))
        ],
        links=[b.link("a", "b"), b.link("a", "c", rtt_ms=12.0), b.link("b", "c")],
        markets=[b.market(accesses={"a": 5.0, "b": 20.0})],
        classes=classes,
    )
    return priced(problem, part)


def codes(problem: Problem, plan: Plan) -> list[str]:
    return [v.message() for v in check_survival(Reach(problem), plan)]


def solved_in_steps(problem: Problem) -> Plan:
    """As if it were so large that rounds grow and look nearby in between."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("optimizer.milp.rounds.WORTHWHILE_INTEGERS", 0)
        patch.setattr("optimizer.milp.highs.WORTHWHILE_INTEGERS", 0)
        return solved(problem)


def solved(problem: Problem) -> Plan:
    outcome = solve(problem)
    assert outcome.status is SolveStatus.OPTIMAL, outcome.message
    assert outcome.plan is not None
    return outcome.plan


# --- brute force: every count of replicas, one linear problem with every loss inside ---


def cheapest_with_losses(problem: Problem) -> float:
    """The least a plan can cost, what its losses leave exposed included (USD/h)."""
    reach = Reach(problem)
    groups = oracle._groups(reach)
    running = {r.group: r.replicas for r in problem.running}
    best = inf
    for combination in product(*(range(oracle._most(reach, g) + 1) for g in groups)):
        counts = dict(zip(groups, combination, strict=True))
        if oracle._fits(reach, counts):
            price = oracle._replica_price(reach, counts, running)
            if price < best:
                best = min(best, price + _flow_and_losses(reach, counts))
    return best


def _flow_and_losses(reach: Reach, counts: oracle.Counts) -> float:
    lp = highspy.Highs()
    lp.setOptionValue("output_flag", False)
    shed, flow = oracle._columns(reach, counts, lp)
    for class_id in shed:
        parts = [v for (c, _), v in flow.items() if c == class_id]
        lp.addConstr(sum(parts, start=1.0 * shed[class_id]) == 1)
    for group, n in counts.items():
        work = oracle._work(reach, flow, group)
        if work is not None:
            lp.addConstr(work <= n * usable_part(reach, group))
    for site in reach.problem.fleet.sites:
        oracle._power(reach, counts, flow, lp, site)
    oracle._links(reach, flow, lp)
    for site in reach.problem.fleet.sites:
        _loss(AfterLoss(reach, site.site_id), counts, shed, lp, site.site_id)
    lp.run()
    if lp.getModelStatus() != highspy.HighsModelStatus.kOptimal:
        return inf
    return float(lp.getInfo().objective_function_value)


def _loss(left: Reach, counts: oracle.Counts, shed, lp: highspy.Highs, lost_site_id: str) -> None:
    """Protected classes on the replicas of the other sites, beside what the plan does now."""
    part = left.problem.plan_policy.exposure_part
    flow = {}
    for class_id in shed:
        one = left.classes[class_id]
        if not one.protected or not could_be_answered(left, one):
            continue
        exposed = lp.addVariable(lb=0, ub=1, obj=part * shed_price_usd_per_h(left, class_id))
        for group, n in counts.items():
            if n and left.refusal(one, group) is None:
                flow[class_id, group] = lp.addVariable(lb=0, ub=1, obj=0)
        mine = [v for (c, _), v in flow.items() if c == class_id]
        lp.addConstr(sum(mine, start=exposed + shed[class_id]) >= 1)
    for group, n in counts.items():
        work = oracle._work(left, flow, group)
        if work is not None:
            lp.addConstr(work <= n * usable_part(left, group))
    oracle._links(left, flow, lp)
    for site in left.problem.fleet.sites:
        here = {g: n for g, n in counts.items() if g.site_id == site.site_id and n}
        watts = [
            (oracle._point(left, g).full_w - oracle._point(left, g).idle_w) * site.pue * work
            for g in here
            if (work := oracle._work(left, flow, g)) is not None
        ]
        idle = sum(oracle._point(left, g).idle_w * n for g, n in here.items()) * site.pue
        limit = sum(at_period(k.limit_w, left.problem.period) for k in site.supplies)
        if watts:
            lp.addConstr(sum(watts[1:], start=watts[0]) <= limit - idle)


@settings(max_examples=40, deadline=None)
@given(
    st.one_of(
        b.small_problems(max_sites=2, max_classes=3, max_count=2),
        b.small_problems(max_sites=3, max_classes=3, max_count=1),
    ),
    st.sampled_from([1.0, 0.02]),
    st.booleans(),
)
def test_the_rounds_of_cuts_find_what_brute_force_finds(
    problem: Problem, part: float, in_steps: bool
) -> None:
    problem = unspread(priced(problem, part))
    plan = solved_in_steps(problem) if in_steps else solved(problem)
    cost, least = plan.cost.total_usd_per_h, cheapest_with_losses(problem)
    assert plan.bound_usd_per_h <= least + 1e-6 * max(1.0, abs(least))
    assert cost == pytest.approx(least, rel=2e-3, abs=1e-5)


# --- certificates ---


@settings(max_examples=60, deadline=None)
@given(b.rich_problems(max_classes=5), st.sampled_from([1.0, 0.05]))
def test_a_solved_plan_carries_a_certificate_that_holds(problem: Problem, part: float) -> None:
    problem = priced(problem, part)
    outcome = solve(problem)
    assert outcome.plan is not None, outcome.message
    assert codes(problem, outcome.plan) == []


@settings(max_examples=100, deadline=None)
@given(b.small_problems(max_classes=6))
def test_a_certificate_found_without_a_solver_holds(problem: Problem) -> None:
    reach = Reach(priced(problem, 1.0))
    bare = greedy_plan(priced(problem, 0.0), find_arcs(problem).arcs)
    plan = certified(reach, bare)
    assert [v.message() for v in check_survival(reach, plan)] == []
    risk = plan.cost.risk_usd_per_h - bare.cost.risk_usd_per_h
    assert risk == pytest.approx(exposure_usd_per_h(reach, plan.exposed))


@settings(max_examples=60, deadline=None)
@given(b.small_problems(max_classes=6))
def test_the_linear_problem_exposes_no_more_than_the_nearest_sites_do(problem: Problem) -> None:
    problem = priced(problem, 1.0)
    reach = Reach(problem)
    bare = greedy_plan(priced(problem, 0.0), find_arcs(problem).arcs)
    groups = [g for g in oracle._groups(reach) if reach.point(g) is not None]
    survived = Losses(reach, groups).survive(bare)
    nearest = certified(reach, bare)
    assert codes(problem, survived.plan) == []
    assert survived.plan.cost.risk_usd_per_h <= nearest.cost.risk_usd_per_h + 1e-9
    n = {g.group.group_id: float(g.replicas) for g in bare.groups}
    shed = {s.class_id: s.basis_points / WHOLE_BP * reach.rates[s.class_id] for s in bare.shed}
    cost: dict[str, float] = {}
    for cut in survived.cuts:
        due = cut.risk_usd_per_h(n=n, shed=shed)
        cost[cut.lost_site_id] = cost.get(cut.lost_site_id, 0.0) + due
    stated: dict[str, float] = {}
    for one in survived.plan.exposed:
        due = exposure_usd_per_h(reach, [one])
        stated[one.lost_site_id] = stated.get(one.lost_site_id, 0.0) + due
    for lost_site_id, due in cost.items():
        assert due <= stated.get(lost_site_id, 0.0) * 1.01 + 1e-2


def doctored() -> tuple[Problem, Plan]:
    """Class c on a; b and c hold a spare replica each, and class d, unprotected, sits on c's."""
    problem = three_sites(
        [
            b.traffic_class("c", rate_rps=20.0, protected=True),
            b.traffic_class("d", rate_rps=10.0),
        ]
    )
    bare = b.plan(
        problem, groups={A: 2, B: 1, C: 1}, shares={("c", A): WHOLE_BP, ("d", C): WHOLE_BP}
    )
    return problem, certified(Reach(problem), bare)


def test_unprotected_traffic_gives_way() -> None:
    problem, plan = doctored()
    assert [(s.lost_site_id, s.group_id, s.basis_points) for s in plan.survival] == [
        ("a", B, 5_000),
        ("a", C, 5_000),
    ]
    assert plan.exposed == ()
    assert codes(problem, plan) == []


def test_a_certificate_that_overfills_a_group_is_caught() -> None:
    problem, plan = doctored()
    piled = replace(
        plan,
        survival=(
            SurvivalShare(lost_site_id="a", class_id="c", group_id=B, basis_points=WHOLE_BP),
        ),
    )
    assert "throughput" in codes(problem, piled)[0]


def test_a_certificate_that_leaves_a_class_out_is_caught() -> None:
    problem, plan = doctored()
    assert "an answer elsewhere" in codes(problem, replace(plan, survival=()))[0]


def test_a_certificate_that_does_not_add_up_is_caught() -> None:
    problem, plan = doctored()
    assert "9999 bp" not in codes(problem, plan)
    short = replace(plan.survival[0], basis_points=4_999)
    assert "9999 bp" in codes(problem, replace(plan, survival=(short, plan.survival[1])))[0]


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        (SurvivalShare(lost_site_id="z", class_id="c", group_id=B, basis_points=1), "in service"),
        (SurvivalShare(lost_site_id="a", class_id="d", group_id=B, basis_points=1), "protected"),
        (SurvivalShare(lost_site_id="a", class_id="c", group_id=A, basis_points=1), "elsewhere"),
    ],
)
def test_a_certificate_about_strangers_is_caught(entry: SurvivalShare, told: str) -> None:
    problem, plan = doctored()
    assert told in codes(problem, replace(plan, survival=(*plan.survival, entry)))[0]


def test_a_certificate_that_breaks_the_law_is_caught() -> None:
    problem, plan = doctored()
    sites = tuple(replace(s, country="CH") if s.site_id == "c" else s for s in problem.fleet.sites)
    strict = replace(problem.classes[0], residency_policy_id="eu")
    problem = replace(
        problem,
        fleet=replace(problem.fleet, sites=sites),
        classes=(strict, problem.classes[1]),
    )
    assert any("residency" in text for text in codes(problem, plan))


def test_what_is_exposed_pays_part_of_its_shed_price() -> None:
    problem = three_sites([b.traffic_class("c", rate_rps=20.0, protected=True)], part=0.5)
    plan = certified(
        Reach(problem), b.plan(problem, groups={A: 2, B: 1}, shares={("c", A): WHOLE_BP})
    )
    assert plan.exposed == (ExposedTraffic(lost_site_id="a", class_id="c", basis_points=5_000),)
    whole = shed_price_usd_per_h(Reach(problem), "c")
    assert plan.cost.risk_usd_per_h == pytest.approx(0.5 * 0.5 * whole)


def test_the_loss_of_the_ingress_moves_the_class_in_by_its_next_access() -> None:
    """Entering at b, 20 ms away, c is too far for 70 ms; what stood there must move to b."""
    problem = three_sites([b.traffic_class("c", protected=True, ttft_ms=70.0)])
    sites = problem.fleet.links
    far = tuple(replace(k, rtt_ms=1.0) if "a" in k.link_id else k for k in sites)
    problem = replace(problem, fleet=replace(problem.fleet, links=far))
    bare = b.plan(problem, groups={B: 1, C: 1}, shares={("c", C): WHOLE_BP})
    plan = certified(Reach(problem), bare)
    assert [(s.lost_site_id, s.group_id) for s in plan.survival] == [("a", B), ("c", B)]
    assert codes(problem, plan) == []


def test_a_class_nobody_else_may_answer_is_not_asked_to_survive() -> None:
    problem = three_sites([b.traffic_class("c", protected=True, policy_id="eu")])
    sites = tuple(replace(s, country="CH") if s.site_id != "a" else s for s in problem.fleet.sites)
    problem = replace(problem, fleet=replace(problem.fleet, sites=sites))
    plan = solved(problem)
    assert (plan.survival, plan.exposed, plan.cost.risk_usd_per_h) == ((), (), 0.0)
    assert codes(problem, plan) == []


# --- what must hold between two problems ---


@settings(max_examples=30, deadline=None)
@given(b.small_problems(max_classes=4), st.integers(0, 3))
def test_protecting_one_more_class_never_costs_less(problem: Problem, which: int) -> None:
    problem = priced(problem, 1.0)
    classes = list(problem.classes)
    at = which % len(classes)
    bare, safe = (replace(classes[at], protected=flag) for flag in (False, True))
    costs = []
    for one in (bare, safe):
        classes[at] = one
        costs.append(solved(replace(problem, classes=tuple(classes))).bound_usd_per_h)
    assert costs[0] <= costs[1] + 1e-3 * max(1.0, abs(costs[1]))


@settings(max_examples=30, deadline=None)
@given(b.small_problems(max_classes=4))
def test_a_loss_without_a_price_is_not_looked_at(problem: Problem) -> None:
    free = solved(priced(problem, 0.0))
    nobody = replace(problem, classes=tuple(replace(c, protected=False) for c in problem.classes))
    same = solved(priced(nobody, 1.0))
    assert (free.survival, free.exposed) == ((), ())
    assert (free.groups, free.shares, free.shed) == (same.groups, same.shares, same.shed)
    assert free.cost == same.cost


@settings(max_examples=20, deadline=None)
@given(b.small_problems(max_classes=4), st.floats(0.0, 1.0))
def test_cheaper_losses_never_cost_more(problem: Problem, part: float) -> None:
    dear, cheap = solved(priced(problem, 1.0)), solved(priced(problem, part))
    assert cheap.bound_usd_per_h <= dear.bound_usd_per_h + 1e-3 * max(
        1.0, abs(dear.bound_usd_per_h)
    )


def test_equal_problems_give_equal_certificates() -> None:
    problem = three_sites(
        [b.traffic_class(f"c{i}", rate_rps=7.0 + i, protected=True) for i in range(4)]
    )
    assert solved(problem).plan_digest == solved(problem).plan_digest


@given(
    st.dictionaries(st.sampled_from("abcdef"), st.floats(0.0, 4_000.0), max_size=6),
    st.integers(0, WHOLE_BP),
)
def test_whole_shares_add_up_and_stay_within_a_basis_point(
    parts: Mapping[str, float], wanted: int
) -> None:
    scale = wanted / max(sum(parts.values()), wanted, 1e-9)
    parts = {g: v * scale for g, v in parts.items()}
    shares = whole_shares(parts, wanted=wanted)
    assert sum(shares.values()) <= wanted
    assert abs(sum(shares.values()) - sum(parts.values())) <= 1
    assert all(abs(shares.get(g, 0) - v) <= 1.0 + 1e-3 for g, v in parts.items())


def test_a_cut_says_what_a_loss_costs_beyond_what_stands() -> None:
    cut = SurvivalCut(
        lost_site_id="a", parts=("chat",), per_replica={B: 4.0}, per_rps={"c": 1.0}, least=10.0
    )
    assert cut.risk_usd_per_h(n={}, shed={}) == 10.0
    assert cut.risk_usd_per_h(n={B: 2.0}, shed={"c": 1.0}) == 1.0
    assert cut.risk_usd_per_h(n={B: 3.0}, shed={}) == 0.0
