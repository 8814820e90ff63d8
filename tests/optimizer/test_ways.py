"""A search that stops early and goes on finds what a search to the end finds."""

from __future__ import annotations

from dataclasses import replace
from math import inf

from hypothesis import given, settings
from hypothesis import strategies as st

from optimizer.problem import Problem
from optimizer.ways import Ways
from sites.fleet import Fleet
from tests.optimizer import builders as b


@st.composite
def meshes(draw: st.DrawFn) -> Fleet:
    """Up to seven sites in three countries, links full of ties and of length 0."""
    ids = "abcdefg"[: draw(st.integers(2, 7))]
    sites = [b.site(i, country=draw(st.sampled_from(("DE", "FR", "CH")))) for i in ids]
    pairs = [(one, other) for one in ids for other in ids if one < other]
    links = [
        b.link(*pair, rtt_ms=draw(st.sampled_from((0.0, 1.0, 2.0))))
        for pair in draw(st.lists(st.sampled_from(pairs), unique=True))
    ]
    return Fleet(sites=tuple(sites), links=tuple(links))


POLICIES = {p.policy_id: p for p in (b.EU_ONLY, b.ANYWHERE)}


@settings(max_examples=200, deadline=None)
@given(meshes(), st.data())
def test_the_order_of_questions_changes_no_answer(fleet: Fleet, data: st.DataObject) -> None:
    ids = [s.site_id for s in fleet.sites]
    questions = [(p, s, t) for p in sorted(POLICIES) for s in ids for t in ids]
    in_order, shuffled = Ways(fleet), Ways(fleet)
    told = {q: in_order.way(POLICIES[q[0]], source=q[1], target=q[2]) for q in questions}
    for policy_id, source, target in data.draw(st.permutations(questions)):
        asked = POLICIES[policy_id]
        way = told[policy_id, source, target]
        rtt_ms = shuffled.rtt_ms(asked, source=source, target=target)
        assert rtt_ms == (way.rtt_ms if way else None)
        assert shuffled.way(asked, source=source, target=target) == way


@settings(max_examples=100, deadline=None)
@given(meshes(), st.data())
def test_all_ways_at_once_are_as_long_as_one_by_one(fleet: Fleet, data: st.DataObject) -> None:
    ids = [s.site_id for s in fleet.sites]
    begun, targets = Ways(fleet), data.draw(st.lists(st.sampled_from(ids)))
    for policy in POLICIES.values():
        for source in ids:
            begun.rtt_ms(policy, source=source, target=data.draw(st.sampled_from(ids)))
            each = [Ways(fleet).rtt_ms(policy, source=source, target=t) for t in targets]
            told = begun.all_rtt_ms(policy, source=source, targets=targets)
            assert told == [inf if rtt_ms is None else rtt_ms for rtt_ms in each]


def test_no_way_leads_into_or_out_of_a_country_that_is_closed() -> None:
    fleet = Fleet(
        sites=(b.site("a"), b.site("b", country="CH"), b.site("c")),
        links=(b.link("a", "b"), b.link("b", "c")),
    )
    ways = Ways(fleet)
    assert ways.way(b.EU_ONLY, source="a", target="b") is None
    assert ways.way(b.EU_ONLY, source="b", target="a") is None
    assert ways.way(b.EU_ONLY, source="b", target="b") is None
    assert ways.way(b.EU_ONLY, source="a", target="c") is None
    through = ways.way(b.ANYWHERE, source="a", target="c")
    assert through is not None and through.transit_countries == ("CH",)


@settings(max_examples=60, deadline=None)
@given(b.small_problems())
def test_a_problem_answers_by_its_fields_and_digests_once(problem: Problem) -> None:
    again = replace(problem)
    assert again == problem and again.digest == problem.digest == problem.digest
    for one in problem.classes:
        given_here = [
            d.rate_rps
            for d in problem.demand
            if (d.class_id, d.period) == (one.class_id, problem.period)
        ]
        own = one.rate_rps[problem.period % len(one.rate_rps)]
        assert problem.rate_rps(one) == (given_here or [own])[0]
        assert problem.service(one.service_id).service_id == one.service_id
        assert problem.residency(one.residency_policy_id).policy_id == one.residency_policy_id
