"""All arcs at a master's prices: a bound for the whole fleet, and the arcs that would improve it.

Decides nothing about the master. Its rows are all taken up at their prices, so what is left falls
apart into single replicas: the best a replica can earn is its cover plus the best fill of its rated
work, each class at most once. What replicas earn beyond their price lowers the bound, at most so
many a pool holds.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from optimizer.milp.scale.catalogue import (
    ComponentArcs,
    cheapest,
    component_arcs,
    next_ingress_arcs,
    transfer,
)
from optimizer.milp.scale.frame import Frame, Positions, Prices
from optimizer.milp.scale.losses import at_ingress
from optimizer.milp.scale.master import MasterPoint, covering
from optimizer.milp.scale.rounding import Needs, needs_of
from optimizer.milp.scale.workers import Workers
from optimizer.tables import Floats

_DUST = 1e-7


@dataclass(frozen=True, kw_only=True, slots=True)
class Duals:
    """Prices of every row: shared limits; per class its traffic (`demand`) and cover; `loss` of
    each of `losses` (class x sites + site), `need` of each of `needs`. All from 0 up but `demand`.
    """

    prices: Prices
    demand: Floats
    cover: Floats
    losses: Positions
    loss: Floats
    needs: Needs
    need: Floats


@dataclass(frozen=True, kw_only=True, slots=True)
class Priced:
    """`bound_usd_per_h` holds for the whole fleet; `wanted` are arcs on replicas that would pay,
    `refuges` those that count where a class loses its ingress.
    """

    bound_usd_per_h: float
    wanted: list[ComponentArcs]
    refuges: list[ComponentArcs]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Earned:
    group: Positions
    usd_per_h: Floats
    wanted: ComponentArcs
    refuges: ComponentArcs


def duals_of(point: MasterPoint) -> Duals:
    """The prices of a master's rows."""
    return Duals(
        prices=point.prices,
        demand=point.demand,
        cover=point.cover,
        losses=point.rowed.losses,
        loss=point.loss,
        needs=needs_of(point.cuts),
        need=point.need,
    )


def price_all(frame: Frame, duals: Duals, workers: Workers, *, count: int) -> Priced:
    """One sweep over all arcs; up to `count` wanted arcs of each class."""
    terms = duals.needs.replicas
    worth = terms.value * duals.need[terms.cut]
    needed: Floats = np.bincount(terms.at, worth, frame.groups).astype(np.float64)
    replica = frame.replica_price(duals.prices) - needed

    def one(classes: Positions) -> _Earned:
        return _component(frame, classes, duals, replica=replica, needed=needed, count=count)

    found = workers.map(one, frame.components)
    earned = np.minimum(0.0, replica)
    for part in found:
        earned[part.group] = np.minimum(0.0, part.usd_per_h)
    earned[frame.most <= 0] = 0.0
    best = np.zeros(len(frame.pool_count))
    np.minimum.at(best, frame.pool, earned / frame.accelerators)
    each = np.bincount(frame.pool, earned * frame.most, len(best))
    sites, prices = len(frame.budget_kw), duals.prices
    asked = duals.demand + duals.cover
    asked += np.bincount(duals.losses // sites, duals.loss, len(asked))
    exposed = frame.tables.problem.plan_policy.exposure_part * frame.shed_usd_per_h
    given_up = duals.needs.shed
    shed = asked + np.bincount(given_up.at, given_up.value * duals.need[given_up.cut], len(asked))
    over = np.minimum(0.0, frame.shed_usd_per_h - shed).sum()
    over += np.minimum(0.0, exposed[duals.losses // sites] - duals.loss).sum()
    supplied = np.minimum(0.0, frame.stack.usd_per_kwh - prices.energy[:, None])
    limits = prices.limits_usd_per_h(frame.pool_count, frame.budget_kw)
    bound = (
        asked.sum()
        + duals.need @ duals.needs.lower
        + over
        + (supplied * frame.stack.limit_kw).sum()
        - limits
    )
    bound += np.maximum(best * frame.pool_count, each).sum()
    return Priced(
        bound_usd_per_h=float(bound),
        wanted=[part.wanted for part in found],
        refuges=[part.refuges for part in found],
    )


def _component(
    frame: Frame,
    classes: Positions,
    duals: Duals,
    *,
    replica: Floats,
    needed: Floats,
    count: int,
) -> _Earned:
    arcs = component_arcs(frame, classes)
    refuges, refuge_usd_per_h = _refuges(frame, classes, duals)
    group = np.union1d(arcs.group, refuges.group)
    place, refuge = np.searchsorted(group, arcs.group), np.searchsorted(group, refuges.group)
    energy = (frame.busy_kw * duals.prices.energy[frame.site])[arcs.group]
    profit = duals.demand[classes][arcs.row] - transfer(frame, arcs) - arcs.busy * energy
    cover = covering(frame, arcs)
    covered = cover * _cover_price(frame, arcs, duals)
    standing = replica[group] - np.bincount(place, covered, len(group))
    standing -= np.bincount(refuge, refuge_usd_per_h, len(group))
    ratio = np.maximum(0.0, profit) / np.maximum(arcs.busy, 1e-12)
    crude = np.zeros(len(group))
    np.maximum.at(crude, place, ratio)
    rated = frame.rateable[group]
    earned = standing - rated * crude
    close = np.flatnonzero((earned < 0)[place] & (profit > 0))
    order = close[np.lexsort((close, -ratio[close], place[close]))]
    fills = cover[order] * arcs.busy[order]
    before = np.cumsum(fills) - fills
    first = np.searchsorted(place[order], np.arange(len(group)))
    at = place[order]
    within = before - np.append(before, 0.0)[first][at] if len(order) else before
    taken = np.clip(rated[at] - within, 0.0, fills)
    fill = np.bincount(at, taken * ratio[order], len(group))
    earned = np.where(earned < 0, standing - fill, earned)
    pays = (earned < -_DUST) & (frame.most[group] > 0)
    each = earned / frame.accelerators[group]
    earns = (covered > _DUST) | (profit > _DUST) | (needed[arcs.group] > _DUST)
    wanted = pays[place] & earns
    few = arcs.only(wanted)
    spare = pays[refuge] & (refuge_usd_per_h > _DUST)
    safe = refuges.only(spare)
    return _Earned(
        group=group,
        usd_per_h=earned,
        wanted=few.only(cheapest(few, each[place[wanted]], count)),
        refuges=safe.only(cheapest(safe, each[refuge[spare]], count)),
    )


def _refuges(frame: Frame, classes: Positions, duals: Duals) -> tuple[ComponentArcs, Floats]:
    """What classes reach where they lose their ingress, of those for which that has a price, and
    USD/h of the cover a replica is then.
    """
    moved = at_ingress(frame, duals.losses) & (duals.loss > 0)
    worth = np.zeros(len(frame.rate))
    worth[duals.losses[moved] // len(frame.budget_kw)] = duals.loss[moved]
    arcs = next_ingress_arcs(frame, classes[worth[classes] > 0])
    return arcs, covering(frame, arcs) * worth[arcs.classes[arcs.row]]


def _cover_price(frame: Frame, arcs: ComponentArcs, duals: Duals) -> Floats:
    """USD/h of covering a whole class by a replica at the arc's site, per arc."""
    sites = len(frame.budget_kw)
    staying = np.where(at_ingress(frame, duals.losses), 0.0, duals.loss)
    whole = duals.cover + np.bincount(duals.losses // sites, staying, len(frame.rate))
    cls = arcs.classes[arcs.row]
    price: Floats = whole[cls]
    if len(duals.losses):
        key = cls * sites + frame.site[arcs.group]
        at = np.minimum(np.searchsorted(duals.losses, key), len(duals.losses) - 1)
        price = price - np.where(duals.losses[at] == key, staying[at], 0.0)
    return price
