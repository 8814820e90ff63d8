"""What the best plan of a problem would cost if shares were real numbers: what no bound may pass.

A finished plan comes in whole basis points and may shed, or leave exposed to a loss, up to a basis
point less of each class than the optimum does. At shed prices that is more than any tolerance of a
solver, so a valid bound may lie above what such a plan costs.
"""

from __future__ import annotations

from math import inf

from optimizer.arcs import find_arcs
from optimizer.milp.constraints_survive import SurvivalCut, survive_one
from optimizer.milp.elastic import mending_slack
from optimizer.milp.formulate import attempt, formulate
from optimizer.milp.highs import Point, PointStatus
from optimizer.milp.survive import Losses
from optimizer.problem import Problem
from optimizer.reach import Reach
from optimizer.verify_limits import is_above
from sites.units import WHOLE_BP

SLACK = 1e-6
"""Relative, and in USD/h: what solvers and the gap of their search leave open."""


def optimum_usd_per_h(problem: Problem) -> float:
    """Cost of the solver's point before shares are rounded, with what its losses leave exposed; inf
    where no plan fits.
    """
    arcs = find_arcs(problem).arcs
    slack, reach = mending_slack(problem, arcs), Reach(problem)
    cuts: list[SurvivalCut] = []
    while True:
        formulation = formulate(problem, arcs, slack=slack)
        if cuts:
            survive_one(formulation, cuts)
        made = attempt(formulation)
        if made.point.status is PointStatus.INFEASIBLE:
            return inf
        assert made.point.status is PointStatus.PROVEN
        groups = [facts.option.group for facts in made.inputs.groups.values()]
        new = _broken(Losses(reach, groups), made.point)
        if not new:
            return made.point.cost
        cuts += new


def most_usd_per_h(problem: Problem) -> float:
    """What no bound may pass: the optimum and what solvers leave open."""
    best = optimum_usd_per_h(problem)
    return best + SLACK * (1 + abs(best))


def _broken(losses: Losses, point: Point) -> list[SurvivalCut]:
    """Cuts of the point's own replicas and shed traffic (not rounded) that it does not pay for."""
    n, shed, risk = (point.values.get(name, {}) for name in ("n", "shed", "risk"))
    whole = {group_id: float(round(count)) for group_id, count in n.items()}
    shed_bp = {c: rate / losses.reach.rates[c] * WHOLE_BP for c, rate in shed.items()}
    return [
        cut
        for site_id in losses.sites()
        for cut in losses.recourse(site_id).cuts(n=whole, shed_bp=shed_bp)
        if is_above(
            cut.risk_usd_per_h(n=whole, shed=shed),
            sum(risk.get((site_id, part), 0.0) for part in cut.parts),
        )
    ]
