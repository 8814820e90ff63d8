"""Tight regions: few sites that serve many classes which reach no others, in whole replicas of all
services at once.

Decides which sites make a region, and what its block (`region_rows`) is made of. The split: rows of
wide classes stay with their components, replicas of a region's sites with the region. Let lambda,
gamma, omega be prices of a wide class's traffic, cover and cover after a loss. A component without
its groups in regions buys those three at these prices from them; a region without wide classes
sells them: ``- lambda x`` over its arcs, ``- (gamma + omega) cover n``. Any prices give a bound: it
is the Lagrangian of those rows, split between who buys and who sells. Pools and power of a region
are hard rows there, so their prices leave the dual offset; narrow classes are there alone, exact.

What a replica sells to wide classes is concave in the work it sells, so tangents stand for it:
``v_r <= slope s_r + level n_r``, work sold ``s_r`` on top of narrow traffic below the ceiling.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from optimizer.milp.scale.block import Block, Worth, cover_worth
from optimizer.milp.scale.catalogue import component_arcs, next_ingress_arcs
from optimizer.milp.scale.frame import Frame, Positions, Prices, RoomPrices
from optimizer.milp.scale.master import MasterPoint
from optimizer.milp.scale.workers import Workers
from optimizer.tables import Floats

_MOST_SITES = 6
_MOST_REGIONS = 8
_LEAST_WORTH = 2e-3
_ROOMS = (0.15, 0.4, 0.75)
_LEAST_BUSY = 1e-12

ELSEWHERE = -1


def regions_of(frame: Frame, point: MasterPoint, workers: Workers) -> Positions:
    """Which region each site belongs to, ELSEWHERE for none: sets of few sites that are all some
    classes reach, with a price on their power or pools, dearest classes first, disjoint.
    """
    sites = len(frame.budget_kw)
    asked = point.asked_usd_per_h(frame)

    def one(classes: Positions) -> list[tuple[tuple[int, ...], float]]:
        reach = np.zeros((len(classes), sites), dtype=np.bool_)
        for arcs in (component_arcs(frame, classes), next_ingress_arcs(frame, classes)):
            reach[arcs.row, frame.site[arcs.group]] = True
        few = np.flatnonzero((reach.sum(axis=1) <= _MOST_SITES) & reach.any(axis=1))
        return [(tuple(np.flatnonzero(reach[at]).tolist()), asked[classes[at]]) for at in few]

    worth: dict[tuple[int, ...], float] = {}
    for part in workers.map(one, frame.components):
        for key, usd_per_h in part:
            worth[key] = worth.get(key, 0.0) + float(usd_per_h)
    priced = point.prices.power > 0
    priced[frame.site[point.prices.pool[frame.pool] > 0]] = True
    found = np.full(sites, ELSEWHERE, dtype=np.intp)
    count, least = 0, _LEAST_WORTH * float(np.abs(asked).sum())
    for key in sorted(worth, key=lambda key: (-worth[key], key)):
        at = np.array(key)
        if count == _MOST_REGIONS or worth[key] < least:
            break
        if priced[at].any() and (found[at] == ELSEWHERE).all():
            found[at] = count
            count += 1
    return found


def without_limits(frame: Frame, prices: Prices, region: Positions) -> Prices:
    """The prices without those of pools, power and room in regions."""
    pool, power = prices.pool.copy(), np.where(region >= 0, 0.0, prices.power)
    inside, room = region[frame.site] >= 0, prices.room
    pool[frame.pool[inside]] = 0.0
    if room is not None:
        room = RoomPrices(
            replica=np.where(inside, 0.0, room.replica), site=np.where(region >= 0, 0.0, room.site)
        )
    return Prices(pool=pool, power=power, energy=prices.energy, room=room)


def homes(block: Block, region: Positions) -> Positions:
    """The region that holds all arcs of a class, also after the loss of its ingress; ELSEWHERE."""
    low = np.full(block.classes, len(region))
    high = np.full(block.classes, ELSEWHERE)
    for row, place in ((block.arcs.row, block.place), (block.safe_row, block.safe_place)):
        of = region[block.site[place]]
        np.minimum.at(low, row, of)
        np.maximum.at(high, row, of)
    found: Positions = np.where(low == high, low, ELSEWHERE)
    return found


@dataclass(frozen=True, kw_only=True, slots=True)
class Share:
    """What one component brings into one region: its `block` (narrow arcs only), the mask of its
    `narrow` classes, which groups stand there (positions), USD/h of the cover a replica of each
    sells to wide classes, and tangents of its sales (`slope`, `level`, each a row per tangent).
    """

    block: Block
    narrow: NDArray[np.bool_]
    group: Positions
    cover_usd_per_h: Floats
    slope: Floats
    level: Floats


def share_of(
    block: Block, worth: Worth, *, narrow: NDArray[np.bool_], here: NDArray[np.bool_]
) -> Share:
    """The share of a component in a region of whose groups `here` is the mask; `worth.demand` is
    what wide classes pay.
    """
    arcs, groups = block.arcs, len(block.group)
    wide = np.flatnonzero(here[block.place] & ~narrow[arcs.row])
    covers = np.bincount(block.place[wide], (block.cover * cover_worth(block, worth))[wide], groups)
    lost = np.bincount(block.loss_row, np.where(block.moved, worth.loss, 0.0), block.classes)
    safe = np.flatnonzero(here[block.safe_place] & ~narrow[block.safe_row])
    covers = covers + np.bincount(
        block.safe_place[safe], block.safe_cover[safe] * lost[block.safe_row[safe]], groups
    )
    profit = worth.demand[arcs.row[wide]] - block.flow_usd_per_h[wide]
    ratio = profit / np.maximum(arcs.busy[wide], _LEAST_BUSY)
    pays = np.flatnonzero(profit > 0)
    order = pays[np.lexsort((pays, -ratio[pays], block.place[wide][pays]))]
    at, ratio = block.place[wide][order], ratio[order]
    fills = (block.cover * arcs.busy)[wide][order]
    before = np.cumsum(fills) - fills
    within = before - np.append(before, 0.0)[np.searchsorted(at, np.arange(groups))][at]
    slope, level = np.zeros((len(_ROOMS) + 2, groups)), np.zeros((len(_ROOMS) + 2, groups))
    np.maximum.at(slope[0], at, ratio)
    for rank, part in enumerate((*_ROOMS, 1.0), start=1):
        room = part * block.rateable
        taken = np.clip(room[at] - within, 0.0, fills)
        last = (taken > 0) & (within + fills >= room[at])
        np.maximum.at(slope[rank], at[last], ratio[last])
        sold = np.bincount(at, taken * ratio, groups)
        level[rank] = sold - slope[rank] * room
    level[-1] += slope[-1] * block.rateable  # all a replica can sell, whatever work is left
    slope[-1] = 0.0
    group = np.flatnonzero(here)
    mine = here[block.place] & narrow[arcs.row]
    small = replace(
        block,
        arcs=arcs.only(mine),
        place=block.place[mine],
        cover=block.cover[mine],
        flow_usd_per_h=block.flow_usd_per_h[mine],
    )
    return Share(
        block=small,
        narrow=narrow,
        group=group,
        cover_usd_per_h=covers[group].astype(np.float64),
        slope=slope[:, group],
        level=level[:, group],
    )


def outside(
    block: Block, worth: Worth, *, narrow: NDArray[np.bool_], away: NDArray[np.bool_]
) -> tuple[Block, Worth]:
    """The component without what stands in regions: narrow classes cost nothing there, groups that
    are `away` earn nothing. Cuts that speak of either are left out.
    """
    kept, needs = ~narrow, block.needs
    speaks = np.zeros(len(needs.lower), dtype=np.bool_)
    speaks[needs.replicas.cut[away[needs.replicas.at]]] = True
    speaks[needs.shed.cut[narrow[needs.shed.at]]] = True
    rest = replace(
        block,
        shed_usd_per_h=block.shed_usd_per_h * kept,
        exposed_usd_per_h=block.exposed_usd_per_h * kept,
        most=np.where(away, 0.0, block.most),
        needs=needs.only(~speaks),
    )
    left = Worth(
        demand=worth.demand * kept,
        cover=worth.cover * kept,
        loss=worth.loss * kept[block.loss_row],
        need=worth.need[~speaks],
    )
    return rest, left
