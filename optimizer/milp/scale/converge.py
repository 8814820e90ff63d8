"""The relaxation with whole-replica rows from the plain one: which rows and arcs it gets, how long.

Decides where the master begins and when it is good enough. It begins at the plain relaxation's
vertex with every row that breaks there and, for the classes of those rows, arcs to replicas that
stand or could stand cheaply: adding those costs no dual feasibility, so the first solve is short.
On 3 000 classes its shared prices were worth 0.1 % less than the last ones. Later rounds add few
arcs each, as far as a budget of simplex work goes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from optimizer.milp.scale.catalogue import (
    ComponentArcs,
    cheapest,
    cheapest_sites,
    component_arcs,
    flow_price,
    next_ingress_arcs,
)
from optimizer.milp.scale.frame import Frame, Positions
from optimizer.milp.scale.losses import at_ingress, losses_of
from optimizer.milp.scale.master import Master, MasterPoint, Rowed, covering
from optimizer.milp.scale.price_lp import Relaxation, union
from optimizer.milp.scale.priced import duals_of, price_all
from optimizer.milp.scale.rounding import Needs, joined_needs, need_cuts
from optimizer.milp.scale.workers import Workers
from optimizer.tables import Floats

Bools = NDArray[np.bool_]

_ROUNDS = 10
"""At most; only of small fleets so many are worth their work. Of 3 000 classes 1 proves $4 062/h
in 1.9 s, 2 prove 4 069 in 3.6 s, 7 prove 4 072 in 7.2 s (components relaxed then, no cuts).
"""
_WORK = 4e8
"""Pivots times rows of all rounds (about 4 s); the first is solved whatever it takes."""

_CUT_ROUNDS = 2
"""Of 3 000 classes 1 round takes the master from $4 082 to 4 140/h, 2 to 4 155, 3 to 4 158, 1.3 s
each; more arcs after that take 7 s and longer.
"""

_CLASSES = 5_000
"""Classes from which one round leaves some tight pools far too dear (10 000: components prove 1.8 %
less at its prices than the plain relaxation does), and more take too long.
"""

_GROWTH = 2.0
"""A round begins only if so many times the work of the last is left."""

_ARCS = 2
_SITES = 4
_STANDING = 6
_STANDING_MORE = 30
_REFUGES = 12
_SLIVER = 1e-6
_SHORT = 1e-4


@dataclass(frozen=True, kw_only=True, slots=True)
class Converged:
    """The last complete point, after how many rounds, and the best bound proven (USD/h).

    Rounds that stop early leave the bound at the plain relaxation's: at good prices components
    prove more (`bound.relax_components`).
    """

    point: MasterPoint
    bound_usd_per_h: float
    rounds: int


def converge(
    frame: Frame,
    relaxation: Relaxation,
    workers: Workers,
    *,
    is_over: Callable[[], bool],
) -> Converged:
    """Rounds until work or time is spent.

    Out of time before the first is solved, the point is the plain relaxation's.
    """
    point, best = plain_point(frame, relaxation), relaxation.bound_usd_per_h
    if is_over() or len(frame.rate) > _CLASSES:
        return Converged(point=point, bound_usd_per_h=best, rounds=0)
    losses = losses_of(frame)
    point = _with_choices(frame, point, losses, workers)
    rowed, arcs, refuges = _broken(frame, point, losses=losses), point.arcs, point.refuges
    cuts, work, rounds = point.cuts, 0.0, 0
    for turn in range(_ROUNDS):
        master = Master(
            frame,
            arcs,
            refuges=refuges,
            rowed=rowed,
            cuts=cuts,
            shed_usd_per_h=frame.shed_usd_per_h,
        )
        solved = master.attempt(
            point.basis, is_over=is_over, work=_WORK - work if turn > 0 else None
        )
        if solved is None:
            break
        own, rounds = master.work(), turn + 1
        point = solved
        if turn > 0:
            point, more = _cut(master, solved, workers, is_over=is_over)
            own += more
        work += own
        if turn + 1 == _ROUNDS or is_over() or _WORK - work < _GROWTH * own:
            break
        priced = price_all(frame, duals_of(point), workers, count=_ARCS)
        best = max(best, priced.bound_usd_per_h)
        rowed, arcs = _broken(frame, point, losses=losses), union(frame, [arcs, *priced.wanted])
        refuges, cuts = union(frame, [refuges, *priced.refuges]), master.cuts
    return Converged(point=point, bound_usd_per_h=best, rounds=rounds)


def _cut(
    master: Master, point: MasterPoint, workers: Workers, *, is_over: Callable[[], bool]
) -> tuple[MasterPoint, float]:
    """The last point of a master that gets rows of whole replicas where a point breaks them, and
    the work that took.
    """
    frame, work = master.frame, 0.0
    for _ in range(_CUT_ROUNDS):
        needs = _needs(frame, point, workers)
        if is_over() or not master.cut(needs, point):
            break
        solved = master.attempt(None, is_over=is_over)
        if solved is None:
            break
        point, work = solved, work + master.work()
    return point, work


def _needs(frame: Frame, point: MasterPoint, workers: Workers) -> Needs:
    stands = point.standing(frame)

    def one(classes: Positions) -> Needs:
        return need_cuts(frame, component_arcs(frame, classes), stands, point.shed[classes])

    return joined_needs(workers.map(one, frame.components))


def plain_point(frame: Frame, relaxation: Relaxation) -> MasterPoint:
    """The plain relaxation's point as a master's without whole-replica rows."""
    arcs, none = relaxation.arcs, np.zeros(0, dtype=np.intp)
    group, place = np.unique(arcs.group, return_inverse=True)
    busy = np.bincount(place, arcs.busy * relaxation.part, len(group))
    return MasterPoint(
        cost=relaxation.cost_usd_per_h,
        arcs=arcs,
        refuges=arcs.only(np.zeros(arcs.count, dtype=np.bool_)),
        rowed=Rowed(classes=none, losses=none),
        group=group.astype(np.intp),
        part=relaxation.part,
        shed=relaxation.shed,
        replicas=busy / frame.rateable[group],
        prices=relaxation.prices,
        demand=relaxation.demand,
        cover=np.zeros(len(frame.rate)),
        loss=np.zeros(0),
        cuts=(),
        need=np.zeros(0),
        room=np.zeros(0),
        basis=relaxation.basis,
    )


def with_losses(frame: Frame, point: MasterPoint) -> MasterPoint:
    """A plain point with the rows it breaks, each worth nothing yet."""
    losses = losses_of(frame)
    moved = np.unique(losses[at_ingress(frame, losses)] // len(frame.budget_kw))
    refuges = next_ingress_arcs(frame, moved)
    refuges = replace(refuges, classes=np.arange(len(frame.rate)), row=moved[refuges.row])
    rowed = _broken(frame, replace(point, refuges=refuges), losses=losses)
    return replace(point, rowed=rowed, loss=np.zeros(len(rowed.losses)))


def _with_choices(
    frame: Frame, point: MasterPoint, losses: Positions, workers: Workers
) -> MasterPoint:
    """A plain point with arcs and refuges from which rows may choose."""
    stands = point.standing(frame)
    replica = np.maximum(0.0, frame.replica_price(point.prices))
    exposed = np.zeros(len(frame.rate), dtype=np.bool_)
    exposed[losses // len(frame.budget_kw)] = True

    def one(classes: Positions) -> tuple[ComponentArcs, ComponentArcs]:
        every = component_arcs(frame, classes)
        lot = classes[exposed[classes]]
        beyond = next_ingress_arcs(frame, lot)
        cover = covering(frame, every)
        short = np.bincount(every.row, cover * stands[every.group], len(classes)) < 1.0
        wanting = (short | exposed[classes])[every.row]
        spare = np.zeros(every.count, dtype=np.bool_)
        spare[wanting] = _spare(frame, every.only(wanting), replica)
        safe = _spare(frame, beyond, replica)
        worth = np.minimum(1.0, covering(frame, beyond) * stands[beyond.group])
        safe |= cheapest(beyond, -worth, _REFUGES) & (worth > _SLIVER)
        ready = stands > _SLIVER
        ready[every.group[spare]] = True
        ready[beyond.group[safe]] = True
        open_ = np.flatnonzero(ready[every.group])
        near = every.only(ready[every.group])
        price = flow_price(frame, near, point.prices)
        kept = cheapest(near, price, _STANDING)
        kept |= cheapest(near, price, _STANDING_MORE) & wanting[open_]
        spare[open_[kept]] = True
        return every.only(spare), beyond.only(safe)

    found = workers.map(one, frame.components)
    arcs = union(frame, [point.arcs, *(near for near, _ in found)])
    refuges = union(frame, [safe for _, safe in found])
    group = np.union1d(np.union1d(point.group, arcs.group), refuges.group)
    return replace(
        point,
        arcs=arcs,
        refuges=refuges,
        group=group,
        replicas=stands[group],
        part=_moved(frame, point, arcs),
    )


def _spare(frame: Frame, arcs: ComponentArcs, replica_usd_per_h: Floats) -> Bools:
    """Mask of the arcs to the sites where a replica that covers a class is cheapest."""
    price = replica_usd_per_h[arcs.group] / covering(frame, arcs)
    price[frame.most[arcs.group] <= 0] = np.inf
    return cheapest_sites(frame, arcs, price, _SITES) & np.isfinite(price)


def _moved(frame: Frame, point: MasterPoint, arcs: ComponentArcs) -> Floats:
    """Parts of a point's arcs over more arcs."""
    part = np.zeros(arcs.count)
    old = point.arcs.row * frame.groups + point.arcs.group
    part[np.searchsorted(arcs.row * frame.groups + arcs.group, old)] = point.part
    return part


def _broken(frame: Frame, point: MasterPoint, *, losses: Positions) -> Rowed:
    """The rows of a point and those it breaks; `losses` may have one (class x sites + site)."""
    arcs, sites = point.arcs, len(frame.budget_kw)
    of_group = point.standing(frame)
    stands = covering(frame, arcs) * of_group[arcs.group]
    total = np.bincount(arcs.row, stands, len(frame.rate)) + point.shed
    classes = np.union1d(np.flatnonzero(total < 1 - _SHORT), point.rowed.classes)
    key = arcs.row * sites + frame.site[arcs.group]
    keys, place = np.unique(key, return_inverse=True)
    left = total[keys // sites] - np.bincount(place, stands, len(keys))
    short = keys[left < 1 - _SHORT]
    short = short[~at_ingress(frame, short)]
    refuges = point.refuges
    then = covering(frame, refuges) * of_group[refuges.group]
    lacks = np.bincount(refuges.row, then, len(frame.rate)) + point.shed < 1 - _SHORT
    moved = losses[at_ingress(frame, losses)]
    short = np.union1d(short[np.isin(short, losses)], moved[lacks[moved // sites]])
    found = np.union1d(short, point.rowed.losses)
    return Rowed(classes=classes.astype(np.intp), losses=found.astype(np.intp))
