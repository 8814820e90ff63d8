"""The relaxation with whole-replica rows: replica counts stand in it, and no class gets by on a
sliver of a replica.

Decides which rows it has. Per class ``sum_r min(1, rateable_r / busy_dr) n_r + shed_d >= 1``: whole
replicas that serve a class can each take it whole or are full of it. The same over all sites but
one, for a protected class, or what is exposed is paid for; where that one is its ingress, over what
it reaches from the next (`refuges`). Both hold for every plan in whole
replicas; both are added only where a point breaks them, and so are those of `rounding` (`cut`).
Which arcs it has is `priced`'s question.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from optimizer.milp.scale import lp
from optimizer.milp.scale.catalogue import ComponentArcs, transfer
from optimizer.milp.scale.frame import Frame, Positions, Prices
from optimizer.milp.scale.losses import at_ingress
from optimizer.milp.scale.rounding import Cuts, Terms, room_prices
from optimizer.tables import Floats

_AMPLE = 2.0
"""Above what rows allow, so that no bound has a price, and finite, which the simplex likes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Rowed:
    """Which classes have their cover row, and which losses (class x sites + site, ascending)."""

    classes: Positions
    losses: Positions

    @property
    def count(self) -> int:
        """How many rows."""
        return len(self.classes) + len(self.losses)


@dataclass(frozen=True, kw_only=True, slots=True)
class MasterPoint:
    """A solved master: cost in USD/h, parts of classes over `arcs`, replicas of `group`, `refuges`
    that count where a class loses its ingress, and what one more unit of each row is worth
    (`demand`, `cover`, per class in USD/h; `loss`: of each loss in `rowed`; `need` and `room`: of
    each of `cuts`). `basis` is where the next solve may begin.
    """

    cost: float
    arcs: ComponentArcs
    refuges: ComponentArcs
    rowed: Rowed
    group: Positions
    part: Floats
    shed: Floats
    replicas: Floats
    prices: Prices
    demand: Floats
    cover: Floats
    loss: Floats
    cuts: tuple[Cuts, ...]
    need: Floats
    room: Floats
    basis: lp.Basis | None

    def asked_usd_per_h(self, frame: Frame) -> Floats:
        """What the rows of each class are worth together, but for those of several classes."""
        classes = self.rowed.losses // len(frame.budget_kw)
        lost = np.bincount(classes, self.loss, len(frame.rate))
        asked: Floats = self.demand + self.cover + lost
        return asked

    def standing(self, frame: Frame) -> Floats:
        """Replicas of every group of the frame."""
        stands = np.zeros(frame.groups)
        stands[self.group] = self.replicas
        return stands


def covering(frame: Frame, arcs: ComponentArcs) -> Floats:
    """How much of a class one whole replica can take, per arc: at most all of it."""
    part: Floats = np.minimum(1.0, frame.rateable[arcs.group] / np.maximum(arcs.busy, 1e-12))
    return part


class Master:
    """One relaxation over some arcs with some cover rows, in HiGHS, ready to be solved again."""

    def __init__(
        self,
        frame: Frame,
        arcs: ComponentArcs,
        *,
        refuges: ComponentArcs,
        rowed: Rowed,
        cuts: tuple[Cuts, ...],
        shed_usd_per_h: Floats,
    ) -> None:
        self.frame, self.arcs, self.rowed, self._shed = frame, arcs, rowed, shed_usd_per_h
        self.refuges = refuges
        self.group = np.union1d(arcs.group, refuges.group)
        self._place = np.searchsorted(self.group, arcs.group)
        self._busy = np.bincount(self._place, minlength=len(self.group)) > 0
        self._cover = covering(frame, arcs)
        self._sites = len(frame.budget_kw)
        staying = rowed.losses[~at_ingress(frame, rowed.losses)]
        self._summed = np.unique(staying // self._sites)
        counts = (
            arcs.count,
            len(frame.rate),
            len(self.group),
            frame.stack.limit_kw.size,
            len(rowed.losses),
            len(self._summed),
        )
        self._first = np.concatenate([[0], np.cumsum(counts)]).astype(np.intp)
        self.highs = self._built()
        self.cuts, self._cut_sizes = cuts, list[int]()
        for one in cuts:
            self._add(one)

    def _built(self) -> Any:
        frame, arcs = self.frame, self.arcs
        rows = lp.RowBuilder()
        self._own_rows(rows)
        self._shared_rows(rows)
        self._cover_rows(rows)
        own = frame.fixed_usd_per_h + np.where(frame.running > 0, 0.0, frame.start_usd_per_h)
        classes = self.rowed.losses // self._sites
        policy = frame.tables.problem.plan_policy
        price = frame.stack.usd_per_kwh
        model = lp.make(
            cost=np.concatenate(
                [
                    transfer(frame, arcs),
                    self._shed,
                    own[self.group],
                    np.where(np.isfinite(price), price, 0.0).ravel(),
                    policy.exposure_part * frame.shed_usd_per_h[classes],
                    np.zeros(len(self._summed)),
                ]
            ),
            upper=np.concatenate(
                [
                    np.full(arcs.count + len(frame.rate), _AMPLE),
                    frame.most[self.group],
                    frame.stack.limit_kw.ravel(),
                    np.full(len(classes), _AMPLE),
                    self._ample_sums(),
                ]
            ),
            rows=rows.rows(),
        )
        return lp.opened(model)

    def _ample_sums(self) -> Floats:
        """More than what all replicas of each class in `_summed` cover."""
        arcs = self.arcs
        whole = self._cover * self.frame.most[arcs.group]
        ample = np.full(len(self._summed), _AMPLE)
        ample += np.bincount(arcs.row, whole, len(self.frame.rate))[self._summed]
        return ample

    def _own_rows(self, rows: lp.RowBuilder) -> None:
        arcs, at = self.arcs, np.arange(self.arcs.count)
        each, place = np.arange(len(self.frame.rate)), np.arange(len(self.group))
        served = [
            (arcs.row, at, np.ones(arcs.count)),
            (each, self._first[1] + each, np.ones(len(each))),
        ]
        rows.block(1.0, 1.0, entries=served, count=len(each))
        rated = -self.frame.rateable[self.group]
        busy = [(self._place, at, arcs.busy), (place, self._first[2] + place, rated)]
        rows.block(-lp.INF, 0.0, entries=busy, count=len(place))

    def _shared_rows(self, rows: lp.RowBuilder) -> None:
        frame, group, arcs = self.frame, self.group, self.arcs
        column = self._first[2] + np.arange(len(group))
        pool = [(frame.pool[group], column, frame.accelerators[group])]
        rows.block(-lp.INF, frame.pool_count, entries=pool, count=len(frame.pool_count))
        power = [(frame.site[group], column, frame.possible_kw[group])]
        rows.block(-lp.INF, frame.budget_kw, entries=power, count=self._sites)
        busy_kw = arcs.busy * frame.busy_kw[arcs.group]
        size = frame.stack.limit_kw.size
        supply_site = np.repeat(np.arange(self._sites), frame.stack.limit_kw.shape[1])
        draw = [
            (frame.site[group], column, frame.idle_kw[group]),
            (frame.site[arcs.group], np.arange(arcs.count), busy_kw),
            (supply_site, self._first[3] + np.arange(size), -np.ones(size)),
        ]
        rows.block(0.0, 0.0, entries=draw, count=self._sites)

    def _cover_rows(self, rows: lp.RowBuilder) -> None:
        arcs, rowed, frame = self.arcs, self.rowed, self.frame
        column = self._first[2] + self._place
        rank = np.full(len(frame.rate), -1)
        rank[rowed.classes] = np.arange(len(rowed.classes))
        mine = np.flatnonzero(rank[arcs.row] >= 0)
        each = np.arange(len(rowed.classes))
        entries = [
            (rank[arcs.row[mine]], column[mine], self._cover[mine]),
            (each, self._first[1] + rowed.classes, np.ones(len(each))),
        ]
        rows.block(1.0, lp.INF, entries=entries, count=len(each))
        self._loss_rows(rows)

    def _loss_rows(self, rows: lp.RowBuilder) -> None:
        """What all sites cover less what the lost one does; after the loss of its ingress, what the
        class reaches from the next. Far fewer entries than one for every site left.
        """
        arcs, frame, sites, first = self.arcs, self.frame, self._sites, self._first
        losses = self.rowed.losses
        column = first[2] + self._place
        cls = losses // sites
        moved = at_ingress(frame, losses)
        total = np.full(len(frame.rate), -1)
        total[self._summed] = first[5] + np.arange(len(self._summed))
        key = arcs.row * sites + frame.site[arcs.group]
        at = np.minimum(np.searchsorted(losses, key), max(0, len(losses) - 1))
        lost = np.zeros(arcs.count, dtype=np.bool_)
        if len(losses):
            lost = (losses[at] == key) & ~moved[at]
        refuges = self.refuges
        rank = np.full(len(frame.rate), -1)
        rank[cls[moved]] = np.flatnonzero(moved)
        safe = np.flatnonzero(rank[refuges.row] >= 0)
        refuge = first[2] + np.searchsorted(self.group, refuges.group[safe])
        each, stay = np.arange(len(losses)), np.flatnonzero(~moved)
        entries = [
            (stay, total[cls[stay]], np.ones(len(stay))),
            (at[lost], column[lost], -self._cover[lost]),
            (rank[refuges.row[safe]], refuge, covering(frame, refuges)[safe]),
            (each, first[1] + cls, np.ones(len(each))),
            (each, first[4] + each, np.ones(len(each))),
        ]
        rows.block(1.0, lp.INF, entries=entries, count=len(each))
        mine = np.flatnonzero(total[arcs.row] >= 0)
        some = np.arange(len(self._summed))
        entries = [
            (total[arcs.row[mine]] - first[5], column[mine], -self._cover[mine]),
            (some, first[5] + some, np.ones(len(some))),
        ]
        rows.block(-lp.INF, 0.0, entries=entries, count=len(some))

    def solve(self, basis: lp.Basis | None = None) -> MasterPoint:
        """The point of the relaxation as it is."""
        self._begin(basis)
        lp.must_run(self.highs)
        return self._point()

    def attempt(
        self, basis: lp.Basis | None, *, is_over: Callable[[], bool], work: float | None = None
    ) -> MasterPoint | None:
        """The point, or None if time or `work` (pivots times rows) ran out before there was one."""
        self._begin(basis)
        lp.interruptible(self.highs, is_over)
        if work is not None:
            lp.limit(self.highs, pivots=int(work / self.highs.getNumRow()))
        return self._point() if lp.run(self.highs) else None

    def work(self) -> float:
        """Pivots times rows of the last run."""
        return float(max(0, self.highs.getInfo().simplex_iteration_count) * self.highs.getNumRow())

    def _add(self, more: Cuts) -> None:
        lp.add_rows(self.highs, self._cut_rows(more))
        self._cut_sizes += more.sizes

    def _cut_rows(self, cuts: Cuts) -> lp.Rows:
        first, rows = self._first, lp.RowBuilder()
        needs, rooms = cuts.needs, cuts.rooms
        shed = needs.shed
        entries = [self._of_replicas(needs.replicas), (shed.cut, first[1] + shed.at, shed.value)]
        rows.block(needs.lower, lp.INF, entries=entries, count=len(needs.lower))
        entries = [self._of_replicas(rooms.replicas)]
        rows.block(-lp.INF, rooms.upper, entries=entries, count=len(rooms.upper))
        return rows.rows()

    def _of_replicas(self, terms: Terms) -> tuple[Positions, Positions, Floats]:
        """Terms over groups, of those that have columns here."""
        at = np.minimum(np.searchsorted(self.group, terms.at), len(self.group) - 1)
        here = np.flatnonzero(self.group[at] == terms.at)
        return terms.cut[here], self._first[2] + at[here], terms.value[here]

    def _worth_of_cuts(self, dual: Floats) -> tuple[Floats, Floats]:
        """What needs and rooms are worth, from the duals of all cuts."""
        parts, none = np.split(dual, np.cumsum(self._cut_sizes)[:-1]), np.zeros(0)
        need = np.maximum(0.0, np.concatenate([none, *parts[0::2]]))
        return need, np.maximum(0.0, -np.concatenate([none, *parts[1::2]]))

    def _begin(self, basis: lp.Basis | None) -> None:
        if basis is not None:
            lp.begin(self.highs, basis, columns=self._columns(), rows=self._rows())

    def _point(self) -> MasterPoint:
        frame = self.frame
        solution = self.highs.getSolution()
        value, dual = np.array(solution.col_value), np.array(solution.row_dual)
        counts = [len(one.keys) for one in self._rows()]
        parts = np.split(dual, np.cumsum(counts)[:-1])
        cover = np.zeros(len(frame.rate))
        cover[self.rowed.classes] = np.maximum(0.0, parts[5])
        first = self._first
        need, room = self._worth_of_cuts(parts[9])
        return MasterPoint(
            cost=float(self.highs.getInfo().objective_function_value),
            arcs=self.arcs,
            refuges=self.refuges,
            rowed=self.rowed,
            group=self.group,
            part=value[: first[1]],
            shed=value[first[1] : first[2]],
            replicas=value[first[2] : first[3]],
            prices=Prices(
                pool=np.maximum(0.0, -parts[2]),
                power=np.maximum(0.0, -parts[3]),
                energy=-parts[4],
                room=room_prices(frame, [one.rooms for one in self.cuts], room),
            ),
            demand=parts[0],
            cover=cover,
            loss=np.maximum(0.0, parts[6]),
            cuts=self.cuts,
            need=need,
            room=room,
            basis=lp.basis_of(self.highs, columns=self._columns(), rows=self._rows()),
        )

    def _columns(self) -> tuple[lp.Kind, ...]:
        """What columns stand for. New replicas follow their traffic, sums what they add up."""
        frame, arcs = self.frame, self.arcs
        return (
            lp.kind(arcs.row * frame.groups + arcs.group, lp.LOWER),
            lp.kind(np.arange(len(frame.rate)), lp.LOWER),
            lp.kind(self.group, np.where(self._busy, lp.BASIC, lp.LOWER)),
            lp.kind(np.arange(frame.stack.limit_kw.size), lp.LOWER),
            lp.kind(self.rowed.losses, lp.LOWER),
            lp.kind(self._summed, lp.BASIC),
        )

    def _rows(self) -> tuple[lp.Kind, ...]:
        frame, sites = self.frame, np.arange(self._sites)
        return (
            lp.kind(np.arange(len(frame.rate)), lp.BASIC),
            lp.kind(self.group, np.where(self._busy, lp.UPPER, lp.BASIC)),
            lp.kind(np.arange(len(frame.pool_count)), lp.BASIC),
            lp.kind(sites, lp.BASIC),
            lp.kind(sites, lp.BASIC),
            lp.kind(self.rowed.classes, lp.BASIC),
            lp.kind(self.rowed.losses, lp.BASIC),
            lp.kind(self._summed, lp.UPPER),
            lp.kind(np.zeros(0, dtype=np.intp), lp.BASIC),  # caps have prices here, no rows
            lp.kind(np.arange(sum(self._cut_sizes)), lp.BASIC),
        )
