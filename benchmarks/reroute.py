"""The reroute table at tiers S to XL: how fast it answers the loss of each site, and at what cost.

Latency limits: 5 ms where nothing changed since the table was filled, 20 ms where the answer is
repaired against what is observed (p99). Where one replica in some groups is missing, the answer is
judged twice: repaired at once, and from a table filled anew for what is observed (`refilled`). What
is repaired says how much dearer it may be; the control loop works a loss out anew, as in a table
filled anew, where that is over 1 % of the plan's cost (`too dear`). The peer of the cost is the
flow programme solved anew with every replica fixed; its shares are not whole basis points. Two of
them are shown: one that may shed protected traffic for dearer, which no reroute may (`plain`), and
one that sheds no more of each protected class than the plan's certificate does, to within the basis
points that shares are rounded by (`kept`). With replicas missing the certificate may be out of
reach; `kept` may then shed as much of a class as the answer. At tiers S and M the control loop is
timed as well, from the loss on (`control_loop`; 20 CPU s).
"""

from __future__ import annotations

import os
import pickle
import random
import statistics
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import highspy
import numpy as np

from benchmarks.child import in_child
from benchmarks.control_loop import LossCost, loss_cost
from benchmarks.fleets.tables import data_folder
from benchmarks.fleets.tiers import TIERS, tier
from benchmarks.report import head, line, ratio
from optimizer.milp.arrays import compile_arrays, hand_over
from optimizer.milp.scale.workers import ThreadWorkers
from optimizer.plan import Plan
from optimizer.problem import Problem, RunningGroup
from optimizer.reach import Reach
from optimizer.reroute import detour_plan, rerouted_problem
from optimizer.reroute_detours import Detour, Detours
from optimizer.reroute_table import RerouteTable
from optimizer.solve import solve
from optimizer.survive import could_be_answered, protected_classes
from optimizer.sweep import Sweep
from optimizer.tables import Tables
from optimizer.tabulate import tabulate
from optimizer.verify import check_plan
from sites.clock import SystemClock
from sites.units import WHOLE_BP

UNCHANGED_LIMIT_MS, REPAIRED_LIMIT_MS, DEARER_LIMIT = 5.0, 20.0, 0.01
CHECKED_SITES = 10
"""Busiest sites whose detour is put into a whole plan, checked and priced."""
FEWER_PART = 0.02
"""Groups of which one replica fewer is seen than planned, in the repaired answers."""
ROUNDED_BP = 2
"""What whole shares may shed of a class that parts need not, in the peer that keeps promises."""
LOOP_TIERS = ("S", "M")
"""Tiers whose routes, (service, tenant, policy) x site, fit a control loop."""
LOOP_LIMIT_S = 20.0
GRACE = 10.0


def run() -> None:
    """Print latency, cost and breaches of every tier."""
    for name, size in TIERS.items():
        head(f"Reroute tier {name}")
        found = in_child(
            "benchmarks.reroute:measure", timeout_s=GRACE * size.time_limit_s + 300, name=name
        )
        if isinstance(found, str):
            line("table", found)
            continue
        if found["message"]:
            line("table", found["message"])
            continue
        _show(found)


def _show(found: dict[str, Any]) -> None:
    line("losses worked out", f"{found['losses']} in {found['fill_s']:.1f} CPU s")
    line("CPU ms per loss", f"{1_000 * found['fill_s'] / max(found['losses'], 1):.1f}")
    line("handed to another process", f"{found['mib']:.1f} MiB, {found['taken_ms']:.0f} CPU ms")
    for kind, limit_ms in (
        ("unchanged", UNCHANGED_LIMIT_MS),
        ("repaired", REPAIRED_LIMIT_MS),
        ("refilled", UNCHANGED_LIMIT_MS),
    ):
        p50, p99 = found[kind]
        line(f"{kind}: p50, p99", f"{p50:.3f} ms, {p99:.3f} ms")
        ratio(f"{kind}: p99", p99 / limit_ms, of=f"{limit_ms:g} ms limit")
    line("repaired, too dear by its own bound", f"{found['too_dear']} of {found['losses']} losses")
    line("one of them worked out anew", f"{found['alone_s']:.2f} CPU s")
    line("breaches in checked plans", f"{found['breaches']} (limit 0)")
    for peer, dearer in found["dearer"].items():
        median, most = statistics.median(dearer), max(dearer)
        line(f"dearer than the flow, {peer}", f"{median:.3%}, at most {most:.3%}")
        ratio(f"dearer, {peer}", most / DEARER_LIMIT, of="1 % limit")
    if found["loop"] is not None:
        _show_loop(LossCost(**found["loop"]))
    line("most of what moves at one site", f"{found['crowd']:.0%} (median over losses)")


def _show_loop(cost: LossCost) -> None:
    line("a loss in the control loop, ready to send", f"{cost.warm_s:.2f} CPU s")
    ratio("the same", cost.warm_s / LOOP_LIMIT_S, of=f"{LOOP_LIMIT_S:g} CPU s limit")
    ratio(
        "the same", cost.warm_s / cost.cold_s, of=f"{cost.cold_s:.1f} CPU s with nothing cut before"
    )
    line("digests worked out ahead of it", f"{cost.ahead_s:.2f} CPU s")
    line("routes made anew", f"{cost.made} of {cost.routes}")


def measure(*, name: str) -> dict[str, Any]:
    """Plan the tier, fill the table, time and judge its answers (in a child process)."""
    problem = tier(name, data=data_folder())
    workers = ThreadWorkers(os.cpu_count() or 1)
    plan = solve(problem, clock=SystemClock(), workers=workers).plan
    if plan is None:
        return {"message": "no plan to reroute"}
    started = time.process_time()
    filled = RerouteTable(problem, plan).filled()
    fill_s = time.process_time() - started
    carried = pickle.dumps(filled)
    started = time.process_time()
    table: Detours = pickle.loads(carried)
    table.standing.warm()
    taken_ms = 1_000 * (time.process_time() - started)
    held = Counter[str]()
    for group in plan.groups:
        held[group.group.site_id] += group.replicas
    sites = sorted(held, key=lambda s: (-held[s], s))
    planned = tuple(RunningGroup(group=g.group, replicas=g.replicas) for g in plan.groups)
    seen, reach = _fewer(problem, plan), Reach(problem)
    refilled = RerouteTable(problem, plan, running=seen).filled()
    judged = _Judged()
    for site_id in sites[:CHECKED_SITES]:
        judged.judge(problem, plan, {"unchanged": table.answer(site_id)})
        answers = {
            "repaired": table.answer(site_id, running=seen),
            "refilled": refilled.answer(site_id, running=seen),
        }
        judged.judge(problem, plan, answers, running=seen)
    return {
        "message": "",
        "losses": len(sites),
        "fill_s": fill_s,
        "mib": len(carried) / 2**20,
        "taken_ms": taken_ms,
        "unchanged": _latency_ms(table, sites, running=planned),
        "repaired": _latency_ms(table, sites, running=seen),
        "refilled": _latency_ms(refilled, sites, running=seen),
        "too_dear": _too_dear(table, sites, running=seen, usd_per_h=plan.cost.total_usd_per_h),
        "alone_s": _alone_s(table, sites[0], running=seen),
        "breaches": judged.breaches,
        "dearer": judged.dearer,
        "loop": _loop(problem, plan, table, site_id=sites[0]) if name in LOOP_TIERS else None,
        "crowd": statistics.median([_crowd(reach, plan, table, site_id=s) for s in sites]),
    }


def _loop(problem: Problem, plan: Plan, table: Detours, *, site_id: str) -> dict[str, Any]:
    """What the control loop does about the loss of a site, as a child process can hand it over."""
    return asdict(loss_cost(problem, plan, table, site_id=site_id))


def _fewer(problem: Problem, plan: Plan) -> tuple[RunningGroup, ...]:
    chance = random.Random(problem.plan_policy.seed)
    return tuple(
        RunningGroup(group=g.group, replicas=g.replicas - (chance.random() < FEWER_PART))
        for g in plan.groups
    )


def _latency_ms(
    table: Detours, sites: list[str], *, running: tuple[RunningGroup, ...]
) -> tuple[float, float]:
    """p50 and p99 over all losses (wall ms)."""
    taken = []
    for site_id in sites:
        started = time.perf_counter()
        table.answer(site_id, running=running)
        taken.append(1_000 * (time.perf_counter() - started))
    return float(np.percentile(taken, 50)), float(np.percentile(taken, 99))


def _too_dear(
    table: Detours, sites: list[str], *, running: tuple[RunningGroup, ...], usd_per_h: float
) -> int:
    """Losses whose repaired answer may be too dear for a plan of some cost."""
    found = [table.answer(s, running=running).dearer_usd_per_h for s in sites]
    return sum(one > DEARER_LIMIT * usd_per_h for one in found)


def _alone_s(table: Detours, site_id: str, *, running: tuple[RunningGroup, ...]) -> float:
    """CPU seconds of one loss worked out for replicas seen, beside a table for others."""
    started = time.process_time()
    RerouteTable.on(table.standing.seeing(running)).detour(site_id)
    return time.process_time() - started


class _Judged:
    """Violations of rerouted plans, and how much dearer they are than the two flows solved anew."""

    def __init__(self) -> None:
        self.breaches = 0
        self.dearer: dict[str, list[float]] = {}

    def judge(
        self,
        problem: Problem,
        plan: Plan,
        detours: Mapping[str, Detour],
        *,
        running: tuple[RunningGroup, ...] | None = None,
    ) -> None:
        """Judge answers, by kind, to one loss with the same replicas."""
        (site_id,) = {one.lost_site_id for one in detours.values()}
        answered = rerouted_problem(problem, plan, lost_sites=(site_id,), running=running)
        plain = _flow_usd_per_h(answered, most_shed_bp={})
        promised = _promised_bp(answered, plan, site_id=site_id)
        for kind, detour in detours.items():
            detoured = detour_plan(problem, plan, detour, running=running)
            shed = {s.class_id: s.basis_points for s in detoured.shed} if running else {}
            most = {c: max(bp, shed.get(c, 0)) for c, bp in promised.items()}
            kept = _flow_usd_per_h(answered, most_shed_bp=most)
            cost = detoured.cost.total_usd_per_h
            self.breaches += len(check_plan(answered, detoured))
            self.dearer.setdefault(f"{kind}, plain", []).append(cost / plain - 1)
            self.dearer.setdefault(f"{kind}, kept", []).append(cost / kept - 1)


def _promised_bp(answered: Problem, plan: Plan, *, site_id: str) -> dict[str, int]:
    """What the certificate sheds of each protected class if a site is lost (basis points)."""
    reach = Reach(answered)
    shed = Counter({s.class_id: s.basis_points for s in plan.shed})
    for risk in plan.exposed:
        if risk.lost_site_id == site_id:
            shed[risk.class_id] += risk.basis_points
    return {
        c: shed[c] if could_be_answered(reach, reach.classes[c]) else WHOLE_BP
        for c in protected_classes(reach)
    }


def _flow_usd_per_h(answered: Problem, *, most_shed_bp: Mapping[str, int]) -> float:
    """The least cost with exactly the replicas that run: every arc to a running group, no share
    whole, of some classes no more shed than so much and what rounding takes.
    """
    tables = tabulate(answered)
    arcs = Sweep(tables).table()
    matrix = compile_arrays(tables, arcs.only(tables.groups.running[arcs.group] > 0))
    period = matrix.horizon[0]
    columns = period.column("n", np.arange(len(period.placeable.group)))
    running = _running(tables, period.placeable.group)
    matrix.lower[columns] = matrix.upper[columns] = running
    matrix.whole[:] = False
    kept = [at for at, class_id in enumerate(tables.classes.ids) if class_id in most_shed_bp]
    most_bp = [most_shed_bp[tables.classes.ids[at]] + ROUNDED_BP for at in kept]
    part = np.minimum(1.0, np.array(most_bp) / WHOLE_BP)
    matrix.upper[period.column("shed", np.array(kept, dtype=np.intp))] = (
        part * tables.classes.rate_rps[kept]
    )
    highs = highspy.Highs()
    highs.setOptionValue("output_flag", False)
    hand_over(highs, matrix)
    highs.run()
    if highs.getModelStatus() != highspy.HighsModelStatus.kOptimal:
        raise RuntimeError(f"the flow programme ended {highs.getModelStatus()}")
    return float(highs.getInfo().objective_function_value)


def _running(tables: Tables, groups: np.ndarray) -> np.ndarray:
    return np.asarray(tables.groups.running[groups], dtype=float)


def _crowd(reach: Reach, plan: Plan, table: Detours, *, site_id: str) -> float:
    """The largest part of all traffic that moves which one site takes (basis points of classes,
    weighted by their output tokens).
    """
    before: dict[str, Counter[str]] = {}
    for share in plan.shares:
        before.setdefault(share.class_id, Counter())[share.site_id] += share.basis_points
    site_of = {g.group.group_id: g.group.site_id for g in plan.groups}
    taken: dict[str, float] = {}
    for class_id, parts in table.answer(site_id).shares.items():
        tokens = reach.rates[class_id] * reach.classes[class_id].output_tokens / WHOLE_BP
        after: Counter[str] = Counter()
        for group_id, basis_points in parts.items():
            after[site_of[group_id]] += basis_points
        for site, basis_points in after.items():
            more = basis_points - before.get(class_id, Counter())[site]
            taken[site] = taken.get(site, 0.0) + max(0, more) * tokens
    total = sum(taken.values())
    return max(taken.values()) / total if total else 0.0
