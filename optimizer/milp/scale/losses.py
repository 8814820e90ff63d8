"""Which losses of a site may get a cover row for which protected class.

Decides by what holds for every plan. A class that keeps its ingress keeps its arcs: at least one
site left can be reached on a path that does not cross the lost one. One that loses its ingress has
the arcs from the next (`next_ingress_arcs`), at least one.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from optimizer.milp.scale.frame import Frame, Positions
from optimizer.tables import NOWHERE


def losses_of(frame: Frame) -> Positions:
    """Losses (class x sites + site, ascending) whose cover row no plan breaks without exposure."""
    tables, sites = frame.tables, len(frame.budget_kw)
    classes, part = tables.classes, tables.problem.plan_policy.exposure_part
    none = np.zeros(0, dtype=np.intp)
    protected = np.flatnonzero(classes.protected & (classes.route != NOWHERE)) if part > 0 else none
    route = classes.route[protected]
    found = [
        _staying(frame, int(one), protected[route == one]) for one in np.unique(route).tolist()
    ]
    moving = protected[
        np.array([_has_next(frame, at) for at in protected.tolist()], dtype=np.bool_)
    ]
    losses: Positions = np.union1d(
        np.concatenate([none, *found]), moving * sites + frame.ingress[moving]
    )
    return losses.astype(np.intp)


def _staying(frame: Frame, route: int, classes: Positions) -> Positions:
    """Losses of classes of one route that leave them a site: those it reaches but for the lost one
    and for those beyond it, counted up the tree of the route's paths.
    """
    sites = len(frame.budget_kw)
    reached = np.zeros((sites, len(classes)), dtype=np.int32)
    for rank, position in enumerate(classes.tolist()):
        reached[frame.site[frame.sweep.arcs_of(position).group], rank] = 1
    parent, depth = _tree(frame, route)
    through = reached.copy()
    for level in range(int(depth.max()), 0, -1):
        here = np.flatnonzero(depth == level)
        np.add.at(through, parent[here], through[here])
    left = reached.sum(axis=0) - through
    safe = (reached > 0) & (left > 0)
    safe[frame.ingress[classes], np.arange(len(classes))] = False
    site, own = np.nonzero(safe)
    found: Positions = classes[own] * sites + site
    return found


def _tree(frame: Frame, route: int) -> tuple[Positions, Positions]:
    """The site before each site on a route's paths (itself: none), and how many lie before it."""
    links, via = frame.tables.links, frame.tables.routes.via_link[route]
    parent = np.arange(len(via))
    moved = np.flatnonzero(via != NOWHERE)
    link = via[moved]
    parent[moved] = links.site_a[link].astype(np.intp) + links.site_b[link] - moved
    depth, here = np.zeros(len(via), dtype=np.intp), parent
    before = np.arange(len(via))
    # a path has fewer hops than there are sites
    for _ in range(len(via)):
        moving = here != before
        if not moving.any():
            break
        depth += moving
        before, here = here, parent[here]
    return parent, depth


def _has_next(frame: Frame, at: int) -> bool:
    """Whether a class that loses its ingress reaches another site."""
    site = frame.site[frame.next_sweep.arcs_of(at).group]
    return bool((site != frame.ingress[at]).any())


def at_ingress(frame: Frame, losses: Positions) -> NDArray[np.bool_]:
    """Which losses are of the class's own ingress."""
    sites = len(frame.budget_kw)
    found: NDArray[np.bool_] = frame.ingress[losses // sites] == losses % sites
    return found
