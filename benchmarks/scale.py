"""Time to a proven gap at tiers S to XL, beside HiGHS on the whole, a random split and greedy.

The split is POP's. Each runs in a process of its own under the tier's time limit. All gaps are
against our bound, so that methods without one can be compared; the bound a method proves itself
stands beside it. Then warm re-plans after a change of price, of demand and of the sites. Plots: gap
over time (our solve under ever longer limits) and over size the time to several gaps.
"""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.child import in_child
from benchmarks.fleets.tables import data_folder
from benchmarks.fleets.tiers import TIERS, tier
from benchmarks.plots import Line, write_lines
from benchmarks.report import head, line, ratio
from optimizer.milp.scale.workers import ThreadWorkers
from optimizer.outcome import Outcome, SharedPrices
from optimizer.plan import Plan
from optimizer.problem import Problem
from optimizer.solve import solve
from sites.clock import SystemClock
from sites.fleet import SupplyKind

DOCS = Path(__file__).resolve().parents[1] / "docs"
PARTS_OF_THE_LIMIT = (0.1, 0.2, 0.4, 0.7, 1.0)
GRACE = 6.0
"""A child gets so many times the limit before it is stopped."""
GAPS_PERCENT = (20.0, 10.0, 5.0, 2.0)
REPLAN_PART = 0.1
MEMORY_LIMIT_MIB = 8_192
PEERS = ("HiGHS on the whole", "POP, 4 parts", "greedy")
CHANGED_PART = 0.05


def run() -> None:
    """Print every tier's figures and write the plots."""
    gap_lines: dict[str, Line] = {}
    for name, size in TIERS.items():
        head(f"Scale tier {name}: {size.sites} sites, {size.models} models, {size.classes} classes")
        found = _ours(name, limit_s=size.time_limit_s, replan=True)
        if found is None:
            continue
        if found["gap"] is not None:
            gap_lines[name] = _over_time(name, found)
            _peers(name, bound=found["bound"], limit_s=size.time_limit_s)
    write_plots(gap_lines)


def write_plots(gap_lines: dict[str, Line]) -> None:
    """Plots of gaps over time by tier, and of the time to several gaps over size."""
    if gap_lines:
        write_lines(
            DOCS / "benchmark-gap-over-time.svg",
            list(gap_lines.values()),
            title="Proven gap over time",
            x="seconds (log)",
            y="gap, % (log)",
        )
    levels = [_over_size(gap_lines, percent) for percent in GAPS_PERCENT]
    if any(one.points for one in levels):
        write_lines(
            DOCS / "benchmark-time-over-size.svg",
            [one for one in levels if one.points],
            title="Time to a proven gap over size, tiers S to XL",
            x="sites (log)",
            y="seconds (log)",
        )


def _over_size(gap_lines: dict[str, Line], percent: float) -> Line:
    """When each tier's gap was first at most so much; tiers that never came to it are left out."""
    points = []
    for name, one in gap_lines.items():
        reached = [wall_s for wall_s, gap in one.points if gap <= percent]
        if reached:
            points.append((float(TIERS[name].sites), min(reached)))
    return Line(name=f"gap {percent:g} %", points=tuple(points))


def _ours(name: str, *, limit_s: float, replan: bool) -> dict[str, Any] | None:
    found = in_child(
        "benchmarks.scale:ours",
        timeout_s=GRACE * limit_s + 120,
        name=name,
        limit_s=limit_s,
        replan=replan,
    )
    if isinstance(found, str):
        line("solve", found)
        return None
    if not replan:
        return found
    line("solve", _text(found))
    line("method, stopped by", f"{found['method']}, {found['hit_limit'] or 'nothing'}")
    line("shed", f"{found['shed_part']:.3%} of the output tokens")
    if found["gap"] is not None:
        ratio("gap", found["gap"] / TIERS[name].gap_limit, of="the gap asked for")
    ratio("time", found["wall_s"] / limit_s, of=f"the limit of {limit_s:g} s")
    ratio("memory", found["peak_mib"] / MEMORY_LIMIT_MIB, of="8 GiB")
    for change, again in found["replans"].items():
        line(f"re-plan after {change}", _text(again))
        ratio(f"re-plan after {change}", again["wall_s"] / found["wall_s"], of="the first plan")
    return found


def _text(found: dict[str, Any]) -> str:
    if found["gap"] is None:
        return f"{found['status']} after {found['wall_s']:.1f} s: {found['message']}"
    memory = f", {found['peak_mib']:.0f} MiB" if "peak_mib" in found else ""
    return (
        f"${found['cost']:.2f}/h, bound ${found['bound']:.2f}/h, gap {found['gap']:.2%} "
        f"in {found['wall_s']:.1f} s{memory}"
    )


def _over_time(name: str, full: dict[str, Any]) -> Line:
    """Our gap under ever shorter limits."""
    points = []
    limit_s = TIERS[name].time_limit_s
    for part in PARTS_OF_THE_LIMIT[:-1]:
        if part * limit_s >= full["wall_s"]:
            break
        found = _ours(name, limit_s=part * limit_s, replan=False)
        if found is not None and found["gap"] is not None:
            gap = (found["cost"] - full["bound"]) / found["cost"]
            line(f"after {part * limit_s:g} s", f"gap {found['gap']:.2%} ({gap:.2%} to the bound)")
            points.append((found["wall_s"], 100 * max(found["gap"], 1e-5)))
    points.append((full["wall_s"], 100 * max(full["gap"], 1e-5)))
    return Line(name=f"tier {name}", points=tuple(sorted(points)))


def _peers(name: str, *, bound: float, limit_s: float) -> None:
    for peer in PEERS:
        found = in_child(
            "benchmarks.scale_peers:measure",
            timeout_s=GRACE * limit_s + 120,
            peer=peer,
            name=name,
            limit_s=limit_s,
        )
        if isinstance(found, str):
            line(peer, found)
            continue
        if found["cost"] is None:
            line(peer, f"{found['message']} ({found['wall_s']:.1f} s, {found['peak_mib']:.0f} MiB)")
            continue
        gap = (found["cost"] - bound) / found["cost"]
        own = "none" if found["bound"] is None else f"${found['bound']:.2f}/h"
        line(
            peer,
            f"${found['cost']:.2f}/h, own bound {own}, gap {gap:.2%} to ours in "
            f"{found['wall_s']:.1f} s, {found['peak_mib']:.0f} MiB",
        )


def ours(*, name: str, limit_s: float, replan: bool) -> dict[str, Any]:
    """Our solve of a tier, and with `replan` its warm re-plans (in a child process)."""
    problem = with_limit(tier(name, data=data_folder()), limit_s)
    outcome, wall_s = _timed(problem, start=None, known=None)
    found = _figures(problem, outcome, wall_s)
    if replan and outcome.plan is not None:
        found["replans"] = {
            change: _figures(changed, *_timed(changed, start=outcome.plan, known=outcome.prices))
            for change, changed in changes(problem, outcome.plan, limit_s=limit_s).items()
        }
    return {"replans": {}, **found}


def with_limit(problem: Problem, limit_s: float) -> Problem:
    """The problem under another time limit."""
    return replace(problem, plan_policy=replace(problem.plan_policy, time_limit_s=limit_s))


def changes(problem: Problem, plan: Plan, *, limit_s: float) -> dict[str, Problem]:
    """A dearer grid at every 20th site, more traffic in every 20th class, the busiest site lost;
    each with what runs now and a tenth of the time.
    """
    every = round(1 / CHANGED_PART)
    sites = tuple(
        replace(
            site,
            supplies=tuple(
                replace(s, price_usd_per_kwh=tuple(1.5 * p for p in s.price_usd_per_kwh))
                if s.kind is SupplyKind.GRID
                else s
                for s in site.supplies
            ),
        )
        if at % every == 0
        else site
        for at, site in enumerate(problem.fleet.sites)
    )
    classes = tuple(
        replace(one, rate_rps=tuple(1.2 * r for r in one.rate_rps)) if at % every == 0 else one
        for at, one in enumerate(problem.classes)
    )
    held: dict[str, int] = {}
    for group in plan.groups:
        held[group.group.site_id] = held.get(group.group.site_id, 0) + group.replicas
    busiest = max(sorted(held), key=lambda s: held[s])
    now = with_limit(problem, REPLAN_PART * limit_s)
    return {
        "a price change": replace(now, fleet=replace(now.fleet, sites=sites)),
        "a demand change": replace(now, classes=classes),
        "the loss of a site": replace(now, lost_sites=(busiest,)),
    }


def _timed(
    problem: Problem, *, start: Plan | None, known: SharedPrices | None
) -> tuple[Outcome, float]:
    started = time.perf_counter()
    workers = ThreadWorkers(os.cpu_count() or 1)
    outcome = solve(problem, clock=SystemClock(), start=start, workers=workers, known=known)
    return outcome, time.perf_counter() - started


def _figures(problem: Problem, outcome: Outcome, wall_s: float) -> dict[str, Any]:
    plan = outcome.plan
    found: dict[str, Any] = {
        "status": str(outcome.status),
        "message": outcome.message,
        "wall_s": wall_s,
        "gap": None,
    }
    if plan is None:
        return found
    tokens = {c.class_id: c.rate_rps[0] * c.output_tokens for c in problem.classes}
    shed = sum(tokens[s.class_id] * s.basis_points for s in plan.shed) / 10_000
    return found | {
        "gap": plan.gap,
        "cost": plan.cost.total_usd_per_h,
        "bound": plan.bound_usd_per_h,
        "method": plan.method,
        "hit_limit": plan.hit_limit,
        "shed_part": shed / sum(tokens.values()),
    }
