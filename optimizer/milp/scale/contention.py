"""What protected classes of one component lack together when a site is lost.

Decides which cuts `Exposure` gets: for each loss, the classes share what stands elsewhere as well
as they can (a small linear problem, unless room is plain to see); where that leaves more exposed
than each class by itself lacks, the problem's prices say which replicas would help. Other traffic
gives way.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from optimizer.milp.scale import lp
from optimizer.milp.scale.exposure import Cut, Entries, Exposure
from optimizer.milp.scale.frame import Positions
from optimizer.milp.scale.ledger import Ledger
from optimizer.milp.scale.workers import Workers
from optimizer.tables import Floats

_LACKS_USD_PER_H = 1e-3
_AMPLE = 2.0
_DUST = 1e-9


def add_cuts(ledger: Ledger, workers: Workers, components: Sequence[int]) -> set[int]:
    """Give the ledger's exposure the cuts it lacks for some components (positions in
    `Frame.components`); those that lacked any. A cut speaks of the whole component, never of a part
    of it: what cuts say of parts would be counted twice.
    """
    exposure = ledger.exposure
    parts = {at: np.intersect1d(ledger.frame.components[at], exposure.classes) for at in components}
    marks = {at: _mark(ledger, classes) for at, classes in parts.items()}
    news = [at for at in components if exposure.settled.get(at) != marks[at]]
    found = workers.map(lambda at: _of_component(ledger, parts[at]), news)
    for at, cuts in zip(news, found, strict=True):
        exposure.cuts += cuts
        if not cuts:
            exposure.settled[at] = marks[at]
    return {at for at, cuts in zip(news, found, strict=True) if cuts}


def _mark(ledger: Ledger, classes: Positions) -> bytes:
    """What the cuts of some classes depend on: while it stays, there are no new ones."""
    exposure = ledger.exposure
    group = np.unique(exposure.entries.group[exposure.speaks_of(classes)])
    flows = ledger.flows_of(classes)
    sites = np.unique(ledger.frame.site[flows.group])
    return b"|".join(
        (ledger.replicas[group].tobytes(), sites.tobytes(), ledger.shed_part[classes].tobytes())
    )


def _of_component(ledger: Ledger, classes: Positions) -> list[Cut]:
    frame, exposure = ledger.frame, ledger.exposure
    if len(classes) < 2:
        return []
    own = exposure.entries.only(exposure.speaks_of(classes))
    stands = own.only(ledger.replicas[own.group] > 0)
    if len(stands.rank) == 0:
        return []
    sharing = _Sharing(ledger, stands)
    entered = frame.ingress[classes]
    used = np.union1d(frame.site[ledger.flows_of(classes).group], entered[entered >= 0])
    cuts = []
    for site in used.tolist():
        ranks = exposure.ranks_at(classes, site)
        if len(ranks) < 2:
            continue
        prices = sharing.prices(ranks, site)
        if prices is None:
            continue
        cut = _cut(exposure, ranks, prices, own, site=site)
        known = [c for c in exposure.cuts if c.site == site and c.ranks[0] == ranks[0]]
        said = [exposure.value(c, ledger.shed_part) for c in known]
        said.append(exposure.lacking(cut, ledger.shed_part))
        if exposure.value(cut, ledger.shed_part) > max(said) + _LACKS_USD_PER_H:
            cuts.append(cut)
    return cuts


class _Sharing:
    """How the ranks of one component share what stands, for one loss after the other: each begins
    at the last one's basis.
    """

    def __init__(self, ledger: Ledger, stands: Entries) -> None:
        exposure = ledger.exposure
        self._ranks, row = np.unique(stands.rank, return_inverse=True)
        self._site = ledger.frame.site[stands.group]
        self._price = exposure.price
        served = 1.0 - ledger.shed_part[exposure.classes]
        self._served = served[self._ranks]
        group, place = np.unique(stands.group, return_inverse=True)
        count, ranks = len(stands.rank), len(self._ranks)
        rows, at = lp.RowBuilder(), np.arange(count)
        lacks = count + np.arange(ranks)
        answered = [(row, at, np.ones(count)), (np.arange(ranks), lacks, np.ones(ranks))]
        rows.block(0.0, lp.INF, entries=answered, count=ranks)
        taken = [(place, at, 1.0 / np.maximum(stands.fill, 1e-9))]
        rows.block(-lp.INF, ledger.replicas[group], entries=taken, count=len(group))
        made = lp.make(
            cost=np.concatenate([np.zeros(count), exposure.price[self._ranks]]),
            upper=np.full(count + ranks, _AMPLE),
            rows=rows.rows(),
        )
        self._highs = lp.opened(made)
        by_site = np.argsort(self._site, kind="stable")
        ends = np.searchsorted(self._site[by_site], np.arange(len(ledger.frame.budget_kw) + 1))
        self._of_site = [by_site[i:j] for i, j in pairwise(ends)]
        # before any loss: what a site gives nobody then, nobody misses
        self._stay = self._ranks < exposure.own
        self._calm = self._solved(self._stay)
        self._given = np.clip(np.array(self._highs.getSolution().col_value)[:count], 0.0, None)
        self._gives = np.unique(self._site[self._given > 0])
        self._row, self._place, self._fill = row, place, np.maximum(stands.fill, 1e-9)
        self._room = ledger.replicas[group]
        by_row = np.argsort(row, kind="stable")
        ends = np.searchsorted(row[by_row], np.arange(ranks + 1))
        self._of_row = [by_row[i:j] for i, j in pairwise(ends)]

    def prices(self, ranks: Positions, site: int) -> Floats | None:
        """USD/h that serving each class whole is worth after the loss of a site, no more than
        exposing it costs. Who reaches nothing that stands is worth just that. None if all others
        are answered.
        """
        asked = np.isin(self._ranks, ranks)
        duals = self._calm
        if site in self._gives or (asked != self._stay).any():
            if len(ranks) == asked.sum() and self._moves_over(asked, site):
                return None
            lost = self._of_site[site]
            lp.bound_columns(self._highs, lost, 0.0)
            duals = self._solved(asked)
            lp.bound_columns(self._highs, lost, _AMPLE)
        if duals[asked].max(initial=0.0) <= 0:
            return None
        worth, at = self._price[ranks].copy(), np.searchsorted(ranks, self._ranks[asked])
        worth[at] = np.clip(duals[asked], 0.0, worth[at])
        return worth

    def _moves_over(self, asked: NDArray[np.bool_], site: int) -> bool:
        """Whether who is served from a site finds room elsewhere, one after the other, while all
        others stay: then no problem need be solved (322 of 8 900 were, at 600 sites).
        """
        stays = asked[self._row] & (self._site != site)
        given = np.where(stays, self._given, 0.0)
        left = self._room - np.bincount(self._place, given / self._fill, len(self._room))
        served = np.bincount(self._row, given, len(self._ranks))
        lacks = np.where(asked, self._served - served, 0.0)
        for rank in np.flatnonzero(lacks > _DUST).tolist():
            mine = self._of_row[rank]
            mine = mine[self._site[mine] != site]
            room = np.maximum(0.0, left[self._place[mine]]) * self._fill[mine]
            before = np.cumsum(room) - room
            taken = np.clip(lacks[rank] - before, 0.0, room)
            if taken.sum() < lacks[rank] - _DUST:
                return False
            left[self._place[mine]] -= taken / self._fill[mine]
        return True

    def _solved(self, asked: NDArray[np.bool_]) -> Floats:
        lp.bound_rows(self._highs, np.where(asked, self._served, 0.0))
        lp.must_run(self._highs)
        return np.array(self._highs.getSolution().row_dual)[: len(self._ranks)]


def _cut(exposure: Exposure, ranks: Positions, prices: Floats, own: Entries, *, site: int) -> Cut:
    """The cut of some prices: what a replica is worth at most, of every group elsewhere; `own` are
    the entries of the component.
    """
    demand = np.zeros(len(exposure.classes))
    demand[ranks] = prices
    entries = own.only((demand[own.rank] > 0) & (exposure.frame.site[own.group] != site))
    group, place = np.unique(entries.group, return_inverse=True)
    worth = demand[entries.rank]
    each = np.zeros(len(group))
    np.maximum.at(each, place, worth * entries.fill)
    together = np.bincount(place, worth * entries.cover, len(group))
    return Cut(
        site=site,
        ranks=ranks,
        demand=prices,
        group=group,
        per_replica=np.minimum(each, together),
    )
