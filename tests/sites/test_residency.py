"""Residency: a policy that counts as stricter never allows what the other one forbids."""

from __future__ import annotations

from itertools import chain, combinations

from hypothesis import given
from hypothesis import strategies as st

from sites.residency import ResidencyPolicy, is_at_least_as_strict, may_process, may_transit

COUNTRIES = ("CH", "DE", "FR")
ELSEWHERE = "US"
TAGS = ("c5", "hds")
TAG_SETS = tuple(chain.from_iterable(combinations(TAGS, n) for n in range(len(TAGS) + 1)))

countries = st.none() | st.sets(st.sampled_from(COUNTRIES)).map(lambda s: tuple(sorted(s)))
policies = st.builds(
    ResidencyPolicy,
    policy_id=st.just("p"),
    processing_countries=countries,
    transit_countries=countries,
    required_tags=st.sampled_from(TAG_SETS),
)


def allowed(policy: ResidencyPolicy) -> set[tuple[str, ...]]:
    """Everything the policy allows: ("process", country, tags...) and ("cross", country)."""
    everywhere = (*COUNTRIES, ELSEWHERE)
    crossing = {("cross", c) for c in everywhere if may_transit(policy, country=c)}
    return crossing | {
        ("process", c, *tags)
        for c in everywhere
        for tags in TAG_SETS
        if may_process(policy, country=c, tags=tags)
    }


@given(policies, policies)
def test_a_stricter_policy_allows_nothing_the_other_forbids(
    one: ResidencyPolicy, other: ResidencyPolicy
) -> None:
    if is_at_least_as_strict(one, other):
        assert allowed(one) <= allowed(other)
    elif any(kind == "process" for kind, *_ in allowed(one)):
        assert not allowed(one) <= allowed(other)


@given(policies)
def test_a_policy_is_as_strict_as_itself_and_what_it_processes_may_get_there(
    one: ResidencyPolicy,
) -> None:
    assert is_at_least_as_strict(one, one)
    processed = {country for kind, country, *_ in allowed(one) if kind == "process"}
    assert {("cross", country) for country in processed} <= allowed(one)
