"""What one more unit of each limit of a large fleet is worth.

The figure is a difference of two optima of the relaxation over all arcs (`worth_lp` says what that
counts): with the unit, over the arcs that are in the LP then, and without. Arcs left out could only
make the optimum with the unit cheaper, so the unit saves at least the figure there; by convexity it
saves at most the price of the limit. Where both are one, that is what it saves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from optimizer.milp.scale.ascent import clear, opening_prices, sampled_arcs
from optimizer.milp.scale.frame import Frame, take_frame
from optimizer.milp.scale.price_lp import relax
from optimizer.milp.scale.workers import SerialWorkers, Workers
from optimizer.milp.scale.worth_lp import Part, Place, Solved, WorthLp
from optimizer.problem import Problem
from optimizer.tabulate import tabulate
from optimizer.worth import DUST_USD_PER_H, SOLVED_AGAIN, STEPS, Worth, dearest_first

_STEPS = 200
_NEAR = 1e-5


_EXACT = 0.01
"""A figure this near what the limit's price says, relative, needs no arc left out."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Limit:
    """A limit with a price, and what its unit saves at most (USD/h)."""

    code: str
    subject: str
    place: Place
    at_first_usd_per_h: float


def find_worth_at_scale(
    problem: Problem,
    *,
    workers: Workers | None = None,
    is_over: Callable[[], bool] = lambda: False,
    most: int = SOLVED_AGAIN,
) -> tuple[Worth, ...] | None:
    """Limits that save something when one unit of them is granted, the dearest first (USD/h).

    At most `most` of them, empty where nothing binds. None if `is_over` came before the relaxation
    was solved; where it comes later, of the rest only the most they save is known. Raises
    FatalError if HiGHS errs.
    """
    hands, frame = workers or SerialWorkers(), _unpriced(take_frame(tabulate(problem)))
    opening = opening_prices(frame)
    cleared, _ = clear(frame, sampled_arcs(frame, opening, hands), prices=opening, steps=_STEPS)
    capped = frame.caps.are_priced
    near = relax(frame, cleared, hands, tolerance=_NEAR, is_over=is_over, capped=capped)
    if is_over() or near.basis is None:
        return None
    relaxation = WorthLp(frame, near, hands)
    solved = relaxation.solve(is_over)
    if solved is None:
        return None
    limits = sorted(
        _limits(frame, relaxation, solved),
        key=lambda one: (-one.at_first_usd_per_h, one.code, one.subject),
    )
    found = (_granted(relaxation, solved, one, is_over) for one in limits[:most])
    return dearest_first(one for one in found if one is not None)


def _unpriced(frame: Frame) -> Frame:
    """The frame without fixed prices of sites: a kW more of budget is not a kW to bear them."""
    none = np.zeros(len(frame.budget_kw))
    return frame.with_opening(replace(frame.opening, usd_per_kw_h=none))


def _granted(
    relaxation: WorthLp, solved: Solved, one: _Limit, is_over: Callable[[], bool]
) -> Worth | None:
    """What a unit of a limit saves; None where that is nothing."""
    more, unit = STEPS[one.code]
    enough = solved.cost_usd_per_h - one.at_first_usd_per_h * (1 - _EXACT)
    cost = relaxation.cost_with(one.place, more=more, enough_usd_per_h=enough, is_over=is_over)
    saved = None
    if cost is not None:
        saved = solved.cost_usd_per_h - cost - solved.open_usd_per_h
        if saved <= DUST_USD_PER_H:
            return None
    return Worth(
        code=one.code,
        subject=one.subject,
        unit=unit,
        usd_per_h=None if saved is None else min(saved, one.at_first_usd_per_h),
        at_first_usd_per_h=one.at_first_usd_per_h,
        is_plain=True,
    )


def _limits(frame: Frame, relaxation: WorthLp, solved: Solved) -> Iterator[_Limit]:
    """The limits whose unit may save something."""
    for code, subject, place in _named(frame, relaxation):
        most = float(solved.usd_per_h[place.of][place.at]) * STEPS[code][0]
        if most > DUST_USD_PER_H:
            at_first = most + solved.open_usd_per_h
            yield _Limit(code=code, subject=subject, place=place, at_first_usd_per_h=at_first)


def _named(frame: Frame, relaxation: WorthLp) -> Iterator[tuple[str, str, Place]]:
    """Family and subject of every limit of the relaxation, and its place there."""
    tables = frame.tables
    budgets = {t.tenant_id for t in tables.problem.tenants if t.budget_usd_per_h is not None}
    capped = [tenant_id for tenant_id in tables.tenant_ids if tenant_id in budgets]
    fleet = ["fleet"] if np.isfinite(frame.caps.carbon_kg_per_h) else []
    for code, ids, first in (
        ("pool_accelerators", tables.pools.ids, relaxation.first_pool),
        ("site_power", tables.sites.ids, relaxation.first_power),
        ("tenant_budget", capped, relaxation.first_budget),
        ("carbon_cap", fleet, relaxation.carbon),
    ):
        for at, subject in enumerate(ids, first):
            yield code, subject, Place(of=Part.ROW, at=at)
    for at in relaxation.held.tolist():
        side = relaxation.sides.side(at)
        if side is not None:
            yield side.code, side.subject, Place(of=Part.SIDE, at=at)
    supplies, ranks = tables.supplies, frame.stack.limit_kw.shape[1]
    own = supplies.usd_per_kwh + supplies.carbon_usd_per_kwh
    order = np.lexsort((np.arange(len(own)), own, supplies.site))  # as the stack has them
    site = supplies.site[order].astype(np.intp)
    place = site * ranks + np.arange(len(order)) - np.searchsorted(site, site)
    for at, supply in zip(place.tolist(), order.tolist(), strict=True):
        yield "supply_limit", supplies.ids[supply], Place(of=Part.SUPPLY, at=at)
