"""What no plan can undercut: components as blocks of whole replicas, at prices of what they share.

Decides how far each block's bound is taken. Valid at any prices: what a component pays for shared
limits beyond their worth is given back in `Frame.dual_offset`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from optimizer.milp.scale.block import Block, Worth, earned, proven_usd_per_h, take_block
from optimizer.milp.scale.block_search import Relaxed, relaxed, searched
from optimizer.milp.scale.catalogue import ComponentArcs
from optimizer.milp.scale.frame import Frame, Positions, Prices
from optimizer.milp.scale.master import MasterPoint
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


def relax_components(
    frame: Frame, point: MasterPoint, workers: Workers, *, is_over: Callable[[], bool]
) -> Apart:
    """Every component over all its groups, at a point's prices. Components whose turn comes after
    `is_over` count with what the point's own duals prove.
    """

    support = point.group[point.replicas > _SUPPORT]

    def one(at: int) -> tuple[float, Relaxed | None, Positions, Floats]:
        block = _block(frame, point, frame.components[at])
        worth = _worth(frame, point, frame.components[at])
        each = earned(block, worth)
        bound = proven_usd_per_h(block, worth, each)
        if is_over():
            return bound, None, block.group, each.usd_per_h
        held = _held(block.arcs, point.arcs, groups=frame.groups)
        found = relaxed(block, support, held, is_over=is_over)
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
    """A proven bound (USD/h) from components in whole replicas, at prices of any quality.

    A search stops within `gap_usd_per_h` of its optimum. A component whose turn comes after time
    ended counts with its relaxation.
    """
    if any(found is None for found in apart.found):
        return apart.bound_usd_per_h

    def one(at: int) -> float:
        found = apart.found[at]
        assert found is not None, "asked for above"
        if is_over():
            return found.bound_usd_per_h
        block = _block(frame, apart.point, frame.components[at])
        best = searched(block, found, gap_usd_per_h=gap_usd_per_h, nodes=_NODES, is_over=is_over)
        return max(best, found.bound_usd_per_h)

    parts = _by_component(frame, workers, one)
    beside = sum(parts) + frame.dual_offset(apart.point.prices)
    return max(apart.bound_usd_per_h, beside)


def _by_component(frame: Frame, workers: Workers, work: Callable[[int], Result]) -> list[Result]:
    places = range(len(frame.components))
    return largest_first(workers, work, places, size=lambda at: len(frame.components[at]))


def better_prices(frame: Frame, point: MasterPoint, workers: Workers) -> Prices:
    """A point's own prices or the settled ones, whichever prove more of components with its duals.

    A sweep over all arcs proves the same at both: what a pool holds limits what it earns there.
    """
    both = (point.prices, settled_prices(frame, point, workers))
    proven = [_proven_usd_per_h(frame, replace(point, prices=one), workers) for one in both]
    return both[int(np.argmax(proven))]


def _proven_usd_per_h(frame: Frame, point: MasterPoint, workers: Workers) -> float:
    def one(classes: Positions) -> float:
        block, worth = _block(frame, point, classes), _worth(frame, point, classes)
        return proven_usd_per_h(block, worth, earned(block, worth))

    return sum(workers.map(one, frame.components)) + frame.dual_offset(point.prices)


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


def _held(arcs: ComponentArcs, others: ComponentArcs, *, groups: int) -> NDArray[np.bool_]:
    """Mask of the arcs that are among those of others, of all classes."""
    held = np.zeros(arcs.count + 1, dtype=np.bool_)
    mine = np.isin(others.row, arcs.classes)
    key = arcs.classes[arcs.row] * groups + arcs.group
    asked = others.row[mine] * groups + others.group[mine]
    at = np.searchsorted(key, asked)
    held[at[np.append(key, -1)[at] == asked]] = True
    return held[:-1]


def _block(frame: Frame, point: MasterPoint, classes: Positions) -> Block:
    return take_block(frame, classes, point.prices, point.rowed.losses, needs_of(point.cuts))
