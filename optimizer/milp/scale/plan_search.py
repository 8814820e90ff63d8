"""A plan made better a neighbourhood at a time: one component over all sites, or a few sites over
all services, each while everything else stands.

Decides which neighbourhoods, in what order: lots of classes of one component; the sites around
classes that are shed or exposed, the dearest first; all sites. A change is kept if the whole gets
cheaper (`batch`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from optimizer.milp.scale.batch import BATCH, Job, Search, step
from optimizer.milp.scale.catalogue import (
    ComponentArcs,
    cheapest,
    component_arcs,
    full_price,
    next_ingress_arcs,
)
from optimizer.milp.scale.cluster import Effort, concerned
from optimizer.milp.scale.contention import add_cuts
from optimizer.milp.scale.frame import Frame, Positions, Prices
from optimizer.milp.scale.ledger import Ledger
from optimizer.milp.scale.mixes import worth_for_mixes
from optimizer.milp.scale.workers import Workers
from optimizer.tables import Floats

LOT = 100
"""Classes of one component placed at once, at most."""

_PAIN_USD_PER_H = 1e-3
_DOORS = 8
_SPARE_SITES = 3
_AGAIN = 2
_DUST = 1e-6
_LEAST_BUSY = 1e-9
_NEIGHBOURS = (0, 1, 2, 4)
_FEW_SITES, _WIDEST, _RELIEVED = 6, 3, 12
_HARD = Effort(sites=0, gap=1e-3, nodes=20, thorough=True)
"""At 200 sites a class whose two sites are full got its room with one more, in 0.6 s; passes over
six sites around them, near their relaxation, never found any. At 30 sites with more demand than
they serve two more found $53 of $881/h in a second.
"""
_FEW_LOTS = 100
"""Lots of a first pass that time may do for: at 200 sites (60 lots) the largest first came to
$4 356/h in a pass, by excess to 4 383 (and in the second pass to 4 329 and 4 317); at 600 sites in
60 s, which is less than a pass, the largest first saved $73/h, by excess 197.
"""


def begin(
    frame: Frame,
    prices: Prices,
    arcs: ComponentArcs,
    *,
    worth: Positions,
    least_usd_per_h: Floats,
    workers: Workers,
    is_over: Callable[[], bool],
) -> Search:
    """A search over an empty ledger: `arcs` say which sites are near each other, `worth` which
    groups are worth having, beside those that spare protected classes the loss of a site.
    """
    ledger = Ledger(frame)
    wanted = np.zeros(frame.groups, dtype=np.bool_)
    wanted[worth] = True
    listed = frame.price_list(prices)
    wanted[ledger.exposure.spare(listed.work_usd_per_h, _SPARE_SITES)] = True
    wanted |= worth_for_mixes(frame, listed.work_usd_per_h)
    return Search(
        frame=frame,
        ledger=ledger,
        prices=listed,
        worth=wanted,
        reach=sites_in_reach(frame, workers),
        near=nearness(frame, arcs),
        workers=workers,
        is_over=is_over,
        least_usd_per_h=least_usd_per_h,
    )


def nearness(frame: Frame, arcs: ComponentArcs) -> Floats:
    """How much of classes' choice two sites share, each class's choice being 1 in all."""
    sites = len(frame.budget_kw)
    reach = np.zeros((len(frame.rate), sites), dtype=np.float32)
    reach[arcs.row, frame.site[arcs.group]] = 1.0
    each = reach / np.maximum(1.0, reach.sum(axis=1))[:, None]
    near: Floats = (reach.T @ each).astype(np.float64)
    return near


def mend(search: Search, *, effort: Effort, above_usd_per_h: float = _PAIN_USD_PER_H) -> None:
    """Place the sites around shed and exposed classes anew, the dearest first."""
    frame, exposure = search.frame, search.ledger.exposure
    pain = pain_usd_per_h(search.ledger)
    order = np.lexsort((np.arange(len(pain)), -pain))
    hurt = order[pain[order] > above_usd_per_h].tolist()
    count = len(frame.rate)
    ends = (
        frame.sweep.arcs_of(at).group if at < count else exposure.arcs_of(at - count)[0]
        for at in hurt
    )
    _go(search, _around(search, ends, effort), effort=effort)


def make_way(
    search: Search, hurt: Callable[[], Positions], *, widest: int, tries: int, at_least: int = 0
) -> None:
    """Let others make way for classes that are `hurt`, at more and more sites around theirs (up to
    `widest` of `_NEIGHBOURS`): so many tries, the first `at_least` of them whatever the time.
    Classes of the same sites are helped together.
    """
    whatever_the_time, tried = replace(search, is_over=lambda: False), dict[bytes, int]()
    for turn in range(tries):
        now = whatever_the_time if turn < at_least else search
        sites = {at: search.reach[at].tobytes() for at in hurt().tolist()}
        left = [at for at, key in sites.items() if tried.get(key, 0) < widest]
        if not left or now.is_over():
            break
        at = min(left, key=lambda one: tried.get(sites[one], 0))
        times = tried.get(sites[at], 0)
        _place_around(now, at, more_sites=_NEIGHBOURS[times])
        tried[sites[at]] = times + 1


def _place_around(search: Search, at: int, *, more_sites: int) -> None:
    """Place the sites that a class reaches anew, and so many neighbours, over every group there."""
    frame, own = search.frame, np.flatnonzero(search.reach[at])
    weight = search.near[own].sum(axis=0)
    weight[own] = np.inf
    here = np.zeros(len(frame.budget_kw), dtype=np.bool_)
    here[_first(weight, len(own) + more_sites)] = True
    classes = concerned(search.ledger, search.reach, here=here)
    step(search, [Job(classes=classes, free=here[frame.site] & (frame.most > 0))], _HARD)


def relieve(search: Search, *, above_usd_per_h: float, at_least: int = 0) -> None:
    """Let others make way for classes with few sites whose shedding costs more than that, the
    dearest first.
    """
    price, is_bound = search.frame.shed_usd_per_h, search.reach.sum(axis=1) <= _FEW_SITES

    def shed_most() -> Positions:
        pain = search.ledger.shed_part * price
        hurt = np.flatnonzero((pain > above_usd_per_h) & is_bound)
        return hurt[np.lexsort((hurt, -pain[hurt]))]

    make_way(search, shed_most, widest=_WIDEST, tries=_RELIEVED, at_least=at_least)


def renew(search: Search, *, turn: int, effort: Effort) -> None:
    """Place all sites anew, neighbours together, from another corner each turn."""
    _go(search, _everywhere(search, turn, effort), effort=effort)


def renew_components(
    search: Search, *, effort: Effort, some: Positions | None = None, by_excess: bool = False
) -> None:
    """Place each component anew at all its sites, in lots, with what its protected classes lack
    together when a site is lost; or only `some` classes. The largest lots come first; `by_excess`,
    or if there are many, those that cost most beyond what their relaxation says.
    """
    frame, ledger = search.frame, search.ledger
    home = np.zeros(len(frame.rate), dtype=np.intp)
    for at, component in enumerate(frame.components):
        home[component] = at
    pending = lots(frame, np.arange(len(frame.rate)) if some is None else some)
    if by_excess or len(pending) > _FEW_LOTS:
        beyond = _beyond(search)
        pending.sort(key=lambda lot: (-float(beyond[lot].sum()), int(lot[0])))
    for first in range(0, len(pending), BATCH):
        batch = pending[first : first + BATCH]
        for _ in range(1 + _AGAIN):
            if not batch or search.is_over():
                break
            stands = ledger.replicas > 0
            jobs = []
            for classes in batch:
                mine = np.zeros(frame.groups, dtype=np.bool_)
                mine[component_arcs(frame, classes).group] = True
                mine[next_ingress_arcs(frame, classes).group] = True
                jobs.append(Job(classes=classes, free=mine & (search.worth | stands)))
            step(search, jobs, effort)
            homes = sorted({int(home[one[0]]) for one in batch})
            short = add_cuts(ledger, search.workers, homes)
            batch = [one for one in batch if int(home[one[0]]) in short]


def _beyond(search: Search) -> Floats:
    """Per class, USD/h that it costs at prices beyond what it is worth in the relaxation: its part
    of the replicas that answer it, its traffic, what is shed and exposed of it.
    """
    frame, ledger, prices = search.frame, search.ledger, search.prices
    flows, exposure = ledger.all_flows(), ledger.exposure
    stands = ledger.replicas * prices.replica_usd_per_h
    drawn = frame.busy_kw * prices.shared.energy[frame.site]
    each = stands / np.maximum(ledger.busy, _LEAST_BUSY) + drawn
    answered = flows.usd_per_h + flows.busy * each[flows.group]
    paid: Floats = np.bincount(flows.cls, answered, len(frame.rate)).astype(np.float64)
    paid += ledger.shed_part * frame.shed_usd_per_h
    np.add.at(paid, exposure.classes, exposure.alone)
    more: Floats = paid - search.least_usd_per_h
    return more


def renew_at_once(search: Search, *, effort: Effort) -> None:
    """Place all classes anew in one search, over all groups worth having."""
    classes = np.arange(len(search.frame.rate))
    free = (search.worth | (search.ledger.replicas > 0)) & (search.frame.most > 0)
    step(search, [Job(classes=classes, free=free)], replace(effort, thorough=True))


def lots(frame: Frame, classes: Positions) -> list[Positions]:
    """Some classes by component, largest components first, in lots of neighbours."""
    found = []
    for component in frame.components:
        mine = np.intersect1d(component, classes)
        order = mine[np.lexsort((mine, frame.ingress[mine]))]
        count = -(-len(mine) // LOT)
        found += [np.sort(lot) for lot in np.array_split(order, count)] if count else []
    weight = np.array([-float(frame.shed_usd_per_h[lot].sum()) for lot in found])
    return [found[at] for at in np.lexsort((np.arange(len(found)), weight))]


def sites_in_reach(frame: Frame, workers: Workers) -> NDArray[np.bool_]:
    """`reach[class, site]`: whether a class has an arc to a site."""
    reach = np.zeros((len(frame.rate), len(frame.budget_kw)), dtype=np.bool_)

    def mark(classes: Positions) -> None:
        for at in classes.tolist():
            reach[at, frame.site[frame.sweep.arcs_of(at).group]] = True

    workers.map(mark, frame.components)
    return reach


def has_room(ledger: Ledger, group: Positions) -> NDArray[np.bool_]:
    """Mask of the groups, of some, of which one replica more would fit."""
    frame, used = ledger.frame, ledger.used
    left = frame.pool_count - used.accelerators
    left_kw = frame.budget_kw - used.possible_kw
    fits: NDArray[np.bool_] = frame.most[group] > ledger.replicas[group]
    fits &= left[frame.pool[group]] >= frame.accelerators[group] - 1e-6
    fits &= left_kw[frame.site[group]] >= frame.possible_kw[group] - 1e-6
    return fits


def open_doors(search: Search) -> None:
    """What is shed or exposed may go to its cheapest few groups with room, wherever they are."""
    frame, ledger = search.frame, search.ledger
    room, exposure = has_room(ledger, np.arange(frame.groups)), ledger.exposure
    work_price, replica = search.prices.work_usd_per_h, search.prices.replica_usd_per_h
    shed = np.flatnonzero(ledger.shed_part > _DUST)
    arcs = component_arcs(frame, shed)
    fits = room[arcs.group]
    price = np.where(fits, full_price(frame, arcs, work_price), np.inf)
    search.worth[arcs.group[cheapest(arcs, price, _DOORS) & fits]] = True
    for rank in np.flatnonzero(_exposed(ledger) > _PAIN_USD_PER_H).tolist():
        group, fill = exposure.arcs_of(rank)
        group, fill = group[room[group]], fill[room[group]]
        price = replica[group] * np.maximum(1.0, 1.0 / np.maximum(fill, 1e-9))
        search.worth[group[np.lexsort((group, price))[:_DOORS]]] = True


def pain_usd_per_h(ledger: Ledger) -> Floats:
    """What is shed of each class, then what each rank is exposed to."""
    return np.concatenate([ledger.shed_part * ledger.frame.shed_usd_per_h, _exposed(ledger)])


def _exposed(ledger: Ledger) -> Floats:
    exposed = ledger.exposure.alone.copy()
    for (_, rank), lacks in ledger.exposure.beyond(ledger.shed_part).items():
        exposed[rank] += lacks
    return exposed


def _around(
    search: Search, ends: Iterable[NDArray[np.integer]], effort: Effort
) -> Iterator[Positions]:
    """Sites around each lot of groups that no earlier lot of the turn had."""
    frame = search.frame
    done = np.zeros(len(frame.budget_kw), dtype=np.bool_)
    for groups in ends:
        own = np.unique(frame.site[groups])
        if len(own) == 0 or done[own].all():
            continue
        weight = search.near[own].sum(axis=0)
        if len(own) <= effort.sites:
            weight[own] += weight.sum() + 1.0
        sites = _first(weight, effort.sites)
        done[sites] = True
        yield sites


def _everywhere(search: Search, turn: int, effort: Effort) -> Iterator[Positions]:
    """Neighbouring sites until every site had its turn."""
    count = len(search.near)
    done = np.zeros(count, dtype=np.bool_)
    stride = next(
        k for k in range(max(1, count // 3) + turn, 2 * count + turn) if _coprime(k, count)
    )
    for number in range(count):
        centre = (number * stride + turn) % count
        if done[centre]:
            continue
        weight = search.near[centre] * np.where(done, 0.5, 1.0)
        weight[centre] = np.inf
        sites = _first(weight, effort.sites)
        done[sites] = True
        yield sites


def _coprime(one: int, other: int) -> bool:
    return int(np.gcd(one, other)) == 1


def _first(weight: Floats, count: int) -> Positions:
    return np.sort(np.lexsort((np.arange(len(weight)), -weight))[:count])


def _go(search: Search, neighbourhoods: Iterator[Positions], *, effort: Effort) -> None:
    frame, ledger = search.frame, search.ledger
    pending = list(neighbourhoods)
    for first in range(0, len(pending), BATCH):
        jobs = []
        for sites in pending[first : first + BATCH]:
            here = np.zeros(len(frame.budget_kw), dtype=np.bool_)
            here[sites] = True
            free = here[frame.site] & (search.worth | (ledger.replicas > 0)) & (frame.most > 0)
            classes = concerned(ledger, search.reach, here=here)
            if len(classes):
                jobs.append(Job(classes=classes, free=free))
        step(search, jobs, effort)
