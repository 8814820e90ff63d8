"""Judges a plan against what its mixes and sums must be, from raw facts.

The checker's third part: spread over sites and zones, mean time to first token, mean quality,
tenant budgets, the carbon cap. `verify` states the tolerance.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator

from optimizer.costs import budget_request_usd, draw_w
from optimizer.plan import Plan, TrafficShare
from optimizer.reach import Reach, zone_of
from optimizer.supplies import carbon_g_per_w_h, cleanest_g_per_h, emission_g_per_h
from optimizer.verify_limits import draw_slack_w, is_above, running_groups
from sites.errors import Violation
from sites.traffic import TrafficClass
from sites.units import S_PER_H, WHOLE_BP


def spread(reach: Reach, plan: Plan) -> Iterator[Violation]:
    """A class spread over k sites (zones) gives none more than 1/k of what is served of it.

    A share more than that by its rounding (1 bp each) passes.
    """
    at_site: dict[tuple[str, str], list[int]] = defaultdict(list)
    in_zone: dict[tuple[str, str], list[int]] = defaultdict(list)
    served: dict[str, int] = defaultdict(int)
    for share in plan.shares:
        one = reach.classes[share.class_id]
        if one.spread_sites <= 1 and one.spread_zones <= 1:
            continue  # all of it may be in one place
        site = reach.problem.fleet.site(share.site_id)
        at_site[share.class_id, share.site_id].append(share.basis_points)
        in_zone[share.class_id, zone_of(site)].append(share.basis_points)
        served[share.class_id] += share.basis_points
    places = [(key, shares, "site") for key, shares in sorted(at_site.items())]
    places += [(key, shares, "zone") for key, shares in sorted(in_zone.items())]
    for (class_id, place), shares, kind in places:
        one = reach.classes[class_id]
        wanted = one.spread_sites if kind == "site" else one.spread_zones
        if sum(shares) - len(shares) > (served[class_id] + 1) / wanted:
            yield Violation(
                code="spread",
                subject=f'class "{class_id}" at {kind} "{place}"',
                limit=served[class_id] / wanted,
                actual=sum(shares),
                unit="bp",
                remedy=f"the class asks for {wanted} {kind}s",
            )


def latency_mix(reach: Reach, plan: Plan) -> Iterator[Violation]:
    """Mean TTFT of what is served within the SLO, for classes whose SLO is on the mix."""

    groups = {g.group.group_id: g.group for g in plan.groups}

    def ttft_ms(one: TrafficClass, share: TrafficShare) -> float:
        found = reach.ttft_ms(one, groups[share.group_id])
        return float("inf") if found is None else found

    for one, mean_ms, slack_ms in _means(
        reach, plan, of=ttft_ms, asks=lambda c: c.slo.ttft_ms if c.slo.over_mix else None
    ):
        if is_above(mean_ms, one.slo.ttft_ms, slack=slack_ms):
            yield Violation(
                code="latency_mix",
                subject=f'class "{one.class_id}"',
                limit=one.slo.ttft_ms,
                actual=mean_ms,
                unit="ms mean TTFT",
                remedy="serve more of it nearby",
            )


def quality_floor(reach: Reach, plan: Plan) -> Iterator[Violation]:
    """Mean quality of what is served of a class at or above its `mean_quality_floor`."""

    groups = {g.group.group_id: g.group for g in plan.groups}

    def lack(_one: TrafficClass, share: TrafficShare) -> float:
        variant_id = groups[share.group_id].variant_id
        return -reach.problem.catalog.variant(variant_id).quality

    for one, mean, slack in _means(
        reach, plan, of=lack, asks=lambda c: -c.mean_quality_floor or None
    ):
        if is_above(mean, -one.mean_quality_floor, slack=slack):
            yield Violation(
                code="quality_floor",
                subject=f'class "{one.class_id}"',
                limit=one.mean_quality_floor,
                actual=-mean,
                unit="mean quality",
                remedy="answer more of it with a better variant",
            )


def _means(
    reach: Reach,
    plan: Plan,
    *,
    of: Callable[[TrafficClass, TrafficShare], float],
    asks: Callable[[TrafficClass], float | None],
) -> Iterator[tuple[TrafficClass, float, float]]:
    """(class, mean over what is served, what 1 bp more or less of every share may change it by).

    Of classes that ask for a mean, those something is served of; `asks` says which mean.
    """
    shares: dict[str, list[TrafficShare]] = defaultdict(list)
    for share in plan.shares:
        shares[share.class_id].append(share)
    for class_id in sorted(shares):
        one = reach.classes[class_id]
        limit = asks(one)
        if limit is None:
            continue
        served = sum(s.basis_points for s in shares[class_id])
        figures = [(of(one, s), s.basis_points) for s in shares[class_id]]
        mean = sum(figure * bp for figure, bp in figures) / served
        yield one, mean, sum(abs(figure - limit) for figure, _ in figures) / served


def tenant_budget(reach: Reach, plan: Plan) -> Iterator[Violation]:
    """What a tenant's served traffic counts (`budget_request_usd` x requests/h) in its budget."""
    spent: dict[str, float] = defaultdict(float)
    slack: dict[str, float] = defaultdict(float)
    limits = {t.tenant_id: t.budget_usd_per_h for t in reach.problem.tenants}
    groups = {g.group.group_id: g.group for g in plan.groups}
    for share in plan.shares:
        one = reach.classes[share.class_id]
        if limits[one.tenant_id] is None or reach.rates[share.class_id] == 0:
            continue
        price = budget_request_usd(reach, share.class_id, group=groups[share.group_id])
        whole = reach.rates[share.class_id] * S_PER_H * price
        spent[one.tenant_id] += whole * share.basis_points / WHOLE_BP
        slack[one.tenant_id] += whole / WHOLE_BP
    for tenant_id in sorted(spent):
        limit = limits[tenant_id]
        if limit is not None and is_above(spent[tenant_id], limit, slack=slack[tenant_id]):
            yield Violation(
                code="tenant_budget",
                subject=f'tenant "{tenant_id}"',
                limit=limit,
                actual=spent[tenant_id],
                unit="USD/h",
                remedy="serve less of its traffic, serve it cheaper, or raise budget_usd_per_h",
            )


def carbon_cap(reach: Reach, plan: Plan) -> Iterator[Violation]:
    """What all power taken emits within the cap, or what now runs idle emits at its cleanest."""
    problem = reach.problem
    cap = problem.plan_policy.carbon_cap_g_per_h
    if cap is None:
        return
    idle = draw_w(reach, running_groups(reach), ())
    mend = sum(
        cleanest_g_per_h(problem, problem.fleet.site(site_id), watts=watts)
        for site_id, watts in sorted(idle.items())
        if site_id not in reach.lost
    )
    slack = 0.0
    for site_id, watts in sorted(draw_slack_w(reach, plan).items()):
        supplies = problem.fleet.site(site_id).supplies
        slack += watts * max(carbon_g_per_w_h(problem, k) for k in supplies)
    actual = emission_g_per_h(problem, plan.supplies)
    if is_above(actual, max(cap, mend), slack=slack):
        yield Violation(
            code="carbon_cap",
            subject="plan",
            limit=cap,
            actual=actual,
            unit="gCO2e/h",
            remedy="serve less, use cleaner supplies or raise carbon_cap_g_per_h",
        )
