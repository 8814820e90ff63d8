"""Which losses of a site may get a cover row for which protected class.

Decides by what holds for every plan. A class that keeps its ingress keeps its arcs: at least one
site left can be reached on a path that does not cross the lost one. One that loses its ingress has
the arcs from the next (`next_ingress_arcs`), at least one.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from optimizer.milp.scale.frame import Frame, Positions
from optimizer.tabulate_routes import path_links


def losses_of(frame: Frame) -> Positions:
    """Losses (class x sites + site, ascending) whose cover row no plan breaks without exposure."""
    tables, sites = frame.tables, len(frame.budget_kw)
    classes, part = tables.classes, tables.problem.plan_policy.exposure_part
    none = np.zeros(0, dtype=np.intp)
    protected = np.flatnonzero(classes.protected) if part > 0 else none
    keys = [at * sites + _sites_of(frame, at) for at in protected.tolist()]
    ends = np.concatenate([none, *keys])
    if len(ends) == 0:
        return ends
    cls, target = ends // sites, ends % sites
    pair, link = path_links(
        tables.routes, tables.links, route=classes.route[cls], site=target.astype(np.int32)
    )
    crossed = np.concatenate([tables.links.site_a[link], tables.links.site_b[link]])
    over = np.concatenate([pair, pair])
    beyond = crossed != target[over]
    key = cls[over[beyond]] * sites + crossed[beyond]
    at = np.minimum(np.searchsorted(ends, key), len(ends) - 1)
    # a path touches a site between by two links (its ingress by one: no row of this kind)
    cut = np.bincount(at[ends[at] == key], minlength=len(ends)) // 2
    reachable = np.bincount(cls, minlength=len(frame.rate))[cls] - 1 - cut
    ingress = frame.ingress[cls]
    safe = ends[(target != ingress) & (reachable > 0)]
    moving = protected[[_has_next(frame, at) for at in protected.tolist()]]
    found: Positions = np.union1d(safe, moving * sites + frame.ingress[moving])
    return found


def _sites_of(frame: Frame, at: int) -> Positions:
    """Sites a class reaches, ascending."""
    reached = np.zeros(len(frame.budget_kw), dtype=np.bool_)
    reached[frame.site[frame.sweep.arcs_of(at).group]] = True
    return np.flatnonzero(reached)


def _has_next(frame: Frame, at: int) -> bool:
    """Whether a class that loses its ingress reaches another site."""
    site = frame.site[frame.next_sweep.arcs_of(at).group]
    return bool((site != frame.ingress[at]).any())


def at_ingress(frame: Frame, losses: Positions) -> NDArray[np.bool_]:
    """Which losses are of the class's own ingress."""
    sites = len(frame.budget_kw)
    found: NDArray[np.bool_] = frame.ingress[losses // sites] == losses % sites
    return found
