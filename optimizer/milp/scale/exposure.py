"""What a plan in the making leaves exposed to the loss of a site, class by class, as arrays.

Decides nothing. A protected class is exposed to a loss by what whole replicas at other sites could
not take of it if they were its own: less than what is really exposed, where classes want the same
ones, which `survive_plan` works out on the finished plan.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from optimizer.milp.scale.catalogue import component_arcs
from optimizer.milp.scale.frame import Frame, Positions
from optimizer.tables import Floats

_DUST = 1e-6


@dataclass(frozen=True, kw_only=True, slots=True)
class Entries:
    """Protected arcs: rank of the class among the protected, group, how much of the class a replica
    can take (`fill`, above 1 where it is not full of it).
    """

    rank: Positions
    group: Positions
    fill: Floats

    @property
    def cover(self) -> Floats:
        """How much of the class a replica can take, at most all."""
        part: Floats = np.minimum(1.0, self.fill)
        return part


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
    """Cover of every protected class by site, kept as replicas change."""

    def __init__(self, frame: Frame) -> None:
        self.frame = frame
        part = frame.tables.problem.plan_policy.exposure_part
        asked = frame.tables.classes.protected & (part > 0)
        self.classes = np.flatnonzero(asked)
        self.rank = np.full(len(frame.rate), -1)
        self.rank[self.classes] = np.arange(len(self.classes))
        found = self._entries()
        order = np.argsort(found.group, kind="stable")
        self.entries = Entries(
            rank=found.rank[order], group=found.group[order], fill=found.fill[order]
        )
        self._first = np.searchsorted(found.group[order], np.arange(frame.groups + 1))
        sites = np.zeros((len(self.classes), len(frame.budget_kw)), dtype=np.bool_)
        sites[found.rank, frame.site[found.group]] = True
        several = sites.sum(axis=1) > 1
        self.price = np.where(several, part * frame.shed_usd_per_h[self.classes], 0.0)
        self.cover = np.zeros(sites.shape)
        self.replicas = np.zeros(frame.groups)
        self.cuts: list[Cut] = []

    def _entries(self) -> Entries:
        arcs = [component_arcs(self.frame, c) for c in self._parts()]
        none = np.zeros(0, dtype=np.intp)
        return Entries(
            rank=np.concatenate([none, *(self.rank[a.classes[a.row]] for a in arcs)]),
            group=np.concatenate([none, *(a.group for a in arcs)]),
            fill=np.concatenate(
                [
                    np.zeros(0),
                    *(self.frame.rateable[a.group] / np.maximum(a.busy, 1e-12) for a in arcs),
                ]
            ),
        )

    def _parts(self) -> list[Positions]:
        return [np.intersect1d(c, self.classes) for c in self.frame.components]

    def of_groups(self, group: Positions) -> tuple[Positions, Entries]:
        """The protected arcs to some groups, and the place in `group` of each."""
        first, last = self._first[group], self._first[group + 1]
        count = last - first
        place = np.repeat(np.arange(len(group)), count)
        at = np.arange(len(place)) - np.repeat(np.cumsum(count) - count, count) + first[place]
        entries = self.entries
        return place, Entries(rank=entries.rank[at], group=entries.group[at], fill=entries.fill[at])

    def moved(self, group: Positions, more: Floats) -> tuple[Positions, Floats]:
        """Ranks of classes that `more` replicas of some groups concern, and their cover then."""
        changed = np.flatnonzero(more != 0)
        place, entries = self.of_groups(group[changed])
        ranks, row = np.unique(entries.rank, return_inverse=True)
        cover = self.cover[ranks]
        np.add.at(
            cover, (row, self.frame.site[entries.group]), entries.cover * more[changed][place]
        )
        return ranks, cover

    def put(self, group: Positions, more: Floats) -> None:
        """Make a change of replicas."""
        ranks, cover = self.moved(group, more)
        self.cover[ranks] = cover
        self.replicas[group] += more

    def after_usd_per_h(self, group: Positions, more: Floats, *, shed: Floats) -> float:
        """Price of everything exposed if some groups had `more` replicas."""
        ranks, cover = self.moved(group, more)
        before = self.cover[ranks], self.replicas[group]
        self.cover[ranks] = cover
        self.replicas[group] += more
        found = self.usd_per_h(shed)
        self.cover[ranks], self.replicas[group] = before
        return found

    def usd_per_h(self, shed: Floats) -> float:
        """Price of everything exposed now: class by class, and what classes together lack more."""
        return float(self.each_usd_per_h(shed).sum()) + sum(self.beyond(shed).values())

    def each_usd_per_h(self, shed: Floats) -> Floats:
        """Price of what is exposed now of each class by itself."""
        left = self.cover.sum(axis=1)[:, None] - self.cover
        short = np.clip((1.0 - shed[self.classes])[:, None] - left, 0.0, None)
        short[short < _DUST] = 0.0
        found = np.zeros(len(self.frame.rate))
        found[self.classes] = short.sum(axis=1) * self.price
        return found

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


def _some(busy: Floats) -> Floats:
    above: Floats = np.maximum(busy, 1e-12)
    return above
