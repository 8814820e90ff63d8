"""What protected classes of one component lack together when a site is lost.

Decides which cuts `Exposure` gets: for each loss, the classes share what stands elsewhere as well
as they can (a small linear problem); where that leaves more exposed than each class by itself
lacks, the problem's prices say which replicas would help. Other traffic gives way.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from optimizer.milp.scale import lp
from optimizer.milp.scale.exposure import Cut, Entries, Exposure
from optimizer.milp.scale.frame import Positions
from optimizer.milp.scale.ledger import Ledger
from optimizer.milp.scale.workers import Workers
from optimizer.tables import Floats

_LACKS_USD_PER_H = 1e-3


def add_cuts(ledger: Ledger, workers: Workers, components: Sequence[int]) -> int:
    """Give the ledger's exposure the cuts it lacks for some components (positions in
    `Frame.components`); how many. A cut speaks of the whole component, never of a part of it: what
    cuts say of parts would be counted twice.
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
    return sum(len(cuts) for cuts in found)


def _mark(ledger: Ledger, classes: Positions) -> bytes:
    """What the cuts of some classes depend on: while it stays, there are no new ones."""
    exposure = ledger.exposure
    group = np.unique(exposure.entries.group[np.isin(exposure.of_entry, classes)])
    flows = ledger.flows_of(classes)
    sites = np.unique(ledger.frame.site[flows.group])
    return b"|".join(
        (ledger.replicas[group].tobytes(), sites.tobytes(), ledger.shed_part[classes].tobytes())
    )


def _of_component(ledger: Ledger, classes: Positions) -> list[Cut]:
    frame, exposure = ledger.frame, ledger.exposure
    if len(classes) < 2:
        return []
    own = _only(exposure.entries, np.isin(exposure.of_entry, classes))
    stands = _only(own, ledger.replicas[own.group] > 0)
    entered = frame.ingress[classes]
    used = np.union1d(frame.site[ledger.flows_of(classes).group], entered[entered >= 0])
    cuts = []
    for site in used.tolist():
        ranks = exposure.ranks_at(classes, site)
        if len(ranks) < 2:
            continue
        mine = np.zeros(len(exposure.classes), dtype=np.bool_)
        mine[ranks] = True
        left = _only(stands, mine[stands.rank] & (frame.site[stands.group] != site))
        prices = _prices(ledger, ranks, left)
        cut = _cut(exposure, ranks, prices, own, site=site)
        known = [c for c in exposure.cuts if c.site == site and c.ranks[0] == ranks[0]]
        said = [exposure.value(c, ledger.shed_part) for c in known]
        said.append(exposure.lacking(cut, ledger.shed_part))
        if exposure.value(cut, ledger.shed_part) > max(said) + _LACKS_USD_PER_H:
            cuts.append(cut)
    return cuts


def _only(entries: Entries, kept: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> Entries:
    return Entries(rank=entries.rank[kept], group=entries.group[kept], fill=entries.fill[kept])


def _prices(ledger: Ledger, ranks: Positions, left: Entries) -> Floats:
    """USD/h that serving each class whole is worth, no more than exposing it costs."""
    exposure, count = ledger.exposure, len(left.rank)
    classes = np.arange(len(ranks))
    group, place = np.unique(left.group, return_inverse=True)
    rows = lp.RowBuilder()
    served = 1.0 - ledger.shed_part[exposure.classes[ranks]]
    at = np.arange(count)
    answered = [
        (np.searchsorted(ranks, left.rank), at, np.ones(count)),
        (classes, count + classes, np.ones(len(ranks))),
    ]
    rows.block(served, lp.INF, entries=answered, count=len(ranks))
    taken = [(place, at, 1.0 / np.maximum(left.fill, 1e-9))]
    rows.block(-lp.INF, ledger.replicas[group], entries=taken, count=len(group))
    made = lp.make(
        cost=np.concatenate([np.zeros(count), exposure.price[ranks]]),
        upper=np.full(count + len(ranks), 2.0),
        rows=rows.rows(),
    )
    duals = lp.solve(made).row_duals
    priced: Floats = np.clip(duals[: len(ranks)], 0.0, exposure.price[ranks])
    return priced


def _cut(exposure: Exposure, ranks: Positions, prices: Floats, own: Entries, *, site: int) -> Cut:
    """The cut of some prices: what a replica is worth at most, of every group elsewhere; `own` are
    the entries of the component.
    """
    demand = np.zeros(len(exposure.classes))
    demand[ranks] = prices
    entries = _only(own, (demand[own.rank] > 0) & (exposure.frame.site[own.group] != site))
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
