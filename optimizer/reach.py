"""What a class can lawfully reach and how soon, read from raw facts a second time.

The checker, the greedy baseline and the reroute judge by this reading, never by `backbone` or
`arcs`: whoever proposes is not whoever checks. It decides ingress, the lawful way (`ways`) and the
first reason why a class may not run somewhere; what to do about it is for others.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from math import inf

from optimizer.plan import PruneReason
from optimizer.problem import Problem
from optimizer.ways import Way, Ways
from sites.assignment import ReplicaGroup
from sites.catalog import MS_PER_H, ServingPoint
from sites.fleet import HardwarePool, MarketAccess, Site
from sites.residency import ResidencyPolicy, may_process, may_transit
from sites.traffic import TrafficClass

_MIX_TTFT_PARTS = 4.0
"""How far beyond its SLO's TTFT one arc may lie where the SLO is on the mean of all arcs."""

TOLERANCE_MS = 1e-6
"""Slack of every latency comparison: sums of floats taken in another order."""


def zone_of(site: Site) -> str:
    """The zone a site lies in: its region, or itself where it states none."""
    return site.region or site.site_id


@dataclass(frozen=True, kw_only=True, slots=True)
class Refusal:
    """Why a class may not be answered by a group: the reason and its figures."""

    reason: PruneReason
    limit: float | str
    actual: float | str
    unit: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Kind:
    """What is known of replicas that differ only by their site, as far as asked for: by class, the
    replica-seconds of a request and why they do not suit it (None: they do).
    """

    seconds: dict[str, float] = field(default_factory=dict)
    unsuited: dict[str, Refusal | None] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Stand:
    """The pool a group stands on and what one of its replicas does there."""

    pool: HardwarePool | None
    point: ServingPoint | None
    kind: _Kind


class Reach:
    """Lookups over one problem, each worked out once. Holds nothing that outlives the problem."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.classes = {c.class_id: c for c in problem.classes}
        self.policies = {p.policy_id: p for p in problem.policies}
        self.services = {s.service_id: s for s in problem.services}
        self.lost = frozenset(problem.lost_sites)
        self.rates = {c.class_id: problem.rate_rps(c) for c in problem.classes}
        self._markets = {m.market_id: m for m in problem.fleet.markets}
        self._sites = {s.site_id: s for s in problem.fleet.sites}
        self._pools = {(s.site_id, p.pool_id): p for s in problem.fleet.sites for p in s.pools}
        self._points = {
            (p.variant_id, p.accelerator, p.accelerators_per_replica): p
            for p in problem.catalog.serving_points
        }
        self._stands: dict[ReplicaGroup, _Stand] = {}
        self._kinds: dict[tuple[str, str, int, float, float], _Kind] = {}
        self._nearest: dict[str, tuple[MarketAccess, ...]] = {}
        self._laws: dict[tuple[str, str], bool] = {}
        self._entries: dict[tuple[str, str], MarketAccess | None] = {}
        self.paths = Ways(problem.fleet)

    def site(self, site_id: str) -> Site | None:
        """The site of that id, None if the fleet has none."""
        return self._sites.get(site_id)

    def pool(self, group: ReplicaGroup) -> HardwarePool | None:
        """The pool a group stands on, None if the fleet has none."""
        return self._stand(group).pool

    def point(self, group: ReplicaGroup) -> ServingPoint | None:
        """What one replica of the group does, None if the catalog does not say."""
        return self._stand(group).point

    def _stand(self, group: ReplicaGroup) -> _Stand:
        stand = self._stands.get(group)
        if stand is None:
            stand = self._stands[group] = self._standing(group)
        return stand

    def _standing(self, group: ReplicaGroup) -> _Stand:
        pool = self._pools.get((group.site_id, group.pool_id))
        if pool is None:
            return _Stand(pool=None, point=None, kind=_Kind())
        key = (group.variant_id, pool.accelerator, group.accelerators_per_replica)
        own = (pool.memory_mib_per_accelerator, pool.interruption_per_h)
        kind = self._kinds.setdefault((*key, *own), _Kind())
        return _Stand(pool=pool, point=self._points.get(key), kind=kind)

    def entry(self, one: TrafficClass) -> MarketAccess | None:
        """The nearest access of the class's market that is not lost and that its data may cross."""
        key = (one.market_id, one.residency_policy_id)
        if key not in self._entries:
            policy = self.policies[one.residency_policy_id]
            self._entries[key] = next(
                (
                    access
                    for access in self._by_distance(one.market_id)
                    if access.site_id not in self.lost
                    and may_transit(policy, country=self._sites[access.site_id].country)
                ),
                None,
            )
        return self._entries[key]

    def _by_distance(self, market_id: str) -> tuple[MarketAccess, ...]:
        if market_id not in self._nearest:
            self._nearest[market_id] = self._markets[market_id].by_distance()
        return self._nearest[market_id]

    def way(self, one: TrafficClass, site_id: str) -> Way | None:
        """The class's lawful path from its ingress to `site_id`, None if there is none."""
        entry = self.entry(one)
        if entry is None:
            return None
        policy = self.policies[one.residency_policy_id]
        return self.paths.way(policy, source=entry.site_id, target=site_id)

    def way_ms(self, one: TrafficClass, site_id: str) -> float | None:
        """RTT of the class's lawful path from its ingress to `site_id` (ms), None if none."""
        entry = self.entry(one)
        if entry is None:
            return None
        policy = self.policies[one.residency_policy_id]
        return self.paths.rtt_ms(policy, source=entry.site_id, target=site_id)

    def ways_ms(self, one: TrafficClass, site_ids: Iterable[str]) -> list[float]:
        """`way_ms` to each of some sites, inf where there is no way."""
        entry = self.entry(one)
        if entry is None:
            return [inf for _ in site_ids]
        policy = self.policies[one.residency_policy_id]
        return self.paths.all_rtt_ms(policy, source=entry.site_id, targets=site_ids)

    def ttft_ms(self, one: TrafficClass, group: ReplicaGroup) -> float | None:
        """Market RTT + path RTT + queueing at the ceiling + TTFT of the serving point (ms)."""
        point = self.point(group)
        return None if point is None else self._ttft_ms(one, group.site_id, point)

    def _ttft_ms(self, one: TrafficClass, site_id: str, point: ServingPoint) -> float | None:
        entry, way_ms = self.entry(one), self.way_ms(one, site_id)
        if entry is None or way_ms is None:
            return None
        waiting_ms = self.problem.plan_policy.queueing_ms_at_ceiling
        return entry.rtt_ms + way_ms + waiting_ms + point.ttft_ms

    def replica_seconds(self, one: TrafficClass, group: ReplicaGroup) -> float:
        """Replica-seconds one request of the class keeps a replica of the group busy (s).

        More where the KV cache limits how many are held at a time; inf where not one is.
        """
        stand = self._stand(group)
        seconds = stand.kind.seconds.get(one.class_id)
        if seconds is None:
            pool, point = stand.pool, stand.point
            assert point is not None and pool is not None, f"{group.group_id} has no serving point"
            seconds = self._replica_seconds(one, pool, point)
            stand.kind.seconds[one.class_id] = seconds
        return seconds

    def _replica_seconds(self, one: TrafficClass, pool: HardwarePool, point: ServingPoint) -> float:
        slots = self._slots(one, pool, point)
        if slots <= 0:
            return inf
        alone_s = point.replica_seconds(
            input_tokens=one.input_tokens, output_tokens=one.output_tokens
        )
        return alone_s * (point.concurrency / slots)

    def _slots(self, one: TrafficClass, pool: HardwarePool, point: ServingPoint) -> float:
        """Requests of the class that one replica on the pool holds at a time."""
        return point.slots(
            self.problem.catalog.variant(point.variant_id),
            memory_mib_per_accelerator=pool.memory_mib_per_accelerator,
            tokens=one.input_tokens + one.output_tokens,
        )

    def site_refusal(self, one: TrafficClass, site_id: str) -> Refusal | None:
        """Why no replica at a site may answer the class, or None: loss, law, then the way there."""
        site = self._sites[site_id]
        policy = self.policies[one.residency_policy_id]
        if site_id in self.lost:
            return Refusal(reason=PruneReason.SITE_UNAVAILABLE, limit="available", actual="lost")
        if not self.may_process(policy, site):
            return Refusal(
                reason=PruneReason.RESIDENCY,
                limit=_processing(policy),
                actual=_standing(site, policy),
            )
        if self.entry(one) is None:
            return Refusal(reason=PruneReason.NO_INGRESS, limit=_crossing(policy), actual="none")
        if self.way_ms(one, site_id) is None:
            return Refusal(reason=PruneReason.TRANSIT, limit=_crossing(policy), actual="no path")
        return None

    def may_process(self, policy: ResidencyPolicy, site: Site) -> bool:
        """Whether data under a policy may be processed at a site."""
        key = (policy.policy_id, site.site_id)
        if key not in self._laws:
            tags = site.residency_tags
            self._laws[key] = may_process(policy, country=site.country, tags=tags)
        return self._laws[key]

    def refusal(self, one: TrafficClass, group: ReplicaGroup) -> Refusal | None:
        """The first reason why the group may not answer the class, or None if it may."""
        return self.site_refusal(one, group.site_id) or self._group_refusal(one, group)

    def suits(self, one: TrafficClass, group: ReplicaGroup) -> bool:
        """Whether replicas like the group's may answer the class, however near they stand."""
        point = self.point(group)
        if point is None or self._unsuited(one, group) is not None:
            return False
        return self._slow(one, point, ttft_ms=0.0) is None

    def _group_refusal(self, one: TrafficClass, group: ReplicaGroup) -> Refusal | None:
        unsuited = self._unsuited(one, group)
        if unsuited is not None:
            return unsuited
        point = self.point(group)
        assert point is not None, "without one it is unsuited"
        ttft_ms = self._ttft_ms(one, group.site_id, point)
        assert ttft_ms is not None, "site_refusal ruled out a missing path"
        return self._slow(one, point, ttft_ms=ttft_ms)

    def _unsuited(self, one: TrafficClass, group: ReplicaGroup) -> Refusal | None:
        stand = self._stand(group)
        known = stand.kind.unsuited
        if one.class_id not in known:
            known[one.class_id] = self._misfit(one, group, stand)
        return known[one.class_id]

    def _misfit(self, one: TrafficClass, group: ReplicaGroup, stand: _Stand) -> Refusal | None:
        variant = self.problem.catalog.variant(group.variant_id)
        pool, point = stand.pool, stand.point
        if group.variant_id not in self.services[one.service_id].variant_ids:
            allowed = " ".join(self.services[one.service_id].variant_ids)
            return Refusal(reason=PruneReason.QUALITY, limit=allowed, actual=group.variant_id)
        if variant.quality < one.quality_floor:
            return Refusal(
                reason=PruneReason.QUALITY, limit=one.quality_floor, actual=variant.quality
            )
        longest = self.problem.catalog.model_of(group.variant_id).context_tokens
        asked = max(one.context_tokens, one.input_tokens + one.output_tokens)
        if asked > longest:
            return Refusal(
                reason=PruneReason.CONTEXT, limit=float(longest), actual=asked, unit="tokens"
            )
        if point is None or pool is None:
            return Refusal(
                reason=PruneReason.NO_SERVING_POINT, limit="a serving point", actual="none"
            )
        return self._unfit(one, pool, point)

    def _unfit(self, one: TrafficClass, pool: HardwarePool, point: ServingPoint) -> Refusal | None:
        """Memory, KV cache, and a pool that is interrupted before a replica is ready."""
        if point.memory_mib > pool.memory_mib_per_accelerator:
            return Refusal(
                reason=PruneReason.MEMORY,
                limit=pool.memory_mib_per_accelerator,
                actual=point.memory_mib,
                unit="MiB",
            )
        if pool.interruption_per_h * point.start_ms >= MS_PER_H:
            return Refusal(
                reason=PruneReason.NO_SERVING_POINT,
                limit=MS_PER_H / point.start_ms,
                actual=pool.interruption_per_h,
                unit="interruptions/h",
            )
        slots = self._slots(one, pool, point)
        if slots < 1:
            return Refusal(
                reason=PruneReason.MEMORY,
                limit=1,
                actual=slots,
                unit="requests whose KV cache fits",
            )
        return None

    def _slow(self, one: TrafficClass, point: ServingPoint, *, ttft_ms: float) -> Refusal | None:
        if point.percentile < one.slo.percentile:
            return Refusal(
                reason=PruneReason.LATENCY,
                limit=one.slo.percentile,
                actual=point.percentile,
                unit="percentile",
            )
        late = (
            ("ms TTFT", latest_ttft_ms(one), ttft_ms),
            ("ms TPOT", one.slo.tpot_ms, point.tpot_ms),
        )
        for unit, limit, actual in late:
            if actual > limit + TOLERANCE_MS:
                return Refusal(reason=PruneReason.LATENCY, limit=limit, actual=actual, unit=unit)
        return None


def latest_ttft_ms(one: TrafficClass) -> float:
    """The TTFT that no single arc of the class may pass (ms)."""
    return one.slo.ttft_ms * (_MIX_TTFT_PARTS if one.slo.over_mix else 1.0)


def _processing(policy: ResidencyPolicy) -> str:
    countries = policy.processing_countries
    where = "any country" if countries is None else " ".join(countries)
    tags = " ".join(policy.required_tags)
    return f"{where} with {tags}" if tags else where


def _crossing(policy: ResidencyPolicy) -> str:
    if policy.processing_countries is None or policy.transit_countries is None:
        return "any country"
    return " ".join(sorted({*policy.processing_countries, *policy.transit_countries}))


def _standing(site: Site, policy: ResidencyPolicy) -> str:
    missing = sorted(set(policy.required_tags) - set(site.residency_tags))
    return f"{site.country} without {' '.join(missing)}" if missing else site.country
