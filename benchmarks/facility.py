"""Capacitated facility location as ordinary fleets, beside HiGHS on the textbook formulation.

The 37 OR-Library instances together within 60 s, and generated ones of 100 sites and 1 000 classes
to a gap of 1e-4.
"""

from __future__ import annotations

import csv
import time

import numpy as np

from benchmarks.fleets import CFLP_INSTANCES, cflp, facility_location
from benchmarks.fleets.facility import Facilities, generated, read_cflp
from benchmarks.fleets.tables import data_folder
from benchmarks.report import head, line, ratio
from benchmarks.textbook import INF, Answer, Programme, minimise
from optimizer.outcome import Outcome
from optimizer.problem import Problem
from optimizer.solve import solve
from sites.clock import SystemClock

LIMIT_S = 60.0
SITES, CLASSES, GAP, RATIOS = 100, 1_000, 1e-4, (20.0, 10.0, 5.0)
PEER_LIMIT_S = 300.0


def run() -> None:
    """Print times, worst distance to the published optima, gaps."""
    _library()
    _generated()


def _library() -> None:
    head("The 37 OR-Library facility location instances")
    folder = data_folder() / "cflp"
    with (folder / "optima.csv").open(encoding="utf-8", newline="") as table:
        optima = {row["instance"]: float(row["optimum"]) for row in csv.DictReader(table)}
    own_s = peer_s = worst = 0.0
    without = []
    for name in CFLP_INSTANCES:
        outcome, taken_s = _timed(cflp(folder / f"{name}.txt"))
        own_s += taken_s
        peer_s += textbook(read_cflp(folder / f"{name}.txt"), gap=5e-7, limit_s=LIMIT_S).wall_s
        if outcome.plan is None:
            without.append(name)
            continue
        cost = outcome.plan.cost.total_usd_per_h
        worst = max(worst, abs(cost - optima[name]) / optima[name])
    line("instances without a plan", ", ".join(without) or "none")
    line("plans against the published optima", f"{worst:.1e} off at the most (whole basis points)")
    line("solve, all together", f"{own_s:.1f} s")
    line("HiGHS on the textbook rows", f"{peer_s:.1f} s")
    ratio("solve", own_s / LIMIT_S, of="the limit of 60 s")
    ratio("solve", own_s / peer_s, of="HiGHS on the textbook rows")


def _generated() -> None:
    for ratio_to_demand in RATIOS:
        head(
            f"Facility location, {SITES} sites x {CLASSES} classes, "
            f"throughput {ratio_to_demand:g} x demand, to gap {GAP:g}"
        )
        problem = facility_location(
            sites=SITES, classes=CLASSES, ratio=ratio_to_demand, gap_limit=GAP
        )
        outcome, own_s = _timed(problem)
        if outcome.plan is None:
            line("solve", f"{outcome.status} after {own_s:.1f} s: {outcome.message}")
        else:
            line("solve", f"gap {outcome.plan.gap:.1e} ({outcome.plan.method}) in {own_s:.1f} s")
        given = generated(sites=SITES, classes=CLASSES, seed=0, ratio=ratio_to_demand)
        peer = textbook(given, gap=GAP, limit_s=PEER_LIMIT_S)
        if peer.cost is None:
            line("HiGHS on the textbook rows", f"no point in {peer.wall_s:.1f} s")
        else:
            gap = (peer.cost - peer.bound) / peer.cost
            line("HiGHS on the textbook rows", f"gap {gap:.1e} in {peer.wall_s:.1f} s")
        ratio("solve", own_s / peer.wall_s, of="HiGHS on the textbook rows")


def _timed(problem: Problem) -> tuple[Outcome, float]:
    started = time.perf_counter()
    outcome = solve(problem, clock=SystemClock())
    return outcome, time.perf_counter() - started


def textbook(given: Facilities, *, gap: float, limit_s: float) -> Answer:
    """``min f y + c x`` with all demand served, ``sum_j d_j x_ij <= u_i y_i`` and ``x_ij <= y_i``;
    x is the part of a customer's demand.
    """
    m, k = len(given.throughput_rps), len(given.demand_rps)
    demand = np.array(given.demand_rps)
    price = np.array(given.all_usd_per_h)  # customer, facility
    arc = np.arange(m * k)
    customer, facility = np.divmod(arc, m)
    one = np.ones(m * k)
    programme = Programme(
        cost=np.concatenate([np.array(given.fixed_usd_per_h), price.ravel()]),
        high=np.concatenate([np.ones(m), one]),
        whole=np.concatenate([np.ones(m, dtype=bool), np.zeros(m * k, dtype=bool)]),
        entries=(
            (customer, m + arc, one),
            (k + facility, m + arc, demand[customer]),
            (k + np.arange(m), np.arange(m), -np.array(given.throughput_rps)),
            (k + m + arc, m + arc, one),
            (k + m + arc, facility, -one),
        ),
        row_low=np.concatenate([np.ones(k), np.full(m + m * k, -INF)]),
        row_high=np.concatenate([np.ones(k), np.zeros(m + m * k)]),
    )
    return minimise(programme, gap=gap, limit_s=limit_s)
