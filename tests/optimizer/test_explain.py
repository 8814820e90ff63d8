"""The explanation: every site has its reason, what is shed has its limit and its cheapest fix."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings

from optimizer.arcs import find_arcs
from optimizer.explain import explain_plan
from optimizer.explain_text import binding_lines, class_lines, rejected_lines, shed_lines
from optimizer.explanation import ClassExplanation
from optimizer.greedy import greedy_plan
from optimizer.plan import Plan, PruneReason, RejectReason
from optimizer.policy import GroupBound
from optimizer.problem import Problem
from tests.optimizer import builders as b

A, B = "a/p/v/x1", "b/p/v/x1"
REASONS = {r.value for r in PruneReason} | {r.value for r in RejectReason}


def explained(problem: Problem, plan: Plan) -> ClassExplanation:
    (one,) = explain_plan(problem, plan).classes
    return one


def reasons(problem: Problem, plan: Plan) -> dict[str, str]:
    return {r.site_id: r.reason for r in explained(problem, plan).rejections}


@settings(max_examples=80, deadline=None)
@given(b.small_problems(max_classes=5))
def test_every_site_is_chosen_or_has_a_reason_and_every_shed_class_a_line(
    problem: Problem,
) -> None:
    plan = greedy_plan(problem, find_arcs(problem).arcs)
    explanation = explain_plan(problem, plan)
    sites = {s.site_id for s in problem.fleet.sites}
    for one in explanation.classes:
        chosen, rejected = {c.site_id for c in one.choices}, [r.site_id for r in one.rejections]
        assert chosen | set(rejected) == sites or _enters_nowhere(one)
        assert chosen.isdisjoint(rejected)
        assert len(rejected) == len(set(rejected))
        assert {r.reason for r in one.rejections} <= REASONS
        assert class_lines(one)
    assert len(shed_lines(explanation)) == len(plan.shed)
    assert len(rejected_lines(explanation, limit=None)) >= len(rejected_lines(explanation)) - 1


def _enters_nowhere(one: ClassExplanation) -> bool:
    return {r.reason for r in one.rejections} == {"no_ingress"}


def test_outcome_arcs_give_the_same_explanation_as_finding_them_again() -> None:
    problem = b.two_sites()
    plan = b.plan(problem, groups={B: 1}, shares={("c", B): 10_000})
    found = find_arcs(problem)
    assert explain_plan(problem, plan) == explain_plan(
        problem, plan, arcs=found.arcs, pruned=found.pruned
    )


def test_a_dearer_site_is_rejected_by_price_with_both_prices() -> None:
    problem = b.two_sites()
    plan = b.plan(problem, groups={B: 1}, shares={("c", B): 10_000})
    assert class_lines(explained(problem, plan)) == (
        "c: service chat, policy any, p99 TTFT within 500 ms",
        "  100% at b: v  $0.286/Mtok  p99 65/500 ms",
        "  not a: price $0.564/Mtok against $0.286/Mtok",
    )


def test_a_cheaper_site_beyond_the_law_is_named_with_policy_and_price() -> None:
    problem = b.two_sites(classes=[b.traffic_class(policy_id="eu")])
    swiss = replace(problem.fleet.sites[1], country="CH")
    fleet = replace(problem.fleet, sites=(problem.fleet.sites[0], swiss))
    problem = replace(problem, fleet=fleet)
    plan = b.plan(problem, groups={A: 1}, shares={("c", A): 10_000})
    assert rejected_lines(explain_plan(problem, plan)) == (
        "Rejected: c → b ($0.286/Mtok): residency CH, policy eu: processed in DE,FR",
    )


def test_a_cheaper_site_that_is_full_says_which_limit() -> None:
    full = [b.site("a", pools=[b.pool(price=2.0)]), b.site("b", pools=[b.pool(count=0)])]
    narrow = [b.site("a", pools=[b.pool(price=2.0)]), b.site("b", budget_w=299.0)]
    dark = [b.site("a", pools=[b.pool(price=2.0)]), b.site("b", supplies=[b.supply(limit_w=99.0)])]
    for sites, reason in ((full, "accelerators"), (narrow, "power"), (dark, "power")):
        problem = b.problem(sites=sites, links=[b.link("a", "b")])
        plan = b.plan(problem, groups={A: 1}, shares={("c", A): 10_000})
        assert reasons(problem, plan) == {"b": reason}


def test_a_full_link_is_said_to_be_short_of_bandwidth() -> None:
    problem = b.two_sites(classes=[b.traffic_class(bytes_per_request=1_000.0)])
    fleet = replace(problem.fleet, links=(b.link("a", "b", bandwidth_bps=10.0),))
    problem = replace(problem, fleet=fleet)
    plan = b.plan(problem, groups={A: 1}, shares={("c", A): 10_000})
    assert reasons(problem, plan) == {"b": "bandwidth"}


def test_shed_traffic_names_who_how_much_which_limit_and_the_cheapest_fix() -> None:
    problem = b.problem(sites=[b.site(budget_w=400.0)], classes=[b.traffic_class(rate_rps=30.0)])
    plan = b.plan(problem, groups={A: 1}, shares={("c", A): 3_333}, shed={"c": 6_667})
    assert shed_lines(explain_plan(problem, plan)) == (
        '20 req/s of "chat" (class c, policy any) cannot be served; cheapest fix: '
        "+2 replicas of a/p/v/x1 (needs +500 W power budget) at $2.06/h",
    )


def test_a_class_without_a_lawful_site_is_named_with_the_reasons_site_by_site() -> None:
    problem = b.two_sites(classes=[b.traffic_class(policy_id="eu", rate_rps=3.0)])
    sites = tuple(replace(s, country="CH") for s in problem.fleet.sites)
    markets = (b.market(accesses={"a": 5.0}),)
    problem = replace(problem, fleet=replace(problem.fleet, sites=sites, markets=markets))
    plan = b.plan(problem, groups={}, shares={}, shed={"c": 10_000})
    assert shed_lines(explain_plan(problem, plan)) == (
        '3 req/s of "chat" (class c, policy eu) may lawfully be served nowhere: '
        "a: no_ingress CH, policy eu: crosses DE,FR",
    )


def test_traffic_not_worth_serving_shows_both_prices() -> None:
    problem = b.problem(classes=[b.traffic_class(rate_rps=0.001, priority=9)])
    plan = b.plan(problem, groups={}, shares={}, shed={"c": 10_000})
    assert shed_lines(explain_plan(problem, plan)) == (
        '0.001 req/s of "chat" (class c, policy any) is not worth serving: cheapest is '
        "+1 replica of a/p/v/x1 at $1.03/h, shedding it costs $0.02/h",
    )


def test_what_a_policy_keeps_from_being_served_is_not_called_not_worth_it() -> None:
    spread = b.problem(classes=[b.traffic_class(spread_sites=2)])
    plan = b.plan(spread, groups={}, shares={}, shed={"c": 10_000})
    assert shed_lines(explain_plan(spread, plan)) == (
        '10 req/s of "chat" (class c, policy any) is not served because of spread_sites 2 '
        "(1 may serve it): +1 replica of a/p/v/x1 would serve it at $1.03/h, shedding it costs "
        "$900.00/h",
    )
    bound = GroupBound(site_id="a", variant_id="v", most=0)
    policy = replace(b.DEFAULT_POLICY, replica_bounds=(bound,), move_limit_replicas=0)
    held = b.problem(sites=[b.site(cordoned=True)], plan_policy=policy)
    plan = b.plan(held, groups={}, shares={}, shed={"c": 10_000})
    (line,) = shed_lines(explain_plan(held, plan))
    assert "because of replica cap 0 of a/v, move limit 0, cordon of a:" in line


def test_limits_that_are_used_up_are_listed() -> None:
    problem = b.problem(sites=[b.site(budget_w=600.0, pools=[b.pool(count=2)])])
    plan = b.plan(problem, groups={A: 2}, shares={("c", A): 10_000})
    assert binding_lines(explain_plan(problem, plan)) == (
        "Full: a: power budget 600 W of 600 W",
        "Full: a/p: accelerators 2×gpu of 2×gpu",
    )


def test_a_long_list_of_countries_is_cut_and_counted() -> None:
    wide = replace(b.EU_ONLY, processing_countries=("AT", "BE", "DE", "ES", "FR", "IT"))
    problem = b.two_sites(classes=[b.traffic_class(policy_id="eu")], policies=(b.ANYWHERE, wide))
    swiss = replace(problem.fleet.sites[1], country="CH")
    fleet = replace(problem.fleet, sites=(problem.fleet.sites[0], swiss))
    problem = replace(problem, fleet=fleet)
    plan = b.plan(problem, groups={A: 1}, shares={("c", A): 10_000})
    (line,) = rejected_lines(explain_plan(problem, plan))
    assert line.endswith("residency CH, policy eu: processed in AT,BE,DE,ES,… (6 countries)")
