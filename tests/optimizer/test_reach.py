"""Two readings of law and distance, written apart, agree on every pair of a problem."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from optimizer.arcs import find_arcs, group_options
from optimizer.backbone import Backbone
from optimizer.plan import PruneReason
from optimizer.problem import Problem
from optimizer.reach import Reach
from tests.optimizer import builders as b


@settings(max_examples=150, deadline=None)
@given(b.small_problems(max_sites=4), st.booleans())
def test_the_groups_that_may_answer_a_class_are_its_candidate_arcs(
    problem: Problem, lose_one: bool
) -> None:
    if lose_one:
        problem = replace(problem, lost_sites=(problem.fleet.sites[0].site_id,))
    reach = Reach(problem)
    arcs = {(a.class_id, a.group): a for a in find_arcs(problem).arcs}
    for one in problem.classes:
        for option in group_options(problem).values():
            arc = arcs.get((one.class_id, option.group))
            fits = option.group.accelerators_per_replica <= option.pool.count
            lawful = reach.refusal(one, option.group) is None
            assert (arc is not None) == (lawful and fits)
            if arc is not None:
                entry, way = reach.entry(one), reach.way(one, option.site.site_id)
                assert entry is not None and way is not None
                assert arc.ingress_site_id == entry.site_id
                assert arc.path == way.sites
                assert arc.transit_countries == way.transit_countries
                assert abs(arc.ttft_ms - (reach.ttft_ms(one, option.group) or 0)) < 1e-9


@settings(max_examples=150, deadline=None)
@given(b.small_problems(max_sites=5))
def test_every_lawful_path_is_the_same_path_ties_included(problem: Problem) -> None:
    reach, backbone = Reach(problem), Backbone(problem.fleet)
    for policy in problem.policies:
        for site in problem.fleet.sites:
            mine = {
                target.site_id: way
                for target in problem.fleet.sites
                if (way := reach.paths.way(policy, source=site.site_id, target=target.site_id))
            }
            theirs = backbone.paths_from(policy, site.site_id)
            assert {k: (v.sites, v.transit_countries) for k, v in sorted(mine.items())} == {
                k: (v.sites, v.transit_countries) for k, v in sorted(theirs.items())
            }


def test_reasons_come_in_the_order_loss_law_way() -> None:
    problem = b.two_sites(classes=[b.traffic_class(policy_id="eu")])
    swiss = replace(problem.fleet.sites[1], country="CH")
    fleet = replace(problem.fleet, sites=(problem.fleet.sites[0], swiss), links=())
    problem = replace(problem, fleet=fleet)
    one = problem.classes[0]
    lost = Reach(replace(problem, lost_sites=("b",))).site_refusal(one, "b")
    unlawful = Reach(problem).site_refusal(one, "b")
    apart = Reach(replace(problem, fleet=replace(fleet, sites=b.two_sites().fleet.sites)))
    far = apart.site_refusal(one, "b")
    assert lost is not None and lost.reason is PruneReason.SITE_UNAVAILABLE
    assert unlawful is not None and unlawful.reason is PruneReason.RESIDENCY
    assert far is not None and far.reason is PruneReason.TRANSIT
