"""One component at prices of what components share: its rows' numbers, what a replica earns.

Decides nothing. At worths of a component's rows (`Worth`) every row is taken up, what is left falls
apart into single replicas: the best one replica can earn is its cover plus the best fill of its
rated work, each class at most what one replica can take of it. `proven_usd_per_h` is what the
component cannot undercut then, over all its groups; `fall_back_usd_per_h` prices what groups
without columns could do for a class (`block_search`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from optimizer.milp.scale.catalogue import (
    ComponentArcs,
    component_arcs,
    flow_price,
    next_ingress_arcs,
)
from optimizer.milp.scale.frame import Frame, Positions, Prices
from optimizer.milp.scale.losses import at_ingress
from optimizer.milp.scale.master import covering
from optimizer.milp.scale.rounding import Needs, Terms
from optimizer.tables import Floats

_LEAST_BUSY = 1e-12

NEAR_MOST = 0.1
"""Of its price: whose replicas cost more than that beyond what they earn, how much is not asked."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Block:
    """A component at prices. Per group of `group` (ascending): `site`, `replica_usd_per_h` (from 0
    up: what it earns stands in the dual offset), `rateable`, `most`. Per arc: its group's `place`
    in `group`, `cover` (part of the class one replica can take), `flow_usd_per_h`. `safe_*` are
    the arcs that count where a class loses its ingress. Per class: `shed_usd_per_h`,
    `exposed_usd_per_h`. Per loss row: class (`loss_row`), site, whether it is of the ingress.
    `needs` speak of places in `group` and of rows.
    """

    arcs: ComponentArcs
    place: Positions
    cover: Floats
    flow_usd_per_h: Floats
    safe_row: Positions
    safe_place: Positions
    safe_cover: Floats
    group: Positions
    site: Positions
    replica_usd_per_h: Floats
    rateable: Floats
    most: Floats
    shed_usd_per_h: Floats
    exposed_usd_per_h: Floats
    loss_row: Positions
    loss_site: Positions
    moved: NDArray[np.bool_]
    needs: Needs
    sites: int

    @property
    def classes(self) -> int:
        """How many classes."""
        return len(self.shed_usd_per_h)


@dataclass(frozen=True, kw_only=True, slots=True)
class Worth:
    """USD/h of one more unit of each row: per class its traffic and cover, per loss its cover, per
    cut of the block's `needs`.
    """

    demand: Floats
    cover: Floats
    loss: Floats
    need: Floats


@dataclass(frozen=True, kw_only=True, slots=True)
class Earned:
    """Per group: what a replica costs beyond what it can earn at most (USD/h), and what the last
    of its rated work earns (USD/h per busy replica); where the former is above `NEAR_MOST` of its
    price, at least so much and at most that.
    """

    usd_per_h: Floats
    last_usd_per_h: Floats


def take_block(
    frame: Frame, classes: Positions, prices: Prices, losses: Positions, needs: Needs
) -> Block:
    """The block of a component's classes (ascending); of `losses` (class x sites + site) and
    `needs` those of theirs.
    """
    found = component_arcs(frame, classes)
    flow = flow_price(frame, found, prices)
    shed = frame.shed_usd_per_h[classes]
    # an arc that costs more than shedding does serves nobody
    kept = (flow < shed[found.row]) & (frame.most[found.group] > 0)
    arcs = found.only(kept)
    sites = len(frame.budget_kw)
    mine = losses[np.isin(losses // sites, classes)]
    moved = at_ingress(frame, mine)
    safe = next_ingress_arcs(frame, np.unique(mine[moved] // sites))
    safe = safe.only(frame.most[safe.group] > 0)
    group = np.union1d(arcs.group, safe.group)
    replica = np.maximum(0.0, frame.replica_price(prices))
    return Block(
        arcs=arcs,
        place=np.searchsorted(group, arcs.group),
        cover=covering(frame, arcs),
        flow_usd_per_h=flow[kept],
        safe_row=np.searchsorted(classes, safe.classes)[safe.row],
        safe_place=np.searchsorted(group, safe.group),
        safe_cover=covering(frame, safe),
        group=group,
        site=frame.site[group],
        replica_usd_per_h=replica[group],
        rateable=frame.rateable[group],
        most=frame.most[group],
        shed_usd_per_h=shed,
        exposed_usd_per_h=frame.tables.problem.plan_policy.exposure_part * shed,
        loss_row=np.searchsorted(classes, mine // sites),
        loss_site=mine % sites,
        moved=moved,
        needs=_own_needs(needs.only(needs.of(classes)), classes, group),
        sites=sites,
    )


def _own_needs(needs: Needs, classes: Positions, group: Positions) -> Needs:
    """Cuts in terms of a block; groups that it does not have stand nowhere."""
    at = np.minimum(np.searchsorted(group, needs.replicas.at), max(0, len(group) - 1))
    here = np.flatnonzero(group[at] == needs.replicas.at) if len(group) else at[:0]
    replicas, shed = needs.replicas, needs.shed
    return Needs(
        replicas=Terms(cut=replicas.cut[here], at=at[here], value=replicas.value[here]),
        shed=Terms(cut=shed.cut, at=np.searchsorted(classes, shed.at), value=shed.value),
        lower=needs.lower,
        group=needs.group,
    )


def earned(block: Block, worth: Worth) -> Earned:
    """What one replica of each group costs beyond what it earns at most."""
    arcs, groups = block.arcs, len(block.group)
    stands = np.bincount(block.place, block.cover * cover_worth(block, worth), groups)
    at_ingress_loss = np.where(block.moved, worth.loss, 0.0)
    safe = np.bincount(block.loss_row, at_ingress_loss, block.classes)[block.safe_row]
    stands = stands + np.bincount(block.safe_place, block.safe_cover * safe, groups)
    needed = block.needs.replicas
    stands = stands + np.bincount(needed.at, needed.value * worth.need[needed.cut], groups)
    profit = worth.demand[arcs.row] - block.flow_usd_per_h
    ratio = np.maximum(0.0, profit) / np.maximum(arcs.busy, _LEAST_BUSY)
    # all rated work at the best class's rate: enough where not even that comes near the price
    last = np.zeros(groups)
    np.maximum.at(last, block.place, ratio)
    fill = block.rateable * last
    near = block.replica_usd_per_h * (1 - NEAR_MOST) < stands + fill
    pays = np.flatnonzero(near[block.place] & (profit > 0))
    order = pays[np.argsort(-ratio[pays], kind="stable")]
    order = order[np.argsort(block.place[order], kind="stable")]
    fills, at = (block.cover * arcs.busy)[order], block.place[order]
    before = np.cumsum(fills) - fills
    first = np.searchsorted(at, np.arange(groups))
    within = before - np.append(before, 0.0)[first][at]
    taken = np.clip(block.rateable[at] - within, 0.0, fills)
    last[near] = 0.0
    full = (taken > 0) & (within + fills >= block.rateable[at])
    np.maximum.at(last, at[full], ratio[order][full])
    fill[near] = np.bincount(at, taken * ratio[order], groups)[near]
    return Earned(usd_per_h=block.replica_usd_per_h - stands - fill, last_usd_per_h=last)


def cover_worth(block: Block, worth: Worth) -> Floats:
    """USD/h of covering a whole class from the arc's site, per arc."""
    staying = np.where(block.moved, 0.0, worth.loss)
    whole = worth.cover + np.bincount(block.loss_row, staying, block.classes)
    there = np.zeros((block.classes, block.sites))
    np.add.at(there, (block.loss_row, block.loss_site), staying)
    row = block.arcs.row
    found: Floats = whole[row] - there[row, block.site[block.place]]
    return found


def proven_usd_per_h(block: Block, worth: Worth, each: Earned) -> float:
    """What no plan of the component undercuts at any worths (all but demand from 0 up)."""
    asked = worth.demand + worth.cover + np.bincount(block.loss_row, worth.loss, block.classes)
    needed = block.needs.shed
    shed = asked + np.bincount(needed.at, needed.value * worth.need[needed.cut], block.classes)
    over = np.minimum(0.0, block.shed_usd_per_h - shed).sum()
    over += np.minimum(0.0, block.exposed_usd_per_h[block.loss_row] - worth.loss).sum()
    stands = whole_usd_per_h(block, worth, each).sum()
    return float(asked.sum() + worth.need @ block.needs.lower + over + stands)


def whole_usd_per_h(block: Block, worth: Worth, each: Earned) -> Floats:
    """Per group, USD/h of the number of whole replicas that earns most beyond its cost (from 0
    down): each further one earns less, since no class gives a group more than all its traffic.
    """
    arcs, groups = block.arcs, len(block.group)
    found = np.zeros(groups)
    pays = (each.usd_per_h < 0) & (block.most > 0)
    profit = worth.demand[arcs.row] - block.flow_usd_per_h
    close = np.flatnonzero(pays[block.place] & (profit > 0))
    ratio = profit[close] / np.maximum(arcs.busy[close], _LEAST_BUSY)
    order = close[np.lexsort((close, -ratio, block.place[close]))]
    ratio = profit[order] / np.maximum(arcs.busy[order], _LEAST_BUSY)
    at, fills = block.place[order], arcs.busy[order]
    before = np.cumsum(fills) - fills
    within = before - np.append(before, 0.0)[np.searchsorted(at, at)]
    one = np.clip(block.rateable[at] - within, 0.0, fills)
    # what a replica costs without its work: the same for each
    empty = each.usd_per_h + np.bincount(at, one * ratio, groups)
    for count in range(1, int(block.most[pays].max(initial=0.0)) + 1):
        taken = np.clip(count * block.rateable[at] - within, 0.0, fills)
        earns = count * empty - np.bincount(at, taken * ratio, groups)
        found = np.where(pays & (block.most >= count), np.minimum(found, earns), found)
    return found


def fall_back_usd_per_h(
    block: Block, worth: Worth, each: Earned, chosen: NDArray[np.bool_]
) -> Floats:
    """Per class, USD/h from which groups that are not `chosen` may take all of it, inf where none
    can: at these in place of `worth.demand` still none of their replicas earns more than it costs.

    Fill at price v is at most ``last x rateable + sum cover x max(0, v - flow - last x busy)`` for
    any `last`; what a replica costs beyond its earnings goes into `last`.
    """
    arcs, left = block.arcs, ~chosen[block.place]
    last = each.last_usd_per_h + np.maximum(0.0, each.usd_per_h) / block.rateable
    price = np.full(block.classes, np.inf)
    asks = block.flow_usd_per_h + last[block.place] * arcs.busy
    np.minimum.at(price, arcs.row[left], asks[left])
    found: Floats = np.where(np.isinf(price), price, np.maximum(worth.demand, price))
    return found
