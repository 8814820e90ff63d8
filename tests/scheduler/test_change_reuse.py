"""What a change takes over from the one before is what a cut from nothing holds, to the byte, and
is judged like everything else: a fault planted there is named.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agents.trusted_plan import Standing, judge
from optimizer.arcs import find_arcs
from optimizer.assign import Issue, assignments_of
from optimizer.greedy import greedy_plan
from optimizer.plan import Plan
from optimizer.problem import Problem
from scheduler.change import Change, plan_change, reroute_change, starts_of
from scheduler.failover import predict_failover
from scheduler.phases import _gains, _moving, _opening, site_move
from scheduler.prefixes import check_prefixes
from scheduler.state import CycleState
from sites.assignment import (
    GroupShare,
    Route,
    RouteDecision,
    SiteAssignment,
    SiteShare,
)
from sites.digest import digest
from sites.residency import ResidencyPolicy
from tests.optimizer import builders as b
from tests.optimizer.plain_routes import plain_assignments
from tests.scheduler.plain_change import (
    plain_gains,
    plain_moving,
    plain_opening,
    plain_prefix_faults,
)
from tests.scheduler.states import state_in_force

RATES = st.sampled_from([1.0, 4.0, 9.0, 25.0])
MANY = settings(deadline=None, max_examples=120, suppress_health_check=list(HealthCheck))


@st.composite
def stories(draw: st.DrawFn) -> list[tuple[Problem, Plan]]:
    """One fleet under changing demand, losses, law and tags, each time with a plan."""
    problem = replace(draw(b.small_problems(max_sites=4)), running=())
    story = []
    for _ in range(draw(st.integers(2, 4))):
        classes = tuple(replace(c, rate_rps=(draw(RATES),)) for c in problem.classes)
        ids = [s.site_id for s in problem.fleet.sites]
        lost = draw(st.sampled_from([(), (), (ids[0],), (ids[-1],)]))
        problem = replace(problem, classes=classes, lost_sites=lost)
        if draw(st.integers(0, 4)) == 0:
            problem = other_law(problem)
        story.append((problem, greedy_plan(problem, find_arcs(problem).arcs)))
    return story


def other_law(problem: Problem) -> Problem:
    first, *rest = problem.policies
    strict = ResidencyPolicy(
        policy_id=first.policy_id, processing_countries=("FR",), transit_countries=("DE",)
    )
    return replace(problem, policies=(strict, *rest))


@MANY
@given(stories())
def test_a_cut_after_others_is_a_cut_from_nothing_to_the_byte(
    story: list[tuple[Problem, Plan]],
) -> None:
    state = state_in_force(*story[0])
    for version, (problem, plan) in enumerate(story, start=2):
        cut = state.cut(problem, plan, version=version, now_ms=version)
        issue = Issue(
            epoch=1, version=version, now_ms=version, ttl_ms=state.config.assignment_ttl_ms
        )
        plain = plain_assignments(problem, plan, issue)
        assert digests(cut) == digests(plain)
        assert digests(cut) == digests(assignments_of(problem, plan, issue))


def digests(assignments: dict[str, SiteAssignment]) -> dict[str, str]:
    return {site_id: digest(one) for site_id, one in assignments.items()}


@MANY
@given(stories())
def test_the_ways_between_two_plans_are_those_worked_out_route_by_route(
    story: list[tuple[Problem, Plan]],
) -> None:
    (first, before), (second, after), *_ = story
    state = state_in_force(first, before)
    cut = state.cut(second, after, version=2, now_ms=0)
    moves = tuple(site_move(state.site(s), cut[s]) for s in state.site_ids())
    assert _gains(moves) == plain_gains(moves)
    for move in moves:
        assert digest(_opening(move)) == digest(plain_opening(move))
        assert digest(_moving(move)) == digest(plain_moving(move))


@MANY
@given(stories(), st.data())
def test_the_prefix_check_names_what_it_finds_route_by_route(
    story: list[tuple[Problem, Plan]], data: st.DataObject
) -> None:
    (first, before), (second, after), *_ = story
    state = state_in_force(first, before)
    phases = plan_change(state, second, after, now_ms=0).phases
    dead = data.draw(st.sets(st.sampled_from(state.site_ids())))
    starts = tuple(s for s in starts_of(state) if s.site_id not in dead)
    dropped = data.draw(st.sets(st.sampled_from(["open", "move", "close"]), max_size=2))
    kept = tuple(p for p in phases if p.name not in dropped)
    found = [v for v in check_prefixes(kept, starts=starts) if v.code == "prefix_absent_route"]
    assert sorted(found, key=str) == sorted(plain_prefix_faults(kept, starts), key=str)


@MANY
@given(stories())
def test_a_failover_ends_in_the_assignments_of_a_cut_from_nothing(
    story: list[tuple[Problem, Plan]],
) -> None:
    problem, plan = replace(story[0][0], lost_sites=()), story[0][1]
    warm, cold = state_in_force(problem, plan), state_in_force(problem, plan)
    cold.routes = None
    assert digests_of(failed_over(warm)) == digests_of(failed_over(cold))


def failed_over(state: CycleState) -> Change:
    lost = state.site_ids()[0]
    state.lost[lost] = "killed"
    answer = predict_failover(state, lost)
    assert answer is not None
    return reroute_change(state, answer.problem, answer.plan, now_ms=9)


def digests_of(change: Change) -> list[str]:
    sent = [a for phase in change.phases for a in phase.assignments]
    return [digest(a) for a in (*sent, *change.finals.values())]


def three_sites() -> tuple[Problem, Plan]:
    """Tenants t and u at a and b (DE); c (FR) is spare, and beyond it lies CH."""
    eu = ResidencyPolicy(policy_id="eu", processing_countries=("DE",), transit_countries=())
    one = b.problem(
        sites=[b.site("a", country="DE"), b.site("b", country="DE"), b.site("c", country="FR")],
        links=[b.link("a", "b"), b.link("b", "c"), b.link("a", "c")],
        markets=[b.market(accesses={"a": 1.0, "b": 2.0, "c": 9.0})],
        services={"chat": ["v"], "fast": ["v"]},
        classes=[b.traffic_class("c")],
    )
    one = replace(
        one,
        policies=(b.ANYWHERE, eu),
        tenants=tuple(
            replace(t, tenant_id=name, residency_policy_id="any")
            for t in one.tenants[:1]
            for name in ("t", "u")
        ),
        classes=tuple(
            replace(c, class_id=f"{name}-{service}", tenant_id=name, service_id=service)
            for c in one.classes[:1]
            for name in ("t", "u")
            for service in ("chat", "fast")
        ),
    )
    groups = {"a/p/v/x1": 2, "b/p/v/x1": 2, "c/p/v/x1": 1}
    shares = {(c.class_id, "a/p/v/x1"): 10_000 for c in one.classes}
    return one, b.plan(one, groups=groups, shares=shares)


def sent(route: Route, site_id: str, *transit: str) -> Route:
    share = SiteShare(site_id=site_id, basis_points=10_000, transit_countries=transit)
    return replace(route, decision=RouteDecision.SERVE, shares=(share,), backups=())


def half(route: Route) -> Route:
    """Shares that sum to half: no route can be made so, only one that is made may be spoilt."""
    spoilt = sent(route, "a").under(route.key)
    object.__setattr__(spoilt, "shares", (SiteShare(site_id="a", basis_points=5_000),))
    return spoilt


PLANTED: dict[str, Callable[[Route], Route]] = {
    "residency": lambda route: sent(route, "c"),
    "transit": lambda route: sent(route, "b", "CH"),
    "unknown_peer": lambda route: sent(route, "nowhere"),
    "absent_group": lambda route: replace(
        route, groups=(GroupShare(group_id="a/p/w/x1", basis_points=10_000),)
    ),
    "unsound_route": half,
}


def spoil(
    assignment: SiteAssignment, plant: Callable[[Route], Route], places: Iterable[int]
) -> SiteAssignment:
    routes = list(assignment.routes)
    for n in places:
        routes[n] = plant(routes[n])
    return replace(assignment, routes=tuple(routes))


@pytest.mark.parametrize("code", sorted(PLANTED))
@pytest.mark.parametrize("tenant", ["t", "u"])
def test_a_fault_in_a_route_taken_over_is_refused(code: str, tenant: str) -> None:
    """It stands in the last cut and in force alike, so nothing about it changes."""
    state = state_in_force(*three_sites())
    assert state.routes is not None
    in_force = state.site("b").in_force
    assert in_force is not None
    places = [
        n
        for n, r in enumerate(in_force.routes)
        if (r.key.tenant_id, r.key.residency_policy_id) == (tenant, "eu")
    ][:1]
    bad = spoil(in_force, PLANTED[code], places)
    state.site("b").in_force = bad
    state.routes = replace(state.routes, routes={**state.routes.routes, "b": bad.routes})
    state.lost["c"] = "killed"
    answer = predict_failover(state, "c")
    assert answer is not None
    change = reroute_change(state, answer.problem, answer.plan, now_ms=9)
    again = change.finals["b"].routes[places[0]]
    assert again is bad.routes[places[0]], "the fault has to stand in what is taken over"
    assert code in {v.code for v in change.violations}
    assert change.phases == ()
    verdict = judge(change.finals["b"], Standing(site_id="b"), wall_ms=9)
    assert code in {v.code for v in verdict.violations}


def test_a_loss_makes_only_the_routes_that_can_see_it() -> None:
    state = state_in_force(*three_sites())
    assert state.routes is not None
    first = state.routes.made
    state.lost["c"] = "killed"
    answer = predict_failover(state, "c")
    assert answer is not None
    reroute_change(state, answer.problem, answer.plan, now_ms=9)
    told = len(state.routes.book.entries) + len(state.routes.book.planned)
    strict = {s: [r for r in rs if r.key.residency_policy_id == "eu"] for s, rs in routes(state)}
    assert state.routes.made <= first - sum(len(rs) for s, rs in strict.items() if s != "c") + told


def routes(state: CycleState) -> Iterable[tuple[str, tuple[Route, ...]]]:
    assert state.routes is not None
    return state.routes.routes.items()


def test_what_is_in_force_is_digested_ahead_one_site_at_a_time() -> None:
    state = state_in_force(*three_sites())
    for done in range(4):
        assert sum(state.site(s).is_digested for s in state.site_ids()) == min(done, 3)
        state.digest_one()
    for site_id in state.site_ids():
        in_force = state.site(site_id).in_force
        assert state.site(site_id).digest_in_force() == digest(in_force)
    moved = state.cut(*three_sites(), version=5, now_ms=5)["a"]
    state.site("a").in_force = moved
    assert state.site("a").digest_in_force() == digest(moved)
