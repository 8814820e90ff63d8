"""Candidate arcs: exactly what the checker would accept, and a reason for everything else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings

from optimizer.arcs import find_arcs, group_options, standby_arcs
from optimizer.milp.inputs import take_inputs
from optimizer.plan import PrunedArc, PruneReason
from optimizer.problem import Problem
from optimizer.reach import Reach
from sites.catalog import ServingPoint
from sites.fleet import Link, Site
from sites.residency import ResidencyPolicy
from sites.traffic import TrafficClass
from tests.optimizer import builders as b


@given(problem=b.small_problems())
@settings(max_examples=100, deadline=None)
def test_arcs_are_what_the_checkers_reading_allows(problem: Problem) -> None:
    reach = Reach(problem)
    kept = {(a.class_id, a.group.group_id): a for a in find_arcs(problem).arcs}
    for one in problem.classes:
        for group_id, option in group_options(problem).items():
            fits = option.group.accelerators_per_replica <= option.pool.count
            allowed = fits and reach.refusal(one, option.group) is None
            assert ((one.class_id, group_id) in kept) == allowed
    for (class_id, _), arc in kept.items():
        one = reach.classes[class_id]
        assert arc.ttft_ms == pytest.approx(reach.ttft_ms(one, arc.group))
        assert arc.ttft_ms <= one.slo.ttft_ms
        assert arc.path[0] == arc.ingress_site_id
        assert arc.path[-1] == arc.group.site_id


@given(problem=b.small_problems())
@settings(max_examples=100, deadline=None)
def test_every_class_site_and_variant_is_kept_or_has_a_reason(problem: Problem) -> None:
    found = find_arcs(problem)
    kept = {(a.class_id, a.group.site_id, a.group.variant_id) for a in found.arcs}
    pruned = {(p.class_id, p.site_id, p.variant_id) for p in found.pruned}
    assert len(pruned) == len(found.pruned)
    assert not kept & pruned
    for one in problem.classes:
        for site in problem.fleet.sites:
            for variant_id in problem.service(one.service_id).variant_ids:
                named = {(one.class_id, site.site_id, v) for v in ("", variant_id)}
                assert named & (kept | pruned)


STRICT_TRANSIT = ResidencyPolicy(
    policy_id="transit", processing_countries=("DE", "FR"), transit_countries=("DE",)
)
TAGGED = ResidencyPolicy(
    policy_id="tagged",
    processing_countries=None,
    transit_countries=None,
    required_tags=("c5", "hds"),
)


def reasons(
    one: TrafficClass,
    *,
    far: Site | None = None,
    links: Sequence[Link] | None = None,
    points: Sequence[ServingPoint] | None = None,
    lost: Sequence[str] = (),
    queueing_ms: float = 0.0,
) -> list[PrunedArc]:
    """What is pruned at site "b" for one class entering at "a"."""
    problem = b.problem(
        sites=[b.site("a", pools=[]), far or b.site("b", country="FR")],
        links=[b.link("a", "b")] if links is None else links,
        points=points,
        policies=(b.ANYWHERE, b.EU_ONLY, STRICT_TRANSIT, TAGGED),
        classes=[one],
        plan_policy=replace(b.DEFAULT_POLICY, queueing_ms_at_ceiling=queueing_ms),
        lost=lost,
    )
    return [p for p in find_arcs(problem).pruned if p.site_id == "b"]


def test_a_reachable_site_is_not_pruned() -> None:
    assert reasons(b.traffic_class(policy_id="eu")) == []


def test_residency_names_the_country_and_where_it_might_run() -> None:
    [found] = reasons(b.traffic_class(policy_id="eu"), far=b.site("b", country="CH"))

    assert (found.reason, found.limit, found.actual) == (
        PruneReason.RESIDENCY,
        "processed in DE,FR",
        "CH",
    )


def test_residency_names_the_missing_tags() -> None:
    [found] = reasons(b.traffic_class(policy_id="tagged"), far=b.site("b", tags=["c5"]))

    assert (found.reason, found.actual) == (PruneReason.RESIDENCY, "lacks hds")


def test_transit_names_the_countries_on_the_way() -> None:
    [found] = reasons(
        b.traffic_class(policy_id="transit"), links=[b.link("a", "b", transit=["CH", "US"])]
    )

    assert (found.reason, found.actual) == (PruneReason.TRANSIT, "CH,US")


def test_no_path_differs_from_an_unlawful_one() -> None:
    [found] = reasons(b.traffic_class(), links=[])

    assert (found.reason, found.limit) == (PruneReason.NO_PATH, "path from a")


def test_a_lost_site_is_unavailable() -> None:
    [found] = reasons(b.traffic_class(), lost=["b"])

    assert (found.reason, found.actual) == (PruneReason.SITE_UNAVAILABLE, "lost")


def test_latency_counts_access_path_queueing_and_first_token() -> None:
    slow = b.traffic_class(ttft_ms=84.0)

    assert reasons(slow, queueing_ms=19.0) == []
    [found] = reasons(slow, queueing_ms=19.5)
    assert (found.reason, found.limit, found.actual, found.unit) == (
        PruneReason.LATENCY,
        84.0,
        84.5,  # 5 access + 10 path + 19.5 queueing + 50 TTFT
        "ms to first token",
    )


def test_latency_per_token_and_percentile() -> None:
    [per_token] = reasons(b.traffic_class(tpot_ms=9.0))
    assert (per_token.limit, per_token.actual) == (9.0, 10.0)
    median = replace(b.point(), percentile=50.0)
    [found] = reasons(b.traffic_class(), points=[median])
    assert (found.reason, found.limit, found.actual) == (PruneReason.LATENCY, 99.0, 50.0)


def test_memory_accelerators_and_a_missing_point() -> None:
    one = b.traffic_class()
    [memory] = reasons(one, points=[b.point(memory_mib=90_000.0)])
    assert (memory.reason, memory.limit, memory.actual) == (
        PruneReason.MEMORY,
        80_000.0,
        90_000.0,
    )
    [accelerators] = reasons(one, points=[b.point(accelerators=8)])
    assert (accelerators.reason, accelerators.limit, accelerators.actual) == (
        PruneReason.ACCELERATORS,
        4.0,
        8.0,
    )
    [missing] = reasons(one, points=[b.point(accelerator="other")])
    assert missing.reason is PruneReason.NO_SERVING_POINT


def test_a_floor_above_the_variant_is_pruned_with_both_figures() -> None:
    problem = b.problem(
        variants=[b.variant("v", quality=0.7)], classes=[b.traffic_class(quality_floor=0.8)]
    )
    [found] = find_arcs(problem).pruned

    assert (found.reason, found.limit, found.actual) == (PruneReason.QUALITY, 0.8, 0.7)
    met = replace(problem, classes=(b.traffic_class(quality_floor=0.7),))
    assert find_arcs(met).pruned == ()


def test_of_several_points_the_nearest_miss_is_told() -> None:
    [found] = reasons(
        b.traffic_class(ttft_ms=60.0),
        points=[b.point(accelerators=8), b.point(accelerators=1), b.point(accelerators=2)],
    )

    assert (found.reason, found.actual) == (PruneReason.LATENCY, 65.0)


def test_a_class_without_lawful_ingress_is_told_access_by_access() -> None:
    problem = b.problem(
        sites=[b.site("a", country="US"), b.site("b")],
        markets=[b.market(accesses={"a": 1.0, "b": 2.0})],
        classes=[b.traffic_class(policy_id="eu")],
        lost=["b"],
    )
    found = find_arcs(problem).pruned

    assert [(p.site_id, p.reason, p.actual) for p in found] == [
        ("a", PruneReason.NO_INGRESS, "US"),
        ("b", PruneReason.NO_INGRESS, "lost"),
    ]


def test_an_arc_carries_its_work_and_its_transfer() -> None:
    problem = b.problem(
        sites=[b.site("a", pools=[]), b.site("b")],
        links=[b.link("a", "b", price=0.5)],
        classes=[b.traffic_class(bytes_per_request=2e6, output_tokens=300.0)],
    )
    [arc] = find_arcs(problem).arcs

    assert arc.replica_seconds == pytest.approx(0.3)
    assert arc.network_usd_per_request == pytest.approx(0.001)
    assert arc.path == ("a", "b")


def test_standby_arcs_are_those_from_where_protected_classes_enter_next() -> None:
    """Entering at a, only a is near enough; once a is lost they enter at c, and only c is."""
    problem = b.problem(
        sites=[b.site("a"), b.site("b"), b.site("c")],
        links=[b.link("a", "b", rtt_ms=300.0), b.link("b", "c", rtt_ms=300.0)],
        markets=[b.market(accesses={"a": 1.0, "b": 2.0, "c": 1.5})],
        classes=[
            b.traffic_class("c1", protected=True, ttft_ms=70.0),
            b.traffic_class("c2", ttft_ms=70.0),
        ],
    )
    cheap = replace(problem, plan_policy=replace(problem.plan_policy, exposure_part=0.0))

    assert {(a.class_id, a.group.site_id) for a in find_arcs(problem).arcs} == {
        ("c1", "a"),
        ("c2", "a"),
    }
    assert [(a.class_id, a.group.site_id) for a in standby_arcs(problem)] == [("c1", "c")]
    assert standby_arcs(cheap) == ()
    inputs = take_inputs(problem, find_arcs(problem).arcs)
    assert [(g, f.most) for g, f in inputs.groups.items()] == [("a/p/v/x1", 2), ("c/p/v/x1", 1)]
