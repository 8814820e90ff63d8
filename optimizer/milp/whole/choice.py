"""Which traffic columns the relaxation holds from the start.

Each class's few cheapest arcs as if replicas and sites were filled perfectly: a guess that only
decides how many rounds of pricing follow.
"""

from __future__ import annotations

import numpy as np

from optimizer.milp.arrays import Matrix
from optimizer.milp.whole.matrix import Places

_ARCS_PER_CLASS = 8


def first_columns(matrix: Matrix) -> Places:
    """The columns of each class's cheapest arcs by network, work and site."""
    p = matrix.horizon[0]
    groups, sites = p.tables.groups, p.tables.sites
    ceiling = p.tables.problem.plan_policy.utilisation_ceiling
    work = groups.hardware_usd_per_h + groups.risk_usd_per_h + groups.start_usd_per_h
    most = np.zeros(groups.count)
    most[p.placeable.group] = p.placeable.most
    alone = np.bincount(groups.site, weights=most, minlength=len(sites.ids))
    site = sites.fixed_usd_per_h / np.maximum(alone, 1.0)
    usable = np.maximum(ceiling * groups.available, 1e-9)
    price_of_work = (work + site[groups.site]) / usable
    arcs = p.arcs
    price = arcs.network_usd_per_h + arcs.replica_seconds * price_of_work[arcs.group]
    order = np.lexsort((np.arange(arcs.count), price, arcs.cls))
    first = np.searchsorted(arcs.cls, arcs.cls[order])
    rank = np.empty(arcs.count, dtype=np.intp)
    rank[order] = np.arange(arcs.count) - first
    return p.column("x").astype(np.intp)[rank < _ARCS_PER_CLASS]
