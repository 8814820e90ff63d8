"""The checker of one site: what fits passes; each broken limit, planted alone, is named."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optimizer.assign import Issue, assignments_of
from sites.assignment import (
    GroupShare,
    Route,
    RouteDecision,
    RouteKey,
    SiteAssignment,
    SiteShare,
)
from sites.fit import check_fit, possible_draw_w
from sites.residency import ResidencyPolicy
from tests.optimizer import builders as b
from tests.sites.plain_fit import plain_route_faults

GROUP = "a/p/v/x1"


def fitting() -> SiteAssignment:
    """Site a serves class c with one replica of 300 W; site b is a peer in FR."""
    problem = b.two_sites()
    plan = b.plan(problem, groups={GROUP: 1}, shares={("c", GROUP): 10_000})
    return assignments_of(problem, plan, Issue(epoch=1, version=1, now_ms=0, ttl_ms=1))["a"]


def codes(assignment: SiteAssignment) -> set[str]:
    return {v.code for v in check_fit(assignment)}


def with_route(assignment: SiteAssignment, **changes: object) -> SiteAssignment:
    first, *rest = assignment.routes
    return replace(assignment, routes=(replace(first, **changes), *rest))  # type: ignore[arg-type]


def with_target(assignment: SiteAssignment, **changes: object) -> SiteAssignment:
    (target,) = assignment.groups
    return replace(assignment, groups=(replace(target, **changes),))  # type: ignore[arg-type]


def only_in(country: str) -> Callable[[SiteAssignment], SiteAssignment]:
    def narrowed(assignment: SiteAssignment) -> SiteAssignment:
        policies = tuple(
            replace(p, processing_countries=(country,), transit_countries=())
            for p in assignment.policies
        )
        return replace(assignment, policies=policies)

    return narrowed


def through(country: str) -> Callable[[SiteAssignment], SiteAssignment]:
    share = SiteShare(site_id="b", basis_points=10_000, transit_countries=(country,))
    eu = RouteKey(service_id="chat", tenant_id="t", residency_policy_id="eu")
    return lambda one: replace(
        one, routes=(Route(key=eu, decision=RouteDecision.SERVE, shares=(share,)),)
    )


def half(one: SiteAssignment) -> SiteAssignment:
    """Shares that sum to half: no route can be made so, only one that is made may be spoilt."""
    first, *rest = one.routes
    spoilt = first.under(first.key)
    share = SiteShare(site_id="a", basis_points=5_000)
    object.__setattr__(spoilt, "shares", (share,))
    return replace(one, routes=(spoilt, *rest))


PLANTED: dict[str, Callable[[SiteAssignment], SiteAssignment]] = {
    "site_power": lambda one: replace(one, power_budget_w=299.0),
    "pool_accelerators": lambda one: with_target(one, replicas=5),
    "accelerator_memory": lambda one: with_target(
        one, point=replace(one.groups[0].point, memory_mib=1e6)
    ),
    "wrong_accelerator": lambda one: with_target(
        one, point=replace(one.groups[0].point, accelerator="other")
    ),
    "wrong_accelerators_per_replica": lambda one: with_target(
        one, point=replace(one.groups[0].point, accelerators_per_replica=2)
    ),
    "unknown_pool": lambda one: with_target(
        one, group=replace(one.groups[0].group, pool_id="elsewhere")
    ),
    "wrong_site": lambda one: with_target(one, group=replace(one.groups[0].group, site_id="b")),
    "absent_group": lambda one: with_target(one, replicas=0),
    "unknown_policy": lambda one: replace(one, policies=()),
    "unknown_service": lambda one: replace(one, services=()),
    "unknown_tenant": lambda one: replace(one, tenants=()),
    "variant_not_allowed": lambda one: replace(one, services=(("chat", ("w",)),)),
    "unknown_peer": lambda one: with_route(
        one, shares=(SiteShare(site_id="nowhere", basis_points=10_000),)
    ),
    "unsound_route": half,
    "residency": only_in("FR"),
    "transit": through("CH"),
}


def test_a_fitting_assignment_breaks_nothing() -> None:
    assert check_fit(fitting()) == ()


@pytest.mark.parametrize("code", sorted(PLANTED))
def test_a_planted_fault_is_named(code: str) -> None:
    assert code in codes(PLANTED[code](fitting()))


def test_a_peer_outside_the_law_is_named() -> None:
    share = SiteShare(site_id="b", basis_points=10_000)
    assignment = only_in("DE")(with_route(fitting(), shares=(share,)))
    assert "residency" in codes(assignment)


def test_possible_draw_is_full_use_times_pue() -> None:
    (target,) = fitting().groups
    assert possible_draw_w((replace(target, replicas=2),), pue=1.5) == pytest.approx(900.0)
    assert possible_draw_w((target,), pue=1.0, running={GROUP: 4}) == pytest.approx(1200.0)


def test_a_policy_for_any_country_lets_everything_pass() -> None:
    anywhere = ResidencyPolicy(policy_id="eu", processing_countries=None, transit_countries=None)
    assignment = replace(through("CH")(fitting()), policies=(anywhere,))
    assert codes(assignment) == set()


def test_a_violation_says_subject_limit_actual_unit_and_remedy() -> None:
    (violation,) = check_fit(replace(fitting(), power_budget_w=200.0))
    assert violation.message() == (
        'site "a": site power is 300 W, limit 200 W; '
        "want fewer replicas there or raise the power budget"
    )


def test_a_share_of_no_group_is_no_route() -> None:
    share = GroupShare(group_id="a/p/w/x1", basis_points=10_000)
    assert codes(with_route(fitting(), groups=(share,))) == {"absent_group"}


IDS = st.sampled_from(["a", "b", "nowhere"])
WAYS = st.lists(
    st.tuples(IDS, st.sampled_from([(), ("CH",), ("FR", "CH")])),
    max_size=2,
    unique_by=lambda w: w[0],
)
GROUPS = st.sampled_from([(), (GROUP,), ("a/p/w/x1",)])
KEYS = st.builds(
    RouteKey,
    service_id=st.sampled_from(["chat", "fast"]),
    tenant_id=st.sampled_from(["t", "u", "stranger"]),
    residency_policy_id=st.sampled_from(["any", "eu", "lost"]),
)


@st.composite
def assignments_with_any_routes(draw: st.DrawFn) -> SiteAssignment:
    """Few ways under many keys, lawful or not; some keys share all they say, some are equal to it
    yet are objects of their own.
    """
    law = ResidencyPolicy(
        policy_id="eu",
        processing_countries=draw(st.sampled_from([("DE",), ("DE", "FR"), ("CH",)])),
        transit_countries=draw(st.sampled_from([(), ("CH",)])),
    )
    one = replace(fitting(), policies=(b.ANYWHERE, law))
    keys = draw(st.lists(KEYS, unique=True, min_size=1, max_size=12))
    made: list[Route] = []
    for key in keys:
        if made and draw(st.booleans()):
            made.append(draw(st.sampled_from(made)).under(key))
            continue
        ways = draw(WAYS)
        shares = tuple(
            SiteShare(site_id=s, basis_points=10_000 // len(ways), transit_countries=crossed)
            for s, crossed in ways
        )
        groups = tuple(GroupShare(group_id=g, basis_points=10_000) for g in draw(GROUPS))
        decision = RouteDecision.SERVE if shares else RouteDecision.SHED
        made.append(Route(key=key, decision=decision, shares=shares, groups=groups))
    return replace(one, routes=tuple(made))


@settings(deadline=None, max_examples=200)
@given(assignments_with_any_routes())
def test_kinds_of_routes_are_judged_as_each_route_would_be(assignment: SiteAssignment) -> None:
    assert check_fit(assignment) == tuple(plain_route_faults(assignment))
