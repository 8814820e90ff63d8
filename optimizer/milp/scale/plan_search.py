"""A plan some classes at a time: first who has little choice, then whole components, then passes.

Dive: classes with few sites to go to, of all components at once, are placed before all others (the
whole replicas that many services need at few sites are a packing problem of their own, and nothing
is kept spare there yet); then each component whole,
within what is left after those placed before and the relaxation's share of those still to come,
paying the prices of what it takes. Passes: classes are placed anew at true cost while all others
stand, and kept if the whole gets cheaper. Jobs of one batch look at the same ledger, so the answer
does not depend on how many workers there are; one that no longer fits after its batch-mates is
placed again alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from optimizer.milp.scale.catalogue import component_arcs
from optimizer.milp.scale.component import place
from optimizer.milp.scale.frame import Frame, Positions, Prices
from optimizer.milp.scale.ledger import Change, Ledger, Use
from optimizer.milp.scale.workers import Workers

BATCH = 2
"""Jobs that look at the same ledger."""

_WIDER = (4, 16)
"""Times as many groups for classes that are shed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Effort:
    """Groups near each class's cheapest that get a column, gap and nodes of one placement."""

    near: int
    gap: float
    nodes: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Search:
    """What every step needs: the prices, who works, when to stop, and the arcs the relaxation uses
    (`support`: class x groups + group, ascending).
    """

    frame: Frame
    ledger: Ledger
    prices: Prices
    workers: Workers
    support: Positions
    is_over: Callable[[], bool]


def narrow_classes(frame: Frame, *, sites: int) -> Positions:
    """The classes whose arcs lead to at most so many sites, ascending."""
    counts = [
        len(np.unique(frame.site[frame.sweep.arcs_of(at).group])) for at in range(len(frame.rate))
    ]
    return np.flatnonzero(np.array(counts) <= sites)


def dive(search: Search, *, reserves: list[Use], narrow: Positions, effort: Effort) -> None:
    """Place everything once. Cut short, what is not placed yet is shed."""
    frame, ledger = search.frame, search.ledger
    worth = [-float(frame.shed_usd_per_h[classes].sum()) for classes in frame.components]
    order = [int(at) for at in np.argsort(np.array(worth), kind="stable")]
    _step(search, [narrow] if len(narrow) else [], weight=1.0, effort=effort, spare=False)
    for one in reserves:
        ledger.reserve = ledger.reserve.plus(one)
    for first in range(0, len(order), BATCH):
        batch = order[first : first + BATCH]
        for number in batch:
            ledger.reserve = ledger.reserve.plus(reserves[number], times=-1.0)
        jobs = [frame.components[n] for n in batch]
        _step(search, jobs, weight=1.0, effort=effort)
        _serve_shed(search, jobs, effort=effort)
    ledger.hold_nothing()
    _serve_shed(search, list(frame.components), effort=effort)


def _serve_shed(search: Search, jobs: list[Positions], *, effort: Effort) -> None:
    """Offer ever more groups to the classes that are shed, all others standing."""
    for times in _WIDER:
        short = [classes[search.ledger.shed_part[classes] > 0] for classes in jobs]
        wider = replace(effort, near=effort.near * times)
        left = [classes for classes in short if len(classes)]
        for first in range(0, len(left), BATCH):
            _step(search, left[first : first + BATCH], weight=1.0, effort=wider)


def improve(search: Search, jobs: list[Positions], *, effort: Effort) -> float:
    """Place sets of classes anew, each while all others stand; USD/h saved."""
    before = search.ledger.cost_usd_per_h()
    for first in range(0, len(jobs), BATCH):
        _step(search, jobs[first : first + BATCH], weight=0.0, effort=effort)
    return before - search.ledger.cost_usd_per_h()


def _step(
    search: Search,
    jobs: list[Positions],
    *,
    weight: float,
    effort: Effort,
    spare: bool = True,
) -> None:
    """Place some jobs on the same ledger, then take them in order."""
    if search.is_over():
        return

    def one(classes: Positions) -> Change | None:
        return place(
            search.ledger,
            component_arcs(search.frame, classes),
            prices=search.prices,
            support=search.support,
            weight=weight,
            spare=spare,
            near=effort.near,
            gap=effort.gap,
            nodes=effort.nodes,
        )

    ledger = search.ledger
    for classes, found in zip(jobs, search.workers.map(one, jobs), strict=True):
        change = found
        if change is not None and not ledger.fits(change):
            change = one(classes)
        if change is None or not ledger.fits(change):
            continue
        if ledger.with_change(change)[1] < ledger.cost_usd_per_h() - 1e-9:
            ledger.put(change)
