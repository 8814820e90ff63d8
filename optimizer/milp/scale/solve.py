"""The large search from a problem to a checked outcome: prices, bound, plan, the checker's word.

Decides in what order things are made and when to stop: at the gap asked for, when passes save
nothing more, or at the time limit (an outer abort; the plan then says so). What it cannot do yet
`unsuited` says; such problems take the whole formulation.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from optimizer.costs import relative_gap
from optimizer.milp.scale.ascent import clear, opening_prices, sampled_arcs
from optimizer.milp.scale.bound import bound_by_components
from optimizer.milp.scale.frame import take_frame
from optimizer.milp.scale.ledger import Ledger, relaxed_use
from optimizer.milp.scale.plan_search import Effort, Search, dive, improve, narrow_classes
from optimizer.milp.scale.price_lp import relax
from optimizer.milp.scale.to_plan import plan_of, take_up
from optimizer.milp.scale.trim import trim_links
from optimizer.milp.scale.workers import SerialWorkers, Workers
from optimizer.outcome import Outcome, SolveStatus
from optimizer.plan import Plan
from optimizer.problem import Problem
from optimizer.tables import Tables
from optimizer.tabulate import tabulate
from optimizer.verify import check_plan
from sites.clock import Clock
from sites.units import MS_PER_S

METHOD_LP = "scale: relaxation priced over all arcs"
METHOD_MIP = "scale: components in whole replicas at shared prices"
_STEPS = 200
_PASSES = 4
_NARROW_SITES = 4
_WORTHWHILE = 5e-4


def unsuited(tables: Tables) -> str:
    """Why the large search may not take a problem; "" if it may."""
    problem, classes = tables.problem, tables.classes
    policy = problem.plan_policy
    reasons = {
        "replica bounds": bool(policy.replica_bounds),
        "a move limit": policy.move_limit_replicas is not None,
        "a shedding cap": policy.max_shed_basis_points is not None,
        "a carbon cap": policy.carbon_cap_g_per_h is not None,
        "tenant budgets": any(t.budget_usd_per_h is not None for t in problem.tenants),
        "fixed prices of sites": bool(tables.sites.fixed_usd_per_h.any()),
        "classes spread over sites": bool((classes.spread_sites > 1).any()),
        "classes spread over zones": bool((classes.spread_zones > 1).any()),
        "mean quality floors": bool(classes.mean_quality_floor.any()),
        "latency over the mix": bool(classes.over_mix.any()),
    }
    return ", ".join(reason for reason, holds in reasons.items() if holds)


def solve_at_scale(
    problem: Problem,
    *,
    clock: Clock | None = None,
    start: Plan | None = None,
    workers: Workers | None = None,
) -> Outcome:
    """A checked plan with a proven gap. `start` (an earlier plan) takes the place of the dive.

    `unsuited` must be "". Without a clock there is no time limit. Never raises for lack of time:
    what is not placed when time runs out is shed.
    """
    tables = tabulate(problem)
    assert not unsuited(tables), f"the large search does not know {unsuited(tables)}"
    is_over, hands = _deadline(problem, clock), workers or SerialWorkers()
    gap_limit = problem.plan_policy.gap_limit
    frame = take_frame(tables)
    opening = opening_prices(frame)
    sample = sampled_arcs(frame, opening, hands)
    cleared = clear(frame, sample, prices=opening, steps=_STEPS)
    relaxation = relax(
        frame, cleared, hands, tolerance=min(0.005, max(1e-4, gap_limit / 5)), is_over=is_over
    )
    ledger = Ledger(frame)
    carried = relaxation.part > 1e-6
    support = (relaxation.arcs.row * frame.groups + relaxation.arcs.group)[carried]
    search = Search(
        frame=frame,
        ledger=ledger,
        prices=relaxation.prices,
        workers=hands,
        support=support,
        is_over=is_over,
    )
    effort = Effort(near=3 if len(frame.rate) > 1_000 else 6, gap=gap_limit / 2, nodes=10)
    if start is None:
        narrow = narrow_classes(frame, sites=_NARROW_SITES)
        asked = np.ones(len(frame.rate))
        asked[narrow] = 0.0
        reserves = relaxed_use(frame, relaxation, asked=asked)
        dive(search, reserves=reserves, narrow=narrow, effort=effort)
    else:
        take_up(ledger, start)
    bound, method = relaxation.bound_usd_per_h, METHOD_LP
    for turn in range(_PASSES):
        if relative_gap(ledger.cost_usd_per_h(), bound) <= gap_limit or is_over():
            break
        saved = improve(search, list(frame.components), effort=effort)
        if turn == 0 and relative_gap(ledger.cost_usd_per_h(), bound) > gap_limit:
            whole = bound_by_components(frame, relaxation.prices, hands, is_over=is_over)
            if whole > bound:
                bound, method = whole, METHOD_MIP
        if saved <= _WORTHWHILE * gap_limit * abs(ledger.cost_usd_per_h()):
            break
    trim_links(ledger)
    return _judged(problem, ledger, bound=bound, method=method, is_over=is_over())


def _judged(
    problem: Problem, ledger: Ledger, *, bound: float, method: str, is_over: bool
) -> Outcome:
    hit = "time_limit_s" if is_over else "passes"
    gap = relative_gap(ledger.cost_usd_per_h(), bound)
    hit_limit = "" if gap <= problem.plan_policy.gap_limit else hit
    plan = plan_of(ledger, bound_usd_per_h=bound, method=method, hit_limit=hit_limit)
    violations = check_plan(problem, plan)
    if violations:
        told = "; ".join(v.message() for v in violations[:5])
        return Outcome(
            status=SolveStatus.FAULT,
            plan=None,
            arcs=(),
            pruned=(),
            bound_usd_per_h=bound,
            message=f"the checker refused the plan ({len(violations)} violations): {told}",
        )
    proven = plan.gap <= problem.plan_policy.gap_limit
    return Outcome(
        status=SolveStatus.OPTIMAL if proven else SolveStatus.LIMIT,
        plan=plan,
        arcs=(),
        pruned=(),
        bound_usd_per_h=plan.bound_usd_per_h,
        message="" if proven else f"stopped by {hit}; gap {plan.gap:.2%}",
    )


def _deadline(problem: Problem, clock: Clock | None) -> Callable[[], bool]:
    if clock is None:
        return lambda: False
    end_ms = clock.monotonic_ms() + problem.plan_policy.time_limit_s * MS_PER_S
    return lambda: clock.monotonic_ms() >= end_ms
