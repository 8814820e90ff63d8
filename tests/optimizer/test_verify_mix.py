"""The checker on mixes, budgets, carbon and spot pools: each broken limit, planted alone, is named.

Also what takes part in them: KV cache, contexts, availability, the price of interruptions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given, settings

from optimizer.arcs import find_arcs, group_options
from optimizer.costs import budget_request_usd, full_request_usd
from optimizer.plan import Plan, PruneReason, RejectReason
from optimizer.problem import Problem
from optimizer.reach import Reach
from optimizer.stock import Stock
from optimizer.verify import check_plan
from sites.catalog import BYTES_PER_MIB
from tests.optimizer import builders as b

A, B = "a/p/v/x1", "b/p/v/x1"
W_AT_A = "a/p/w/x1"


def codes(problem: Problem, plan: Plan) -> list[str]:
    return [violation.code for violation in check_plan(problem, plan)]


def halves(problem: Problem, first: int, groups: tuple[str, str] = (A, B)) -> Plan:
    """Class c: `first` basis points at the first group, the rest at the second."""
    near, far = groups
    return b.plan(
        problem,
        groups={near: 1, far: 1},
        shares={("c", near): first, ("c", far): 10_000 - first},
    )


def _zones() -> tuple[Problem, Plan]:
    problem = b.two_sites(classes=[b.traffic_class(spread_zones=2)])
    return problem, halves(problem, 6_000)


def _zones_of_one_region() -> tuple[Problem, Plan]:
    problem = b.two_sites(classes=[b.traffic_class(spread_zones=2)])
    sites = tuple(replace(s, region="west") for s in problem.fleet.sites)
    problem = replace(problem, fleet=replace(problem.fleet, sites=sites))
    return problem, halves(problem, 5_000)


def _latency_mix() -> tuple[Problem, Plan]:
    """55 ms at a, 65 ms at b: a mean of 62 ms where 60 ms are asked for."""
    problem = b.two_sites(classes=[b.traffic_class(ttft_ms=60.0, over_mix=True)])
    return problem, halves(problem, 3_000)


def _late_beyond_any_mix() -> tuple[Problem, Plan]:
    """65 ms at b is more than 4 x 16 ms, whatever else is served early."""
    problem = b.two_sites(classes=[b.traffic_class(ttft_ms=16.0, over_mix=True)])
    return problem, b.plan(problem, groups={B: 1}, shares={("c", B): 10_000})


def two_variants(**more: object) -> Problem:
    """Variants v (quality 1) and w (quality 0.5) at site a."""
    return b.problem(
        variants=[b.variant("v"), b.variant("w", quality=0.5)],
        points=[b.point("v"), b.point("w")],
        services={"chat": ["v", "w"]},
        classes=[b.traffic_class(**more)],  # type: ignore[arg-type]
    )


def _mean_quality() -> tuple[Problem, Plan]:
    problem = two_variants(mean_quality_floor=0.8)
    return problem, halves(problem, 5_000, (A, W_AT_A))


def _budget() -> tuple[Problem, Plan]:
    """1 replica: hardware 1 USD/h and 300 W at 0.1 USD/kWh, 1.03 USD/h for all of the class."""
    problem = b.problem(budgets={"t": 1.0})
    return problem, b.plan(problem, groups={A: 1}, shares={("c", A): 10_000})


def _carbon() -> tuple[Problem, Plan]:
    """300 W at 500 g/kWh."""
    policy = replace(b.DEFAULT_POLICY, carbon_cap_g_per_h=140.0)
    supplies = [b.supply(carbon_g=500.0)]
    problem = b.problem(sites=[b.site(supplies=supplies)], plan_policy=policy)
    return problem, b.plan(problem, groups={A: 1}, shares={("c", A): 10_000})


def spot(often: float) -> Problem:
    """A spot pool whose replicas take half an hour to start."""
    return b.problem(
        sites=[b.site(pools=[b.pool(interruption_per_h=often)])],
        points=[b.point(start_ms=1_800_000.0)],
    )


def _away_part_of_the_time() -> tuple[Problem, Plan]:
    """One busy replica on one that is there 95 % of the time."""
    problem = spot(0.1)
    return problem, b.plan(problem, groups={A: 1}, shares={("c", A): 10_000})


def _never_there() -> tuple[Problem, Plan]:
    problem = spot(2.0)
    return problem, b.plan(problem, groups={A: 1}, shares={("c", A): 10_000})


def short_of_memory(*, tokens: float) -> Problem:
    """8 requests at a time, 1000 MiB for their KV cache, 2 MiB a token."""
    return b.problem(
        sites=[b.site(pools=[b.pool(memory_mib=11_000.0)])],
        variants=[b.variant(weights_mib=10_000.0, kv_bytes_per_token=2 * BYTES_PER_MIB)],
        classes=[b.traffic_class(output_tokens=tokens)],
    )


def _kv_cache() -> tuple[Problem, Plan]:
    """200 MiB a request leave 5 slots of 8: 1.6 replicas busy where 1 would be."""
    problem = short_of_memory(tokens=100.0)
    return problem, b.plan(problem, groups={A: 1}, shares={("c", A): 10_000})


def _kv_cache_of_one_request() -> tuple[Problem, Plan]:
    """1200 MiB a request."""
    problem = short_of_memory(tokens=600.0)
    return problem, b.plan(problem, groups={A: 4}, shares={("c", A): 500}, shed={"c": 9_500})


def _context() -> tuple[Problem, Plan]:
    problem = b.problem(classes=[b.traffic_class(context_tokens=5_000.0)])
    return problem, b.plan(problem, groups={A: 1}, shares={("c", A): 10_000})


PLANTED = {
    _zones: ["spread"],
    _zones_of_one_region: ["spread"],
    _latency_mix: ["latency_mix"],
    _late_beyond_any_mix: ["latency", "latency_mix"],
    _mean_quality: ["quality_floor"],
    _budget: ["tenant_budget"],
    _carbon: ["carbon_cap"],
    _away_part_of_the_time: ["throughput"],
    _never_there: ["no_serving_point", "throughput"],
    _kv_cache: ["throughput"],
    _kv_cache_of_one_request: ["memory"],
    _context: ["context"],
}


@pytest.mark.parametrize("plant", PLANTED, ids=lambda plant: plant.__name__.strip("_"))
def test_each_broken_limit_is_named_and_nothing_else(
    plant: Callable[[], tuple[Problem, Plan]],
) -> None:
    problem, plan = plant()
    assert codes(problem, plan) == PLANTED[plant]


def test_figures_of_a_mix_are_means() -> None:
    (late,) = check_plan(*_latency_mix())
    (poor,) = check_plan(*_mean_quality())
    assert (late.limit, late.actual) == (60.0, pytest.approx(62.0))
    assert (poor.limit, poor.actual) == (0.8, pytest.approx(0.75))


def test_mixes_that_just_hold_are_clean() -> None:
    problem = b.two_sites(
        classes=[b.traffic_class(ttft_ms=60.0, over_mix=True, spread_zones=2)],
    )
    assert codes(problem, halves(problem, 5_000)) == []
    assert codes(problem, halves(problem, 4_999)) == []  # a basis point of rounding
    assert codes(problem, halves(problem, 4_990)) == ["spread", "latency_mix"]


def test_what_runs_now_may_go_on_emitting_but_no_more() -> None:
    """Two idle replicas emit 100 g/h where 60 g/h are allowed."""
    policy = replace(b.DEFAULT_POLICY, carbon_cap_g_per_h=60.0, move_limit_replicas=0)
    problem = b.problem(
        sites=[b.site(supplies=[b.supply(carbon_g=500.0)])],
        plan_policy=policy,
        running={A: 2},
    )
    idle = b.plan(problem, groups={A: 2}, shares={}, shed={"c": 10_000})
    busy = b.plan(problem, groups={A: 2}, shares={("c", A): 500}, shed={"c": 9_500})
    assert codes(problem, idle) == []
    assert codes(problem, busy) == ["carbon_cap"]


def test_a_spot_replica_pays_for_its_interruptions() -> None:
    """0.1 an hour x half an hour of a 1 USD/h replica that waits."""
    problem = spot(0.1)
    plan = b.plan(problem, groups={A: 2}, shares={("c", A): 10_000})
    assert plan.cost.risk_usd_per_h == pytest.approx(2 * 0.1 * 0.5)
    assert codes(problem, plan) == []


def test_a_request_on_a_spot_replica_pays_for_the_time_it_is_away() -> None:
    reach = Reach(spot(0.1))
    one = b.group(A)
    held = (1.0 + 0.05) / 0.95  # hardware and risk
    watts = 100.0 / 0.95 + 200.0
    assert full_request_usd(reach, "c", group=one, usd_per_w_h=0.001) == pytest.approx(
        (held + watts * 0.001) * 0.1 / 3_600
    )


def test_a_budget_counts_the_dearest_supply_and_no_income() -> None:
    paid = [b.supply("sun", price=-0.5), b.supply(price=0.1)]
    free = [b.supply("sun", price=-0.5)]
    dear, cheap = (Reach(b.problem(sites=[b.site(supplies=s)])) for s in (paid, free))
    assert budget_request_usd(dear, "c", group=b.group(A)) == pytest.approx(1.03 * 0.1 / 3_600)
    assert budget_request_usd(cheap, "c", group=b.group(A)) == pytest.approx(1.0 * 0.1 / 3_600)


@pytest.mark.parametrize(
    ("problem", "reason", "limit", "actual", "unit"),
    [
        (short_of_memory(tokens=600.0), PruneReason.MEMORY, 1_000.0, 1_200.0, "MiB of KV cache"),
        (_context()[0], PruneReason.CONTEXT, 4_096.0, 5_000.0, "tokens"),
        (_late_beyond_any_mix()[0], PruneReason.LATENCY, 64.0, 65.0, "ms to first token"),
        (spot(3.0), PruneReason.NO_SERVING_POINT, 2.0, 3.0, "interruptions/h"),
    ],
    ids=["kv", "context", "mix", "spot"],
)
def test_what_can_never_be_answered_is_pruned_with_its_figures(
    problem: Problem, reason: PruneReason, limit: float, actual: float, unit: str
) -> None:
    found = find_arcs(problem).pruned[-1]
    assert (found.reason, found.unit) == (reason, unit)
    assert (found.limit, found.actual) == pytest.approx((limit, actual))


@given(problem=b.rich_problems())
@settings(max_examples=80, deadline=None)
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
        assert arc.replica_seconds == pytest.approx(reach.replica_seconds(one, arc.group))


def test_budget_and_carbon_stand_in_the_way_of_more() -> None:
    policy = replace(b.DEFAULT_POLICY, carbon_cap_g_per_h=150.0)
    problem = b.problem(
        sites=[b.site(supplies=[b.supply(carbon_g=500.0)])],
        plan_policy=policy,
        budgets={"t": 1.03},
    )
    plan = b.plan(problem, groups={A: 1}, shares={("c", A): 10_000})
    stock = Stock(Reach(problem), plan)
    tight = {t.reason: t for t in stock.in_the_way("c", b.group(A))}

    assert codes(problem, plan) == []
    assert set(tight) == {RejectReason.BUDGET, RejectReason.CARBON}
    assert tight[RejectReason.BUDGET].needed == pytest.approx(1.133)
    assert tight[RejectReason.CARBON].needed == pytest.approx(150.0 + 60.0)
    assert {t.name for t in stock.binding()} == {"budget", "carbon cap"}
