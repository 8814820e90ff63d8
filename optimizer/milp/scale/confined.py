"""Whether classes that only a few sites may answer fit there: where they do not, no plan sheds as
little as the policy asks, whatever the rest of the fleet does.

Decides which classes and sites are looked at; what would help there is `elastic`'s.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from optimizer.arcs import find_arcs
from optimizer.milp.elastic import infeasible_message, may_need_mending, shortfall
from optimizer.milp.scale.batch import Search
from optimizer.milp.scale.cap_search import sheds_too_much
from optimizer.milp.scale.frame import Positions
from optimizer.outcome import Outcome, SolveStatus
from optimizer.problem import Problem

_MOST_SITES, _MOST_ARCS, _REGIONS = 6, 3_000, 4
"""Of a region, and regions looked at, the smallest first."""

_NOBODY = "no site may answer some classes"

_TIME_PART = 0.05
"""Of the time limit, for each of the two questions asked of a region."""


def refused(problem: Problem, search: Search, *, bound_usd_per_h: float) -> Outcome | None:
    """That there is no plan, with what would help, where the smallest region around a class that
    sheds more than the policy allows is proven to be too small; else None.
    """
    if may_need_mending(problem):
        return None  # limits that what runs now breaks may give way instead
    tables = search.frame.tables
    for here in _regions(search.reach, sheds_too_much(search.ledger)):
        inside = np.flatnonzero(~search.reach[:, ~here].any(axis=1))
        sites = tuple(tables.sites.ids[at] for at in np.flatnonzero(here))
        alone = _alone(problem, classes={tables.classes.ids[at] for at in inside}, sites=sites)
        arcs = find_arcs(alone).arcs
        ways = shortfall(alone, arcs) if len(arcs) <= _MOST_ARCS else ()
        if ways:
            names = ", ".join(sites)
            why = f"what only {names} may answer does not fit there" if sites else _NOBODY
            return Outcome(
                status=SolveStatus.INFEASIBLE,
                plan=None,
                arcs=(),
                pruned=(),
                bound_usd_per_h=bound_usd_per_h,
                message=infeasible_message(ways, why=why),
                relaxations=tuple(one for way in ways for one in way),
                only_at=sites,
            )
    return None


def _regions(reach: NDArray[np.bool_], classes: Positions) -> list[NDArray[np.bool_]]:
    """The sites in reach of some classes, each set once, the smallest first."""
    sets = np.unique(reach[classes], axis=0)
    small = [here for here in sets if here.sum() <= _MOST_SITES]
    return sorted(small, key=lambda here: int(here.sum()))[:_REGIONS]


def _alone(problem: Problem, *, classes: set[str], sites: tuple[str, ...]) -> Problem:
    """Some classes with the hardware of some sites to themselves, and no limit over the fleet."""
    policy = problem.plan_policy
    stripped = tuple(
        site if site.site_id in sites else replace(site, pools=()) for site in problem.fleet.sites
    )
    return replace(
        problem,
        fleet=replace(problem.fleet, sites=stripped),
        classes=tuple(one for one in problem.classes if one.class_id in classes),
        demand=tuple(one for one in problem.demand if one.class_id in classes),
        tenants=tuple(replace(one, budget_usd_per_h=None) for one in problem.tenants),
        running=tuple(one for one in problem.running if one.group.site_id in sites),
        plan_policy=replace(
            policy,
            exposure_part=0.0,
            move_limit_replicas=None,
            carbon_cap_g_per_h=None,
            replica_bounds=(),
            time_limit_s=_TIME_PART * policy.time_limit_s,
        ),
    )
