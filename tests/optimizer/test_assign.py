"""A plan cut into assignments: exact shares, lawful everywhere, a clear no where there is none."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from optimizer.arcs import find_arcs
from optimizer.assign import Issue, assignments_of, policy_digest, route_keys
from optimizer.assign_routes import split_bp
from optimizer.greedy import greedy_plan
from optimizer.problem import Problem
from sites.assignment import Route, RouteDecision, RouteKey, SiteAssignment
from sites.digest import digest
from sites.errors import InvalidFactError
from sites.fit import check_fit
from sites.residency import ResidencyPolicy
from sites.traffic import Tenant
from sites.units import WHOLE_BP
from tests.optimizer import builders as b

ISSUE = Issue(epoch=2, version=7, now_ms=1_000, ttl_ms=500)
A, B = "a/p/v/x1", "b/p/v/x1"
ANY = RouteKey(service_id="chat", tenant_id="t", residency_policy_id="any")
EU = RouteKey(service_id="chat", tenant_id="t", residency_policy_id="eu")


def route(assignments: dict[str, SiteAssignment], site_id: str, key: RouteKey = ANY) -> Route:
    return next(r for r in assignments[site_id].routes if r.key == key)


def shares(one: Route) -> dict[str, int]:
    return {s.site_id: s.basis_points for s in one.shares}


@given(st.dictionaries(st.text("abcdef", min_size=1), st.integers(0, 10**9), min_size=1))
def test_a_split_is_exact_and_in_proportion(weights: dict[str, int]) -> None:
    fractions = {k: Fraction(v) for k, v in weights.items()}
    total = sum(weights.values())
    if total == 0:
        with pytest.raises(InvalidFactError):
            split_bp(fractions)
        return
    parts = split_bp(fractions)
    assert sum(parts.values()) == WHOLE_BP
    for key, weight in weights.items():
        assert abs(parts[key] - Fraction(weight * WHOLE_BP, total)) < 1
        assert weight > 0 or parts[key] == 0


@settings(deadline=None, max_examples=60, suppress_health_check=list(HealthCheck))
@given(b.small_problems())
def test_assignments_of_a_checked_plan_fit_and_cover_every_key_at_every_site(
    problem: Problem,
) -> None:
    plan = greedy_plan(problem, find_arcs(problem).arcs)
    assignments = assignments_of(problem, plan, ISSUE)
    assert sorted(assignments) == sorted(s.site_id for s in problem.fleet.sites)
    serving = {(s, r.key) for s, one in assignments.items() for r in one.routes if r.groups}
    for one in assignments.values():
        assert tuple(r.key for r in one.routes) == route_keys(problem)
        wrong = {v.code for v in check_fit(one)}
        assert not wrong & {"residency", "transit", "absent_group", "unknown_peer"}
        for each in one.routes:
            for share in (*each.shares, *each.backups):
                assert (share.site_id, each.key) in serving
    again = assignments_of(problem, plan, ISSUE)
    assert {s: digest(a) for s, a in again.items()} == {
        s: digest(a) for s, a in assignments.items()
    }


def test_shares_of_classes_with_one_key_are_weighted_by_their_demand() -> None:
    problem = b.two_sites(
        classes=[b.traffic_class("c", rate_rps=30.0), b.traffic_class("d", rate_rps=10.0)]
    )
    plan = b.plan(
        problem, groups={A: 3, B: 1}, shares={("c", A): 10_000, ("d", A): 4_000, ("d", B): 6_000}
    )
    one = route(assignments_of(problem, plan, ISSUE), "a")
    assert shares(one) == {"a": 8_500, "b": 1_500}
    assert one.backups == ()


def test_an_assignment_carries_what_its_site_needs_to_judge_it() -> None:
    problem = b.two_sites()
    plan = b.plan(problem, groups={A: 1}, shares={("c", A): 10_000})
    issue = replace(ISSUE, pseudonym_keys={"t": "ab"}, parent_digests={"a": "before"})
    one = assignments_of(problem, plan, issue)["a"]
    assert one.rank == (2, 7)
    assert (one.issued_at_ms, one.expires_at_ms) == (1_000, 1_500)
    assert one.plan_digest == plan.plan_digest
    assert one.policy_digest == policy_digest(problem)
    assert one.parent_digest == "before"
    assert [t.group.group_id for t in one.groups] == [A]
    assert [p.site_id for p in one.peers] == ["b"]
    assert one.tenants[0].pseudonym_key == "ab"


def test_where_no_class_enters_traffic_spreads_over_what_is_placed() -> None:
    problem = b.two_sites()
    plan = b.plan(problem, groups={A: 3, B: 1}, shares={("c", A): 10_000})
    assignments = assignments_of(problem, plan, ISSUE)
    assert shares(route(assignments, "b")) == {"a": 7_500, "b": 2_500}
    assert [s.site_id for s in route(assignments, "a").backups] == ["b"]


def test_a_stricter_policy_nobody_planned_for_uses_the_lawful_part_of_what_is_placed() -> None:
    problem = replace(b.two_sites(), policies=(b.ANYWHERE, only("FR", transit=("DE",))))
    plan = b.plan(problem, groups={A: 1, B: 1}, shares={("c", A): 10_000})
    assignments = assignments_of(problem, plan, ISSUE)
    strict = RouteKey(service_id="chat", tenant_id="t", residency_policy_id="fr")
    assert shares(route(assignments, "a", strict)) == {"b": 10_000}
    assert route(assignments, "a", strict).groups == ()
    assert [g.group_id for g in route(assignments, "b", strict).groups] == [B]


def test_a_policy_no_site_meets_is_unlawful_and_one_nothing_is_placed_for_is_shed() -> None:
    problem = replace(b.two_sites(), policies=(b.ANYWHERE, only("CH"), only("FR", transit=("DE",))))
    plan = b.plan(problem, groups={A: 1}, shares={("c", A): 10_000})
    assignments = assignments_of(problem, plan, ISSUE)
    for site_id in ("a", "b"):
        key = RouteKey(service_id="chat", tenant_id="t", residency_policy_id="ch")
        assert route(assignments, site_id, key).decision is RouteDecision.UNLAWFUL
        key = RouteKey(service_id="chat", tenant_id="t", residency_policy_id="fr")
        assert route(assignments, site_id, key).decision is RouteDecision.SHED


def test_data_that_may_not_even_cross_the_ingress_country_is_unlawful_there_alone() -> None:
    problem = replace(b.two_sites(), policies=(b.ANYWHERE, only("FR")))
    plan = b.plan(problem, groups={B: 1}, shares={("c", B): 10_000})
    assignments = assignments_of(problem, plan, ISSUE)
    key = RouteKey(service_id="chat", tenant_id="t", residency_policy_id="fr")
    assert route(assignments, "a", key).decision is RouteDecision.UNLAWFUL
    assert shares(route(assignments, "b", key)) == {"b": 10_000}


def test_shed_traffic_is_shed_where_it_enters() -> None:
    problem = b.two_sites()
    plan = b.plan(problem, groups={A: 1}, shares={("c", A): 7_000}, shed={"c": 3_000})
    assignments = assignments_of(problem, plan, ISSUE)
    assert route(assignments, "a").shed_basis_points == 3_000
    assert shares(route(assignments, "a")) == {"a": 10_000}
    assert route(assignments, "b").shed_basis_points == 0
    nothing = b.plan(problem, groups={A: 1}, shares={}, shed={"c": 10_000})
    shed = route(assignments_of(problem, nothing, ISSUE), "a")
    assert shed.decision is RouteDecision.SHED
    assert [g.group_id for g in shed.groups] == [A]


def test_lost_sites_are_neither_share_nor_backup() -> None:
    problem = replace(b.two_sites(), lost_sites=("b",))
    plan = b.plan(problem, groups={A: 1, B: 1}, shares={("c", A): 10_000})
    one = route(assignments_of(problem, plan, ISSUE), "a")
    assert shares(one) == {"a": 10_000}
    assert one.backups == ()


def test_a_tenant_may_only_ask_for_policies_at_least_as_strict_as_its_own() -> None:
    problem = replace(b.two_sites(), tenants=(Tenant(tenant_id="t", residency_policy_id="eu"),))
    eu_only = replace(
        problem, classes=tuple(replace(c, residency_policy_id="eu") for c in problem.classes)
    )
    assert route_keys(eu_only) == (EU,)
    assert ANY in route_keys(b.two_sites())


def only(country: str, *, transit: tuple[str, ...] = ()) -> ResidencyPolicy:
    return ResidencyPolicy(
        policy_id=country.lower(), processing_countries=(country,), transit_countries=transit
    )
