"""Which (class, replica group) pairs are candidate arcs, and why every other pair is not.

Decides by law (residency, transit), time (TTFT and TPOT at the percentile), quality and fit (a
serving point exists, its memory and accelerators fit the pool, the requests fit its KV cache and
the model's context). Prices and shared limits (power, accelerators in all, bandwidth) are left to
the formulation. Pairs are pruned for a reason that holds whatever else the plan does.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from optimizer.backbone import Backbone, LawfulPath, ingress_of
from optimizer.plan import CandidateArc, PrunedArc, PruneReason
from optimizer.problem import Problem
from sites.assignment import ReplicaGroup
from sites.catalog import BYTES_PER_MIB, ServingPoint, Variant
from sites.fleet import HardwarePool, MarketAccess, Site
from sites.residency import ResidencyPolicy, may_process, may_transit
from sites.traffic import TrafficClass
from sites.units import BYTES_PER_GB

MIX_TTFT_PARTS = 4.0
"""Where the SLO is on the mix, an arc may take so many times the time to first token asked for."""

_EVERYWHERE = ResidencyPolicy(
    policy_id="everywhere", processing_countries=None, transit_countries=None
)


@dataclass(frozen=True, kw_only=True, slots=True)
class GroupOption:
    """A replica group that could exist: a serving point on a pool of its accelerator."""

    group: ReplicaGroup
    site: Site
    pool: HardwarePool
    variant: Variant
    point: ServingPoint

    @property
    def group_id(self) -> str:
        """The id of its replica group."""
        return self.group.group_id

    @property
    def available(self) -> float:
        """Part of the time a replica is there, between 0 and 1; below 1 only on spot pools."""
        return self.point.availability(interruption_per_h=self.pool.interruption_per_h)


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidates:
    """Arcs kept (by class, then group id) and pairs pruned (by class, site, variant)."""

    arcs: tuple[CandidateArc, ...]
    pruned: tuple[PrunedArc, ...]


def group_options(problem: Problem) -> dict[str, GroupOption]:
    """Every replica group whose serving point matches a pool's accelerator at a site not lost.

    Whether it fits the pool's memory and count is not asked here: `fit_fault` says so.
    """
    by_accelerator: dict[str, list[ServingPoint]] = {}
    for point in sorted(problem.catalog.serving_points, key=lambda p: p.point_id):
        by_accelerator.setdefault(point.accelerator, []).append(point)
    options = {}
    for site in sorted(problem.fleet.sites, key=lambda s: s.site_id):
        if site.site_id in problem.lost_sites:
            continue
        for pool in sorted(site.pools, key=lambda p: p.pool_id):
            for point in by_accelerator.get(pool.accelerator, ()):
                option = GroupOption(
                    group=ReplicaGroup(
                        site_id=site.site_id,
                        pool_id=pool.pool_id,
                        variant_id=point.variant_id,
                        accelerators_per_replica=point.accelerators_per_replica,
                    ),
                    site=site,
                    pool=pool,
                    variant=problem.catalog.variant(point.variant_id),
                    point=point,
                )
                options[option.group_id] = option
    return options


@dataclass(frozen=True, slots=True)
class ArcFault:
    """Why something is ruled out; `rank` grows with how far the pair got."""

    rank: int
    reason: PruneReason
    limit: float | str
    actual: float | str
    unit: str = ""


def fit_fault(option: GroupOption) -> ArcFault | None:
    """Why one replica of a group does not fit its pool, or None."""
    need_mib, have_mib = option.point.memory_mib, option.pool.memory_mib_per_accelerator
    if need_mib > have_mib:
        return ArcFault(2, PruneReason.MEMORY, have_mib, need_mib, "MiB")
    if option.group.accelerators_per_replica > option.pool.count:
        needed = float(option.group.accelerators_per_replica)
        return ArcFault(
            3, PruneReason.ACCELERATORS, float(option.pool.count), needed, "accelerators"
        )
    if option.available == 0:
        often = option.pool.interruption_per_h
        return ArcFault(
            4, PruneReason.NO_SERVING_POINT, 1.0 / option.point.start_h, often, "interruptions/h"
        )
    return None


def kv_fault(option: GroupOption, traffic_class: TrafficClass) -> ArcFault | None:
    """Why one replica of a group cannot hold the KV cache of one mean request, or None."""
    tokens = traffic_class.input_tokens + traffic_class.output_tokens
    memory_mib = option.pool.memory_mib_per_accelerator
    slots = option.point.slots(option.variant, memory_mib_per_accelerator=memory_mib, tokens=tokens)
    if slots >= 1:
        return None
    room = option.point.kv_room_bytes(option.variant, memory_mib_per_accelerator=memory_mib)
    need = tokens * option.variant.kv_bytes_per_token
    return ArcFault(
        5, PruneReason.MEMORY, room / BYTES_PER_MIB, need / BYTES_PER_MIB, "MiB of KV cache"
    )


def arc_ttft_ms(
    problem: Problem, *, access_rtt_ms: float, path_rtt_ms: float, point: ServingPoint
) -> float:
    """Time to first token over an arc (ms): the one place where this sum is written.

    market -> ingress RTT + ingress -> site path RTT + queueing at the ceiling + the point's TTFT.
    """
    queueing_ms = problem.plan_policy.queueing_ms_at_ceiling
    return access_rtt_ms + path_rtt_ms + queueing_ms + point.ttft_ms


def find_arcs(problem: Problem) -> Candidates:
    """Candidate arcs and pruned pairs of every class, demand or none (an idle class still needs
    lawful routes). Deterministic: equal problems give equal tuples.
    """
    finder = _Finder(problem)
    arcs: list[CandidateArc] = []
    pruned: list[PrunedArc] = []
    for traffic_class in sorted(problem.classes, key=lambda c: c.class_id):
        for found in finder.judge(traffic_class):
            if isinstance(found, CandidateArc):
                arcs.append(found)
            else:
                pruned.append(found)
    arcs.sort(key=lambda a: (a.class_id, a.group.group_id))
    return Candidates(arcs=tuple(arcs), pruned=tuple(pruned))


def standby_arcs(problem: Problem) -> tuple[CandidateArc, ...]:
    """Arcs of protected classes once the site they enter at is lost and they enter elsewhere.

    Some of them may be none today. Empty where losses have no price. By class, then group id.
    """
    if problem.plan_policy.exposure_part == 0:
        return ()
    entering: dict[str, list[TrafficClass]] = {}
    for one in problem.classes:
        access = ingress_of(problem, one) if one.protected else None
        if access is not None:
            entering.setdefault(access.site_id, []).append(one)
    found: list[CandidateArc] = []
    for site_id in sorted(entering):
        lost = (*problem.lost_sites, site_id)
        left = replace(problem, classes=tuple(entering[site_id]), lost_sites=lost)
        found += find_arcs(left).arcs
    return tuple(sorted(found, key=lambda a: (a.class_id, a.group.group_id)))


class _Finder:
    """Judges all pairs of one problem, sharing paths and options between classes."""

    def __init__(self, problem: Problem) -> None:
        self._problem = problem
        self._backbone = Backbone(problem.fleet)
        self._sites = sorted(problem.fleet.sites, key=lambda s: s.site_id)
        self._options: dict[tuple[str, str], list[GroupOption]] = {}
        for option in group_options(problem).values():
            key = (option.site.site_id, option.variant.variant_id)
            self._options.setdefault(key, []).append(option)

    def judge(self, traffic_class: TrafficClass) -> Iterator[CandidateArc | PrunedArc]:
        access = ingress_of(self._problem, traffic_class)
        if access is None:
            yield from self._no_ingress(traffic_class)
            return
        policy = self._problem.residency(traffic_class.residency_policy_id)
        paths = self._backbone.paths_from(policy, access.site_id)
        for site in self._sites:
            path = paths.get(site.site_id)
            fault = self._site_fault(policy, site, path=path, ingress=access.site_id)
            if fault is not None or path is None:
                assert fault is not None
                yield _pruned(traffic_class, site.site_id, variant_id="", fault=fault)
                continue
            yield from self._judge_site(traffic_class, site, access=access, path=path)

    def _no_ingress(self, traffic_class: TrafficClass) -> Iterator[PrunedArc]:
        policy = self._problem.residency(traffic_class.residency_policy_id)
        market = next(
            m for m in self._problem.fleet.markets if m.market_id == traffic_class.market_id
        )
        for access in market.by_distance():
            site = self._problem.fleet.site(access.site_id)
            if access.site_id in self._problem.lost_sites:
                fault = ArcFault(0, PruneReason.NO_INGRESS, "in service", "lost")
            else:
                allowed = f"crosses {_countries(_crossable(policy))}"
                fault = ArcFault(0, PruneReason.NO_INGRESS, allowed, site.country, "country")
            yield _pruned(traffic_class, site.site_id, variant_id="", fault=fault)

    def _site_fault(
        self, policy: ResidencyPolicy, site: Site, *, path: LawfulPath | None, ingress: str
    ) -> ArcFault | None:
        if site.site_id in self._problem.lost_sites:
            return ArcFault(0, PruneReason.SITE_UNAVAILABLE, "in service", "lost")
        if not may_process(policy, country=site.country, tags=site.residency_tags):
            return _residency_fault(policy, site)
        if path is not None:
            return None
        direct = self._backbone.path(_EVERYWHERE, source=ingress, target=site.site_id)
        if direct is None:
            return ArcFault(0, PruneReason.NO_PATH, f"path from {ingress}", "none")
        unlawful = [c for c in direct.transit_countries if not may_transit(policy, country=c)]
        allowed = f"crosses {_countries(_crossable(policy))}"
        return ArcFault(0, PruneReason.TRANSIT, allowed, _countries(unlawful), "countries")

    def _judge_site(
        self, traffic_class: TrafficClass, site: Site, *, access: MarketAccess, path: LawfulPath
    ) -> Iterator[CandidateArc | PrunedArc]:
        service = self._problem.service(traffic_class.service_id)
        for variant_id in sorted(service.variant_ids):
            fault = self._variant_fault(traffic_class, variant_id)
            if fault is not None:
                yield _pruned(traffic_class, site.site_id, variant_id=variant_id, fault=fault)
                continue
            options = self._options.get((site.site_id, variant_id), [])
            yield from self._judge_options(
                traffic_class, options, access=access, path=path, variant_id=variant_id
            )

    def _variant_fault(self, traffic_class: TrafficClass, variant_id: str) -> ArcFault | None:
        quality = self._problem.catalog.variant(variant_id).quality
        if quality < traffic_class.quality_floor:
            return ArcFault(0, PruneReason.QUALITY, traffic_class.quality_floor, quality)
        longest = self._problem.catalog.model_of(variant_id).context_tokens
        mean = traffic_class.input_tokens + traffic_class.output_tokens
        needed = max(traffic_class.context_tokens, mean)
        if needed > longest:
            return ArcFault(0, PruneReason.CONTEXT, float(longest), needed, "tokens")
        return None

    def _judge_options(
        self,
        traffic_class: TrafficClass,
        options: Iterable[GroupOption],
        *,
        access: MarketAccess,
        path: LawfulPath,
        variant_id: str,
    ) -> Iterator[CandidateArc | PrunedArc]:
        nearest = ArcFault(1, PruneReason.NO_SERVING_POINT, "a serving point here", "none")
        kept = False
        for option in options:
            ttft_ms = arc_ttft_ms(
                self._problem,
                access_rtt_ms=access.rtt_ms,
                path_rtt_ms=path.rtt_ms,
                point=option.point,
            )
            fault = (
                fit_fault(option)
                or kv_fault(option, traffic_class)
                or _slo_fault(traffic_class, option.point, ttft_ms=ttft_ms)
            )
            if fault is None:
                kept = True
                yield _arc(traffic_class, option, path=path, ttft_ms=ttft_ms)
            elif _is_nearer(fault, than=nearest):
                nearest = fault
        if not kept:
            yield _pruned(traffic_class, path.sites[-1], variant_id=variant_id, fault=nearest)


def _slo_fault(
    traffic_class: TrafficClass, point: ServingPoint, *, ttft_ms: float
) -> ArcFault | None:
    slo = traffic_class.slo
    if point.percentile < slo.percentile:
        return ArcFault(6, PruneReason.LATENCY, slo.percentile, point.percentile, "percentile")
    if point.tpot_ms > slo.tpot_ms:
        return ArcFault(7, PruneReason.LATENCY, slo.tpot_ms, point.tpot_ms, "ms per output token")
    latest_ms = slo.ttft_ms * (MIX_TTFT_PARTS if slo.over_mix else 1.0)
    if ttft_ms > latest_ms:
        return ArcFault(8, PruneReason.LATENCY, latest_ms, ttft_ms, "ms to first token")
    return None


def _is_nearer(fault: ArcFault, *, than: ArcFault) -> bool:
    """Whether a pair came closer to being kept: a later check, or the same one missed by less."""
    if fault.rank != than.rank:
        return fault.rank > than.rank
    if fault.unit == "percentile":
        return float(fault.actual) > float(than.actual)
    return float(fault.actual) < float(than.actual)


def _arc(
    traffic_class: TrafficClass, option: GroupOption, *, path: LawfulPath, ttft_ms: float
) -> CandidateArc:
    return CandidateArc(
        class_id=traffic_class.class_id,
        group=option.group,
        ingress_site_id=path.sites[0],
        path=path.sites,
        transit_countries=path.transit_countries,
        ttft_ms=ttft_ms,
        replica_seconds=option.point.paired_replica_seconds(
            option.variant,
            memory_mib_per_accelerator=option.pool.memory_mib_per_accelerator,
            input_tokens=traffic_class.input_tokens,
            output_tokens=traffic_class.output_tokens,
        ),
        network_usd_per_request=(
            traffic_class.bytes_per_request / BYTES_PER_GB * path.price_usd_per_gb
        ),
    )


def _pruned(
    traffic_class: TrafficClass, site_id: str, *, variant_id: str, fault: ArcFault
) -> PrunedArc:
    return PrunedArc(
        class_id=traffic_class.class_id,
        site_id=site_id,
        variant_id=variant_id,
        reason=fault.reason,
        limit=fault.limit,
        actual=fault.actual,
        unit=fault.unit,
    )


def _residency_fault(policy: ResidencyPolicy, site: Site) -> ArcFault:
    lawful = policy.processing_countries
    if lawful is not None and site.country not in lawful:
        allowed = f"processed in {_countries(lawful)}"
        return ArcFault(0, PruneReason.RESIDENCY, allowed, site.country, "country")
    missing = sorted(set(policy.required_tags) - set(site.residency_tags))
    return ArcFault(
        0,
        PruneReason.RESIDENCY,
        ",".join(policy.required_tags),
        f"lacks {','.join(missing)}",
        "tags",
    )


def _crossable(policy: ResidencyPolicy) -> tuple[str, ...]:
    return (*(policy.processing_countries or ()), *(policy.transit_countries or ()))


def _countries(codes: Iterable[str]) -> str:
    return ",".join(sorted(set(codes))) or "none"
