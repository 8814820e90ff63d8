"""Changes step by step: every order the steps of a wave may take is safe, and the check sees it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from random import Random

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from optimizer.arcs import find_arcs
from optimizer.greedy import greedy_plan
from optimizer.plan import Plan
from optimizer.problem import Problem
from scheduler.change import Change, plan_change, starts_of
from scheduler.phases import Phase
from scheduler.prefixes import check_prefixes
from scheduler.simulation.safety import SafetyWatch
from scheduler.state import CycleState
from sites.assignment import RouteDecision, RouteKey, SiteAssignment
from sites.hub_messages import AssignmentWanted, SendStep
from sites.residency import ResidencyPolicy
from sites.steps import StepKind
from sites.units import WHOLE_BP
from tests.optimizer import builders as b
from tests.scheduler.states import bare_state, simulated, state_in_force

A, B, W = "a/p/v/x1", "b/p/v/x1", "a/p/w/x1"
RATES = st.sampled_from([1.0, 4.0, 9.0, 25.0])


def planned(problem: Problem) -> Plan:
    return greedy_plan(problem, find_arcs(problem).arcs)


@st.composite
def two_plans(draw: st.DrawFn) -> tuple[Problem, Plan, Problem, Plan]:
    """One fleet under two demands, or with a site lost in the second plan."""
    first = replace(draw(b.small_problems(max_sites=4)), running=())
    classes = tuple(replace(c, rate_rps=(draw(RATES),)) for c in first.classes)
    lost = draw(st.sampled_from([(), (first.fleet.sites[0].site_id,)]))
    second = replace(first, classes=classes, lost_sites=lost)
    return first, planned(first), second, planned(second)


@settings(deadline=None, max_examples=150, suppress_health_check=list(HealthCheck))
@given(two_plans(), st.randoms(use_true_random=False), st.booleans())
def test_no_order_of_steps_breaks_a_site_or_sends_into_the_void(
    plans: tuple[Problem, Plan, Problem, Plan], random: Random, fresh: bool
) -> None:
    first, before, second, after = plans
    state = bare_state(first) if fresh else state_in_force(first, before)
    change = plan_change(state, second, after, now_ms=0)
    assume(change.phases)
    carry_out(state, change, random)


def carry_out(state: CycleState, change: Change, random: Random) -> None:
    """Every wave's steps in a random order, looked at after each of them."""
    sites, watch, now_ms = simulated(state), SafetyWatch(), 0
    for phase in change.phases:
        for assignment in phase.assignments:
            frame = AssignmentWanted(assignment=assignment)
            (verdict,) = sites[assignment.site_id].take(frame, now_ms)
            assert verdict.verdict.accepted, verdict
        for wave in phase.waves:
            steps = list(wave)
            random.shuffle(steps)
            for step in steps:
                sites[step.site_id].take(SendStep(site_id=step.site_id, step=step), now_ms)
                watch.look(now_ms, sites)
            now_ms += 10_000
            for site in sites.values():
                site.pass_time(now_ms, {})
            watch.look(now_ms, sites)
    assert watch.faults == []
    ends_as_planned(change, sites)


def ends_as_planned(change: Change, sites: dict[str, object]) -> None:
    wanted = {g.group.group_id: g.replicas for g in change.plan.groups}
    running: dict[str, int] = {}
    for site in sites.values():
        for replica in site.replicas:  # type: ignore[attr-defined]
            running[replica.group.group_id] = running.get(replica.group.group_id, 0) + 1
    assert running == wanted


@settings(deadline=None, max_examples=100, suppress_health_check=list(HealthCheck))
@given(two_plans())
def test_versions_rise_by_one_and_shares_stay_whole(
    plans: tuple[Problem, Plan, Problem, Plan],
) -> None:
    first, before, second, after = plans
    change = plan_change(state_in_force(first, before), second, after, now_ms=0)
    ranks = [phase.rank for phase in change.phases]
    assert ranks == [(1, 2 + n) for n in range(len(ranks))]
    ids = [s.step_id for p in change.phases for w in p.waves for s in w]
    assert len(ids) == len(set(ids))
    for phase in change.phases:
        for assignment in phase.assignments:
            for route in assignment.routes:
                assert sum(s.basis_points for s in route.shares) in (0, WHOLE_BP)
                assert sum(g.basis_points for g in route.groups) in (0, WHOLE_BP)


def test_no_phase_lets_data_in_where_a_new_policy_forbids_it() -> None:
    """Data enters at c on its way to a; from now on it may not; b is to serve some of it too."""

    def asked(transit: tuple[str, ...], rate_rps: float) -> Problem:
        policy = ResidencyPolicy(
            policy_id="eu", processing_countries=("DE", "FR"), transit_countries=transit
        )
        return b.problem(
            sites=[
                b.site("a", country="DE", pools=[b.pool(count=1)]),
                b.site("b", country="FR", pools=[b.pool(price=5.0)]),
                b.site("c", country="CH"),
            ],
            links=[b.link("a", "c"), b.link("a", "b"), b.link("b", "c")],
            markets=[b.market("m", accesses={"a": 4.0})],
            classes=[b.traffic_class("k", policy_id="eu", rate_rps=rate_rps)],
            policies=[b.ANYWHERE, policy],
        )

    first, second = asked(("CH",), 1.0), asked((), 25.0)
    state = state_in_force(first, planned(first))
    key = next(r for r in serving(state.site("c").in_force))
    assert key.residency_policy_id == "eu", "c sends it on before the change"
    change = plan_change(state, second, planned(second), now_ms=0)
    assert change.violations == ()
    assert change.phases[0].name == "open"
    for phase in change.phases:
        assignment = phase.assignment("c")
        assert assignment is not None
        assert key not in serving(assignment)


def serving(assignment: SiteAssignment | None) -> list[RouteKey]:
    assert assignment is not None
    return [
        r.key
        for r in assignment.routes
        if r.decision is RouteDecision.SERVE and r.key.residency_policy_id == "eu"
    ]


def moving() -> tuple[CycleState, Change]:
    """Class c moves from site a to site b."""
    problem = b.two_sites()
    before = b.plan(problem, groups={A: 1}, shares={("c", A): 10_000})
    after = b.plan(problem, groups={B: 1}, shares={("c", B): 10_000})
    state = state_in_force(problem, before)
    return state, plan_change(state, problem, after, now_ms=0)


def test_make_before_break_in_three_phases() -> None:
    _, change = moving()
    assert [
        (phase.name, [sorted({(s.kind.value, s.site_id) for s in wave}) for wave in phase.waves])
        for phase in change.phases
    ] == [
        ("open", [[("start_replicas", "b")], [("set_routes", "a"), ("set_routes", "b")]]),
        ("move", [[("set_routes", "a"), ("set_routes", "b")]]),
        (
            "close",
            [
                [("set_routes", "a"), ("set_routes", "b")],
                [("drain_replicas", "a")],
                [("stop_replicas", "a")],
            ],
        ),
    ]


def without(kind: StepKind) -> Callable[[tuple[Phase, ...]], tuple[Phase, ...]]:
    return lambda phases: tuple(
        replace(p, waves=tuple(w for w in p.waves if all(s.kind is not kind for s in w)))
        for p in phases
    )


def backwards(phases: tuple[Phase, ...]) -> tuple[Phase, ...]:
    return tuple(reversed(phases))


def starting_while_moving(phases: tuple[Phase, ...]) -> tuple[Phase, ...]:
    opened, moved, closed = phases
    starts, routes = opened.waves
    return (
        replace(opened, waves=(routes,)),
        replace(moved, waves=((*starts, *moved.waves[0]),)),
        closed,
    )


PLANTED: dict[str, Callable[[tuple[Phase, ...]], tuple[Phase, ...]]] = {
    "never starts": without(StepKind.START_REPLICAS),
    "closes first": backwards,
    "moves before what it moves to is ready": starting_while_moving,
    "skips the opening": lambda phases: phases[1:],
    "moves and closes at once": lambda phases: (phases[0], phases[2]),
}


@pytest.mark.parametrize("name", sorted(PLANTED))
def test_an_unsafe_order_is_seen(name: str) -> None:
    state, change = moving()
    assert check_prefixes(change.phases, starts=starts_of(state)) == ()
    found = check_prefixes(PLANTED[name](change.phases), starts=starts_of(state))
    assert "prefix_absent_route" in {v.code for v in found}


@pytest.mark.parametrize(
    ("limit", "code"), [("power", "prefix_power"), ("pool", "prefix_accelerators")]
)
def test_what_does_not_fit_beside_what_runs_is_seen(limit: str, code: str) -> None:
    state, change = moving()
    start = next(s for s in starts_of(state) if s.site_id == "b")
    tight = []
    for phase in change.phases:
        assignments = tuple(
            replace(
                one,
                power_budget_w=599.0 if limit == "power" else one.power_budget_w,
                pools=(replace(one.pools[0], count=1 if limit == "pool" else 4),),
            )
            for one in phase.assignments
        )
        waves = tuple(
            tuple(replace(s, replicas=2) if s.kind is StepKind.START_REPLICAS else s for s in wave)
            for wave in phase.waves
        )
        tight.append(replace(phase, assignments=assignments, waves=waves))
    found = check_prefixes(tight, starts=(start, starts_of(state)[0]))
    assert code in {v.code for v in found}


def swap_in_place(*, room_elsewhere: bool, copies: int = 1) -> tuple[CycleState, Change]:
    """Site a is full of v and shall run w instead; b may or may not hold the traffic meanwhile."""
    count = copies if room_elsewhere else 0
    problem = b.problem(
        sites=[
            b.site("a", pools=[b.pool(count=copies)]),
            b.site("b", country="FR", pools=[b.pool(count=count)]),
        ],
        links=[b.link("a", "b")],
        markets=[b.market(accesses={"a": 5.0})],
        variants=[b.variant("v"), b.variant("w", quality=0.9)],
        points=[b.point("v"), b.point("w")],
        services={"chat": ["v", "w"]},
        classes=[b.traffic_class("c", rate_rps=10.0 * copies)],
    )
    old = {A: copies, B: copies} if room_elsewhere else {A: copies}
    before = b.plan(problem, groups=old, shares={("c", A): 10_000})
    new = {W: copies, B: copies} if room_elsewhere else {W: copies}
    after = b.plan(problem, groups=new, shares={("c", W): 10_000})
    state = state_in_force(problem, before)
    return state, plan_change(state, problem, after, now_ms=0)


def test_where_old_and_new_do_not_fit_traffic_waits_elsewhere() -> None:
    _, change = swap_in_place(room_elsewhere=True)
    assert change.violations == ()
    assert [phase.name for phase in change.phases] == [
        "elsewhere-move",
        "elsewhere-close",
        "open",
        "move",
    ]
    kinds = [s.kind for p in change.phases for w in p.waves for s in w]
    assert kinds.index(StepKind.STOP_REPLICAS) < kinds.index(StepKind.START_REPLICAS)


def test_where_there_is_no_elsewhere_the_change_is_rejected_with_its_reason() -> None:
    _, change = swap_in_place(room_elsewhere=False)
    assert change.phases == ()
    assert {v.code for v in change.violations} == {"pool_accelerators", "no_make_before_break"}


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 3), st.randoms(use_true_random=False))
def test_waiting_elsewhere_is_safe_in_every_order(copies: int, random: Random) -> None:
    state, change = swap_in_place(room_elsewhere=True, copies=copies)
    assert change.violations == ()
    carry_out(state, change, random)
