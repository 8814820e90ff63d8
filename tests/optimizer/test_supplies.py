"""Which supplies cover a draw: cheapest first, within the carbon cap, against a small LP."""

from __future__ import annotations

from dataclasses import replace

import highspy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optimizer.problem import Problem
from optimizer.supplies import (
    carbon_g_per_w_h,
    clean_room_w,
    cleanest_g_per_h,
    emission_g_per_h,
    supply_price_usd_per_w_h,
    supply_stacks,
)
from sites.fleet import PowerSupply, Site, at_period
from tests.optimizer import builders as b

amounts = st.sampled_from([0.0, 100.0, 250.0, 1_000.0])


@st.composite
def stacked(draw: st.DrawFn) -> tuple[Problem, dict[str, float]]:
    """One or two sites of one to four supplies, with a draw they can cover."""
    sites, drawn = [], {}
    for site_id in "ab"[: draw(st.integers(1, 2))]:
        supplies = [
            b.supply(
                f"k{i}",
                limit_w=draw(amounts),
                price=draw(st.sampled_from([-0.05, 0.0, 0.1, 0.2, 0.25, 0.5])),
                carbon_g=draw(st.sampled_from([0.0, 20.0, 300.0, 700.0])),
            )
            for i in range(draw(st.integers(1, 4)))
        ]
        sites.append(b.site(site_id, supplies=supplies))
        drawn[site_id] = draw(st.floats(0, 1)) * sum(k.limit_w[0] for k in supplies)
    policy = replace(
        b.DEFAULT_POLICY,
        carbon_usd_per_t=draw(st.sampled_from([0.0, 50.0])),
        carbon_cap_g_per_h=draw(st.sampled_from([None, 0.0, 30.0, 100.0, 300.0])),
    )
    return b.problem(sites=sites, plan_policy=policy), drawn


def cheapest_cover(problem: Problem, drawn: dict[str, float]) -> float | None:
    """Least price of covering the draws within the cap (USD/h), by LP; None if none does."""
    lp = highspy.Highs()
    lp.setOptionValue("output_flag", False)
    emitted = []
    for site_id, watts in drawn.items():
        site = problem.fleet.site(site_id)
        taken = [
            lp.addVariable(lb=0, ub=k.limit_w[0], obj=sum(supply_price_usd_per_w_h(problem, k)))
            for k in site.supplies
        ]
        lp.addConstr(sum(taken[1:], start=1.0 * taken[0]) == watts)
        emitted += [
            carbon_g_per_w_h(problem, k) * e for k, e in zip(site.supplies, taken, strict=True)
        ]
    cap = problem.plan_policy.carbon_cap_g_per_h
    if cap is not None:
        lp.addConstr(sum(emitted[1:], start=emitted[0]) <= cap)
    lp.run()
    if lp.getModelStatus() != highspy.HighsModelStatus.kOptimal:
        return None
    return float(lp.getInfo().objective_function_value)


def supply_of(problem: Problem, site_id: str, supply_id: str) -> PowerSupply:
    return next(k for k in problem.fleet.site(site_id).supplies if k.supply_id == supply_id)


@settings(max_examples=300, deadline=None)
@given(stacked())
def test_the_cover_is_the_cheapest_within_the_cap(case: tuple[Problem, dict[str, float]]) -> None:
    problem, drawn = case
    uses = supply_stacks(problem, drawn)
    cap = problem.plan_policy.carbon_cap_g_per_h
    best = cheapest_cover(problem, drawn)

    for site_id, watts in drawn.items():
        covered = sum(u.power_w for u in uses if u.site_id == site_id)
        assert covered == pytest.approx(watts, rel=1e-9, abs=1e-9)
    for use in uses:
        limit = at_period(supply_of(problem, use.site_id, use.supply_id).limit_w, 0)
        assert use.power_w <= limit * (1 + 1e-9) + 1e-9
    price = sum(
        u.power_w
        * sum(supply_price_usd_per_w_h(problem, supply_of(problem, u.site_id, u.supply_id)))
        for u in uses
    )
    if best is None:
        assert cap is not None
        least = sum(
            cleanest_g_per_h(problem, problem.fleet.site(s), watts=w) for s, w in drawn.items()
        )
        assert emission_g_per_h(problem, uses) == pytest.approx(least, rel=1e-9, abs=1e-6)
        assert least > cap - 1e-6
    else:
        assert cap is None or emission_g_per_h(problem, uses) <= cap * (1 + 1e-9) + 1e-6
        assert price == pytest.approx(best, rel=1e-6, abs=1e-9)


def clean_site() -> tuple[Problem, Site]:
    """300 W of sun at 0 g/kWh and 1000 W of grid at 500 g/kWh."""
    site = b.site(
        supplies=[
            b.supply("grid", limit_w=1e3, carbon_g=500.0),
            b.supply("sun", limit_w=300.0, price=0.4),
        ]
    )
    return b.problem(sites=[site]), site


def test_what_a_cap_leaves_is_taken_from_the_cleanest_supplies_first() -> None:
    problem, site = clean_site()

    assert cleanest_g_per_h(problem, site, watts=500.0) == pytest.approx(100.0)
    assert clean_room_w(problem, site, watts=100.0, spare_g_per_h=50.0) == pytest.approx(300.0)
    assert clean_room_w(problem, site, watts=500.0, spare_g_per_h=50.0) == pytest.approx(100.0)
    assert clean_room_w(problem, site, watts=500.0, spare_g_per_h=-1.0) == 0.0
    assert clean_room_w(problem, site, watts=0.0, spare_g_per_h=1e9) == pytest.approx(1_300.0)


def test_just_so_much_is_bought_clean_that_the_cap_holds() -> None:
    problem, _ = clean_site()
    capped = replace(problem, plan_policy=replace(problem.plan_policy, carbon_cap_g_per_h=100.0))
    free = {u.supply_id: u.power_w for u in supply_stacks(problem, {"a": 400.0})}
    kept = {u.supply_id: u.power_w for u in supply_stacks(capped, {"a": 400.0})}

    assert free == {"grid": 400.0}
    assert kept == pytest.approx({"grid": 200.0, "sun": 200.0})
