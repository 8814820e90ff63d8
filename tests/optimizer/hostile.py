"""Random problems whose figures lie at the ends of what facts allow, for the tests of bad input."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from hypothesis import strategies as st

from optimizer.policy import GroupBound, PlanPolicy
from optimizer.problem import Problem
from sites.fleet import Link, Site
from sites.traffic import TrafficClass
from tests.optimizer import builders as b

PRICES = (0.0, 1e-9, 1.0, 1e9)
ENERGY_PRICES = (-1e4, -0.1, 0.0, 1e-9, 0.1, 1e9)


@st.composite
def hostile_problems(draw: st.DrawFn) -> Problem:
    """One to three sites, up to four classes; every figure ordinary, nil or out of all measure."""
    ids = "abc"[: draw(st.integers(1, 3))]
    sites = [draw(_sites(site_id)) for site_id in ids]
    classes = [draw(_classes(f"c{at}")) for at in range(draw(st.integers(0, 4)))]
    return b.problem(
        sites=sites,
        links=draw(_links(ids)),
        markets=[b.market(accesses={i: 5.0 * (1 + at) for at, i in enumerate(ids)})],
        variants=[b.variant(weights_mib=1e4), b.variant("w", quality=0.5, kv_bytes_per_token=1e6)],
        points=[
            b.point(start_ms=draw(st.sampled_from((0.0, 6e4, 1e9)))),
            b.point("w", accelerators=2, decode_tok_s=draw(st.sampled_from((1.0, 3e3)))),
        ],
        services={"chat": ["v", "w"]},
        classes=classes,
        plan_policy=draw(_policies(ids)),
        running=draw(_running(ids)),
        budgets={"t": draw(st.sampled_from((None, None, 0.0, 1e-6, 1e9)))},
    )


@st.composite
def _sites(draw: st.DrawFn, site_id: str) -> Site:
    pool = b.pool(
        count=draw(st.sampled_from((0, 1, 4, 4, 100_000))),
        price=draw(st.sampled_from(PRICES)),
        interruption_per_h=draw(st.sampled_from((None, None, 0.01, 60.0))),
    )
    supplies = [
        b.supply(
            name,
            limit_w=draw(st.sampled_from((0.0, 1.0, 450.0, 1e6, 1e12))),
            price=draw(st.sampled_from(ENERGY_PRICES)),
            carbon_g=draw(st.sampled_from((0.0, 500.0))),
        )
        for name in ("grid", "sun")[: draw(st.integers(1, 2))]
    ]
    return b.site(
        site_id,
        country=draw(st.sampled_from(("DE", "DE", "CH"))),
        budget_w=draw(st.sampled_from((1.0, 700.0, 1e6, 1e12))),
        pue=draw(st.sampled_from((1.0, 10.0))),
        pools=[pool] * draw(st.sampled_from((0, 1, 1, 1))),
        supplies=supplies,
        fixed_price=draw(st.sampled_from((0.0, 0.0, 1e-9, 1e9))),
        cordoned=draw(st.sampled_from((False, False, False, True))),
    )


@st.composite
def _links(draw: st.DrawFn, ids: str) -> Sequence[Link]:
    pairs = [(one, other) for one in ids for other in ids if one < other]
    return [
        b.link(
            *pair,
            rtt_ms=draw(st.sampled_from((0.0, 10.0, 1e9))),
            bandwidth_bps=draw(st.sampled_from((1e-3, 1e6, 1e12))),
            price=draw(st.sampled_from(PRICES)),
        )
        for pair in pairs
        if draw(st.booleans())
    ]


@st.composite
def _classes(draw: st.DrawFn, class_id: str) -> TrafficClass:
    return b.traffic_class(
        class_id,
        policy_id=draw(st.sampled_from(("any", "eu"))),
        rate_rps=draw(st.sampled_from((0.0, 1e-6, 1.0, 10.0, 10.0, 1e6))),
        output_tokens=draw(st.sampled_from((1e-3, 100.0, 100.0, 1_000.0))),
        bytes_per_request=draw(st.sampled_from((0.0, 1e3, 1e9))),
        priority=draw(st.sampled_from((0, 5, 9))),
        protected=draw(st.booleans()),
        ttft_ms=draw(st.sampled_from((1e-3, 60.0, 500.0, 1e9))),
        quality_floor=draw(st.sampled_from((0.0, 0.0, 1.0))),
        mean_quality_floor=draw(st.sampled_from((0.0, 0.0, 0.7, 1.0))),
        spread_sites=draw(st.sampled_from((1, 1, 2, 1_000))),
        spread_zones=draw(st.sampled_from((1, 1, 2))),
        over_mix=draw(st.booleans()),
    )


@st.composite
def _policies(draw: st.DrawFn, ids: str) -> PlanPolicy:
    bounds = [
        GroupBound(
            site_id=site_id,
            variant_id="v",
            fewest=draw(st.sampled_from((0, 0, 1, 1_000))),
            most=draw(st.sampled_from((None, None, 0, 2))),
        )
        for site_id in ids
        if draw(st.sampled_from((False, False, True)))
    ]
    return replace(
        b.DEFAULT_POLICY,
        utilisation_ceiling=draw(st.sampled_from((0.1, 0.8, 1.0))),
        shed_usd_per_mtok=draw(st.sampled_from((0.0, 1e-9, 50.0, 50.0, 1e9))),
        carbon_usd_per_t=draw(st.sampled_from((0.0, 50.0, 1e6))),
        migration_usd_per_gib=draw(st.sampled_from((0.0, 1e3))),
        migration_horizon_h=draw(st.sampled_from((1.0, 24.0, 1e6))),
        move_limit_replicas=draw(st.sampled_from((None, None, 0, 2))),
        max_shed_basis_points=draw(st.sampled_from((None, None, 0, 10_000))),
        carbon_cap_g_per_h=draw(st.sampled_from((None, None, 0.0, 1e-3, 1e9))),
        exposure_part=draw(st.sampled_from((0.0, 0.1, 10.0))),
        replica_bounds=tuple(bounds),
        node_limit=1_000,
        time_limit_s=10.0,
    )


@st.composite
def _running(draw: st.DrawFn, ids: str) -> dict[str, int]:
    groups = [f"{site_id}/p/v/x1" for site_id in ids] + ["gone/p/v/x1"]
    return {g: draw(st.sampled_from((1, 3, 10_000))) for g in groups if draw(st.booleans())}
