"""What no plan can undercut: components as blocks of whole replicas, at prices of what they share.

Decides how far each block's bound is taken. Valid at any prices: what a component pays for shared
limits beyond their worth is given back in `Frame.dual_offset`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from optimizer.milp.scale.block import Worth, earned, proven_usd_per_h, take_block
from optimizer.milp.scale.block_search import relaxed, root_bound, searched
from optimizer.milp.scale.frame import Frame, Positions, Prices
from optimizer.milp.scale.master import MasterPoint
from optimizer.milp.scale.priced import duals_of, price_all
from optimizer.milp.scale.region_rows import RegionRows
from optimizer.milp.scale.regions import (
    Share,
    homes,
    outside,
    regions_of,
    share_of,
    without_limits,
)
from optimizer.milp.scale.workers import Workers
from optimizer.tables import Floats

_NODES = 1
_SUPPORT = 1e-6


@dataclass(frozen=True, kw_only=True, slots=True)
class _Part:
    """Bounds of a component by itself, and of what of it is left beside regions with its shares of
    them.
    """

    alone_usd_per_h: float
    beside_usd_per_h: float
    shares: list[tuple[int, Share]]


def bound_by_components(
    frame: Frame,
    point: MasterPoint,
    workers: Workers,
    *,
    gap_usd_per_h: float,
    is_over: Callable[[], bool],
) -> float:
    """A proven bound (USD/h) from a master's prices and duals, both of any quality.

    A search stops within `gap_usd_per_h` of its optimum. Components whose turn comes after
    `is_over` count with what the point's own duals prove, and there are no regions then.
    """
    region = regions_of(frame, point, workers)
    return bound_beside(
        frame, point, region, workers=workers, gap_usd_per_h=gap_usd_per_h, is_over=is_over
    )


def bound_beside(
    frame: Frame,
    point: MasterPoint,
    region: Positions,
    *,
    workers: Workers,
    gap_usd_per_h: float,
    is_over: Callable[[], bool],
) -> float:
    """The bound (USD/h) with any disjoint regions (per site, from 0 up or ELSEWHERE)."""
    prices = better_prices(frame, point, workers)
    free = without_limits(frame, prices, region)

    def one(at: int) -> _Part:
        return _part(
            frame,
            replace(point, prices=prices),
            at,
            region=region,
            gap=gap_usd_per_h,
            is_over=is_over,
        )

    order = sorted(range(len(frame.components)), key=lambda at: -len(frame.components[at]))
    parts = workers.map(one, order)
    alone = sum(part.alone_usd_per_h for part in parts) + frame.dual_offset(prices)
    replica = np.maximum(0.0, frame.replica_price(free))

    def joint(at: int) -> float:
        shares = [share for part in parts for where, share in part.shares if where == at]
        if is_over() or not shares:
            return -np.inf if is_over() else 0.0
        model = RegionRows(frame, shares, replica).made()
        return root_bound(model, gap_usd_per_h=gap_usd_per_h, nodes=_NODES, is_over=is_over)

    beside = sum(part.beside_usd_per_h for part in parts) + frame.dual_offset(free)
    beside += sum(workers.map(joint, range(int(region.max()) + 1)))
    return max(alone, beside)


def _part(
    frame: Frame,
    point: MasterPoint,
    at: int,
    *,
    region: Positions,
    gap: float,
    is_over: Callable[[], bool],
) -> _Part:
    classes = frame.components[at]
    block = take_block(frame, classes, point.prices, point.rowed.losses)
    worth = _worth(frame, point, classes)
    bound = proven_usd_per_h(block, worth, earned(block, worth))
    if is_over():
        return _Part(alone_usd_per_h=bound, beside_usd_per_h=-np.inf, shares=[])
    found = relaxed(block, point.group[point.replicas > _SUPPORT])
    alone = max(bound, found.bound_usd_per_h)
    home, where = homes(block, region), region[block.site]
    rest, left = outside(block, found.worth, narrow=home >= 0, away=where >= 0)
    each = earned(rest, left)
    proven, demand = proven_usd_per_h(rest, left, each), found.worth.demand
    if not is_over():
        mine = replace(found, worth=left, replicas=np.where(where >= 0, 0.0, found.replicas))
        best, paid = searched(rest, mine, gap_usd_per_h=gap, nodes=_NODES, is_over=is_over)
        proven, demand = (best, paid) if best > proven else (proven, demand)
    sold = replace(found.worth, demand=demand)
    shares = [
        (int(one), share_of(block, sold, narrow=home == one, here=where == one))
        for one in np.unique(where[where >= 0])
    ]
    return _Part(alone_usd_per_h=alone, beside_usd_per_h=proven, shares=shares)


def better_prices(frame: Frame, point: MasterPoint, workers: Workers) -> Prices:
    """A point's own prices or the settled ones, whichever prove more with its duals."""
    both = (point.prices, settled_prices(frame, point, workers))
    proven = [
        price_all(frame, duals_of(replace(point, prices=prices)), workers, count=1).bound_usd_per_h
        for prices in both
    ]
    return both[int(np.argmax(proven))]


def settled_prices(frame: Frame, point: MasterPoint, workers: Workers) -> Prices:
    """The point's prices, raised on pools whose replicas would all earn, more than the pool holds:
    there the pool is worth what an accelerator earns at most.
    """

    def one(classes: Positions) -> tuple[Positions, Floats]:
        block = take_block(frame, classes, point.prices, point.rowed.losses)
        return block.group, earned(block, _worth(frame, point, classes)).usd_per_h

    earns = np.zeros(frame.groups)
    for group, usd_per_h in workers.map(one, frame.components):
        earns[group] = np.minimum(0.0, usd_per_h)
    pools = len(frame.pool_count)
    best = np.zeros(pools)
    np.minimum.at(best, frame.pool, earns / frame.accelerators)
    each = np.bincount(frame.pool, earns * frame.most, pools)
    raised = np.where(best * frame.pool_count > each, -best, 0.0)
    return replace(point.prices, pool=point.prices.pool + raised)


def _worth(frame: Frame, point: MasterPoint, classes: Positions) -> Worth:
    mine = np.isin(point.rowed.losses // len(frame.budget_kw), classes)
    return Worth(demand=point.demand[classes], cover=point.cover[classes], loss=point.loss[mine])
