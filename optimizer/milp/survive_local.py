"""A plan's certificate, the classes a loss leaves short placed again with those beside them.

Decides the certificate where moving traffic to the nearest sites (`survive_plan`) leaves something
exposed or pushes other traffic out: a linear problem serves the classes the loss touches as well as
the replicas left allow, moving as little and pushing out as cheap traffic as that takes. Other
protected classes join it only where its shadow prices say that their moving over saves something.
What there is to decide with stands in `survive_pairs`. Cuts are `survive`'s.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from optimizer.costs import exposure_usd_per_h
from optimizer.milp.flows import Program, solved
from optimizer.milp.scale.workers import SerialWorkers, Workers
from optimizer.milp.survive_pairs import Floats, Ground, Pairs, Positions, joined
from optimizer.plan import Plan
from optimizer.reach import Reach
from optimizer.survive import AfterLoss, is_asked
from optimizer.survive_plan import LossAnswer, Survivors, whole_shares, with_certificate
from sites.units import WHOLE_BP

_MOVING_PART = 1e-5
"""What moving traffic that could stay costs, as part of leaving it exposed: it breaks ties only."""

_SAVING_PART = 1e-6
"""A class joins where a basis point of it moved over saves more, as part of its own exposure."""

_ROUNDS = 40
"""Classes and limits join in so many rounds at most; the checker judges what stands then."""

_OVERFULL = 1e-9
"""A limit passed by less, as part of what there is of it, is one kept."""


def certify(reach: Reach, plan: Plan, workers: Workers | None = None) -> Plan:
    """The plan with its certificate and the price of what is exposed; unchanged if none is asked.

    As `survive_plan.certified`, with a linear problem for each loss that this leaves exposed;
    `workers` solve those of all losses side by side.
    """
    if not is_asked(reach):
        return plan
    survivors = Survivors(reach, plan)
    ground = Ground(survivors, plan)
    answers = _best_answers(ground, survivors.losses(), workers or SerialWorkers())
    return with_certificate(reach, plan, answers=answers)


def best_answer(ground: Ground, lost_site_id: str) -> LossAnswer:
    """The nearest sites' answer to a loss, or the linear problem's where that is better."""
    return _best_answers(ground, [lost_site_id], SerialWorkers())[0]


def _best_answers(
    ground: Ground, lost_site_ids: Sequence[str], workers: Workers
) -> list[LossAnswer]:
    """Loss by loss as `best_answer`. The losses go through their rounds together, since nothing
    but the solver lets go of the interpreter.
    """
    reach = ground.survivors.reach
    found = {site_id: ground.survivors.nearest(site_id) for site_id in lost_site_ids}
    losses = [_Loss(ground, site_id) for site_id, one in found.items() if one.exposed or one.pushes]
    _solve(losses, workers)
    for loss in losses:
        nearest, again = found[loss.lost_site_id], loss.answer()
        before, after = (exposure_usd_per_h(reach, a.exposed) for a in (nearest, again))
        found[loss.lost_site_id] = again if after <= before else nearest
    return list(found.values())


def _solve(losses: Sequence[_Loss], workers: Workers) -> None:
    """Bring each loss to its best point."""
    for turn in range(1 + _ROUNDS):
        if turn > 0:
            losses = [loss for loss in losses if loss.widened()]
        if not losses:
            break
        points = workers.map(solved, [loss.program() for loss in losses])
        for loss, (values, duals) in zip(losses, points, strict=True):
            loss.stand_at(values, duals)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Point:
    """What the linear problem says: basis points on each of its pairs, the price of each limit."""

    pairs: Pairs
    basis_points: Floats
    prices: Floats


class _Loss:
    """One loss: the classes that may move (`free`), the limits looked at (`tight`) and the `point`
    found with those so far.
    """

    point: _Point
    _asked: tuple[Pairs, Positions]

    def __init__(self, ground: Ground, lost_site_id: str) -> None:
        survivors = ground.survivors
        self.ground, self.survivors, self.lost_site_id = ground, survivors, lost_site_id
        self.left = AfterLoss(survivors.reach, lost_site_id)
        self.lost = ground.groups_at(lost_site_id)
        touched = sorted(survivors.touched[lost_site_id])
        self.room = ground.room.copy()
        self._vacate(ground.positions(touched))
        # a class nobody left may answer gives its room up and gets none
        asked = [
            c
            for c in touched
            if survivors.wanted(c) > 0 and survivors.has_arc(self.left, c, lost_site_id)
        ]
        self.free = ground.positions(asked)
        self.spent = np.setdiff1d(ground.positions(touched), self.free)
        moved = [c for c in asked if self._enters_elsewhere(c)]
        self.moved = ground.positions(moved)
        entering = ground.pairs_of(self.left, moved)
        self.entering = entering.only(np.flatnonzero(~self.lost[entering.group]))
        self.tight = ground.is_busy.copy()

    def widened(self) -> bool:
        """Whether limits that the point passes are looked at from now on, or classes join that its
        prices say would save something.
        """
        passed, joining = self._passed(self.point), self._joining(self.point)
        self.tight[passed] = True
        self._vacate(joining)
        self.free = np.union1d(self.free, joining)
        return bool(len(passed) or len(joining))

    def answer(self) -> LossAnswer:
        """The certificate's entries of the point."""
        ids, parts, point = self.ground.class_ids, dict[str, dict[int, float]](), self.point
        for at in self.free:
            parts[ids[at]] = {}
        for at in np.flatnonzero(point.basis_points > 0):
            group = int(point.pairs.group[at])
            parts[ids[point.pairs.row[at]]][group] = float(point.basis_points[at])
        wanted = self.survivors.wanted
        shares = {c: whole_shares(has, wanted=wanted(c)) for c, has in parts.items()}
        return self.survivors.answer(self.left, shares, lost_site_id=self.lost_site_id)

    def _enters_elsewhere(self, class_id: str) -> bool:
        one = self.survivors.classes[class_id]
        return self.left.entry(one) != self.survivors.reach.entry(one)

    def _vacate(self, classes: Positions) -> None:
        """The room that some classes hold as planned is there for all that may move."""
        self.room += self.ground.held_at(classes)

    def _pairs(self) -> Pairs:
        """The pairs of the classes that may move, at sites left."""
        stays = np.setdiff1d(self.free, self.moved)
        return joined(self.ground.pairs_at(stays, closed=self.lost), self.entering)

    def program(self) -> Program:
        """min sum moving[p] y[p] + sum price[d] u[d] + sum push[k] z[k]  where
        sum_p y[p] + u[d] == wanted[d]  and  sum_p uses[p, k] y[p] - z[k] <= room[k] - others[k],
        0 <= z[k] <= others[k]: what others on busy replicas give up.
        """
        ground, pairs = self.ground, self._pairs()
        uses = ground.uses(self.left, pairs, looked_at=self.tight)
        keys = np.unique(uses.key)
        classes, count = len(self.free), len(pairs.row)
        giving = np.flatnonzero(ground.others[keys] > 0)
        columns = np.arange(classes + len(giving)) + count
        self._asked = pairs, keys
        return Program(
            prices=np.concatenate(
                (self._moving(pairs), ground.price[self.free], ground.pushing[keys[giving]])
            ),
            most=np.concatenate(
                (np.full(count + classes, float(WHOLE_BP)), ground.others[keys[giving]])
            ),
            row=np.concatenate(
                (
                    np.searchsorted(self.free, pairs.row),
                    np.searchsorted(keys, uses.key) + classes,
                    np.arange(classes),
                    giving + classes,
                )
            ),
            column=np.concatenate((np.arange(count), uses.pair, columns)),
            each=np.concatenate(
                (np.ones(count), uses.each, np.ones(classes), np.full(len(giving), -1.0))
            ),
            exact=ground.wanted[self.free],
            most_used=self._upper(keys),
        )

    def stand_at(self, values: Floats, duals: Floats) -> None:
        """Stand at the optimum of the program: the value of each column, the price of each row."""
        pairs, keys = self._asked
        prices = np.zeros(self.ground.limits)
        prices[keys] = np.maximum(0.0, -duals[len(self.free) :])
        self.point = _Point(pairs=pairs, basis_points=values[: len(pairs.row)], prices=prices)

    def _upper(self, keys: Positions) -> Floats:
        """What may be used of limits before others give way, less than nothing where they overfill
        them by their rounding: that they give up first.
        """
        others = self.ground.others[keys]
        least: Floats = np.maximum(-others, self.room[keys] - others)
        return least

    def _moving(self, pairs: Pairs) -> Floats:
        moves = np.where(pairs.held > 0, 0.0, _MOVING_PART)
        priced: Floats = moves * self.ground.price[pairs.row]
        return priced

    def _passed(self, point: _Point) -> Positions:
        """Limits not looked at so far that the point passes."""
        ids = self.ground.class_ids
        follows_links = self.survivors.may_fill_links(ids[at] for at in self.free)
        looked_at = ~self.ground.is_link | follows_links
        used = self.ground.used(self.left, point.pairs, point.basis_points, looked_at=looked_at)
        most = np.maximum(0.0, self.room)
        passed = ~self.tight & (used > most + _OVERFULL * self.ground.whole)
        return np.flatnonzero(passed)

    def _joining(self, point: _Point) -> Positions:
        """Classes held so far that would save something by moving over, at the point's prices."""
        ground = self.ground
        held = ground.holders(np.flatnonzero(point.prices > 0))
        others = np.setdiff1d(held, np.concatenate((self.free, self.spent)))
        pairs = ground.pairs_at(others, closed=self.lost)
        uses = ground.uses(self.left, pairs, looked_at=point.prices > 0)
        paid = uses.each * point.prices[uses.key]
        worth = np.bincount(uses.pair, paid, len(pairs.row))
        row = np.searchsorted(others, pairs.row)
        now, best = np.zeros(len(others)), ground.price[others]
        np.maximum.at(now, row[pairs.held > 0], worth[pairs.held > 0])
        np.minimum.at(best, row, worth + self._moving(pairs))
        return others[now - best > _SAVING_PART * ground.price[others]]
