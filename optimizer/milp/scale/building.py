"""A first plan in whole replicas from prices alone: classes with few sites first.

Decides in what order classes get their replicas. Where few sites serve many classes that reach no
others, all of them are placed at once, over all services: their pools and budgets are what everyone
there wants. Then, component by component, classes with ever more sites, each at the prices of what
is shared, so that who comes early leaves room to who comes later: by dives, since a pass over the
finished plan finds more than a search at this stage, in the same time. Last whoever found none.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from optimizer.milp.scale.batch import BATCH, Job, Search, step
from optimizer.milp.scale.catalogue import (
    cheapest_sites,
    component_arcs,
    full_price,
    next_ingress_arcs,
)
from optimizer.milp.scale.cluster import Effort
from optimizer.milp.scale.contention import add_cuts
from optimizer.milp.scale.filling import fill
from optimizer.milp.scale.frame import Positions
from optimizer.milp.scale.ledger import UNPLACED
from optimizer.milp.scale.plan_search import has_room, lots

_TIGHT_SITES = 6
_TIGHT_CLASSES = 400
_LEVELS = (15, 40)
_NEAR = 4
_PAIN_USD_PER_H = 0.1
_AT_LEAST = 60
"""Classes rescued whatever the time (10-100 ms each). After a rise of demand at 200 sites,
re-planned in 3 s, they took the plan from $5 412 to 4 787/h.
"""


def build(search: Search, *, effort: Effort, is_late: Callable[[], bool]) -> bool:
    """Place every class that is not served yet; greedily whoever comes after `is_late`, which is to
    be before the search's own end: to rescue the dearest of them takes little time and saves most.
    Whether it came to that.
    """
    _by_narrowness(replace(search, is_over=is_late), effort)
    was_late = is_late()
    if was_late:
        fill(search.ledger, search.prices, worth=search.worth)
    rescue(search, effort=effort)
    return was_late


def _by_narrowness(search: Search, effort: Effort) -> None:
    frame, reach = search.frame, search.reach
    sites = reach.sum(axis=1)
    unserved = search.ledger.shed_part > UNPLACED
    tight = np.flatnonzero(unserved & (sites > 0) & (sites <= _TIGHT_SITES))
    placed = np.zeros(len(sites), dtype=np.bool_)
    dive = replace(effort, nodes=0)
    regions = [lot for lot in _regions(reach, tight) if len(lot) <= _TIGHT_CLASSES]
    for first in range(0, len(regions), BATCH):
        some = regions[first : first + BATCH]
        jobs = [Job(classes=lot, free=_all_groups(search, lot)) for lot in some]
        step(search, jobs, effort)
        for lot in some:
            placed[lot] = True
    for least, most in pairwise((0, *_LEVELS, len(frame.budget_kw))):
        level = np.flatnonzero(unserved & ~placed & (sites > least) & (sites <= most))
        pending = lots(frame, level)
        for first in range(0, len(pending), BATCH):
            some = pending[first : first + BATCH]
            # where a batch-mate took the room that was meant, other groups may do
            late = _place(search, some, dive)
            for one in _place(search, late, dive):
                _place(search, [one], dive)


def rescue(search: Search, *, effort: Effort) -> None:
    """What is shed or exposed goes wherever there is room, class by class, the dearest first, then
    what protected classes lack together: who is placed late finds little room where it is cheap.
    """
    frame, ledger, exposure = search.frame, search.ledger, search.ledger.exposure
    pain = ledger.shed_part * frame.shed_usd_per_h
    np.add.at(pain, exposure.classes, exposure.alone)
    order = np.lexsort((np.arange(len(pain)), -pain))
    hurt = order[pain[order] > _PAIN_USD_PER_H].tolist()
    whatever_the_time = replace(search, is_over=lambda: False)
    for nth, at in enumerate(hurt):
        _make_room(whatever_the_time if nth < _AT_LEAST else search, np.array([at]), effort)
    if search.is_over():
        return
    add_cuts(ledger, search.workers, range(len(frame.components)))
    short = exposure.beyond(ledger.shed_part)
    for site, rank in sorted(short, key=lambda key: (-short[key], key)):
        cuts = [c for c in exposure.cuts if (c.site, int(c.ranks[0])) == (site, rank)]
        ranks = np.unique(np.concatenate([c.ranks[c.demand > 0] for c in cuts]))
        if short[site, rank] > _PAIN_USD_PER_H and len(ranks):
            _make_room(search, np.unique(exposure.classes[ranks]), effort)


def _make_room(search: Search, classes: Positions, effort: Effort) -> None:
    if search.is_over():
        return
    frame, ledger = search.frame, search.ledger
    free = np.zeros(frame.groups, dtype=np.bool_)
    free[component_arcs(frame, classes).group] = True
    free[next_ingress_arcs(frame, classes).group] = True
    group = np.flatnonzero(free)
    free[group] = has_room(ledger, group) | (ledger.replicas[group] > 0)
    step(search, [Job(classes=classes, free=free, early=True)], effort)


def _place(search: Search, some: list[Positions], effort: Effort) -> list[Positions]:
    def job(lot: Positions) -> Job:
        return Job(classes=lot, free=_near_groups(search, lot), early=True)

    jobs = search.workers.map(job, [lot for lot in some if len(lot)])
    return step(search, jobs, effort, again=len(jobs) == 1)


def _regions(reach: NDArray[np.bool_], classes: Positions) -> list[Positions]:
    """Classes that share sites, directly or over others; the largest lot first."""
    of_class, of_site = np.nonzero(reach[classes])
    label = np.arange(len(classes))
    for _ in range(len(classes)):
        least = np.full(reach.shape[1], len(classes))
        np.minimum.at(least, of_site, label[of_class])
        joined = label.copy()
        np.minimum.at(joined, of_class, least[of_site])
        if (joined == label).all():
            break
        label = joined
    found = [classes[label == one] for one in np.unique(label)]
    return sorted(found, key=lambda lot: (-len(lot), int(lot[0])))


def _all_groups(search: Search, classes: Positions) -> NDArray[np.bool_]:
    free = np.zeros(search.frame.groups, dtype=np.bool_)
    free[component_arcs(search.frame, classes).group] = True
    return free & (search.frame.most > 0)


def _near_groups(search: Search, classes: Positions) -> NDArray[np.bool_]:
    """Groups worth having or standing, and those with room at each class's cheapest sites."""
    frame, ledger = search.frame, search.ledger
    arcs = component_arcs(frame, classes)
    room = has_room(ledger, arcs.group)
    price = full_price(frame, arcs, search.prices.work_usd_per_h)
    near = cheapest_sites(frame, arcs, np.where(room, price, np.inf), _NEAR) & room
    near |= (search.worth | (ledger.replicas > 0))[arcs.group]
    free = np.zeros(frame.groups, dtype=np.bool_)
    free[arcs.group[near]] = True
    return free & (frame.most > 0)
