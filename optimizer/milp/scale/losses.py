"""Which losses of a site may get a cover row for which protected class.

Decides by what holds for every plan: the class keeps its ingress, so that it keeps its arcs, and at
least one site left can be reached on a path that does not cross the lost one.
"""

from __future__ import annotations

import numpy as np

from optimizer.milp.scale.frame import Frame, Positions
from optimizer.tabulate_routes import path_links


def losses_of(frame: Frame) -> tuple[Positions, Positions]:
    """Losses (class x sites + site, ascending) whose cover row no plan breaks without exposure; and
    those together with the losses of ingresses, whose row says what a plan should rather not break.
    """
    tables, sites = frame.tables, len(frame.budget_kw)
    classes, part = tables.classes, tables.problem.plan_policy.exposure_part
    none = np.zeros(0, dtype=np.intp)
    protected = np.flatnonzero(classes.protected) if part > 0 else none
    keys = [
        at * sites + np.unique(frame.site[frame.sweep.arcs_of(at).group])
        for at in protected.tolist()
    ]
    ends = np.concatenate([none, *keys])
    if len(ends) == 0:
        return ends, ends
    cls, target = ends // sites, ends % sites
    pair, link = path_links(
        tables.routes, tables.links, route=classes.route[cls], site=target.astype(np.int32)
    )
    crossed = np.concatenate([tables.links.site_a[link], tables.links.site_b[link]])
    over = np.concatenate([pair, pair])
    through = np.unique(over * sites + crossed)
    over, crossed = through // sites, through % sites
    beyond = crossed != target[over]
    key = cls[over[beyond]] * sites + crossed[beyond]
    at = np.minimum(np.searchsorted(ends, key), len(ends) - 1)
    cut = np.bincount(at[ends[at] == key], minlength=len(ends))
    reachable = np.bincount(cls, minlength=len(frame.rate))[cls] - 1 - cut
    ingress = tables.routes.source[classes.route[cls]]
    safe = ends[(target != ingress) & (reachable > 0)]
    several = np.bincount(cls, minlength=len(frame.rate))[cls] > 1
    wished = several & ((reachable > 0) | (target == ingress))
    return safe.astype(np.intp), ends[wished].astype(np.intp)
