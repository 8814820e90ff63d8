"""Whole replicas out of a master, a few at a time, the rest following each time.

Decides which replicas become whole next: the fullest parts first, those of classes with few sites
before all others, as long as pool and power budget hold them; slivers go. The relaxation is solved
again after every round, so what was rounded up draws traffic and what was dropped loses it.
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
_DOWN = 0.1
_SLIVER = 0.15
_FEWEST = 5
_NARROW_SITES = 6
_WHOLE = 1e-6
_DUST = 1e-7


def dive(point: MasterPoint, frame: Frame, *, is_over: Callable[[], bool]) -> MasterPoint:
    """A point in whole replicas from a converged master's; traffic follows.

    Cut short, replicas still in parts are left in it.
    """
    master = Master(frame, point.arcs, rowed=point.rowed, shed_usd_per_h=frame.shed_usd_per_h)
    group = master.group
    least, most = np.zeros(len(group)), frame.most[group].copy()
    narrow = _narrow(frame, master)
    point = master.solve(point.basis)
    for _ in range(_ROUNDS):
        whole = np.floor(point.replicas + _WHOLE)
        part = point.replicas - whole
        open_ = np.flatnonzero(part > _WHOLE)
        if len(open_) == 0 or is_over():
            break
        least = np.maximum(least, np.minimum(whole, most))
        urgency = part[open_] + narrow[open_]
        order = open_[np.lexsort((open_, -urgency))]
        ups = order[: max(_FEWEST, int(np.ceil(_UP * len(open_))))]
        _raise(frame, group, ups, least=least, most=most)
        slivers = open_[np.lexsort((open_, part[open_]))][: int(_DOWN * len(open_))]
        slivers = slivers[part[slivers] < _SLIVER]
        most[slivers] = np.maximum(least[slivers], np.minimum(most[slivers], whole[slivers]))
        lp.bounds(master.highs, master.replica_columns, least, most)
        point = master.solve()
    return point


def _narrow(frame: Frame, master: Master) -> Floats:
    """1 for groups that some class with few sites may use."""
    arcs, sites = master.arcs, len(frame.budget_kw)
    keys = np.unique(arcs.row * sites + frame.site[arcs.group])
    count = np.bincount(keys // sites, minlength=len(frame.rate))
    narrow = np.zeros(len(master.group))
    few = count[arcs.row] <= _NARROW_SITES
    narrow[np.searchsorted(master.group, np.unique(arcs.group[few]))] = 1.0
    return narrow


def _raise(frame: Frame, group: Positions, ups: Positions, *, least: Floats, most: Floats) -> None:
    """One replica more for each that pool and budget still hold; no more for those they do not."""
    pool, site = frame.pool[group], frame.site[group]
    size, kw = frame.accelerators[group], frame.possible_kw[group]
    left = frame.pool_count - np.bincount(pool, least * size, len(frame.pool_count))
    left_kw = frame.budget_kw - np.bincount(site, least * kw, len(frame.budget_kw))
    for at in ups.tolist():
        fits = left[pool[at]] >= size[at] - 1e-9 and left_kw[site[at]] >= kw[at] - 1e-9
        if fits and least[at] + 1 <= most[at]:
            least[at] += 1
            left[pool[at]] -= size[at]
            left_kw[site[at]] -= kw[at]
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
