"""An earlier plan as the search's first: its replicas as far as they still fit, its traffic as far
as it still flows, and what that leaves unserved over what stands.

Decides nothing about new replicas.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from optimizer.milp.scale.batch import BATCH, Job, Search, step
from optimizer.milp.scale.catalogue import component_arcs
from optimizer.milp.scale.cluster import Effort
from optimizer.milp.scale.frame import Frame, Positions
from optimizer.milp.scale.ledger import UNPLACED, Change, Flows, flows_over, joined
from optimizer.milp.scale.plan_search import lots
from optimizer.plan import Plan
from optimizer.tables import Floats
from sites.units import WHOLE_BP

_SLIVER = 1e-6
"""Room left, so that rounding never reads as too much."""


def take_up(search: Search, plan: Plan | None, mended: Mapping[str, int] | None = None) -> None:
    """Put an earlier plan's replicas into an empty ledger as far as they still fit, and let traffic
    flow over them: first what that plan's traffic leaves unserved, also out of time (it is the
    plan to fall back on), then as well as all of it can. Where few replicas may move, those that
    run take the place of a plan that moves too many; and if more of those have to stop than may,
    so do `mended` ones (by group id).
    """
    frame, ledger = search.frame, search.ledger
    group, replicas = _positions(frame, _replicas(plan))
    moves = frame.running.sum() + np.abs(replicas - frame.running[group]).sum()
    moves -= frame.running[group].sum()
    if moves > frame.caps.moves:
        group = np.flatnonzero(frame.running > 0)
        replicas = frame.running[group]
    flowed = _flowed(frame, plan)
    _stand(search, group, replicas, flowed)
    if mended is not None and ledger.moved > frame.caps.moves:
        every = np.arange(frame.groups)
        ledger.put(_standing(search, every, np.zeros(frame.groups)))
        _stand(search, *_positions(frame, mended), flowed)
    flows = _what_still_flows(search, flowed)
    if ledger.keeps_caps(flows):
        ledger.put(flows)
    _flow(replace(search, is_over=lambda: False), np.flatnonzero(ledger.shed_part > UNPLACED))
    _flow(search, np.arange(len(frame.rate)))


def _stand(search: Search, group: Positions, replicas: Floats, flowed: Floats) -> None:
    """Replicas of some groups and those that have to stand, as far as they fit: where not all do,
    first those whose traffic (`flowed`) costs most to shed for the power they may draw.
    """
    frame, ledger = search.frame, search.ledger
    group, replicas = _with_floors(frame, group, replicas)
    whole = _standing(search, group, np.minimum(replicas, frame.most[group]))
    lacking = ledger.lacking(whole)[frame.site[group]] | (not ledger.keeps_caps(whole))
    ledger.put(_standing(search, group[~lacking], whole.replicas[~lacking]))
    answers = flowed[:, 2] * frame.shed_usd_per_h[flowed[:, 0].astype(np.intp)]
    worth = np.bincount(flowed[:, 1].astype(np.intp), answers, frame.groups)[group]
    each = worth / np.maximum(whole.replicas * frame.possible_kw[group], 1e-9)
    order = np.lexsort((group, -each))
    for at in order[lacking[order]].tolist():
        for count in range(int(whole.replicas[at]), 0, -1):
            stands = _standing(search, group[[at]], np.array([float(count)]))
            if ledger.fits(stands):
                ledger.put(stands)
                break


def _flow(search: Search, classes: Positions) -> None:
    """Let some classes' traffic flow anew over what stands."""
    nothing = np.zeros(search.frame.groups, dtype=np.bool_)
    pending = lots(search.frame, classes)
    for first in range(0, len(pending), BATCH):
        if search.is_over():
            break
        jobs = [Job(classes=lot, free=nothing) for lot in pending[first : first + BATCH]]
        step(search, jobs, Effort(sites=0, gap=0.0, nodes=1))


def _replicas(plan: Plan | None) -> dict[str, int]:
    return {} if plan is None else {one.group.group_id: one.replicas for one in plan.groups}


def _positions(frame: Frame, wanted: Mapping[str, int]) -> tuple[Positions, Floats]:
    """Groups that still exist, ascending, and how many replicas of each are wanted."""
    named = frame.tables.positions(wanted)
    stood = sorted((at, float(wanted[group_id])) for group_id, at in named.items())
    return np.array([at for at, _ in stood], dtype=np.intp), np.array([n for _, n in stood])


def _with_floors(frame: Frame, group: Positions, replicas: Floats) -> tuple[Positions, Floats]:
    """Replicas of groups, and at least those that have to stand."""
    stands = frame.least.copy()
    stands[group] = np.maximum(stands[group], replicas)
    every = np.union1d(group, np.flatnonzero(frame.least)).astype(np.intp)
    return every, stands[every]


def _standing(search: Search, group: Positions, replicas: Floats) -> Change:
    nobody = np.zeros(0, dtype=np.intp)
    flows = search.ledger.flows_of(nobody)
    return Change(classes=nobody, group=group, replicas=replicas, flows=flows)


def _flowed(frame: Frame, plan: Plan | None) -> Floats:
    """An earlier plan's traffic between classes and groups there are: rows of class, group, part,
    ascending.
    """
    shares = () if plan is None else plan.shares
    position = {class_id: at for at, class_id in enumerate(frame.tables.classes.ids)}
    named = frame.tables.positions({one.group_id for one in shares})
    known = sorted(
        (position[one.class_id], named[one.group_id], one.basis_points / WHOLE_BP)
        for one in shares
        if one.class_id in position and one.group_id in named
    )
    return np.array(known, dtype=np.float64).reshape(-1, 3)


def _what_still_flows(search: Search, flowed: Floats) -> Change:
    """An earlier plan's traffic, less where replicas or power no longer do."""
    frame, ledger = search.frame, search.ledger
    flows = joined([_flows(frame, classes, flowed) for classes in frame.components])
    busy = np.bincount(flows.group, flows.busy, frame.groups)
    held = ledger.replicas * frame.rateable
    kept = np.minimum(1.0, held / np.maximum(busy, 1e-12))
    sites = len(frame.budget_kw)
    drawn = np.bincount(frame.site, kept * busy * frame.busy_kw, sites)
    left_kw = np.maximum(0.0, frame.stack.limit_kw.sum(axis=1) - ledger.used.drawn_kw)
    kept *= np.minimum(1.0, left_kw / np.maximum(drawn, 1e-12))[frame.site]
    part = kept[flows.group] * (1 - _SLIVER)
    return Change(
        classes=np.arange(len(frame.rate)),
        group=np.zeros(0, dtype=np.intp),
        replicas=np.zeros(0),
        flows=flows.only(np.flatnonzero(part > 0)).times(part[part > 0]),
    )


def _flows(frame: Frame, classes: Positions, flowed: Floats) -> Flows:
    """The rows of `flowed` (class, group, part; ascending) that are arcs of some classes."""
    arcs = component_arcs(frame, classes)
    mine = flowed[np.isin(flowed[:, 0], classes)]
    part = np.zeros(arcs.count)
    if arcs.count:
        key = arcs.classes[arcs.row] * frame.groups + arcs.group
        wanted = (mine[:, 0] * frame.groups + mine[:, 1]).astype(np.intp)
        at = np.minimum(np.searchsorted(key, wanted), len(key) - 1)
        known = key[at] == wanted
        part[at[known]] = mine[known, 2]
    return flows_over(arcs, part, np.flatnonzero(part > 0))
