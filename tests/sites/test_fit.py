"""The checker of one site: what fits passes; each broken limit, planted alone, is named."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

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
