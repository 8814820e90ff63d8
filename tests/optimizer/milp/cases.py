"""Problems the tests of the formulation share."""

from __future__ import annotations

from dataclasses import replace

from optimizer.policy import GroupBound
from optimizer.problem import Problem
from tests.optimizer import builders as b


def tiny_fleet() -> Problem:
    """Two sites in two zones, one of them with a spot pool, two variants, two classes: every row
    family of one period has at least one row.
    """
    policy = replace(
        b.DEFAULT_POLICY,
        utilisation_ceiling=0.8,
        carbon_usd_per_t=50.0,
        migration_usd_per_gib=2.0,
        move_limit_replicas=6,
        max_shed_basis_points=2_500,
        carbon_cap_g_per_h=400.0,
        replica_bounds=(GroupBound(site_id="a", variant_id="v", fewest=1, most=3),),
    )
    sun = b.supply("sun", limit_w=500.0, price=0.02)
    return b.problem(
        sites=[
            b.site(
                "a",
                pue=1.2,
                budget_w=2_000.0,
                supplies=[sun, b.supply(carbon_g=300.0)],
                region="north",
            ),
            b.site(
                "b",
                country="FR",
                budget_w=1_500.0,
                fixed_price=3.0,
                pools=[b.pool(interruption_per_h=0.1)],
                supplies=[b.supply(carbon_g=500.0)],
                region="south",
            ),
        ],
        links=[b.link("a", "b", price=0.05, bandwidth_bps=1e6)],
        markets=[b.market(accesses={"a": 5.0, "b": 20.0})],
        variants=[b.variant("v"), b.variant("w", quality=0.5)],
        points=[
            b.point("v", start_ms=900_000.0),
            b.point("w", decode_tok_s=2_000.0, full_w=250.0),
        ],
        services={"chat": ["v"], "fast": ["v", "w"]},
        classes=[
            b.traffic_class("c1", bytes_per_request=2_000.0),
            b.traffic_class(
                "c2",
                service_id="fast",
                rate_rps=4.0,
                spread_sites=2,
                spread_zones=2,
                priority=2,
                ttft_ms=60.0,
                over_mix=True,
                mean_quality_floor=0.7,
                tenant_id="u",
            ),
        ],
        budgets={"t": None, "u": 5.0},
        plan_policy=policy,
        running={"a/p/v/x1": 2},
    )


def crowded(*, sites: int = 12, sizes: int = 4) -> Problem:
    """Many groups (sites x variants x sizes) for few classes: a search worth a start of its own."""
    ids = [f"s{i:02d}" for i in range(sites)]
    variants = [f"v{i}" for i in range(8)]
    return b.problem(
        sites=[
            b.site(one, pools=[b.pool(count=8, price=1.0 + 0.1 * (i * 5 % 7))])
            for i, one in enumerate(ids)
        ],
        links=[b.link(ids[0], one) for one in ids[1:]],
        markets=[b.market(accesses={ids[0]: 1.0})],
        variants=[b.variant(v) for v in variants],
        points=[
            b.point(v, accelerators=2**k, decode_tok_s=(400.0 + 90.0 * (i * 3 % 8)) * 1.9**k)
            for i, v in enumerate(variants)
            for k in range(sizes)
        ],
        services={f"svc{i}": [v] for i, v in enumerate(variants)},
        classes=[
            b.traffic_class(f"c{i}", service_id=f"svc{i}", rate_rps=7.0 + 3.1 * i)
            for i in range(len(variants))
        ],
        plan_policy=replace(b.DEFAULT_POLICY, gap_limit=0.01),
    )


def tough(*, node_limit: int, sites: int = 8, times: float = 1.0) -> Problem:
    """Sites short of power, six services that share variants: a search tree of thousands. With 16
    sites asked `times` 3 as much, one that is far from its end after 30 s.
    """
    ids = [f"s{i}" for i in range(sites)]
    variants = [f"v{i}" for i in range(6)]
    return b.problem(
        sites=[
            b.site(
                one,
                budget_w=1_300.0 + 97.0 * (i % 4),
                pools=[b.pool(count=5 + i % 3, price=1.0 + 0.137 * (i * 5 % 7))],
            )
            for i, one in enumerate(ids)
        ],
        links=[
            b.link(ids[0], one, price=2.0 + 0.73 * (i * 5 % 9)) for i, one in enumerate(ids[1:])
        ],
        markets=[b.market(accesses={ids[0]: 1.0})],
        variants=[b.variant(v) for v in variants],
        points=[
            b.point(
                v,
                accelerators=size,
                decode_tok_s=(400.0 + 90.0 * (i * 3 % 8)) * size**0.9,
                full_w=(230.0 + 31.0 * i) * size,
            )
            for i, v in enumerate(variants)
            for size in (1, 2, 3)
        ],
        services={
            f"svc{i}": [v, variants[(i + 1) % len(variants)]] for i, v in enumerate(variants)
        },
        classes=[
            b.traffic_class(
                f"c{i}",
                service_id=f"svc{i}",
                rate_rps=times * (3.3 + 2.7 * i),
                bytes_per_request=2e3 * (i + 1),
            )
            for i in range(len(variants))
        ],
        plan_policy=replace(b.DEFAULT_POLICY, node_limit=node_limit),
    )
