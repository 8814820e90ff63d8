"""Why traffic goes where it goes and not elsewhere, what is short, and what is not served and why.

Explains a plan, never changes it. Chosen arcs carry their figures; each site not chosen carries the
first reason that rules it out (`PruneReason`) or speaks against it (`RejectReason`). What is shed
is said with who, how much, which limit and the cheapest way to serve it. How the lines are laid
out is `explain_text`'s.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import ceil, isfinite

from optimizer.arcs import find_arcs
from optimizer.costs import TOKENS_PER_MTOK, shed_price_usd_per_h
from optimizer.figures import full_usd_per_mtok
from optimizer.plan import CandidateArc, Plan, PrunedArc, PruneReason, RejectReason
from optimizer.problem import Problem
from optimizer.reach import Reach
from optimizer.stock import Stock, Tight
from sites.assignment import ReplicaGroup
from sites.units import S_PER_H, WHOLE_BP

LAWS = frozenset({PruneReason.RESIDENCY, PruneReason.TRANSIT, PruneReason.NO_INGRESS})
"""Reasons that law gives; no money mends them."""

_ROUNDING = 1e-9


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """Where part of a class is served: share, CPT on full replicas (USD/Mtok), TTFT (ms)."""

    group_id: str
    site_id: str
    variant_id: str
    basis_points: int
    usd_per_mtok: float
    ttft_ms: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Rejection:
    """Why a site does not serve a class. `usd_per_mtok` None: nothing there could answer it.

    `reason` is a code of `PruneReason` or `RejectReason`; limit and actual are its figures.
    """

    site_id: str
    variant_id: str
    reason: str
    limit: float | str
    actual: float | str
    unit: str
    usd_per_mtok: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Fix:
    """The cheapest way to serve what is shed: so many replicas more, what they need, their price.

    `short_of` are the limits in the way, each with what is missing.
    """

    group_id: str
    site_id: str
    replicas: int
    short_of: tuple[Tight, ...]
    usd_per_h: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Shed:
    """What of a class is not served: rate, part, the price it pays, and the cheapest fix if any.

    `held_by` names what the plan policy, the class or an operator put in the way of that fix.
    """

    rate_rps: float
    basis_points: int
    usd_per_h: float
    lawful: bool
    fix: Fix | None
    held_by: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassExplanation:
    """One class: chosen, rejected (one entry per site not chosen), shed; its output tokens/h."""

    class_id: str
    service_id: str
    residency_policy_id: str
    ttft_limit_ms: float
    percentile: float
    mtok_per_h: float
    choices: tuple[Choice, ...]
    rejections: tuple[Rejection, ...]
    shed: Shed | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Explanation:
    """Every class with demand, by id, and the limits the plan uses up (tightest first)."""

    classes: tuple[ClassExplanation, ...]
    binding: tuple[Tight, ...]


def explain_plan(
    problem: Problem,
    plan: Plan,
    *,
    arcs: Iterable[CandidateArc] | None = None,
    pruned: Iterable[PrunedArc] = (),
) -> Explanation:
    """Explain a plan of a problem. `arcs` and `pruned` (of its outcome) save finding them again."""
    if arcs is None:
        candidates = find_arcs(problem)
        arcs, pruned = candidates.arcs, candidates.pruned
    explainer = _Explainer(Reach(problem), plan, arcs, pruned)
    demanded = sorted(c for c, rate in explainer.reach.rates.items() if rate > 0)
    return Explanation(
        classes=tuple(explainer.explain(class_id) for class_id in demanded),
        binding=explainer.stock.binding(),
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
        groups = {g.group.group_id: g.group for g in self.plan.groups}
        one = self.reach.classes[class_id]
        shares = [s for s in self.plan.shares if s.class_id == class_id]
        return tuple(
            Choice(
                group_id=share.group_id,
                site_id=share.site_id,
                variant_id=groups[share.group_id].variant_id,
                basis_points=share.basis_points,
                usd_per_mtok=full_usd_per_mtok(self.reach, class_id, group=groups[share.group_id]),
                ttft_ms=self.reach.ttft_ms(one, groups[share.group_id]) or 0.0,
            )
            for share in sorted(shares, key=lambda s: (-s.basis_points, s.group_id))
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
            for point in self.reach.problem.catalog.serving_points
            if point.accelerator in accelerators
            and point.variant_id in self.reach.services[one.service_id].variant_ids
        ]
        return min((p for p in prices if isfinite(p)), default=None)

    def _shed(self, class_id: str) -> Shed | None:
        basis_points = sum(s.basis_points for s in self.plan.shed if s.class_id == class_id)
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
        wanted = self.reach.classes[class_id].spread_sites
        lawful = len({arc.group.site_id for arc in self.arcs[class_id]})
        if lawful < wanted:
            yield f"spread_sites {wanted} ({lawful} may serve it)"
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

    def _fix(self, class_id: str, basis_points: int) -> Fix | None:
        fixes = [self._fix_at(class_id, arc, basis_points) for arc in self.arcs[class_id]]
        return min(fixes, key=lambda fix: (fix.usd_per_h, fix.group_id), default=None)

    def _fix_at(self, class_id: str, arc: CandidateArc, basis_points: int) -> Fix:
        """Replicas of the arc's group that would serve the shed part, all of it, from nothing."""
        one, group = self.reach.classes[class_id], arc.group
        rate = self.reach.rates[class_id] * basis_points / WHOLE_BP
        busy = rate * arc.replica_seconds
        ceiling = self.reach.problem.plan_policy.utilisation_ceiling
        more = max(0, ceil((busy - self.stock.spare_busy(group)) / ceiling - _ROUNDING))
        mtok_per_h = rate * one.output_tokens * S_PER_H / TOKENS_PER_MTOK
        filled = more * ceiling / busy if busy > 0 else 1.0
        price = full_usd_per_mtok(self.reach, class_id, group=group) * mtok_per_h * max(1.0, filled)
        return Fix(
            group_id=group.group_id,
            site_id=group.site_id,
            replicas=more,
            short_of=self.stock.short_of(class_id, group, replicas=more, rate_rps=rate),
            usd_per_h=price,
        )
