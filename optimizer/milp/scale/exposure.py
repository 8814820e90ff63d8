"""What a plan in the making leaves exposed to the loss of a site, class by class, as arrays.

Decides nothing. A protected class is exposed to a loss by what whole replicas at other sites could
not take of it if they were its own: less than what is really exposed, where classes want the same
ones; `contention` adds that, `survive_plan` works it out on the finished plan. Each protected class
has two ranks: one for the losses that leave its ingress, one for the loss of its ingress, after
which it reaches other groups.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from optimizer.milp.scale.catalogue import (
    ComponentArcs,
    best_of_sites,
    component_arcs,
    next_ingress_arcs,
)
from optimizer.milp.scale.frame import Frame, Positions
from optimizer.tables import Floats

_DUST = 1e-6


@dataclass(frozen=True, kw_only=True, slots=True)
class Entries:
    """Protected arcs: rank, group, how much of the class a replica can take (`fill`, above 1 where
    it is not full of it).
    """

    rank: Positions
    group: Positions
    fill: Floats

    @property
    def cover(self) -> Floats:
        """How much of the class a replica can take, at most all."""
        part: Floats = np.minimum(1.0, self.fill)
        return part

    def only(self, kept: NDArray[np.bool_]) -> Entries:
        """The entries of a mask."""
        return Entries(rank=self.rank[kept], group=self.group[kept], fill=self.fill[kept])

    def nearest(self, frame: Frame, replica_usd_per_h: Floats, count: int) -> NDArray[np.bool_]:
        """Mask of those at each rank's `count` sites where a replica covers its class cheapest."""
        price = replica_usd_per_h[self.group] / np.maximum(self.cover, 1e-9)
        key = self.rank * len(frame.budget_kw) + frame.site[self.group]
        order = np.lexsort((self.group, price, key))
        best = order[np.diff(key[order], prepend=-1) != 0]
        best = best[np.lexsort((price[best], self.rank[best]))]
        rank = self.rank[best]
        nth = np.arange(len(best)) - np.searchsorted(rank, rank)
        near: NDArray[np.bool_] = np.isin(key, key[best[nth < count]])
        return near


@dataclass(frozen=True, kw_only=True, slots=True)
class Cut:
    """What some classes together (`ranks`) are exposed to when `site` is lost, at least:
    ``sum demand_d (1 - shed_d) - sum per_replica_r n_r`` USD/h, r at the other sites.
    """

    site: int
    ranks: Positions
    demand: Floats
    group: Positions
    per_replica: Floats


class Exposure:
    """Cover of every protected class by site, kept as replicas change.

    By rank: `classes`, `price` (of the whole class exposed to one loss, USD/h), `asked[rank, site]`
    (whether the rank speaks of the loss of a site), `cover[rank, site]`, `alone` (what each rank by
    itself is exposed to, USD/h). The first `own` ranks are of the losses that leave a class its
    ingress. `settled` says at what state a component was found to lack no cut (`contention`).
    """

    def __init__(self, frame: Frame) -> None:
        self.frame = frame
        part = frame.tables.problem.plan_policy.exposure_part
        protected = np.flatnonzero(frame.tables.classes.protected & (part > 0))
        self.own = len(protected)
        self.classes = np.concatenate([protected, protected])
        self._rank = np.full(len(frame.rate), -1)
        self._rank[protected] = np.arange(self.own)
        sites = np.zeros((len(self.classes), len(frame.budget_kw)), dtype=np.bool_)
        found = self._entries(sites)
        order = np.argsort(found.group, kind="stable")
        self.entries = Entries(
            rank=found.rank[order], group=found.group[order], fill=found.fill[order]
        )
        self._first = np.searchsorted(self.entries.group, np.arange(frame.groups + 1))
        is_own = np.arange(len(self.classes)) < self.own
        answered = sites.sum(axis=1) > is_own
        self.price = np.where(answered, part * frame.shed_usd_per_h[self.classes], 0.0)
        at_ingress = np.arange(len(frame.budget_kw)) == frame.ingress[self.classes][:, None]
        self.asked = at_ingress != is_own[:, None]
        self.cover = np.zeros(sites.shape)
        self.replicas = np.zeros(frame.groups)
        self.alone = np.zeros(len(self.classes))
        self._shed = np.ones(len(frame.rate))
        self.cuts: list[Cut] = []
        self.settled: dict[int, bytes] = {}

    def _entries(self, reached: NDArray[np.bool_]) -> Entries:
        """All protected arcs, component by component; sites a rank has one to are `reached`."""
        none, empty = np.zeros(0, dtype=np.intp), np.zeros(0)
        found = [Entries(rank=none, group=none, fill=empty)]
        for component in self.frame.components:
            classes = np.intersect1d(component, self.classes)
            found.append(self._entries_of(component_arcs(self.frame, classes), beyond=0))
            moved = next_ingress_arcs(self.frame, classes)
            found.append(self._entries_of(moved, beyond=self.own))
            for one in found[-2:]:
                reached[one.rank, self.frame.site[one.group]] = True
        return Entries(
            rank=np.concatenate([one.rank for one in found]),
            group=np.concatenate([one.group for one in found]),
            fill=np.concatenate([one.fill for one in found]),
        )

    def _entries_of(self, arcs: ComponentArcs, *, beyond: int) -> Entries:
        fill = self.frame.rateable[arcs.group]
        fill /= np.maximum(arcs.busy, 1e-12)
        rank = self._rank[arcs.classes] + beyond
        return Entries(rank=rank[arcs.row], group=arcs.group, fill=fill)

    def arcs_of(self, rank: int) -> tuple[Positions, Floats]:
        """Groups that could answer a rank, and how much of its class a replica takes (`fill`)."""
        mine = self.entries.rank == rank
        return self.entries.group[mine], self.entries.fill[mine]

    def speaks_of(self, classes: Positions) -> NDArray[np.bool_]:
        """Mask of the entries of some classes."""
        some = np.zeros(len(self.frame.rate), dtype=np.bool_)
        some[classes] = True
        mask: NDArray[np.bool_] = some[self.classes][self.entries.rank]
        return mask

    def spare(self, work_price: Floats, count: int) -> Positions:
        """Groups that take each class most cheaply after the loss of its ingress, at a price of
        work: one at each of its `count` cheapest sites.
        """
        lot = np.flatnonzero(self.entries.rank >= self.own)
        rank, group = self.entries.rank[lot] - self.own, self.entries.group[lot]
        price = work_price[group] * self.frame.rateable[group] / self.entries.fill[lot]
        shape = self.own, len(self.frame.budget_kw)
        best = best_of_sites(rank, self.frame.site[group], price, shape=shape, count=count)
        found: Positions = np.unique(group[best])
        return found

    def ranks_at(self, classes: Positions, site: int) -> Positions:
        """Ranks that speak of the loss of a site, of some protected classes, ascending; without
        those nobody could answer after it.
        """
        own = self._rank[classes]
        ranks = np.concatenate([own, own + self.own])
        asked: Positions = ranks[self.asked[ranks, site] & (self.price[ranks] > 0)]
        return asked

    def of_groups(self, group: Positions) -> tuple[Positions, Entries]:
        """The protected arcs to some groups, and the place in `group` of each."""
        first, last = self._first[group], self._first[group + 1]
        count = last - first
        place = np.repeat(np.arange(len(group)), count)
        at = np.arange(len(place)) - np.repeat(np.cumsum(count) - count, count) + first[place]
        entries = self.entries
        return place, Entries(rank=entries.rank[at], group=entries.group[at], fill=entries.fill[at])

    def put(self, group: Positions, more: Floats, *, shed: Floats) -> None:
        """Make a change of replicas and of what is shed."""
        ranks, cover, alone = self._touched(group, more, shed=shed)
        self.cover[ranks], self.alone[ranks] = cover, alone
        self.replicas[group] += more
        self._shed = shed.copy()

    def after_usd_per_h(self, group: Positions, more: Floats, *, shed: Floats) -> float:
        """Price of everything exposed if some groups had `more` replicas."""
        ranks, cover, alone = self._touched(group, more, shed=shed)
        found = float(self.alone.sum() - self.alone[ranks].sum() + alone.sum())
        if not self.cuts:
            return found
        before = self.cover[ranks], self.replicas[group]
        self.cover[ranks] = cover
        self.replicas[group] += more
        found += sum(self.beyond(shed).values())
        self.cover[ranks], self.replicas[group] = before
        return found

    def usd_per_h(self) -> float:
        """Price of everything exposed now: class by class, and what classes together lack more."""
        return float(self.alone.sum()) + sum(self.beyond(self._shed).values())

    def _touched(
        self, group: Positions, more: Floats, *, shed: Floats
    ) -> tuple[Positions, Floats, Floats]:
        """Ranks that a change concerns, their cover then and what each lacks by itself (USD/h)."""
        changed = np.flatnonzero(more != 0)
        place, entries = self.of_groups(group[changed])
        own = self._rank[np.flatnonzero(shed != self._shed)]
        own = own[own >= 0]
        ranks = np.unique(np.concatenate([entries.rank, own, own + self.own]))
        cover = self.cover[ranks]
        row = np.searchsorted(ranks, entries.rank)
        np.add.at(
            cover, (row, self.frame.site[entries.group]), entries.cover * more[changed][place]
        )
        left = cover.sum(axis=1)[:, None] - cover
        short = np.clip((1.0 - shed[self.classes[ranks]])[:, None] - left, 0.0, None)
        short[(short < _DUST) | ~self.asked[ranks]] = 0.0
        return ranks, cover, short.sum(axis=1) * self.price[ranks]

    def beyond(self, shed: Floats) -> dict[tuple[int, int], float]:
        """By (site, first rank): what classes together lack beyond what each lacks (USD/h)."""
        most: dict[tuple[int, int], float] = {}
        for cut in self.cuts:
            own = self.lacking(cut, shed)
            key = (cut.site, int(cut.ranks[0]))
            most[key] = max(most.get(key, 0.0), self.value(cut, shed) - own)
        return most

    def value(self, cut: Cut, shed: Floats) -> float:
        """What a cut says now (USD/h; below 0 where nothing lacks)."""
        served = 1.0 - shed[self.classes[cut.ranks]]
        return float(cut.demand @ served - cut.per_replica @ self.replicas[cut.group])

    def lacking(self, cut: Cut, shed: Floats) -> float:
        """Price of what the classes of a cut lack, each by itself, for its loss."""
        cover = self.cover[cut.ranks]
        left = cover.sum(axis=1) - cover[:, cut.site]
        short = np.clip(1.0 - shed[self.classes[cut.ranks]] - left, 0.0, None)
        return float(np.where(short < _DUST, 0.0, short) @ self.price[cut.ranks])
