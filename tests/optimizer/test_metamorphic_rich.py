"""What must hold between the optima of two related problems with every row family on."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from optimizer.problem import Problem
from sites.catalog import Variant
from sites.fleet import HardwarePool, Ownership
from sites.traffic import TrafficClass
from tests.optimizer import builders as b
from tests.optimizer.test_metamorphic import no_more, optimum, with_sites

EXAMPLES = 30


def with_pools(problem: Problem, **change: object) -> Problem:
    """The problem with every pool changed."""

    def changed(pool: HardwarePool) -> HardwarePool:
        return replace(pool, **change)  # type: ignore[arg-type]

    sites = tuple(replace(s, pools=tuple(changed(p) for p in s.pools)) for s in problem.fleet.sites)
    return with_sites(problem, sites)


def with_classes(problem: Problem, **change: object) -> Problem:
    """The problem with every class changed."""

    def changed(one: TrafficClass) -> TrafficClass:
        return replace(one, **change)  # type: ignore[arg-type]

    return replace(problem, classes=tuple(changed(c) for c in problem.classes))


@settings(max_examples=EXAMPLES, deadline=None)
@given(b.rich_problems(), st.sampled_from([(0.0, 0.6), (0.6, 0.75), (0.75, 0.99)]))
def test_a_stricter_mean_quality_never_costs_less(
    problem: Problem, floors: tuple[float, float]
) -> None:
    loose, strict = (with_classes(problem, mean_quality_floor=floor) for floor in floors)
    assert no_more(optimum(loose), optimum(strict))


@settings(max_examples=EXAMPLES, deadline=None)
@given(b.rich_problems(), st.sampled_from([(None, 9.0), (9.0, 2.0), (2.0, 0.0)]))
def test_a_smaller_budget_never_costs_less(
    problem: Problem, budgets: tuple[float | None, float]
) -> None:
    more, less = (
        replace(problem, tenants=tuple(replace(t, budget_usd_per_h=b) for t in problem.tenants))
        for b in budgets
    )
    assert no_more(optimum(more), optimum(less))


@settings(max_examples=EXAMPLES, deadline=None)
@given(b.rich_problems(), st.sampled_from([(None, 80.0), (80.0, 25.0), (25.0, 0.0)]))
def test_a_lower_carbon_cap_never_costs_less(
    problem: Problem, caps: tuple[float | None, float]
) -> None:
    high, low = (
        replace(problem, plan_policy=replace(problem.plan_policy, carbon_cap_g_per_h=cap))
        for cap in caps
    )
    assert no_more(optimum(high), optimum(low))


@settings(max_examples=EXAMPLES, deadline=None)
@given(b.rich_problems(), st.sampled_from([(0.0, 0.1), (0.1, 1.5), (1.5, 20.0)]))
def test_more_interruptions_never_cost_less(problem: Problem, often: tuple[float, float]) -> None:
    calm, harsh = (
        with_pools(problem, ownership=Ownership.SPOT, interruption_per_h=one) for one in often
    )
    assert no_more(optimum(calm), optimum(harsh))


@settings(max_examples=EXAMPLES, deadline=None)
@given(b.rich_problems(), st.sampled_from([10_500.0, 14_000.0, 40_000.0]), st.floats(1, 4))
def test_more_memory_never_costs_more(problem: Problem, memory_mib: float, factor: float) -> None:
    small, large = (
        with_pools(problem, memory_mib_per_accelerator=one)
        for one in (memory_mib, memory_mib * factor)
    )
    assert no_more(optimum(large), optimum(small))


@settings(max_examples=EXAMPLES, deadline=None)
@given(b.rich_problems(), st.sampled_from([0.0, 1e6, 2e7]), st.floats(1, 4))
def test_a_larger_kv_cache_never_costs_less(
    problem: Problem, kv_bytes: float, factor: float
) -> None:
    def with_kv(per_token: float) -> Problem:
        def changed(one: Variant) -> Variant:
            return replace(one, kv_bytes_per_token=per_token)

        variants = tuple(changed(v) for v in problem.catalog.variants)
        return replace(problem, catalog=replace(problem.catalog, variants=variants))

    assert no_more(optimum(with_kv(kv_bytes)), optimum(with_kv(kv_bytes * factor)))


@settings(max_examples=EXAMPLES, deadline=None)
@given(b.rich_problems(), st.sampled_from([(0.0, 4_000.0), (4_000.0, 4_097.0)]))
def test_longer_contexts_never_cost_less(problem: Problem, longest: tuple[float, float]) -> None:
    short, long = (with_classes(problem, context_tokens=one) for one in longest)
    assert no_more(optimum(short), optimum(long))


@settings(max_examples=EXAMPLES, deadline=None)
@given(b.rich_problems(), st.integers(1, 2))
def test_more_zones_never_cost_less(problem: Problem, zones: int) -> None:
    few, many = (with_classes(problem, spread_zones=one) for one in (zones, zones + 1))
    assert no_more(optimum(few), optimum(many))


@settings(max_examples=EXAMPLES, deadline=None)
@given(b.rich_problems())
def test_an_slo_on_the_mix_never_costs_more_than_on_each_arc(problem: Problem) -> None:
    each, mixed = (
        replace(
            problem,
            classes=tuple(replace(c, slo=replace(c.slo, over_mix=on)) for c in problem.classes),
        )
        for on in (False, True)
    )
    assert no_more(optimum(mixed), optimum(each))
