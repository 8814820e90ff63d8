"""The quick text of an assignment is its canonical JSON to the byte, whatever its strings hold."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optimizer.assign import Issue, assignments_of
from sites.assignment import GroupShare, Route, RouteDecision, RouteKey, SiteAssignment, SiteShare
from sites.assignment_json import assignment_digest, assignment_json
from sites.digest import canonical_json, digest
from tests.optimizer import builders as b

WORDS = st.one_of(
    st.text(max_size=8),
    st.sampled_from(
        ['"key":', '","key":{', '{"residency_policy_id":"eu"', "\\", '\\"', "é\u2028", ""]
    ),
)
KEYS = st.builds(RouteKey, service_id=WORDS, tenant_id=WORDS, residency_policy_id=WORDS)


@st.composite
def some_routes(draw: st.DrawFn) -> list[Route]:
    """Refusals with odd reasons and serving routes, each under one or more keys."""
    first = draw(st.integers(1, 9_999))
    served = Route(
        key=draw(KEYS),
        decision=RouteDecision.SERVE,
        shares=(
            SiteShare(site_id=draw(WORDS), basis_points=first, transit_countries=("CH", "FR")),
            SiteShare(site_id="b", basis_points=10_000 - first),
        ),
        backups=(SiteShare(site_id=draw(WORDS) + "!", basis_points=1),),
        groups=(GroupShare(group_id=draw(WORDS), basis_points=10_000),),
        reason=draw(WORDS),
    )
    shed = Route(key=draw(KEYS), decision=RouteDecision.SHED, reason=draw(WORDS))
    return [r for one in (served, shed) for r in (one, *map(one.under, draw(st.lists(KEYS))))]


def an_assignment() -> SiteAssignment:
    problem = b.two_sites()
    plan = b.plan(problem, groups={"a/p/v/x1": 1}, shares={("c", "a/p/v/x1"): 10_000})
    return assignments_of(problem, plan, Issue(epoch=1, version=1, now_ms=0, ttl_ms=1))["a"]


@settings(deadline=None)
@given(some_routes())
def test_the_text_is_the_canonical_one(routes: list[Route]) -> None:
    unique = {r.key.route_id: r for r in routes}
    # hypothesis may call two keys alike that differ in where the strokes stand; none is dropped
    one = replace(an_assignment(), routes=tuple(unique.values()))
    assert assignment_json(one) == canonical_json(one)
    assert assignment_digest(one) == digest(one)


def test_no_route_at_all_is_an_empty_list() -> None:
    one = replace(an_assignment(), routes=())
    assert assignment_json(one) == canonical_json(one)


def test_half_a_surrogate_pair_has_no_text() -> None:
    (first, *rest) = an_assignment().routes
    odd = replace(first, decision=RouteDecision.SHED, shares=(), backups=(), reason="\ud800")
    with pytest.raises(ValueError, match="UTF-8"):
        assignment_json(replace(an_assignment(), routes=(odd, *rest)))


@given(KEYS)
def test_a_copy_for_another_key_is_the_route_made_for_it(key: RouteKey) -> None:
    for route in an_assignment().routes:
        assert route.under(key) == replace(route, key=key)
        assert hash(route.under(key)) == hash(replace(route, key=key))


@given(KEYS, KEYS)
def test_equal_keys_have_one_hash(one: RouteKey, other: RouteKey) -> None:
    again = replace(one)
    assert again == one
    assert hash(again) == hash(one)
    assert (one == other) == (canonical_json(one) == canonical_json(other))
