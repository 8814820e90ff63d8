"""Rows that leave room for the loss of any one site, of one component, as arrays.

Decides which losses get a row: every site of each protected class with few sites, and of all
protected classes of the component together. They are necessary for a plan without exposed traffic,
not sufficient; what is really exposed `survive_plan` works out on the finished plan.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from optimizer.milp.scale.catalogue import ComponentArcs
from optimizer.milp.scale.frame import Frame, Positions
from optimizer.tables import Floats

_FEW_SITES = 12


@dataclass(frozen=True, kw_only=True, slots=True)
class Cover:
    """Rows of one subject: entry i puts `value[i]` on replicas of `group[i]` in `row[i]`; each row
    may be left exposed at its price (USD/h for the whole).
    """

    row: Positions
    group: Positions
    value: Floats
    exposed_usd_per_h: Floats


def survival_rows(frame: Frame, arcs: ComponentArcs, shed_usd_per_h: Floats) -> Iterator[Cover]:
    """Rows of every protected class with few sites, then of all protected classes together."""
    part = frame.tables.problem.plan_policy.exposure_part
    protected = frame.tables.classes.protected[arcs.classes]
    if part == 0 or not protected.any():
        return
    price = shed_usd_per_h * part
    cover = frame.rateable[arcs.group] / arcs.busy
    ends = np.append(arcs.start, arcs.count)
    for row in np.flatnonzero(protected):
        mine = slice(int(ends[row]), int(ends[row + 1]))
        group = arcs.group[mine]
        if len(np.unique(frame.site[group])) <= _FEW_SITES:
            yield from _losses(frame, group, np.minimum(1.0, cover[mine]), price=float(price[row]))
    chosen = protected[arcs.row]
    has = np.unique(arcs.row[chosen])
    if len(has) > 1:
        work = np.zeros(len(arcs.classes))
        np.add.at(work, arcs.row, arcs.busy)
        work /= np.maximum(1, np.bincount(arcs.row, minlength=len(work)))
        best = np.zeros(frame.groups)
        ease = (work[arcs.row] * cover)[chosen] / work[has].sum()
        np.maximum.at(best, arcs.group[chosen], ease)
        group = np.unique(arcs.group[chosen])
        each = (price[has] / work[has]).min() * work[has].sum()
        yield from _losses(frame, group, np.minimum(1.0, best[group]), price=float(each))


def _losses(frame: Frame, group: Positions, value: Floats, *, price: float) -> Iterator[Cover]:
    """One row per site: what the groups at all others cover."""
    sites = np.unique(frame.site[group])
    if len(sites) < 2:
        return  # nothing could take it: no lawful arc is left
    row, at = np.nonzero(sites[:, None] != frame.site[group][None, :])
    yield Cover(
        row=row.astype(np.intp),
        group=group[at],
        value=value[at],
        exposed_usd_per_h=np.full(len(sites), price),
    )
