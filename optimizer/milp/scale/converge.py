"""The relaxation with whole-replica rows from the plain one: which rows and arcs it gets, how long.

Decides where the master begins and when it is good enough. It begins at the plain relaxation's
vertex with every row that breaks there and, for the classes of those rows, arcs to replicas that
stand or could stand cheaply: adding those costs no dual feasibility, so the first solve is short.
Then, by turns, arcs that would pay at its prices join, and rows that its point breaks: not both at
once, which leaves neither simplex a vertex to go on from (10 000 classes: 32 s; by turns 2.9).
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
from optimizer.milp.scale.priced import Priced, duals_of, price_all
from optimizer.milp.scale.rounding import Cuts, Needs, joined_needs, need_cuts, room_cuts
from optimizer.milp.scale.workers import Workers
from optimizer.tables import Floats

Bools = NDArray[np.bool_]

_TURNS = 10
"""At most. Of 3 000 classes 3 settle it, in 3 s. Of 10 000 components prove $12 127/h at the plain
relaxation's prices, 12 273 after 3 turns (17 s).
"""
_WORK = 4e9
"""Pivots times rows of all turns (about 20 s)."""

_CONVERGED, _SETTLED = 1e-4, 1e-3
"""Relative: prices that prove so near what a point costs are left as they are, and a point with
cuts whose cost a turn changed so little.
"""

_EASY = 2e7
"""Work up to which a point is not left for having settled: of small fleets all turns take less than
a second (the Europe example 0.4 s; it came to its gap in 17 s then, in 31 settled before).
"""

_FIRST_CUTS = 1
"""The turn from which rows of whole replicas are asked for: from the first on, three turns of
10 000 classes took 21 s instead of 17, for 522 instead of 407 rows and the same bound.
"""

_ARCS = 4
_SITES = 4
_STANDING = 6
_STANDING_MORE = 30
_REFUGES = 12
_SLIVER = 1e-6
_SHORT = 1e-4


@dataclass(frozen=True, kw_only=True, slots=True)
class Converged:
    """The last point for whose rows arcs have joined, after how many solves (`rounds`, 0: plain),
    and the best bound proven (USD/h).

    Turns that stop early leave the bound at the plain relaxation's: at good prices components
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
    """Turns until nothing joins, or work or time is spent.

    Out of time before arcs have joined once, the point is the plain relaxation's.
    """
    point, best = plain_point(frame, relaxation), relaxation.bound_usd_per_h
    if is_over():
        return Converged(point=point, bound_usd_per_h=best, rounds=0)
    losses = losses_of(frame)
    point = _with_choices(frame, point, losses, workers)
    growing = _Growing(frame, point, _broken(frame, point, losses=losses), is_over=is_over)
    if not growing.solved():
        return Converged(point=point, bound_usd_per_h=best, rounds=0)
    kept: MasterPoint | None = None  # new rows are too dear until arcs have joined for them
    for turn in range(_TURNS):
        if is_over():
            break
        priced = price_all(frame, duals_of(growing.point), workers, count=_ARCS)
        best = max(best, priced.bound_usd_per_h)
        cost = growing.point.cost
        is_near = cost - best <= _CONVERGED * abs(cost)
        if not is_near and not growing.by_columns(priced):
            break
        kept = growing.point
        rowed, cuts = _broken(frame, kept, losses=losses), kept.cuts
        if is_near or turn >= _FIRST_CUTS:
            cuts += _cuts(frame, kept, workers)
        if is_near and len(cuts) == len(kept.cuts) and rowed.count == kept.rowed.count:
            break
        if not growing.by_rows(rowed, cuts):
            break
        change = abs(growing.point.cost - cost)
        is_settled = turn > _FIRST_CUTS and change <= _SETTLED * abs(cost)
        if is_settled and growing.work > _EASY:
            kept = growing.point
            break
    if kept is None:
        return Converged(point=point, bound_usd_per_h=best, rounds=0)
    return Converged(point=kept, bound_usd_per_h=best, rounds=growing.solves)


class _Growing:
    """A master made anew with more columns or more rows, never both at once: the last `point` it
    came to after so many `solves` and pivots times rows (`work`).
    """

    def __init__(
        self, frame: Frame, point: MasterPoint, rowed: Rowed, *, is_over: Callable[[], bool]
    ) -> None:
        self.point, self.solves = point, 0
        self._frame, self._is_over, self.work = frame, is_over, 0.0
        self._arcs, self._refuges = point.arcs, point.refuges
        self._rowed, self._cuts = rowed, point.cuts

    def by_columns(self, priced: Priced) -> bool:
        """Solve with the arcs that would pay as well."""
        self._arcs = union(self._frame, [self._arcs, *priced.wanted])
        self._refuges = union(self._frame, [self._refuges, *priced.refuges])
        return self.solved()

    def by_rows(self, rowed: Rowed, cuts: tuple[Cuts, ...]) -> bool:
        """Solve with these rows and cuts."""
        self._rowed, self._cuts = rowed, cuts
        return self.solved()

    def solved(self) -> bool:
        """Whether there was a point before time or work ran out; the first is worth any work."""
        master = Master(
            self._frame,
            self._arcs,
            refuges=self._refuges,
            rowed=self._rowed,
            cuts=self._cuts,
            shed_usd_per_h=self._frame.shed_usd_per_h,
        )
        left = _WORK - self.work if self.solves else None
        found = master.attempt(self.point.basis, is_over=self._is_over, work=left)
        self.work += master.work()
        if found is None:
            return False
        self.point, self.solves = found, self.solves + 1
        return True


def _cuts(frame: Frame, point: MasterPoint, workers: Workers) -> tuple[Cuts, ...]:
    """Rows of whole replicas that a point breaks, none or one lot of them."""
    stands = point.standing(frame)

    def one(classes: Positions) -> Needs:
        return need_cuts(frame, component_arcs(frame, classes), stands, point.shed[classes])

    needs = joined_needs(workers.map(one, frame.components))
    found = Cuts(needs=needs, rooms=room_cuts(frame, stands))
    return (found,) if any(found.sizes) else ()


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


def with_losses(frame: Frame, point: MasterPoint, workers: Workers) -> MasterPoint:
    """A plain point with the rows it breaks, each worth nothing yet, and arcs to choose from."""
    losses = losses_of(frame)
    ready = _with_choices(frame, point, losses, workers)
    rowed = _broken(frame, ready, losses=losses)
    return replace(ready, rowed=rowed, loss=np.zeros(len(rowed.losses)))


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
