"""Whole replicas out of a master, a few at a time, the rest following each time.

Decides which replicas become whole next: those of classes with few sites first, then the fullest
parts, one a pool each round, as long as pool and power budget hold them. The relaxation is solved
again after every round, so what was rounded up draws traffic from the rest.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from optimizer.milp.scale import lp
from optimizer.milp.scale.frame import Frame, Positions
from optimizer.milp.scale.ledger import Change, Flows
from optimizer.milp.scale.master import Master, MasterPoint
from optimizer.tables import Floats

_ROUNDS = 200
_UP = 0.1
_FEWEST = 5
_NARROW = 20.0
"""Urgency of the replicas of a class with one site; of one with more, so many times less."""

_CARRIED = 1e-3
_WHOLE = 1e-6
_DUST = 1e-7


def dive(point: MasterPoint, frame: Frame, *, is_over: Callable[[], bool]) -> MasterPoint:
    """A point in whole replicas from a converged master's; traffic follows.

    Cut short, all that fits is rounded up at once, and some replicas may be left in parts.
    """
    master = Master(
        frame,
        point.arcs,
        refuges=point.refuges,
        rowed=point.rowed,
        shed_usd_per_h=frame.shed_usd_per_h,
    )
    group = master.group
    least, most = np.zeros(len(group)), frame.most[group].copy()
    narrow = _narrow(frame, master, point)
    point = master.solve(point.basis)
    for _ in range(_ROUNDS):
        whole = np.floor(point.replicas + _WHOLE)
        part = point.replicas - whole
        open_ = np.flatnonzero(part > _WHOLE)
        if len(open_) == 0:
            break
        late = is_over()
        least = np.maximum(least, np.minimum(whole, most))
        urgency = part[open_] + narrow[open_]
        order = open_[np.lexsort((open_, -urgency))]
        ups = order[: max(_FEWEST, int(np.ceil(_UP * len(open_))))]
        _, first = np.unique(frame.pool[group[ups]], return_index=True)
        ups = order if late else ups[np.sort(first)]
        _raise(frame, group, ups, least=least, most=most)
        lp.bounds(master.highs, master.replica_columns, least, most)
        point = master.solve()
        if late:
            break
    return point


def _narrow(frame: Frame, master: Master, point: MasterPoint) -> Floats:
    """How urgent each group is by the class with the fewest sites that it carries."""
    arcs = master.arcs
    sites = np.ones(len(frame.rate))
    for at in range(len(sites)):
        sites[at] = max(1, len(np.unique(frame.site[frame.sweep.arcs_of(at).group])))
    narrow = np.zeros(len(master.group))
    urgency = np.where(point.part > _CARRIED, _NARROW / sites[arcs.row], 0.0)
    np.maximum.at(narrow, np.searchsorted(master.group, arcs.group), urgency)
    return narrow


def _raise(frame: Frame, group: Positions, ups: Positions, *, least: Floats, most: Floats) -> None:
    """One replica more where pool, budget and supplies still hold it; no more where they do not."""
    pool, site = frame.pool[group], frame.site[group]
    size, kw = frame.accelerators[group], frame.possible_kw[group]
    left = frame.pool_count - np.bincount(pool, least * size, len(frame.pool_count))
    left_kw = frame.budget_kw - np.bincount(site, least * kw, len(frame.budget_kw))
    idle = frame.idle_kw[group]
    supplied = frame.stack.limit_kw.sum(axis=1)
    supplied -= np.bincount(site, least * idle, len(supplied))
    for at in ups.tolist():
        fits = left[pool[at]] >= size[at] - 1e-9 and left_kw[site[at]] >= kw[at] - 1e-9
        fits = fits and supplied[site[at]] >= idle[at] + 1e-6
        if fits and least[at] + 1 <= most[at]:
            least[at] += 1
            left[pool[at]] -= size[at]
            left_kw[site[at]] -= kw[at]
            supplied[site[at]] -= idle[at]
        else:
            most[at] = least[at]
    full = (left[pool] < size - 1e-9) | (left_kw[site] < kw - 1e-9)
    most[full] = np.minimum(most[full], least[full])


def change_of(frame: Frame, point: MasterPoint) -> Change:
    """A point as an answer for all classes; replicas still in parts are dropped."""
    arcs = point.arcs
    replicas = np.floor(point.replicas + _WHOLE)
    place = np.searchsorted(point.group, arcs.group)
    used = (point.part > _DUST) & (replicas[place] > 0)
    busy = point.part[used] * arcs.busy[used]
    asked = np.bincount(place[used], busy, len(point.group))
    rated = replicas * frame.rateable[point.group]
    fill = np.minimum(1.0, rated / np.maximum(asked, 1e-12))[place[used]]
    part = point.part[used] * fill
    flows = Flows(
        cls=arcs.classes[arcs.row[used]],
        group=arcs.group[used],
        part=part,
        busy=part * arcs.busy[used],
        usd_per_h=part * arcs.network_usd_per_h[used],
    )
    return Change(
        classes=np.arange(len(frame.rate)), group=point.group, replicas=replicas, flows=flows
    )
