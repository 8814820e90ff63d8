"""What our search at scale is compared with: HiGHS on the whole, a random split (POP), greedy.

HiGHS gets the matrix of the array compiler with every arc, `arc_link` rows left out. Neither it nor
POP pays for what the loss of a site would leave unserved: in their favour. POP splits the
classes at random into equal parts and every pool, budget and supply into as many, solves each part
as a problem of its own with its part of the time, and adds up; it has no bound.
"""

from __future__ import annotations

import random
import time
from dataclasses import replace
from typing import Any

import highspy

from benchmarks.fleets.tables import data_folder
from benchmarks.fleets.tiers import tier
from optimizer.arcs import find_arcs
from optimizer.greedy import greedy_plan
from optimizer.milp.arrays import compile_arrays, hand_over
from optimizer.problem import Problem
from optimizer.sweep import Sweep
from optimizer.tabulate import tabulate
from sites.fleet import HardwarePool, Site

ARCS_MOST = {"HiGHS on the whole": 3_000_000, "POP, 4 parts": 12_000_000, "greedy": 2_000_000}
PARTS = 4


def measure(*, peer: str, name: str, limit_s: float) -> dict[str, Any]:
    """Cost, bound and wall seconds of one peer on one tier (in a child process)."""
    problem = tier(name, data=data_folder())
    tables = tabulate(problem)
    sweep = Sweep(tables)
    arcs = sum(len(sweep.arcs_of(d).group) for d in range(tables.classes.count))
    if arcs > ARCS_MOST[peer]:
        message = f"not tried: {arcs / 1e6:.1f} million arcs, over {ARCS_MOST[peer] / 1e6:g}"
        return {"cost": None, "message": message, "wall_s": 0.0}
    started = time.perf_counter()
    if peer == "greedy":
        plan = greedy_plan(problem, find_arcs(problem).arcs)
        found: dict[str, Any] = {"cost": plan.cost.total_usd_per_h, "bound": None}
    elif peer == "POP, 4 parts":
        costs = [_highs(part, limit_s / PARTS)["cost"] for part in parts(problem, PARTS)]
        known = [c for c in costs if c is not None]
        found = {"cost": sum(known) if len(known) == PARTS else None, "bound": None}
    else:
        found = _highs(problem, limit_s)
    message = "no plan within the limit" if found["cost"] is None else ""
    return {**found, "message": message, "wall_s": time.perf_counter() - started}


def _highs(problem: Problem, limit_s: float) -> dict[str, Any]:
    """HiGHS on every arc; the time limit counts from the compiling on."""
    started = time.perf_counter()
    tables = tabulate(problem)
    matrix = compile_arrays(tables, Sweep(tables).table())
    highs = highspy.Highs()
    options = {"output_flag": False, "threads": 1, "mip_rel_gap": problem.plan_policy.gap_limit}
    for option, value in options.items():
        highs.setOptionValue(option, value)
    hand_over(highs, matrix)
    left_s = max(1.0, limit_s - (time.perf_counter() - started))
    highs.setOptionValue("time_limit", left_s)
    highs.run()
    info = highs.getInfo()
    feasible = info.primal_solution_status == highspy.SolutionStatus.kSolutionStatusFeasible
    bound = float(info.mip_dual_bound)
    return {
        "cost": float(info.objective_function_value) if feasible else None,
        "bound": bound if bound > -highspy.kHighsInf else None,
    }


def parts(problem: Problem, count: int) -> list[Problem]:
    """The problem split at random: classes dealt out, every limit shared evenly."""
    chance = random.Random(problem.plan_policy.seed)
    dealt = list(problem.classes)
    chance.shuffle(dealt)
    made = []
    for part in range(count):
        mine = {c.class_id for c in dealt[part::count]}
        made.append(
            replace(
                problem,
                classes=tuple(c for c in problem.classes if c.class_id in mine),
                fleet=replace(
                    problem.fleet,
                    sites=tuple(_share(s, part=part, count=count) for s in problem.fleet.sites),
                    links=tuple(
                        replace(k, bandwidth_bps=k.bandwidth_bps / count)
                        for k in problem.fleet.links
                    ),
                ),
            )
        )
    return made


def _share(site: Site, *, part: int, count: int) -> Site:
    pools: list[HardwarePool] = []
    for at, pool in enumerate(site.pools):
        rest = (part + at) % count < pool.count % count
        pools.append(replace(pool, count=pool.count // count + rest))
    return replace(
        site,
        pools=tuple(pools),
        power_budget_w=tuple(w / count for w in site.power_budget_w),
        supplies=tuple(
            replace(s, limit_w=tuple(w / count for w in s.limit_w)) for s in site.supplies
        ),
    )
