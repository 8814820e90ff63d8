"""Tiny problems by hand and small random ones: the material of every optimizer test.

Defaults: one market at site "a", one model in one variant, a serving point of 1 000 tok/s, requests
of 100 output tokens (0.1 replica-seconds), a ceiling of 1.0 and round prices, so that figures can
be worked out in the head.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from hypothesis import strategies as st

from optimizer.costs import priced_plan
from optimizer.plan import Plan, PlannedGroup, ShedTraffic, TrafficShare
from optimizer.policy import GroupBound, PlanPolicy
from optimizer.problem import Problem, RunningGroup
from optimizer.reach import Reach
from sites.assignment import ReplicaGroup
from sites.catalog import Catalog, Model, ServingPoint, Variant
from sites.fleet import (
    Fleet,
    HardwarePool,
    Link,
    Market,
    MarketAccess,
    Ownership,
    PowerSupply,
    Site,
    SupplyKind,
)
from sites.residency import ResidencyPolicy
from sites.traffic import Service, SloTarget, Tenant, TrafficClass

ANYWHERE = ResidencyPolicy(policy_id="any", processing_countries=None, transit_countries=None)
EU_ONLY = ResidencyPolicy(
    policy_id="eu", processing_countries=("DE", "FR"), transit_countries=("DE", "FR")
)


def supply(
    supply_id: str = "grid",
    *,
    limit_w: float = 1e6,
    price: float = 0.1,
    carbon_g: float = 0.0,
    kind: SupplyKind = SupplyKind.GRID,
) -> PowerSupply:
    """A power supply: price in USD/kWh, carbon in g/kWh, constant over the day."""
    return PowerSupply(
        supply_id=supply_id,
        kind=kind,
        limit_w=(limit_w,),
        price_usd_per_kwh=(price,),
        carbon_g_per_kwh=(carbon_g,),
    )


def pool(
    pool_id: str = "p",
    *,
    count: int = 4,
    price: float = 1.0,
    accelerator: str = "gpu",
    memory_mib: float = 80_000.0,
    interruption_per_h: float | None = None,
) -> HardwarePool:
    """A hardware pool: price in USD per accelerator-hour; a spot pool if it may be interrupted."""
    return HardwarePool(
        pool_id=pool_id,
        accelerator=accelerator,
        count=count,
        memory_mib_per_accelerator=memory_mib,
        price_usd_per_accelerator_h=price,
        ownership=Ownership.OWNED if interruption_per_h is None else Ownership.SPOT,
        interruption_per_h=interruption_per_h or 0.0,
    )


def site(
    site_id: str = "a",
    *,
    country: str = "DE",
    budget_w: float = 1e6,
    pue: float = 1.0,
    pools: Sequence[HardwarePool] | None = None,
    supplies: Sequence[PowerSupply] | None = None,
    fixed_price: float = 0.0,
    tags: Sequence[str] = (),
    cordoned: bool = False,
    region: str = "",
) -> Site:
    """A site with one pool of four accelerators and one grid supply unless told otherwise."""
    return Site(
        site_id=site_id,
        country=country,
        power_budget_w=(budget_w,),
        pue=pue,
        supplies=tuple(supplies if supplies is not None else [supply()]),
        pools=tuple(pools if pools is not None else [pool()]),
        residency_tags=tuple(tags),
        fixed_price_usd_per_h=fixed_price,
        cordoned=cordoned,
        region=region,
    )


def link(
    site_a: str,
    site_b: str,
    *,
    rtt_ms: float = 10.0,
    bandwidth_bps: float = 1e12,
    price: float = 0.0,
    transit: Sequence[str] = (),
) -> Link:
    """A backbone link: price in USD/GB."""
    return Link(
        site_a=site_a,
        site_b=site_b,
        rtt_ms=rtt_ms,
        bandwidth_bps=bandwidth_bps,
        price_usd_per_gb=price,
        transit_countries=tuple(transit),
    )


def market(
    market_id: str = "m", *, country: str = "DE", accesses: Mapping[str, float] | None = None
) -> Market:
    """A market with its accesses (site id -> RTT in ms)."""
    near = {"a": 5.0} if accesses is None else accesses
    return Market(
        market_id=market_id,
        country=country,
        accesses=tuple(MarketAccess(site_id=s, rtt_ms=r) for s, r in sorted(near.items())),
    )


def variant(
    variant_id: str = "v",
    *,
    quality: float = 1.0,
    weights_mib: float = 1024.0,
    kv_bytes_per_token: float = 0.0,
) -> Variant:
    """A variant of model "m"."""
    return Variant(
        variant_id=variant_id,
        model_id="m",
        precision="fp16",
        weights_mib=weights_mib,
        kv_bytes_per_token=kv_bytes_per_token,
        quality=quality,
    )


def point(
    variant_id: str = "v",
    *,
    accelerator: str = "gpu",
    accelerators: int = 1,
    decode_tok_s: float = 1_000.0,
    ttft_ms: float = 50.0,
    tpot_ms: float = 10.0,
    idle_w: float = 100.0,
    full_w: float = 300.0,
    memory_mib: float = 10_000.0,
    start_ms: float = 0.0,
) -> ServingPoint:
    """A serving point without prefill cost."""
    return ServingPoint(
        variant_id=variant_id,
        accelerator=accelerator,
        accelerators_per_replica=accelerators,
        decode_tok_s=decode_tok_s,
        prefill_tok_s=None,
        ttft_ms=ttft_ms,
        tpot_ms=tpot_ms,
        concurrency=8,
        idle_w=idle_w,
        full_w=full_w,
        memory_mib=memory_mib,
        start_ms=start_ms,
    )


def traffic_class(
    class_id: str = "c",
    *,
    market_id: str = "m",
    service_id: str = "chat",
    policy_id: str = "any",
    rate_rps: float = 10.0,
    output_tokens: float = 100.0,
    bytes_per_request: float = 0.0,
    priority: int = 5,
    protected: bool = False,
    ttft_ms: float = 500.0,
    tpot_ms: float = 50.0,
    quality_floor: float = 0.0,
    spread_sites: int = 1,
    spread_zones: int = 1,
    mean_quality_floor: float = 0.0,
    over_mix: bool = False,
    context_tokens: float = 0.0,
    deferrable_h: int = 0,
    tenant_id: str = "t",
) -> TrafficClass:
    """A class of 10 req/s of 100 output tokens, that is 1 replica of the default serving point."""
    return TrafficClass(
        class_id=class_id,
        market_id=market_id,
        service_id=service_id,
        tenant_id=tenant_id,
        residency_policy_id=policy_id,
        slo=SloTarget(ttft_ms=ttft_ms, tpot_ms=tpot_ms, over_mix=over_mix),
        rate_rps=(rate_rps,),
        input_tokens=0.0,
        output_tokens=output_tokens,
        bytes_per_request=bytes_per_request,
        priority=priority,
        protected=protected,
        quality_floor=quality_floor,
        spread_sites=spread_sites,
        spread_zones=spread_zones,
        mean_quality_floor=mean_quality_floor,
        context_tokens=context_tokens,
        deferrable_h=deferrable_h,
    )


DEFAULT_POLICY = PlanPolicy(utilisation_ceiling=1.0, gap_limit=0.0)


def problem(
    *,
    sites: Sequence[Site] | None = None,
    links: Sequence[Link] = (),
    markets: Sequence[Market] | None = None,
    variants: Sequence[Variant] | None = None,
    points: Sequence[ServingPoint] | None = None,
    services: Mapping[str, Sequence[str]] | None = None,
    policies: Sequence[ResidencyPolicy] = (ANYWHERE, EU_ONLY),
    classes: Sequence[TrafficClass] | None = None,
    plan_policy: PlanPolicy = DEFAULT_POLICY,
    running: Mapping[str, int] | None = None,
    lost: Sequence[str] = (),
    budgets: Mapping[str, float | None] | None = None,
) -> Problem:
    """A whole problem; what is left out takes the defaults of this module.

    `budgets`: the tenants and what each may spend (USD/h, None: no limit).
    """
    answered_by = {"chat": ["v"]} if services is None else services
    return Problem(
        fleet=Fleet(
            sites=tuple(sites if sites is not None else [site()]),
            links=tuple(links),
            markets=tuple(markets if markets is not None else [market()]),
        ),
        catalog=Catalog(
            models=(Model(model_id="m", parameters_b=1.0, context_tokens=4096),),
            variants=tuple(variants if variants is not None else [variant()]),
            serving_points=tuple(points if points is not None else [point()]),
        ),
        services=tuple(
            Service(service_id=s, variant_ids=tuple(v)) for s, v in sorted(answered_by.items())
        ),
        tenants=tuple(
            Tenant(tenant_id=t, residency_policy_id="any", budget_usd_per_h=budget)
            for t, budget in sorted(({"t": None} if budgets is None else budgets).items())
        ),
        policies=tuple(policies),
        classes=tuple(classes if classes is not None else [traffic_class()]),
        plan_policy=plan_policy,
        running=tuple(
            RunningGroup(group=group(g), replicas=n) for g, n in sorted((running or {}).items())
        ),
        lost_sites=tuple(lost),
    )


def two_sites(*, classes: Sequence[TrafficClass] | None = None, **more: object) -> Problem:
    """Sites "a" (DE, dear) and "b" (FR, cheap), one link of 10 ms, market nearest to "a"."""
    dear = site("a", country="DE", pools=[pool(price=2.0)])
    cheap = site("b", country="FR", pools=[pool(price=1.0)])
    base = problem(
        sites=[dear, cheap],
        links=[link("a", "b")],
        markets=[market(accesses={"a": 5.0, "b": 20.0})],
        classes=classes,
    )
    return replace(base, **more)  # type: ignore[arg-type]


def group(group_id: str) -> ReplicaGroup:
    """``a/p/v/x1`` -> its ReplicaGroup."""
    site_id, pool_id, variant_id, size = group_id.split("/")
    return ReplicaGroup(
        site_id=site_id,
        pool_id=pool_id,
        variant_id=variant_id,
        accelerators_per_replica=int(size.removeprefix("x")),
    )


def plan(
    one: Problem,
    *,
    groups: Mapping[str, int],
    shares: Mapping[tuple[str, str], int],
    shed: Mapping[str, int] | None = None,
) -> Plan:
    """A priced plan: group id -> replicas, (class id, group id) -> bp, class id -> bp shed."""
    reach = Reach(one)
    return priced_plan(
        reach,
        groups=[PlannedGroup(group=group(g), replicas=n) for g, n in groups.items()],
        shares=[_share(reach, class_id, group(g), bp) for (class_id, g), bp in shares.items()],
        shed=[ShedTraffic(class_id=c, basis_points=bp) for c, bp in (shed or {}).items()],
        bound_usd_per_h=0.0,
        method="by hand",
    )


def _share(reach: Reach, class_id: str, to: ReplicaGroup, basis_points: int) -> TrafficShare:
    one = reach.classes[class_id]
    entry, way = reach.entry(one), reach.way(one, to.site_id)
    return TrafficShare(
        class_id=class_id,
        group_id=to.group_id,
        site_id=to.site_id,
        ingress_site_id=entry.site_id if entry else to.site_id,
        basis_points=basis_points,
        transit_countries=way.transit_countries if way else (),
    )


_COUNTRIES = ("DE", "FR", "CH")


@st.composite
def small_problems(
    draw: st.DrawFn, *, max_sites: int = 3, max_classes: int = 4, max_count: int = 4
) -> Problem:
    """Random problems that are never infeasible: any class may be shed at a price.

    What losing a site would leave unserved has no price here; tests of that give it one.
    """
    ids = "abcdef"[: draw(st.sampled_from(range(max_sites, 0, -1)))]
    sites = [
        draw(small_sites(one, most=max_count, least=0 if i else 1)) for i, one in enumerate(ids)
    ]
    links = [
        link(
            a,
            b,
            rtt_ms=draw(st.sampled_from([5.0, 11.0, 300.0])),
            bandwidth_bps=draw(st.sampled_from([2e5, 1e9])),
            price=draw(st.sampled_from([0.0, 5.0])),
            transit=draw(st.sampled_from([(), ("CH",)])),
        )
        for i, a in enumerate(ids)
        for b in ids[i + 1 :]
        if draw(st.booleans()) or b == ids[i + 1 : i + 2]
    ]
    accesses = {one: draw(st.integers(1, 30)) + 0.1 * i for i, one in enumerate(ids)}
    classes = [
        draw(small_classes(f"c{i}", most_spread=len(ids)))
        for i in range(draw(st.integers(1, max_classes)))
    ]
    running = {f"{one}/p/v/x1": 1 for one in ids if draw(st.booleans())}
    return problem(
        sites=sites,
        links=links,
        markets=[market(accesses=accesses)],
        variants=[variant("v"), variant("w", quality=0.5, weights_mib=512.0)],
        points=[
            point("v"),
            point("v", accelerators=2, decode_tok_s=2_300.0, idle_w=150.0, full_w=500.0),
            point("w", decode_tok_s=2_000.0, full_w=200.0, start_ms=600_000.0),
        ],
        services={"chat": ["v"], "fast": ["v", "w"]},
        classes=classes,
        running=running,
        plan_policy=PlanPolicy(
            utilisation_ceiling=draw(st.sampled_from([0.8, 1.0])),
            migration_usd_per_gib=draw(st.sampled_from([0.0, 3.0])),
            carbon_usd_per_t=50.0,
            exposure_part=0.0,
            gap_limit=0.0,
        ),
    )


@st.composite
def small_sites(draw: st.DrawFn, site_id: str, *, most: int, least: int) -> Site:
    """A random site with one pool of `least` to `most` accelerators and two supplies."""
    count = draw(st.sampled_from([most, *range(least, most + 1)]))
    return site(
        site_id,
        country=draw(st.sampled_from(_COUNTRIES)),
        budget_w=draw(st.sampled_from([1e5, 900.0, 350.0])),
        pue=draw(st.sampled_from([1.0, 1.25])),
        pools=[pool(count=count, price=draw(st.integers(1, 9)))],
        supplies=[
            supply("grid", limit_w=1e5, price=draw(st.sampled_from([0.1, 0.3]))),
            supply("sun", limit_w=draw(st.sampled_from([0.0, 200.0])), price=0.01),
        ],
        fixed_price=draw(st.sampled_from([0.0, 0.0, 2.0])),
    )


@st.composite
def small_classes(draw: st.DrawFn, class_id: str, *, most_spread: int) -> TrafficClass:
    """A random class of 1 to 25 req/s, some of them strict, spread or protected."""
    return traffic_class(
        class_id,
        service_id=draw(st.sampled_from(["chat", "fast"])),
        policy_id=draw(st.sampled_from(["any", "any", "eu"])),
        rate_rps=draw(st.sampled_from([1.0, 4.0, 9.0, 25.0])),
        bytes_per_request=draw(st.sampled_from([0.0, 1e4])),
        priority=draw(st.integers(0, 9)),
        protected=draw(st.booleans()),
        ttft_ms=draw(st.sampled_from([70.0, 500.0])),
        quality_floor=draw(st.sampled_from([0.0, 0.9])),
        spread_sites=min(most_spread, draw(st.sampled_from([1, 1, 1, 1, 1, 2]))),
    )


@st.composite
def rich_problems(
    draw: st.DrawFn,
    *,
    max_sites: int = 3,
    max_classes: int = 4,
    max_count: int = 4,
    limits: bool = False,
) -> Problem:
    """`small_problems` with every later row family and term switched on some of the time.

    Spot pools, KV cache that does not fit, long contexts, mixes, zones, budgets, a carbon cap.
    Never infeasible, unless `limits` adds replica bounds, a move limit and a shedding cap.
    """
    base = draw(small_problems(max_sites=max_sites, max_classes=max_classes, max_count=max_count))
    policy = replace(
        base.plan_policy,
        carbon_cap_g_per_h=draw(st.sampled_from([None, None, 30.0, 90.0])),
    )
    if limits:
        policy = draw(_limited(policy))
    kv_bytes = draw(st.sampled_from([0.0, 5e6, 4e7]))
    catalog = replace(
        base.catalog,
        variants=tuple(replace(v, kv_bytes_per_token=kv_bytes) for v in base.catalog.variants),
        serving_points=tuple(
            replace(p, start_ms=p.start_ms or 300_000.0) for p in base.catalog.serving_points
        ),
    )
    budget = draw(st.sampled_from([None, 0.0, 3.0, 12.0]))
    return replace(
        base,
        fleet=replace(base.fleet, sites=tuple(draw(_rich_site(s)) for s in base.fleet.sites)),
        catalog=catalog,
        classes=tuple(draw(_rich_class(c)) for c in base.classes),
        tenants=(
            Tenant(tenant_id="t", residency_policy_id="any"),
            Tenant(tenant_id="u", residency_policy_id="any", budget_usd_per_h=budget),
        ),
        plan_policy=policy,
    )


@st.composite
def _limited(draw: st.DrawFn, policy: PlanPolicy) -> PlanPolicy:
    bounds = [
        GroupBound(site_id="a", variant_id="v", fewest=draw(st.integers(0, 1)), most=2),
        GroupBound(site_id="b", variant_id="w", most=draw(st.integers(0, 2))),
    ]
    return replace(
        policy,
        replica_bounds=tuple(bounds[: draw(st.integers(0, 2))]),
        move_limit_replicas=draw(st.sampled_from([None, 2, 5])),
        max_shed_basis_points=draw(st.sampled_from([None, 5_000])),
    )


@st.composite
def _rich_site(draw: st.DrawFn, one: Site) -> Site:
    """Some pools are spot ones, some short of memory; supplies differ in carbon; two regions."""
    spot = draw(st.sampled_from([None, None, 0.05, 2.0]))
    memory_mib = draw(st.sampled_from([80_000.0, 10_500.0]))
    grid_g, sun_g = draw(st.sampled_from([(300.0, 0.0), (50.0, 600.0), (0.0, 0.0)]))
    return replace(
        one,
        region=draw(st.sampled_from(["", "north", "south"])),
        pools=tuple(
            replace(
                p,
                memory_mib_per_accelerator=memory_mib,
                ownership=Ownership.OWNED if spot is None else Ownership.SPOT,
                interruption_per_h=spot or 0.0,
            )
            for p in one.pools
        ),
        supplies=tuple(
            replace(k, carbon_g_per_kwh=(grid_g if k.supply_id == "grid" else sun_g,))
            for k in one.supplies
        ),
    )


@st.composite
def _rich_class(draw: st.DrawFn, one: TrafficClass) -> TrafficClass:
    """Some classes have an SLO over the mix, a mean quality, zones, long requests, a budget."""
    mixed = draw(st.booleans())
    return replace(
        one,
        tenant_id=draw(st.sampled_from(["t", "u"])),
        input_tokens=draw(st.sampled_from([0.0, 400.0])),
        slo=replace(one.slo, over_mix=True, ttft_ms=draw(st.sampled_from([66.0, 75.0, 90.0])))
        if mixed
        else one.slo,
        mean_quality_floor=draw(st.sampled_from([0.0, 0.0, 0.7, 0.8])),
        quality_floor=0.0 if mixed else one.quality_floor,
        spread_zones=draw(st.sampled_from([1, 1, 1, 2])),
        context_tokens=draw(st.sampled_from([0.0, 4_000.0, 5_000.0])) if mixed else 0.0,
        deferrable_h=draw(st.sampled_from([0, 0, 2])),
    )
