"""What a class can lawfully reach and how soon, read from raw facts a second time.

The checker, the greedy baseline and the reroute judge by this reading, never by `backbone` or
`arcs`: whoever proposes is not whoever checks. It decides ingress, lawful shortest paths and the
first reason why a class may not run somewhere; what to do about it is for others.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from math import inf

from optimizer.plan import PruneReason
from optimizer.problem import Problem
from sites.assignment import ReplicaGroup
from sites.catalog import MS_PER_H, ServingPoint
from sites.fleet import HardwarePool, Link, MarketAccess, Site
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
class Way:
    """One lawful shortest path: site ids from ingress to target, its links, their RTT and price.

    `transit_countries` are those between, in order of travel, both ends' countries left out.
    """

    sites: tuple[str, ...]
    links: tuple[Link, ...]
    rtt_ms: float
    transit_countries: tuple[str, ...]

    @property
    def price_usd_per_gb(self) -> float:
        """Price of a GB over all links of the path."""
        return sum(link.price_usd_per_gb for link in self.links)


@dataclass(frozen=True, kw_only=True, slots=True)
class Refusal:
    """Why a class may not be answered by a group: the reason and its figures."""

    reason: PruneReason
    limit: float | str
    actual: float | str
    unit: str = ""


class Reach:
    """Lookups over one problem, each worked out once. Holds nothing that outlives the problem."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.classes = {c.class_id: c for c in problem.classes}
        self.policies = {p.policy_id: p for p in problem.policies}
        self.services = {s.service_id: s for s in problem.services}
        self.lost = frozenset(problem.lost_sites)
        self.rates = _rates(problem)
        self._markets = {m.market_id: m for m in problem.fleet.markets}
        self._sites = {s.site_id: s for s in problem.fleet.sites}
        self._pools = {(s.site_id, p.pool_id): p for s in problem.fleet.sites for p in s.pools}
        self._points = {
            (p.variant_id, p.accelerator, p.accelerators_per_replica): p
            for p in problem.catalog.serving_points
        }
        self._neighbours = _neighbours(problem.fleet.links)
        self._ways: dict[tuple[str, str], dict[str, Way]] = {}
        self._entries: dict[str, MarketAccess | None] = {}

    def site(self, site_id: str) -> Site | None:
        """The site of that id, None if the fleet has none."""
        return self._sites.get(site_id)

    def pool(self, group: ReplicaGroup) -> HardwarePool | None:
        """The pool a group stands on, None if the fleet has none."""
        return self._pools.get((group.site_id, group.pool_id))

    def point(self, group: ReplicaGroup) -> ServingPoint | None:
        """What one replica of the group does, None if the catalog does not say."""
        pool = self.pool(group)
        if pool is None:
            return None
        key = (group.variant_id, pool.accelerator, group.accelerators_per_replica)
        return self._points.get(key)

    def entry(self, one: TrafficClass) -> MarketAccess | None:
        """The nearest access of the class's market that is not lost and that its data may cross."""
        if one.class_id not in self._entries:
            policy = self.policies[one.residency_policy_id]
            self._entries[one.class_id] = next(
                (
                    access
                    for access in self._markets[one.market_id].by_distance()
                    if access.site_id not in self.lost
                    and may_transit(policy, country=self._sites[access.site_id].country)
                ),
                None,
            )
        return self._entries[one.class_id]

    def ways(self, policy: ResidencyPolicy, source: str) -> dict[str, Way]:
        """Shortest lawful paths (by RTT, ms) from `source` to each site its data may reach."""
        key = (policy.policy_id, source)
        if key not in self._ways:
            self._ways[key] = self._search(policy, source)
        return self._ways[key]

    def way(self, one: TrafficClass, site_id: str) -> Way | None:
        """The class's lawful path from its ingress to `site_id`, None if there is none."""
        entry = self.entry(one)
        if entry is None:
            return None
        return self.ways(self.policies[one.residency_policy_id], entry.site_id).get(site_id)

    def ttft_ms(self, one: TrafficClass, group: ReplicaGroup) -> float | None:
        """Market RTT + path RTT + queueing at the ceiling + TTFT of the serving point (ms)."""
        entry, way, point = self.entry(one), self.way(one, group.site_id), self.point(group)
        if entry is None or way is None or point is None:
            return None
        waiting_ms = self.problem.plan_policy.queueing_ms_at_ceiling
        return entry.rtt_ms + way.rtt_ms + waiting_ms + point.ttft_ms

    def replica_seconds(self, one: TrafficClass, group: ReplicaGroup) -> float:
        """Replica-seconds one request of the class keeps a replica of the group busy (s).

        More where the KV cache limits how many are held at a time; inf where not one is.
        """
        point, pool = self.point(group), self.pool(group)
        assert point is not None and pool is not None, f"{group.group_id} has no serving point"
        slots = self.slots(one, group)
        if slots <= 0:
            return inf
        alone_s = point.replica_seconds(
            input_tokens=one.input_tokens, output_tokens=one.output_tokens
        )
        return alone_s * (point.concurrency / slots)

    def slots(self, one: TrafficClass, group: ReplicaGroup) -> float:
        """Requests of the class that one replica of the group holds at a time."""
        point, pool = self.point(group), self.pool(group)
        assert point is not None and pool is not None, f"{group.group_id} has no serving point"
        return point.slots(
            self.problem.catalog.variant(group.variant_id),
            memory_mib_per_accelerator=pool.memory_mib_per_accelerator,
            tokens=one.input_tokens + one.output_tokens,
        )

    def site_refusal(self, one: TrafficClass, site_id: str) -> Refusal | None:
        """Why no replica at a site may answer the class, or None: loss, law, then the way there."""
        site = self._sites[site_id]
        policy = self.policies[one.residency_policy_id]
        if site_id in self.lost:
            return Refusal(reason=PruneReason.SITE_UNAVAILABLE, limit="available", actual="lost")
        if not may_process(policy, country=site.country, tags=site.residency_tags):
            return Refusal(
                reason=PruneReason.RESIDENCY,
                limit=_processing(policy),
                actual=_standing(site, policy),
            )
        if self.entry(one) is None:
            return Refusal(reason=PruneReason.NO_INGRESS, limit=_crossing(policy), actual="none")
        if self.way(one, site_id) is None:
            return Refusal(reason=PruneReason.TRANSIT, limit=_crossing(policy), actual="no path")
        return None

    def refusal(self, one: TrafficClass, group: ReplicaGroup) -> Refusal | None:
        """The first reason why the group may not answer the class, or None if it may."""
        return self.site_refusal(one, group.site_id) or self._group_refusal(one, group)

    def _group_refusal(self, one: TrafficClass, group: ReplicaGroup) -> Refusal | None:
        variant = self.problem.catalog.variant(group.variant_id)
        point, pool = self.point(group), self.pool(group)
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
        return self._unfit(one, group) or self._slow(one, group, point)

    def _unfit(self, one: TrafficClass, group: ReplicaGroup) -> Refusal | None:
        """Memory, KV cache, and a pool that is interrupted before a replica is ready."""
        point, pool = self.point(group), self.pool(group)
        assert point is not None and pool is not None
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
        slots = self.slots(one, group)
        if slots < 1:
            return Refusal(
                reason=PruneReason.MEMORY,
                limit=1,
                actual=slots,
                unit="requests whose KV cache fits",
            )
        return None

    def _slow(self, one: TrafficClass, group: ReplicaGroup, point: ServingPoint) -> Refusal | None:
        ttft_ms = self.ttft_ms(one, group)
        assert ttft_ms is not None, "site_refusal ruled out a missing path"
        if point.percentile < one.slo.percentile:
            return Refusal(
                reason=PruneReason.LATENCY,
                limit=one.slo.percentile,
                actual=point.percentile,
                unit="percentile",
            )
        latest_ms = one.slo.ttft_ms * (_MIX_TTFT_PARTS if one.slo.over_mix else 1.0)
        late = (
            ("ms TTFT", latest_ms, ttft_ms),
            ("ms TPOT", one.slo.tpot_ms, point.tpot_ms),
        )
        for unit, limit, actual in late:
            if actual > limit + TOLERANCE_MS:
                return Refusal(reason=PruneReason.LATENCY, limit=limit, actual=actual, unit=unit)
        return None

    def _search(self, policy: ResidencyPolicy, source: str) -> dict[str, Way]:
        """Dijkstra by RTT; of equal paths the first found stays, links tried in order of id."""
        if not may_transit(policy, country=self._sites[source].country):
            return {}
        found: dict[str, Way] = {}
        best = {source: 0.0}
        trail: dict[str, tuple[Link, ...]] = {source: ()}
        heap: list[tuple[float, int, str]] = [(0.0, 0, source)]
        pushed = 0
        while heap:
            rtt_ms, _, here = heapq.heappop(heap)
            if here in found:
                continue
            found[here] = self._way(source, here, trail[here])
            for link, there in self._neighbours.get(here, ()):
                reached_ms = rtt_ms + link.rtt_ms
                if reached_ms < best.get(there, float("inf")) and self._open(policy, link, there):
                    pushed += 1
                    best[there], trail[there] = reached_ms, (*trail[here], link)
                    heapq.heappush(heap, (reached_ms, pushed, there))
        return found

    def _open(self, policy: ResidencyPolicy, link: Link, there: str) -> bool:
        crossed = (self._sites[there].country, *link.transit_countries)
        return all(may_transit(policy, country=c) for c in crossed)

    def _way(self, source: str, target: str, links: tuple[Link, ...]) -> Way:
        sites = [source]
        for link in links:
            sites.append(link.site_b if link.site_a == sites[-1] else link.site_a)
        ends = {self._sites[source].country, self._sites[target].country}
        crossed: list[str] = []
        for link, reached in zip(links, sites[1:], strict=True):
            crossed += [*link.transit_countries, self._sites[reached].country]
        return Way(
            sites=tuple(sites),
            links=links,
            rtt_ms=sum(link.rtt_ms for link in links),
            transit_countries=tuple(c for c in dict.fromkeys(crossed) if c not in ends),
        )


def _rates(problem: Problem) -> dict[str, float]:
    rates = {c.class_id: c.rate_rps[problem.period % len(c.rate_rps)] for c in problem.classes}
    forecast = {
        d.class_id: d.rate_rps for d in reversed(problem.demand) if d.period == problem.period
    }
    return {class_id: forecast.get(class_id, rate) for class_id, rate in rates.items()}


def _neighbours(links: tuple[Link, ...]) -> dict[str, tuple[tuple[Link, str], ...]]:
    beside: dict[str, list[tuple[Link, str]]] = {}
    for link in sorted(links, key=lambda k: k.link_id):
        beside.setdefault(link.site_a, []).append((link, link.site_b))
        beside.setdefault(link.site_b, []).append((link, link.site_a))
    return {site_id: tuple(ends) for site_id, ends in beside.items()}


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
