"""Some classes' problem as a small MIP: whole replicas within room.

The shared limits are hard, what others take already taken off: its point is a part of a plan
(`cluster`). Only the groups handed in get columns.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from optimizer.milp.scale import lp
from optimizer.milp.scale.catalogue import ComponentArcs
from optimizer.milp.scale.exposure import Entries, Exposure
from optimizer.milp.scale.frame import Frame, Positions
from optimizer.milp.scale.ledger import Change, Use, flows_over
from optimizer.tables import Floats

_USELESS = 1e-9
_DUST = 1e-7
_PAIN = 1e-4
_EXPOSED = 1e-6
_LOOKS = 2
_SHELTERS, _EARLY_SHELTERS = 48, 12
"""Sites at which new replicas count as a class's cover: with all of them most rows of a search at
600 sites were for losses.
"""


def _protected(frame: Frame, arcs: ComponentArcs) -> Floats:
    flag: Floats = frame.tables.classes.protected[arcs.classes][arcs.row].astype(np.float64)
    return flag


class Kernel:
    """Columns: part of a class on each arc, shed, replicas (`first_replica`), replicas that run
    already, supplies (`first_supply`) of the sites `supplied`. Rows may be added to `rows`.
    """

    def __init__(
        self,
        frame: Frame,
        arcs: ComponentArcs,
        flow_usd_per_h: Floats,
        *,
        group: Positions,
        shed_usd_per_h: Floats,
        base: Floats,
    ) -> None:
        self.frame, self.arcs, self._flow = frame, arcs, flow_usd_per_h
        self.group, self.place = group, np.searchsorted(group, arcs.group)
        self._base = base
        self._shed = shed_usd_per_h
        self._classes, self._groups = len(arcs.classes), len(self.group)
        self.first_replica = arcs.count + self._classes
        self._running = np.minimum(frame.running[self.group], frame.most[self.group])
        self.first_supply = self.first_replica + 2 * self._groups
        self._extra_price: Floats = np.zeros(0)
        self._supply_price: Floats = np.zeros(0)
        self._supply_kw: Floats = np.zeros(0)
        self.supplied: Positions = np.zeros(0, dtype=np.intp)
        work = np.bincount(self.place, arcs.busy, self._groups) + base
        useful = np.ceil(work / frame.rateable[self.group] - 1e-9)
        spare = np.bincount(self.place, _protected(frame, arcs), self._groups) > 0
        self._most = np.minimum(frame.most[self.group], useful + spare)
        self._least = frame.least[group]
        none = np.zeros(0, dtype=np.intp)
        self._shelters = none, none, none, none
        self.rows = lp.RowBuilder()
        self._own_rows()

    def _own_rows(self) -> None:
        """Every class is served or shed; no replica above its ceiling; kept replicas stand."""
        arcs, at, group = self.arcs, np.arange(self.arcs.count), np.arange(self._groups)
        classes = np.arange(self._classes)
        replica = self.first_replica + group
        rateable = self.frame.rateable[self.group]
        ones = np.ones(arcs.count)
        served = [(arcs.row, at, ones), (classes, arcs.count + classes, np.ones(self._classes))]
        self.rows.block(1.0, 1.0, entries=served, count=self._classes)
        busy = [(self.place, at, arcs.busy), (group, replica, -rateable)]
        self.rows.block(-lp.INF, -self._base, entries=busy, count=self._groups)
        kept = np.flatnonzero(self._running > 0)
        each, one = np.arange(len(kept)), np.ones(len(kept))
        stands = [(each, replica[kept] + self._groups, one), (each, replica[kept], -one)]
        self.rows.block(-lp.INF, 0.0, entries=stands, count=len(kept))

    def stand(self, replicas: Floats, *, fixed: NDArray[np.bool_], grows: bool) -> None:
        """Keep the replicas of some groups as they are; if the plan only `grows`, of the others at
        least those that stand.
        """
        self._most = np.where(fixed, replicas, np.maximum(self._most, replicas))
        self._least = replicas if grows else np.where(fixed, replicas, self._least)

    def cover(self) -> None:
        """``sum_r min(1, rateable_r / busy_dr) n_r + shed_d >= 1``, where that says more than the
        throughput rows do.
        """
        arcs = self.arcs
        rated = self.frame.rateable[arcs.group]
        part = np.minimum(1.0, rated / arcs.busy)
        says = np.flatnonzero(np.bincount(arcs.row, part >= 1.0, self._classes) > 0)
        rank = np.full(self._classes, -1)
        rank[says] = np.arange(len(says))
        at = np.flatnonzero(rank[arcs.row] >= 0)
        entries = [
            (rank[arcs.row[at]], self.first_replica + self.place[at], part[at]),
            (np.arange(len(says)), arcs.count + says, np.ones(len(says))),
        ]
        self.rows.block(1.0, lp.INF, entries=entries, count=len(says))

    def survive_with(
        self,
        exposure: Exposure,
        *,
        free: NDArray[np.bool_],
        replicas: Floats,
        shed: Floats,
        price: Floats,
        grows: bool,
    ) -> tuple[Positions, Positions, Positions]:
        """``sum_{free r not at s} cover_dr n_r + exposed_ds + shed_d >= 1 - cover that stands``:
        every protected class with a lawful arc to the free groups, every site it has cover at and
        the one it enters at. New cover counts only at each class's few sites where it is cheapest,
        at a replica's `price`.
        """
        frame, moves = self.frame, np.flatnonzero(free[self.group])
        place, entries = exposure.of_groups(self.group[moves])
        kept = entries.nearest(frame, price, _EARLY_SHELTERS if grows else _SHELTERS)
        if not grows:
            kept |= replicas[entries.group] > 0
        place, entries = place[kept], entries.only(kept)
        none = np.zeros(0, dtype=np.intp)
        nothing = none, none, none
        if len(place) == 0:
            return nothing
        self._shelter(exposure, entries, moves[place])
        ranks, row = np.unique(entries.rank, return_inverse=True)
        site = frame.site[entries.group]
        now = entries.cover * replicas[entries.group]
        short = self._short(exposure, ranks, (row, site, now), shed=shed)
        if grows:
            # what stands will do so: no row where that is enough
            standing = exposure.cover[ranks]
            short[standing.sum(axis=1)[:, None] - standing >= 1.0] = 0.0
        lost = np.argwhere(short > _EXPOSED)
        if len(lost) == 0:
            return nothing
        column = self._loss_rows(exposure, entries, moves[place], short=short)
        return ranks[lost[:, 0]], lost[:, 1], column

    def _loss_rows(
        self, exposure: Exposure, entries: Entries, place: Positions, *, short: Floats
    ) -> Positions:
        """The rows of `survive_with` where `short[rank, site]` is above 0, and the columns of what
        is exposed, row by row; `place` says which group of the kernel an entry speaks of.
        """
        frame, replica = self.frame, self.first_replica + place
        ranks, row = np.unique(entries.rank, return_inverse=True)
        rank_of, site_of = np.nonzero(short > _EXPOSED)
        column = self.first_supply + len(self._supply_kw) + len(self._extra_price)
        total = column + len(rank_of)
        some, each = np.arange(len(ranks)), np.arange(len(rank_of))
        sums = [(row, replica, -entries.cover), (some, total + some, np.ones(len(some)))]
        self.rows.block(-lp.INF, 0.0, entries=sums, count=len(ranks))
        # what all sites cover less what the lost one does: far fewer entries than what is left
        key = rank_of * len(frame.budget_kw) + site_of
        entry_key = row * len(frame.budget_kw) + frame.site[entries.group]
        at = np.minimum(np.searchsorted(key, entry_key), len(key) - 1)
        there = np.flatnonzero(key[at] == entry_key)
        classes = exposure.classes[ranks[rank_of]]
        own = np.minimum(np.searchsorted(self.arcs.classes, classes), self._classes - 1)
        mine = np.flatnonzero(self.arcs.classes[own] == classes)
        rows = [
            (each, total + rank_of, np.ones(len(each))),
            (at[there], replica[there], -entries.cover[there]),
            (each, column + each, np.ones(len(each))),
            (mine, self.arcs.count + own[mine], np.ones(len(mine))),
        ]
        self.rows.block(short[rank_of, site_of], lp.INF, entries=rows, count=len(each))
        price = exposure.price[ranks[rank_of]]
        self._extra_price = np.concatenate([self._extra_price, price, np.zeros(len(ranks))])
        self._shelters = (column + each, rank_of, row, place)
        return column + each

    def _short(
        self,
        exposure: Exposure,
        ranks: Positions,
        now: tuple[Positions, Positions, Floats],
        *,
        shed: Floats,
    ) -> Floats:
        """What other groups than these leave uncovered of each rank at the loss of each site it
        speaks of, 0 elsewhere; `now` is what these cover: row, site, cover.
        """
        row, site, covered = now
        cover = exposure.cover[ranks]
        fixed = cover.copy()
        np.add.at(fixed, (row, site), -covered)
        used = cover > 0
        used[row, site] = True
        used |= (ranks >= exposure.own)[:, None]
        used &= exposure.asked[ranks] & (exposure.price[ranks] > 0)[:, None]
        classes = exposure.classes[ranks]
        served = np.where(np.isin(classes, self.arcs.classes), 1.0, 1.0 - shed[classes])
        left = served[:, None] - (fixed.sum(axis=1)[:, None] - fixed)
        short: Floats = np.where(used, left, 0.0)
        return short

    def _shelter(self, exposure: Exposure, entries: Entries, place: Positions) -> None:
        """Room for replicas that only the loss of an ingress asks for: as many as the class takes
        that fills most.
        """
        beyond = entries.rank >= exposure.own
        fullest = np.ceil(1.0 / np.maximum(entries.fill[beyond], 1e-9) - 1e-9)
        fullest = np.minimum(fullest, self.frame.most[entries.group[beyond]])
        np.maximum.at(self._most, place[beyond], fullest)

    def survive_together(
        self,
        exposure: Exposure,
        *,
        shed: Floats,
        free: NDArray[np.bool_],
        rows: tuple[Positions, Positions, Positions],
    ) -> None:
        """The cuts: what classes together lack beyond what each lacks (`rows` of `survive_with`:
        rank, site, column) is paid too.
        """
        extra: dict[tuple[int, int], int] = {}
        of_rank, of_site, column = rows
        for cut in exposure.cuts:
            inside = np.flatnonzero(free[cut.group] & np.isin(cut.group, self.group))
            classes = exposure.classes[cut.ranks]
            own = np.flatnonzero(np.isin(classes, self.arcs.classes))
            if len(inside) == 0 and len(own) == 0:
                continue
            key = (cut.site, int(cut.ranks[0]))
            if key not in extra:
                extra[key] = self.first_supply + len(self._supply_kw) + len(self._extra_price)
                self._extra_price = np.append(self._extra_price, 1.0)
            kernel = np.searchsorted(self.arcs.classes, classes[own])
            alone = np.flatnonzero((of_site == cut.site) & np.isin(of_rank, cut.ranks))
            at = np.searchsorted(self.group, cut.group[inside])
            need = exposure.value(cut, shed) + cut.demand[own] @ shed[classes[own]]
            need += cut.per_replica[inside] @ exposure.replicas[cut.group[inside]]
            entries = [
                (np.zeros(1, dtype=np.intp), np.array([extra[key]]), np.ones(1)),
                (np.zeros_like(alone), column[alone], exposure.price[of_rank[alone]]),
                (np.zeros_like(at), self.first_replica + at, cut.per_replica[inside]),
                (np.zeros_like(kernel), self.arcs.count + kernel, cut.demand[own]),
            ]
            self.rows.block(float(need), lp.INF, entries=entries, count=1)

    def within(self, others: Use) -> None:
        """Hard shared limits: pools, budgets, and supplies beyond what others draw."""
        frame, group = self.frame, self.group
        replica = self.first_replica + np.arange(self._groups)
        pools, pool = np.unique(frame.pool[group], return_inverse=True)
        taken = [(pool, replica, frame.accelerators[group])]
        left = np.maximum(0.0, (frame.pool_count - others.accelerators)[pools])
        self.rows.block(-lp.INF, left, entries=taken, count=len(pools))
        room = left[pool] / frame.accelerators[group]
        sites, site = np.unique(frame.site[group], return_inverse=True)
        possible = [(site, replica, frame.possible_kw[group])]
        left = np.maximum(0.0, (frame.budget_kw - others.possible_kw)[sites])
        self.rows.block(-lp.INF, left, entries=possible, count=len(sites))
        room_kw = left[site] / np.maximum(frame.possible_kw[group], 1e-12)
        most = np.minimum(room, room_kw)
        # a relaxation that may not use part of a replica's room comes closer to whole replicas
        self._most = np.maximum(self._least, np.minimum(self._most, np.floor(most + 1e-6)))
        limit = frame.stack.limit_kw[sites]
        before = np.cumsum(limit, axis=1) - limit
        left = np.clip(
            before + limit - np.maximum(before, others.drawn_kw[sites, None]), 0.0, limit
        )
        self.supplied = sites
        self._supply_kw = left.ravel()
        self._supply_price = frame.stack.usd_per_kwh[sites].ravel()
        supply = self.first_supply + np.arange(left.size)
        supply_site = np.repeat(np.arange(len(sites)), limit.shape[1])
        busy_kw = self.arcs.busy * frame.busy_kw[self.arcs.group]
        draw = [
            (site, replica, frame.idle_kw[group]),
            (site[self.place], np.arange(self.arcs.count), busy_kw),
            (supply_site, supply, np.full(left.size, -1.0)),
        ]
        self.rows.block(0.0, 0.0, entries=draw, count=len(sites))

    def solve(
        self,
        replica_usd_per_h: Floats,
        *,
        gap: float,
        nodes: int,
        start: Floats,
        is_over: Callable[[], bool],
        thorough: bool = False,
    ) -> Floats | None:
        """Search from the replicas of a first guess; None if stopped before there was a point.

        It looks near the relaxation, and once more with every group that could help a class shed or
        exposed for that: over all groups cuts took nine tenths of the time, for 0.3 % of the cost.
        Replicas that run already are spared their start. Without nodes it dives instead; a
        `thorough` search looks at every group from the first.
        """
        replica = self.first_replica + np.arange(self._groups)
        start = np.clip(start, self._least, self._most)  # HiGHS refuses any other guess
        if nodes == 0:
            model = self._made(replica_usd_per_h, self._least, self._most, whole=False)
            return lp.dive(model, whole=replica, is_over=is_over)

        def search(least: Floats, most: Floats, start: Floats) -> Floats | None:
            return lp.search(
                self._made(replica_usd_per_h, least, most),
                gap=gap,
                nodes=nodes,
                seed=self.frame.tables.problem.plan_policy.seed,
                start=(replica, start),
                is_over=is_over,
                thorough=thorough,
            )

        if thorough:
            return search(self._least, self._most, start)
        near = lp.relaxed(self._made(replica_usd_per_h, self._least, self._most), is_over=is_over)
        if (self._least == self._most).all():
            return near  # traffic alone to be placed: that is no search
        opened, found = np.zeros(self._groups, dtype=np.bool_), None
        for _ in range(_LOOKS):
            if near is None:
                break
            least, most = self._around(near[replica], start)
            least = np.where(opened, self._least, least)
            again = search(least, np.where(opened, self._most, most), start)
            if again is None:
                break
            found, start = again, np.round(again[replica])
            helpful = self._helpful(near, found) & ~opened
            if not helpful.any():
                break
            opened |= helpful
        return found

    def _made(
        self, replica_usd_per_h: Floats, least: Floats, most: Floats, *, whole: bool = True
    ) -> Any:
        spared = np.where(self._running > 0, -self.frame.start_usd_per_h[self.group], 0.0)
        parts = [self._flow, self._shed, replica_usd_per_h, spared, self._supply_price]
        ones = np.ones(self.arcs.count + self._classes)
        lacking = np.full(len(self._extra_price), lp.INF)
        none = np.zeros(self.first_replica)
        rest = np.zeros(self._groups + len(self._supply_kw) + len(self._extra_price))
        return lp.make(
            cost=np.concatenate([*parts, self._extra_price]),
            upper=np.concatenate([ones, most, self._running, self._supply_kw, lacking]),
            lower=np.concatenate([none, least, rest]),
            rows=lp.tamed(self.rows.rows()),
            whole=self.first_replica + np.arange(self._groups) if whole else None,
        )

    def _around(self, near: Floats, start: Floats) -> tuple[Floats, Floats]:
        """Replicas of each group to choose from: none where neither the relaxation nor the first
        guess has any, elsewhere up to one beyond either.
        """
        used = near > _DUST
        least = np.where(used, np.floor(near + _DUST) - 1.0, 0.0)
        most = np.where(used, np.ceil(near - _DUST) + 1.0, 0.0)
        least = np.clip(np.minimum(least, start), self._least, self._most)
        return least, np.clip(np.maximum(most, start), self._least, self._most)

    def _helpful(self, near: Floats, found: Floats) -> NDArray[np.bool_]:
        """Groups that could serve or shelter what a point sheds or exposes and the relaxation does
        not.
        """
        worse = found > near + _PAIN
        helpful = np.zeros(self._groups, dtype=np.bool_)
        shed = worse[self.arcs.count : self.first_replica]
        helpful[self.place[shed[self.arcs.row]]] = True
        column, rank, entry_rank, entry_place = self._shelters
        exposed = np.unique(rank[worse[column]])
        helpful[entry_place[np.isin(entry_rank, exposed)]] = True
        return helpful

    def change(self, values: Floats) -> Change:
        """What a point stands for: whole replicas, flows above dust."""
        arcs = self.arcs
        replicas = np.round(values[self.first_replica : self.first_replica + self._groups])
        part = values[: arcs.count]
        used = (part > _DUST) & (replicas[self.place] > 0)
        flows = flows_over(arcs, part, np.flatnonzero(used))
        return Change(classes=arcs.classes, group=self.group, replicas=replicas, flows=flows)
