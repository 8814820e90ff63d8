"""Where the large search begins: the shared limits priced, the whole relaxed, a first bound.

Decides how long prices are looked for and which groups are worth having at them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from optimizer.milp.scale.ascent import Cleared
from optimizer.milp.scale.block import NEAR_MOST
from optimizer.milp.scale.bound import Apart, better_prices, relax_components
from optimizer.milp.scale.carried import still_worth
from optimizer.milp.scale.carried_rows import point_at, row_prices
from optimizer.milp.scale.converge import converge, with_losses
from optimizer.milp.scale.frame import Frame, Positions, Prices
from optimizer.milp.scale.master import MasterPoint
from optimizer.milp.scale.price_lp import relax
from optimizer.milp.scale.workers import Workers
from optimizer.outcome import RowPrices, SharedPrices
from optimizer.tables import Flags

_CAPS_TOLERANCE = 1e-3
_CLEANER = 1e-6
"""What carbon is charged beyond its worth, so that of two supplies that cost the same with it the
cleaner one is taken first.
"""
_NEAR = 0.03
"""Groups whose replicas cost at most so much more of their price than they earn at most are worth
having, up to `NEAR_MOST` where that are few. Of 200 sites these are three times the groups that the
relaxation uses; of 20 sites the best plan of those within 3 % costs 1 % more than of 10 %.
"""
_WIDE_PART, _PRICES_PART, _PARTS_PART = 0.35, 0.4, 0.5
"""Of a time limit: after the second prices are good enough, after the third components are not
relaxed at them (at 600 sites 6 s, which prove 1.5 % more), and after the first only groups that
the relaxation uses are worth having (there a first plan took 17 s over wider ones, 10 over these).
"""
_TURNS_TIMES = 2.0
"""Whole-replica rows are begun only where so many times what was spent before them is left for
prices: at 600 sites arcs had joined once or twice then. Of 2 000 sites the first solve took 26 s,
components at its prices 54, which proved nothing, and no pass was left: gap 10.7 %, not 5.4.
"""
_KNOWN_PART = 0.15
"""The same where prices were known to begin with: in haste those have to do."""
_SLIVER = 1e-6
_FREE = 1e-9
FEW_GROUPS = 200
"""So many groups worth having are searched at once. Of 20 sites (154 groups) that took a plan from
$467.8 to 463.1/h in 6 s, of 30 sites (436) nothing was found in 12 s.
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class AtPrices:
    """Where a search begins: the frame at the caps' prices, relaxed, with a bound (USD/h), the
    prices that prove most without rows for whole replicas (`plain`) and the groups worth having;
    `apart` if there are rows for whole replicas and time did not cut those. `rows` are the prices
    of such rows for the next search; the bound is by those of the search before if `by_known`.
    """

    frame: Frame
    point: MasterPoint
    plain: Prices
    apart: Apart | None
    worth: Positions
    bound_usd_per_h: float
    was_cut: bool
    rows: RowPrices | None
    by_known: bool


def at_prices(
    frame: Frame,
    cleared: Cleared,
    hands: Workers,
    *,
    known: SharedPrices | None,
    gap_limit: float,
    spent: Callable[[], float],
    is_over: Callable[[], bool],
) -> AtPrices:
    """The frame relaxed from a cleared market on; `spent` is the part of a time limit that has
    passed. In haste `known` prices have to do.
    """

    def is_enough() -> bool:
        in_haste = known is not None and not frame.caps.are_priced and spent() >= _KNOWN_PART
        return in_haste or is_over()

    used: Positions = np.zeros(0, dtype=np.intp)
    if frame.caps.are_priced:
        frame, cleared, used = _with_cap_prices(frame, cleared, hands, is_over=is_over)
    tolerance = min(0.0025, max(1e-4, gap_limit / 4))
    relaxation = relax(frame, cleared, hands, tolerance=tolerance, is_over=is_enough)
    # where the relaxation was cut short there is no time for more of it
    was_cut = is_enough() or (1 + _TURNS_TIMES) * spent() > _PRICES_PART
    converged = converge(
        frame, relaxation, hands, is_over=lambda: was_cut or spent() >= _PRICES_PART
    )
    was_cut, apart = was_cut or spent() >= _PRICES_PART, None
    point, bound = converged.point, converged.bound_usd_per_h
    rows, by_known = None if known is None else known.rows, False
    if rows is not None and converged.rounds == 0 and not frame.caps.are_priced:
        again, proven = _at_known_rows(frame, rows, point, hands)
        by_known = proven > bound
        point, bound = (again, proven) if by_known else (point, bound)
    near = np.zeros(frame.groups, dtype=np.bool_)
    near[used] = True
    near[point.group[point.replicas > _SLIVER]] = True
    if known is not None:
        near[still_worth(frame, known)] = True
    if converged.rounds > 0 and spent() < _PARTS_PART:
        apart = relax_components(frame, point, hands, is_over=is_over)
        bound = max(bound, apart.bound_usd_per_h)
        is_wide = spent() < _WIDE_PART
        near = _nearly(frame, apart, near) if is_wide else near
        was_cut |= not is_wide
    if converged.rounds > 0 and not frame.caps.are_priced:
        rows = row_prices(frame, point, () if apart is None else apart.found)
    return AtPrices(
        frame=frame,
        point=point,
        plain=relaxation.prices,
        apart=apart,
        worth=np.flatnonzero(near & (frame.most > 0)),
        bound_usd_per_h=frame.proven_usd_per_h(bound),
        was_cut=was_cut,
        rows=rows,
        by_known=by_known,
    )


def _nearly(frame: Frame, apart: Apart, near: Flags) -> Flags:
    """The groups that are `near`, and those that nearly earn what their replicas cost."""
    short = apart.short_usd_per_h / np.maximum(_FREE, frame.replica_price(apart.point.prices))
    few = near | (short <= NEAR_MOST)
    return few if few.sum() <= FEW_GROUPS else near | (short <= _NEAR)


def _at_known_rows(
    frame: Frame, rows: RowPrices, point: MasterPoint, hands: Workers
) -> tuple[MasterPoint, float]:
    """A plain point at carried prices of rows and what components prove there by duals alone."""
    again = point_at(frame, rows, point)
    found = relax_components(frame, again, hands, is_over=lambda: True)
    return again, found.bound_usd_per_h


def _with_cap_prices(
    frame: Frame, cleared: Cleared, hands: Workers, *, is_over: Callable[[], bool]
) -> tuple[Frame, Cleared, Positions]:
    """The frame at what the caps are worth in the linear relaxation, where that goes on, and the
    groups it uses: at those prices alone some cost the same as others.
    """
    found = relax(frame, cleared, hands, tolerance=_CAPS_TOLERANCE, is_over=is_over, capped=True)
    worth = found.cap_prices
    dear = frame.at_cap_prices(
        replace(worth, carbon_usd_per_kg=worth.carbon_usd_per_kg * (1 + _CLEANER))
    )
    used = np.unique(found.arcs.group[found.part > _SLIVER])
    cleared = Cleared(prices=found.prices, used=found.arcs, class_usd_per_h=found.demand)
    return dear, cleared, used


def apart_of(made: AtPrices, hands: Workers, *, is_over: Callable[[], bool]) -> Apart:
    """Components relaxed one by one, from the plain relaxation at the prices that prove more where
    there are no whole-replica rows.
    """
    point = made.point
    if not (point.rowed.classes.size or point.rowed.losses.size):
        point = with_losses(made.frame, point, hands)
        point = replace(point, prices=better_prices(made.frame, point, hands))
    return relax_components(made.frame, point, hands, is_over=is_over)
