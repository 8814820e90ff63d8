"""Rounds of master and sweep: rows where a point breaks them, arcs where replicas would pay.

Decides when the master is good enough: its bound, which holds for the whole fleet, is within a
tolerance of its cost, or rounds are spent.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from optimizer.milp.scale.catalogue import (
    ComponentArcs,
    cheapest_sites,
    component_arcs,
    full_price,
    next_ingress_arcs,
)
from optimizer.milp.scale.frame import Frame, Positions, Prices
from optimizer.milp.scale.losses import losses_of
from optimizer.milp.scale.master import Master, MasterPoint, Rowed, broken
from optimizer.milp.scale.price_lp import Relaxation, union
from optimizer.milp.scale.priced import duals_of, price_all
from optimizer.milp.scale.workers import Workers

_ROUNDS = 14
_SITES = 4
_ARCS = 6


@dataclass(frozen=True, kw_only=True, slots=True)
class Converged:
    """The last point and the best bound proven (USD/h)."""

    point: MasterPoint
    bound_usd_per_h: float


def converge(
    frame: Frame,
    relaxation: Relaxation,
    workers: Workers,
    *,
    tolerance: float,
    is_over: Callable[[], bool],
) -> Converged:
    """Rounds from the plain relaxation's arcs until bound and cost agree to `tolerance`."""
    losses = losses_of(frame)
    spare, safe = _spare_arcs(frame, relaxation.prices, losses)
    arcs, refuges = union(frame, [relaxation.arcs, *spare]), union(frame, safe)
    none = np.zeros(0, dtype=np.intp)
    rowed, best = Rowed(classes=none, losses=none), relaxation.bound_usd_per_h
    basis = None
    for _ in range(_ROUNDS):
        master = Master(
            frame, arcs, refuges=refuges, rowed=rowed, shed_usd_per_h=frame.shed_usd_per_h
        )
        point = master.solve(basis)
        basis, more = point.basis, broken(frame, point, losses=losses)
        grown = len(more.classes) + len(more.losses) - len(rowed.classes) - len(rowed.losses)
        if is_over():
            break
        priced = price_all(frame, duals_of(point), workers, count=_ARCS)
        best = max(best, priced.bound_usd_per_h)
        is_near = point.cost - best <= tolerance * abs(point.cost)
        settled = grown <= 0.002 * len(frame.rate)
        nothing_new = grown == 0 and not any(one.count for one in (*priced.wanted, *priced.refuges))
        if nothing_new or (is_near and settled):
            break
        rowed, arcs = more, union(frame, [arcs, *priced.wanted])
        refuges = union(frame, [refuges, *priced.refuges])
    return Converged(point=point, bound_usd_per_h=best)


def _spare_arcs(
    frame: Frame, prices: Prices, losses: Positions
) -> tuple[list[ComponentArcs], list[ComponentArcs]]:
    """Arcs of protected classes to the cheapest few sites, so that a loss leaves a choice: from
    their ingress, and from the next.
    """
    work_price = frame.work_price(prices)
    exposed = np.unique(losses // len(frame.budget_kw))

    def few(arcs: ComponentArcs) -> ComponentArcs:
        price = full_price(frame, arcs, work_price)
        return arcs.only(cheapest_sites(frame, arcs, price, _SITES))

    lots = [np.intersect1d(classes, exposed) for classes in frame.components]
    stay = [few(component_arcs(frame, lot)) for lot in lots]
    return stay, [few(next_ingress_arcs(frame, lot)) for lot in lots]
