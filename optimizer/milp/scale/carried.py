"""Prices of an earlier search, carried over to a problem like its own: where the next one begins.

Decides what of them still has a subject. They prove nothing by themselves; any prices give a bound.
"""

from __future__ import annotations

import numpy as np

from optimizer.milp.scale.ascent import Cleared, opening_prices
from optimizer.milp.scale.catalogue import full_price
from optimizer.milp.scale.frame import Frame, Positions, Prices
from optimizer.milp.scale.price_lp import sweep, union
from optimizer.milp.scale.workers import Workers
from optimizer.outcome import RowPrices, SharedPrices

_ARCS = 6
"""Cheapest arcs of a class that stand for those that carried traffic."""


def carried(
    frame: Frame, prices: Prices, *, worth: Positions, rows: RowPrices | None = None
) -> SharedPrices:
    """Prices by what they are prices of, and the ids of the groups worth having."""
    tables = frame.tables
    site_ids = tables.sites.ids
    return SharedPrices(
        pool_usd_per_h=dict(zip(tables.pools.ids, prices.pool.tolist(), strict=True)),
        power_usd_per_kw_h=dict(zip(site_ids, prices.power.tolist(), strict=True)),
        energy_usd_per_kwh=dict(zip(site_ids, prices.energy.tolist(), strict=True)),
        group_ids=frozenset(tables.group_id(at) for at in worth.tolist()),
        rows=rows,
    )


def cleared_at(frame: Frame, known: SharedPrices, workers: Workers) -> Cleared:
    """The market at carried prices; what they do not know is priced as before anything is asked."""
    opening, tables = opening_prices(frame), frame.tables
    site_ids = tables.sites.ids
    power, energy = known.power_usd_per_kw_h, known.energy_usd_per_kwh
    prices = Prices(
        pool=np.array([known.pool_usd_per_h.get(one, 0.0) for one in tables.pools.ids]),
        power=np.array([power.get(one, 0.0) for one in site_ids]),
        energy=np.array(
            [energy.get(one, usual) for one, usual in zip(site_ids, opening.energy, strict=True)]
        ),
    )
    dearest = np.full(len(frame.rate), np.inf)
    bound, found = sweep(frame, prices, workers, ceiling_usd_per_h=dearest, count=_ARCS)
    arcs = union(frame, found)
    price = full_price(frame, arcs, frame.work_price(prices))
    least = arcs.least(price, otherwise=frame.shed_usd_per_h)
    return Cleared(prices=prices, used=arcs, class_usd_per_h=least, swept_usd_per_h=bound)


def still_worth(frame: Frame, known: SharedPrices) -> Positions:
    """Positions of the groups that were worth having and still exist."""
    return np.array(sorted(frame.tables.positions(known.group_ids).values()), dtype=np.intp)
