"""Why traffic goes where it goes and not elsewhere, what is short, and what is not served and why.

Explains a plan, never changes it. Chosen arcs carry their figures; each site not chosen carries the
first reason that rules it out (`PruneReason`) or speaks against it (`RejectReason`). What is shed
is said with who, how much, which limit and the cheapest way to serve it. How the lines are laid
out is `explain_text`'s.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace
from math import ceil, isfinite

from optimizer.arcs import find_arcs
from optimizer.costs import TOKENS_PER_MTOK, shed_price_usd_per_h, usable_part
from optimizer.explanation import (
    Choice,
    ClassExplanation,
    Explanation,
    Exposure,
    Fix,
    Rejection,
    Shed,
)
from optimizer.figures import full_usd_per_mtok
from optimizer.plan import (
    CandidateArc,
    Plan,
    PrunedArc,
    PruneReason,
    RejectReason,
    ShedTraffic,
    TrafficShare,
)
from optimizer.problem import Problem
from optimizer.reach import Reach
from optimizer.stock import Stock
from sites.assignment import ReplicaGroup
from sites.catalog import ServingPoint
from sites.units import S_PER_H, WHOLE_BP

LAWS = frozenset({PruneReason.RESIDENCY, PruneReason.TRANSIT, PruneReason.NO_INGRESS})
"""Reasons that law gives; no money mends them."""

PAIRS_MAX = 300_000
"""Pairs of class and site up to which every class is explained; beyond it, those that are shed."""

SHED_PAIRS = 10_000
"""Pairs of shed class and site explained beyond `PAIRS_MAX`, the dearest classes first."""

_ROUNDING = 1e-9


def explain_plan(
    problem: Problem,
    plan: Plan,
    *,
    arcs: Iterable[CandidateArc] | None = None,
    pruned: Iterable[PrunedArc] = (),
    class_ids: Collection[str] | None = None,
) -> Explanation:
    """Explain a plan of a problem. `arcs` and `pruned` (of its outcome) save finding them again.

    `class_ids` None: every class, in a large problem the shed ones only.
    """
    demanded = sorted(c.class_id for c in problem.classes if problem.rate_rps(c) > 0)
    chosen = _chosen(problem, plan, demanded) if class_ids is None else set(class_ids)
    told = [class_id for class_id in demanded if class_id in chosen]
    if arcs is None:
        wanted = tuple(c for c in problem.classes if c.class_id in chosen)
        candidates = find_arcs(replace(problem, classes=wanted))
        arcs, pruned = candidates.arcs, candidates.pruned
    explainer = _Explainer(Reach(problem), plan, arcs, pruned)
    exposed = _exposed(explainer.reach, plan)
    return Explanation(
        classes=tuple(explainer.explain(class_id) for class_id in told),
        binding=explainer.stock.binding(),
        exposed=exposed,
        survives=bool(plan.survival) and not exposed,
        left_out=len(demanded) - len(told) if class_ids is None else 0,
    )


def is_large(problem: Problem) -> bool:
    """Whether explaining every class is more than people read and wait for."""
    demanded = sum(problem.rate_rps(one) > 0 for one in problem.classes)
    return demanded * len(problem.fleet.sites) > PAIRS_MAX


def _chosen(problem: Problem, plan: Plan, demanded: list[str]) -> set[str]:
    """All classes, unless that would be too many: then those that lose most by being shed."""
    if not is_large(problem):
        return set(demanded)
    classes = {c.class_id: c for c in problem.classes}

    def lost(one: ShedTraffic) -> float:
        hurt = classes[one.class_id]
        tokens_s = problem.rate_rps(hurt) * hurt.output_tokens
        return tokens_s * (10 - hurt.priority) * one.basis_points

    dearest = sorted(plan.shed, key=lambda one: (-lost(one), one.class_id))
    return {one.class_id for one in dearest[: SHED_PAIRS // len(problem.fleet.sites)]}


def _exposed(reach: Reach, plan: Plan) -> tuple[Exposure, ...]:
    by_loss: dict[str, list[tuple[str, float]]] = defaultdict(list)
    for one in plan.exposed:
        rate = reach.rates[one.class_id] * one.basis_points / WHOLE_BP
        by_loss[one.lost_site_id].append((one.class_id, rate))
    return tuple(
        Exposure(
            lost_site_id=site_id,
            class_ids=tuple(sorted(class_id for class_id, _ in hurt)),
            rate_rps=sum(rate for _, rate in hurt),
        )
        for site_id, hurt in sorted(by_loss.items())
    )


class _Explainer:
    """One explanation under way: what the plan uses, and the candidates by class."""

    def __init__(
        self,
        reach: Reach,
        plan: Plan,
        arcs: Iterable[CandidateArc],
        pruned: Iterable[PrunedArc],
    ) -> None:
        self.reach = reach
        self.plan = plan
        self.stock = Stock(reach, plan)
        self.arcs: dict[str, list[CandidateArc]] = defaultdict(list)
        self.pruned: dict[str, list[PrunedArc]] = defaultdict(list)
        self.shares: dict[str, list[TrafficShare]] = defaultdict(list)
        self.groups = {g.group.group_id: g.group for g in plan.groups}
        self.shed_bp = {s.class_id: s.basis_points for s in plan.shed}
        self.points: dict[str, list[ServingPoint]] = {}
        for share in plan.shares:
            self.shares[share.class_id].append(share)
        for arc in arcs:
            self.arcs[arc.class_id].append(arc)
        for one in pruned:
            self.pruned[one.class_id].append(one)

    def explain(self, class_id: str) -> ClassExplanation:
        """All there is to say about one class."""
        one = self.reach.classes[class_id]
        choices = self._choices(class_id)
        used = {choice.site_id for choice in choices}
        dearest = max((choice.usd_per_mtok for choice in choices), default=None)
        kept = self._rejected(class_id, used, dearest)
        named = used | {r.site_id for r in kept}
        ruled_out = self._ruled_out(class_id, named)
        return ClassExplanation(
            class_id=class_id,
            service_id=one.service_id,
            residency_policy_id=one.residency_policy_id,
            ttft_limit_ms=one.slo.ttft_ms,
            percentile=one.slo.percentile,
            mtok_per_h=self._mtok_per_h(class_id),
            choices=choices,
            rejections=tuple(sorted([*kept, *ruled_out], key=lambda r: r.site_id)),
            shed=self._shed(class_id),
        )

    def _choices(self, class_id: str) -> tuple[Choice, ...]:
        groups, one = self.groups, self.reach.classes[class_id]
        return tuple(
            Choice(
                group_id=share.group_id,
                site_id=share.site_id,
                variant_id=groups[share.group_id].variant_id,
                basis_points=share.basis_points,
                usd_per_mtok=full_usd_per_mtok(self.reach, class_id, group=groups[share.group_id]),
                ttft_ms=self.reach.ttft_ms(one, groups[share.group_id]) or 0.0,
            )
            for share in sorted(self.shares[class_id], key=lambda s: (-s.basis_points, s.group_id))
        )

    def _rejected(self, class_id: str, used: set[str], dearest: float | None) -> list[Rejection]:
        """Of each site with candidate arcs but no share, its cheapest arc and what was against."""
        cheapest: dict[str, tuple[float, ReplicaGroup]] = {}
        for arc in self.arcs[class_id]:
            if arc.group.site_id not in used:
                offer = (full_usd_per_mtok(self.reach, class_id, group=arc.group), arc.group)
                known = cheapest.get(arc.group.site_id)
                cheapest[arc.group.site_id] = offer if known is None else min(offer, known)
        return [
            self._reject(class_id, group, price=price, dearest=dearest)
            for _, (price, group) in sorted(cheapest.items())
        ]

    def _reject(
        self, class_id: str, group: ReplicaGroup, *, price: float, dearest: float | None
    ) -> Rejection:
        limit = self._worth(class_id) if dearest is None else dearest
        tight = self.stock.in_the_way(class_id, group)
        if price >= limit - _ROUNDING or not tight:
            reason, bound = RejectReason.PRICE, (limit, price, "USD/Mtok")
        else:
            reason, bound = tight[0].reason, (tight[0].limit, tight[0].needed, tight[0].unit)
        return Rejection(
            site_id=group.site_id,
            variant_id=group.variant_id,
            reason=reason.value,
            limit=bound[0],
            actual=bound[1],
            unit=bound[2],
            usd_per_mtok=price,
        )

    def _worth(self, class_id: str) -> float:
        """What a Mtok of the class pays for being shed (USD/Mtok)."""
        return shed_price_usd_per_h(self.reach, class_id) / self._mtok_per_h(class_id)

    def _mtok_per_h(self, class_id: str) -> float:
        tokens_s = self.reach.rates[class_id] * self.reach.classes[class_id].output_tokens
        return tokens_s * S_PER_H / TOKENS_PER_MTOK

    def _ruled_out(self, class_id: str, named: set[str]) -> list[Rejection]:
        """The first reason of each site that has no candidate arc at all."""
        first: dict[str, PrunedArc] = {}
        for one in self.pruned[class_id]:
            if one.site_id not in named:
                first.setdefault(one.site_id, one)
        return [
            Rejection(
                site_id=site_id,
                variant_id=one.variant_id,
                reason=one.reason.value,
                limit=one.limit,
                actual=one.actual,
                unit=one.unit,
                usd_per_mtok=self._would_cost(class_id, site_id),
            )
            for site_id, one in sorted(first.items())
        ]

    def _would_cost(self, class_id: str, site_id: str) -> float | None:
        """CPT of the class at a site if nothing ruled it out; None where nothing could answer."""
        one, site = self.reach.classes[class_id], self.reach.site(site_id)
        assert site is not None
        accelerators = {p.accelerator: p.pool_id for p in reversed(site.pools)}
        prices = [
            full_usd_per_mtok(
                self.reach,
                class_id,
                group=ReplicaGroup(
                    site_id=site_id,
                    pool_id=accelerators[point.accelerator],
                    variant_id=point.variant_id,
                    accelerators_per_replica=point.accelerators_per_replica,
                ),
            )
            for point in self._points(one.service_id)
            if point.accelerator in accelerators
        ]
        return min((p for p in prices if isfinite(p)), default=None)

    def _points(self, service_id: str) -> list[ServingPoint]:
        """What may answer a service, on whatever hardware."""
        if service_id not in self.points:
            allowed = set(self.reach.services[service_id].variant_ids)
            every = self.reach.problem.catalog.serving_points
            self.points[service_id] = [p for p in every if p.variant_id in allowed]
        return self.points[service_id]

    def _shed(self, class_id: str) -> Shed | None:
        basis_points = self.shed_bp.get(class_id, 0)
        if basis_points == 0:
            return None
        part = basis_points / WHOLE_BP
        reasons = {p.reason for p in self.pruned[class_id]}
        fix = self._fix(class_id, basis_points)
        return Shed(
            rate_rps=self.reach.rates[class_id] * part,
            basis_points=basis_points,
            usd_per_h=shed_price_usd_per_h(self.reach, class_id) * part,
            lawful=bool(self.arcs[class_id]) or not reasons <= LAWS,
            fix=fix,
            held_by=() if fix is None else tuple(self._held_by(class_id, fix)),
        )

    def _held_by(self, class_id: str, fix: Fix) -> Iterator[str]:
        policy = self.reach.problem.plan_policy
        yield from self._held_by_class(class_id)
        if fix.replicas == 0:
            return
        variant_id = next(
            a.group.variant_id for a in self.arcs[class_id] if a.group.group_id == fix.group_id
        )
        for bound in policy.replica_bounds:
            here = (bound.site_id, bound.variant_id) == (fix.site_id, variant_id)
            if here and bound.most is not None:
                yield f"replica cap {bound.most} of {fix.site_id}/{variant_id}"
        if policy.move_limit_replicas is not None:
            yield f"move limit {policy.move_limit_replicas}"
        if self.reach.problem.fleet.site(fix.site_id).cordoned:
            yield f"cordon of {fix.site_id}"

    def _held_by_class(self, class_id: str) -> Iterator[str]:
        """What the class itself asks for that no replica more would mend."""
        one, problem = self.reach.classes[class_id], self.reach.problem
        sites = {arc.group.site_id for arc in self.arcs[class_id]}
        zones = {problem.fleet.site(site_id).region or site_id for site_id in sites}
        if len(sites) < one.spread_sites:
            yield f"spread_sites {one.spread_sites} ({len(sites)} may serve it)"
        if len(zones) < one.spread_zones:
            yield f"spread_zones {one.spread_zones} ({len(zones)} may serve it)"
        scores = {v.variant_id: v.quality for v in problem.catalog.variants}
        best = max(scores[arc.group.variant_id] for arc in self.arcs[class_id])
        if best < one.mean_quality_floor:
            yield f"mean_quality_floor {one.mean_quality_floor:g} (the best here is {best:g})"
        if one.slo.over_mix and min(a.ttft_ms for a in self.arcs[class_id]) > one.slo.ttft_ms:
            yield f"latency mix within {one.slo.ttft_ms:g} ms (no site alone is)"

    def _fix(self, class_id: str, basis_points: int) -> Fix | None:
        arcs = (a for a in self.arcs[class_id] if usable_part(self.reach, a.group) > 0)
        fixes = [self._fix_at(class_id, arc, basis_points) for arc in arcs]
        return min(fixes, key=lambda fix: (fix.usd_per_h, fix.group_id), default=None)

    def _fix_at(self, class_id: str, arc: CandidateArc, basis_points: int) -> Fix:
        """Replicas of the arc's group that would serve the shed part, all of it, from nothing."""
        one, group = self.reach.classes[class_id], arc.group
        rate = self.reach.rates[class_id] * basis_points / WHOLE_BP
        busy = rate * arc.replica_seconds
        usable = usable_part(self.reach, group)
        more = max(0, ceil((busy - self.stock.spare_busy(group)) / usable - _ROUNDING))
        mtok_per_h = rate * one.output_tokens * S_PER_H / TOKENS_PER_MTOK
        filled = more * usable / busy if busy > 0 else 1.0
        price = full_usd_per_mtok(self.reach, class_id, group=group) * mtok_per_h * max(1.0, filled)
        return Fix(
            group_id=group.group_id,
            site_id=group.site_id,
            replicas=more,
            short_of=self.stock.short_of(class_id, group, replicas=more, rate_rps=rate),
            usd_per_h=price,
        )
