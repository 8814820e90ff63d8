"""What no plan can undercut: components as blocks of whole replicas, at prices of what they share.

Decides how far each block's bound is taken. Valid at any prices: what a component pays for shared
limits beyond their worth is given back in `Frame.dual_offset`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from optimizer.milp.scale.block import Block, Worth, earned, proven_usd_per_h, take_block
from optimizer.milp.scale.block_search import Relaxed, relaxed, root_bound, searched
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
from optimizer.milp.scale.rounding import needs_of
from optimizer.milp.scale.workers import Result, Workers, largest_first
from optimizer.tables import Floats

_NODES = 1
_SUPPORT = 1e-6


@dataclass(frozen=True, kw_only=True, slots=True)
class Apart:
    """A master's point with every component relaxed by itself at its prices: what that proves, each
    component's relaxation (None if time ran out before), and what a replica of each group costs
    beyond what it earns at most (USD/h; inf where no class reaches it).
    """

    point: MasterPoint
    bound_usd_per_h: float
    found: tuple[Relaxed | None, ...]
    short_usd_per_h: Floats


@dataclass(frozen=True, kw_only=True, slots=True)
class _Part:
    """A bound of what is left of a component beside regions, and its shares of them."""

    usd_per_h: float
    shares: list[tuple[int, Share]]


def relax_components(
    frame: Frame, point: MasterPoint, workers: Workers, *, is_over: Callable[[], bool]
) -> Apart:
    """Every component over all its groups, at a point's prices. Components whose turn comes after
    `is_over` count with what the point's own duals prove.
    """

    def one(at: int) -> tuple[float, Relaxed | None, Positions, Floats]:
        block = _block(frame, point, frame.components[at])
        worth = _worth(frame, point, frame.components[at])
        each = earned(block, worth)
        bound = proven_usd_per_h(block, worth, each)
        if is_over():
            return bound, None, block.group, each.usd_per_h
        found = relaxed(block, point.group[point.replicas > _SUPPORT])
        return max(bound, found.bound_usd_per_h), found, block.group, found.each.usd_per_h

    parts = _by_component(frame, workers, one)
    short = np.full(frame.groups, np.inf)
    for _, _, group, usd_per_h in parts:
        short[group] = usd_per_h
    return Apart(
        point=point,
        bound_usd_per_h=sum(part[0] for part in parts) + frame.dual_offset(point.prices),
        found=tuple(part[1] for part in parts),
        short_usd_per_h=short,
    )


def bound_by_components(
    frame: Frame,
    apart: Apart,
    workers: Workers,
    *,
    gap_usd_per_h: float,
    is_over: Callable[[], bool],
) -> float:
    """A proven bound (USD/h) from components at prices of any quality.

    A search stops within `gap_usd_per_h` of its optimum. If time ends before a component's turn,
    it is what their relaxations prove.
    """
    region = regions_of(frame, apart.point, workers)
    return bound_beside(
        frame, apart, region, workers=workers, gap_usd_per_h=gap_usd_per_h, is_over=is_over
    )


def bound_beside(
    frame: Frame,
    apart: Apart,
    region: Positions,
    *,
    workers: Workers,
    gap_usd_per_h: float,
    is_over: Callable[[], bool],
) -> float:
    """The bound (USD/h) with any disjoint regions (per site, from 0 up or ELSEWHERE)."""
    prices = apart.point.prices
    free = without_limits(frame, prices, region)

    def one(at: int) -> _Part | None:
        return _part(frame, apart, at, region=region, gap=gap_usd_per_h, is_over=is_over)

    parts = _by_component(frame, workers, one)
    known = [part for part in parts if part is not None]
    if len(known) < len(parts):
        return apart.bound_usd_per_h
    replica = np.maximum(0.0, frame.replica_price(free))

    def joint(at: int) -> float:
        shares = [share for part in known for where, share in part.shares if where == at]
        if is_over() or not shares:
            return -np.inf if is_over() else 0.0
        model = RegionRows(frame, shares, replica).made()
        return root_bound(model, gap_usd_per_h=gap_usd_per_h, nodes=_NODES, is_over=is_over)

    beside = sum(part.usd_per_h for part in known) + frame.dual_offset(free)
    beside += sum(workers.map(joint, range(int(region.max()) + 1)))
    return max(apart.bound_usd_per_h, beside)


def _by_component(frame: Frame, workers: Workers, work: Callable[[int], Result]) -> list[Result]:
    places = range(len(frame.components))
    return largest_first(workers, work, places, size=lambda at: len(frame.components[at]))


def _part(
    frame: Frame,
    apart: Apart,
    at: int,
    *,
    region: Positions,
    gap: float,
    is_over: Callable[[], bool],
) -> _Part | None:
    """None if time ran out before its turn."""
    found, point = apart.found[at], apart.point
    if found is None or is_over():
        return None
    block = _block(frame, point, frame.components[at])
    home, where = homes(block, region), region[block.site]
    rest, left = outside(block, found.worth, narrow=home >= 0, away=where >= 0)
    each = earned(rest, left)
    proven, demand = proven_usd_per_h(rest, left, each), found.worth.demand
    mine = replace(found, worth=left, replicas=np.where(where >= 0, 0.0, found.replicas))
    best, paid = searched(rest, mine, gap_usd_per_h=gap, nodes=_NODES, is_over=is_over)
    proven, demand = (best, paid) if best > proven else (proven, demand)
    sold = replace(found.worth, demand=demand)
    shares = [
        (int(one), share_of(block, sold, narrow=home == one, here=where == one))
        for one in np.unique(where[where >= 0])
    ]
    return _Part(usd_per_h=proven, shares=shares)


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
        block = _block(frame, point, classes)
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
    needs = needs_of(point.cuts)
    return Worth(
        demand=point.demand[classes],
        cover=point.cover[classes],
        loss=point.loss[mine],
        need=point.need[needs.of(classes)],
    )


def _block(frame: Frame, point: MasterPoint, classes: Positions) -> Block:
    return take_block(frame, classes, point.prices, point.rowed.losses, needs_of(point.cuts))
