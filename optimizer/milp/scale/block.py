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
from optimizer.tables import Floats

_LEAST_BUSY = 1e-12


@dataclass(frozen=True, kw_only=True, slots=True)
class Block:
    """A component at prices. Per group of `group` (ascending): `site`, `replica_usd_per_h` (from 0
    up: what it earns stands in the dual offset), `rateable`, `most`. Per arc: its group's `place`
    in `group`, `cover` (part of the class one replica can take), `flow_usd_per_h`. `safe_*` are
    the arcs that count where a class loses its ingress. Per class: `shed_usd_per_h`,
    `exposed_usd_per_h`. Per loss row: class (`loss_row`), site, whether it is of the ingress.
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
    sites: int

    @property
    def classes(self) -> int:
        """How many classes."""
        return len(self.shed_usd_per_h)


@dataclass(frozen=True, kw_only=True, slots=True)
class Worth:
    """USD/h of one more unit of each row: per class its traffic and cover, per loss its cover."""

    demand: Floats
    cover: Floats
    loss: Floats


@dataclass(frozen=True, kw_only=True, slots=True)
class Earned:
    """Per group: what a replica costs beyond what it can earn at most (USD/h), and what the last
    of its rated work earns (USD/h per busy replica).
    """

    usd_per_h: Floats
    last_usd_per_h: Floats


def take_block(frame: Frame, classes: Positions, prices: Prices, losses: Positions) -> Block:
    """The block of some classes (ascending); of `losses` (class x sites + site) those of theirs."""
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
        sites=sites,
    )


def earned(block: Block, worth: Worth) -> Earned:
    """What one replica of each group costs beyond what it earns at most."""
    arcs, groups = block.arcs, len(block.group)
    stands = np.bincount(block.place, block.cover * cover_worth(block, worth), groups)
    at_ingress_loss = np.where(block.moved, worth.loss, 0.0)
    safe = np.bincount(block.loss_row, at_ingress_loss, block.classes)[block.safe_row]
    stands = stands + np.bincount(block.safe_place, block.safe_cover * safe, groups)
    profit = worth.demand[arcs.row] - block.flow_usd_per_h
    ratio = profit / np.maximum(arcs.busy, _LEAST_BUSY)
    pays = np.flatnonzero(profit > 0)
    order = pays[np.lexsort((pays, -ratio[pays], block.place[pays]))]
    fills, at = (block.cover * arcs.busy)[order], block.place[order]
    before = np.cumsum(fills) - fills
    first = np.searchsorted(at, np.arange(groups))
    within = before - np.append(before, 0.0)[first][at]
    taken = np.clip(block.rateable[at] - within, 0.0, fills)
    last = np.zeros(groups)
    full = (taken > 0) & (within + fills >= block.rateable[at])
    np.maximum.at(last, at[full], ratio[order][full])
    fill = np.bincount(at, taken * ratio[order], groups)
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
    """What no plan of the component undercuts at any worths (loss and cover from 0 up)."""
    asked = worth.demand + worth.cover + np.bincount(block.loss_row, worth.loss, block.classes)
    over = np.minimum(0.0, block.shed_usd_per_h - asked).sum()
    over += np.minimum(0.0, block.exposed_usd_per_h[block.loss_row] - worth.loss).sum()
    return float(asked.sum() + over + (np.minimum(0.0, each.usd_per_h) * block.most).sum())


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
