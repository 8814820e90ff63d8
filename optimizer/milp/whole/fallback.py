"""A plan where time ended before the search had one: an earlier one that still fits, else a greedy
one over few arcs.

Decides which arcs the greedy plan is made of. The checker decides whether either is a plan.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import replace
from math import inf

import numpy as np

from optimizer.costs import priced_plan
from optimizer.greedy import greedy_plan
from optimizer.milp.survive_local import certify
from optimizer.milp.whole.limit import Limit
from optimizer.milp.whole.matrix import Places
from optimizer.milp.whole.to_plan import candidate
from optimizer.plan import CandidateArc, Plan
from optimizer.reach import Reach
from optimizer.sweep import ArcTable
from optimizer.tables import Tables
from optimizer.verify import check_plan
from sites.assignment import ReplicaGroup
from sites.units import S_PER_H

_FEW, _MORE = 20, 200
"""Arcs a class is offered at first, and where those have no room."""

_USELESS = 1e-9


def fall_back(
    reach: Reach, tables: Tables, arcs: ArcTable, *, start: Plan | None, limit: Limit
) -> Plan:
    """`start` if it keeps every limit of the problem, else a greedy plan, which may not.

    Its bound says nothing: the caller knows a better one.
    """
    again = None if start is None else _again(reach, start)
    if again is not None:
        return again
    offer = _Offer(reach, tables, arcs)
    return greedy_plan(reach.problem, offer.few(), more=offer.more, is_late=limit.is_spent)


def _again(reach: Reach, plan: Plan) -> Plan | None:
    """An earlier plan priced and certified for this problem, None if it does not fit it."""
    problem = reach.problem
    bare = replace(plan, supplies=(), survival=(), exposed=())
    if any(one.code == "reference" for one in check_plan(problem, bare)):
        return None  # it names what is there no more, and so has no price
    priced = priced_plan(
        reach,
        groups=plan.groups,
        shares=plan.shares,
        shed=plan.shed,
        bound_usd_per_h=inf,
        method=plan.method,
    )
    renewed = certify(reach, priced)
    return None if check_plan(problem, renewed) else renewed


class _Offer:
    """Each class's cheapest arcs as a greedy plan takes them, made when they are asked for.

    At the price of a request on a full replica of a group whose site is full of such: hardware, its
    part of the site's fixed price, network. That is the least any plan pays for it, but for power,
    which differs little.
    """

    def __init__(self, reach: Reach, tables: Tables, arcs: ArcTable) -> None:
        self._reach, self._tables, self._arcs = reach, tables, arcs
        groups = tables.groups
        shared = tables.sites.fixed_usd_per_h[groups.site] / np.maximum(groups.room, 1)
        replica = groups.hardware_usd_per_h + groups.risk_usd_per_h + shared
        ceiling = reach.problem.plan_policy.utilisation_ceiling
        work = replica / np.maximum(ceiling * groups.available, _USELESS)
        price = arcs.network_usd_per_h + arcs.replica_seconds * work[arcs.group]
        self._order = np.lexsort((price, arcs.cls))
        self._first = np.searchsorted(arcs.cls, np.arange(tables.classes.count + 1))
        self._groups: dict[int, ReplicaGroup] = {}

    def few(self) -> Iterator[CandidateArc]:
        """The cheapest of every class."""
        rank = np.arange(self._arcs.count) - self._first[self._arcs.cls]
        return self._made(self._order[rank < _FEW])

    def more(self, class_id: str) -> Iterator[CandidateArc]:
        """More of one class."""
        at = bisect_left(self._tables.classes.ids, class_id)
        first, end = self._first[at], self._first[at + 1]
        return self._made(self._order[first : min(end, first + _MORE)])

    def _made(self, places: Places) -> Iterator[CandidateArc]:
        arcs, ids = self._arcs, self._tables.classes.ids
        for at in places.tolist():
            group = int(arcs.group[at])
            if group not in self._groups:
                self._groups[group] = self._tables.group(group)
            yield candidate(
                self._reach,
                self._reach.classes[ids[arcs.cls[at]]],
                self._groups[group],
                ttft_ms=float(arcs.ttft_ms[at]),
                replica_seconds=float(arcs.replica_seconds[at]),
                network_usd_per_request=float(arcs.network_usd_per_h[at]) / S_PER_H,
            )
