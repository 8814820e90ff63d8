"""What a site costs for being used at all, split between what fills it and who needs it.

Decides how much of each fixed price replicas bear, by the kW they may draw, and how much the
classes ask that must have a site open among those they reach. A plan that fills a site pays its
price by the kW; one that must keep a site open that it hardly uses pays by the classes. What both
pay together is never more than the price, whoever uses the site, so a bound at any split holds.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from optimizer.milp.scale import lp
from optimizer.milp.scale.catalogue import component_arcs, next_ingress_arcs
from optimizer.milp.scale.frame import Frame, Positions
from optimizer.milp.scale.losses import losses_of
from optimizer.tables import Floats

_SPARED_PART = 0.25
"""Of a class's price of shed traffic, what it may ask for each of its rows: shedding it saves that
as well, and has to stay dearer than serving it.
"""

_WIDEST = 30
"""Sites that a row names at most: of 200 and 600 sites 15 did as well as all, in a hundredth of the
entries.
"""


def split(frame: Frame, asked_kw: Floats) -> Frame:
    """The frame with fixed prices split so that the bound is best where replicas may draw
    `asked_kw` at each site.

    Rows, for what a class d asks of the sites it reaches (R), and a protected one of those it
    reaches after the loss of its ingress as well (Q): ``sum_R open_s >= 1 - shed_d`` and
    ``sum_{R, Q} open_s >= 2 (1 - shed_d) - exposed_d``; the second where the loss of each site of R
    exposes d. At prices u of these rows and v of a kW ``sum_d u_d + v_s full_kw_s <= price_s`` over
    the rows that name site s; the bound gains ``sum_d k_d u_d``, shed and exposed traffic costs as
    much less.
    """
    opening, (sites, count, cls) = frame.opening, _rows(frame)
    rows, fixed = len(count), opening.usd_per_h
    part = frame.tables.problem.plan_policy.exposure_part
    # with its shed price the price of what it exposes falls, by this part of it
    spared = np.maximum(count, np.where(count > 1, 1.0 / max(part, 1e-9), 0.0))
    most = _SPARED_PART * frame.shed_usd_per_h[cls] / spared
    row, site = np.nonzero(sites)
    each = np.arange(len(fixed))
    builder = lp.RowBuilder()
    entries = [(site, row, np.ones(len(row))), (each, rows + each, np.ones(len(each)))]
    builder.block(-lp.INF, fixed, entries=entries, count=len(fixed))
    borne = np.where(fixed > 0, asked_kw * opening.usd_per_kw_h / np.maximum(fixed, 1e-9), 0.0)
    borne = np.minimum(1.0, borne)
    values = lp.relaxed(
        lp.make(
            cost=-np.concatenate([count, borne]),
            upper=np.concatenate([most, fixed]),
            lower=np.zeros(rows + len(fixed)),
            rows=builder.rows(),
            whole=None,
        ),
        is_over=lambda: False,
    )
    assert values is not None, "never over"
    asks = np.maximum(0.0, values[:rows])
    left = np.maximum(0.0, fixed - np.bincount(site, asks[row], len(fixed)))
    kept = np.where(fixed > 0, left / np.maximum(fixed, 1e-9), 0.0)
    return frame.with_opening(
        replace(
            opening,
            usd_per_kw_h=opening.usd_per_kw_h * kept,
            asked_usd_per_h=float(asks @ count),
            spared_usd_per_h=np.bincount(cls, asks * spared, len(frame.rate)).astype(np.float64),
        )
    )


def _rows(frame: Frame) -> tuple[NDArray[np.bool_], Floats, Positions]:
    """Which sites each row names, how many of them it asks for, and whose it is: of classes that
    ask the same the one whose shed traffic costs most.
    """
    sites, priced = len(frame.budget_kw), frame.opening.usd_per_h > 0
    reach = np.zeros((len(frame.rate), sites), dtype=np.bool_)
    after = np.zeros_like(reach)
    for classes in frame.components:
        arcs, moved = component_arcs(frame, classes), next_ingress_arcs(frame, classes)
        reach[classes[arcs.row], frame.site[arcs.group]] = True
        after[classes[moved.row], frame.site[moved.group]] = True
    exposing = np.zeros_like(reach)
    exposing.ravel()[losses_of(frame)] = True
    twice = frame.tables.classes.protected & (exposing | ~reach).all(axis=1)
    asked = np.concatenate([reach, (reach | after)[twice]])
    count = np.concatenate([np.ones(len(reach)), np.full(int(twice.sum()), 2.0)])
    cls = np.concatenate([np.arange(len(reach)), np.flatnonzero(twice)])
    # a row with a site that costs nothing to open asks for nothing; so does one with too few
    named = asked.sum(axis=1)
    says = (priced | ~asked).all(axis=1) & (named >= count) & (named <= _WIDEST)
    asked, count, cls = asked[says], count[says], cls[says]
    order = np.lexsort((cls, -frame.shed_usd_per_h[cls]))
    alike = np.column_stack([asked, count > 1])[order]
    first = order[np.sort(np.unique(alike, axis=0, return_index=True)[1])]
    return asked[first], count[first], cls[first]
