"""Neighbourhoods of one batch: all searched at the same ledger, side by side, then taken in order.

Decides which changes stand: those that save, as far as they still fit after their batch-mates'. Who
does the searching, and how many at a time, changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from optimizer.milp.scale.cluster import Effort, rearrange
from optimizer.milp.scale.frame import Frame, Positions, PriceList
from optimizer.milp.scale.ledger import Change, Ledger
from optimizer.milp.scale.workers import Workers, largest_first
from optimizer.tables import Floats

BATCH = 6
"""Jobs that look at the same ledger."""

_SIDE_BY_SIDE = 2
"""Times that a batch is searched side by side: at 600 sites those that no longer fit once were a
fifth of a pass when searched again in turn.
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Search:
    """What every step needs: the prices, groups that may get a first replica (`worth`, which
    grows), the sites a class reaches (`reach[class, site]`), which sites share classes
    (`near[site, site]`), who works, when to stop, what each class is worth in the relaxation; if it
    is `priced`, what a change takes of pools and budgets counts at their prices.
    """

    frame: Frame
    ledger: Ledger
    prices: PriceList
    worth: NDArray[np.bool_]
    reach: NDArray[np.bool_]
    near: Floats
    workers: Workers
    is_over: Callable[[], bool]
    least_usd_per_h: Floats
    priced: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """Classes to place anew, and the groups whose replicas may change; `early` as in
    `rearrange`.
    """

    classes: Positions
    free: NDArray[np.bool_]
    early: bool = False


def step(search: Search, jobs: list[Job], effort: Effort, *, again: bool = True) -> list[Positions]:
    """Search some neighbourhoods of the same ledger, then take what they found in order. Those that
    a batch-mate left too little room are searched `again`, side by side and then in turn; or else
    what fits of each is taken, and its classes that go without are returned.
    """
    if search.is_over():
        return []
    if not again:
        return _taken_in_parts(search, jobs, effort)
    late = jobs
    for _ in range(_SIDE_BY_SIDE):
        late = [
            job for job, found in _answers(search, late, effort) if not _taken(search, job, found)
        ]
    for job in late:
        _taken(search, job, _answer(search, job, effort))
    return []


def _answers(
    search: Search, jobs: list[Job], effort: Effort
) -> Iterator[tuple[Job, Change | None]]:
    """Each job with what a search for it finds, all of the same ledger."""
    found = largest_first(
        search.workers,
        lambda job: _answer(search, job, effort),
        jobs,
        size=lambda job: len(job.classes),
    )
    return zip(jobs, found, strict=True)


def _answer(search: Search, job: Job, effort: Effort) -> Change | None:
    return rearrange(
        search.ledger,
        job.classes,
        free=job.free,
        prices=search.prices,
        early=job.early,
        priced=search.priced,
        effort=effort,
        is_over=search.is_over,
    )


def _taken(search: Search, job: Job, change: Change | None) -> bool:
    """Make a change that saves; False if it is not of the ledger as it is now."""
    if change is None:
        return True
    if not _is_current(search.ledger, job, change):
        return False
    if _saves(search, change):
        search.ledger.put(change)
    return True


def _taken_in_parts(search: Search, jobs: list[Job], effort: Effort) -> list[Positions]:
    """Make what fits of each change; the classes that go without."""
    ledger, late = search.ledger, []
    for job, found in _answers(search, jobs, effort):
        change = found
        if change is not None and not _is_current(ledger, job, change):
            change, without = _what_fits(ledger, job, change)
            late.append(without)
        if change is None:
            continue
        if not ledger.keeps_caps(change):
            late.append(job.classes)
        elif ledger.fits(change) and _saves(search, change):
            ledger.put(change)
    return late


def _saves(search: Search, change: Change) -> bool:
    ledger = search.ledger
    _, cost = ledger.with_change(change)
    more = cost - ledger.cost_usd_per_h()
    if search.priced:
        shared = search.frame.shared_usd_per_h(search.prices.shared)[change.group]
        more += float(shared @ (change.replicas - ledger.replicas[change.group]))
    return more < -1e-9


def _is_current(ledger: Ledger, job: Job, change: Change) -> bool:
    """Whether a change still fits and speaks of no replicas outside its job that moved since."""
    return not _moved(ledger, job, change).any() and ledger.fits(change)


def _moved(ledger: Ledger, job: Job, change: Change) -> NDArray[np.bool_]:
    fixed = ~job.free[change.group]
    moved: NDArray[np.bool_] = fixed & (change.replicas != ledger.replicas[change.group])
    return moved


def _what_fits(ledger: Ledger, job: Job, change: Change) -> tuple[Change, Positions]:
    """A change but for the sites where it lacks room by now, and the classes that lose by that:
    traffic or, if protected, cover.
    """
    frame, exposure = ledger.frame, ledger.exposure
    lacking = ledger.lacking(change)
    lacking[frame.site[change.group[_moved(ledger, job, change)]]] = True
    stays = lacking[frame.site[change.group]]
    replicas = np.where(stays, ledger.replicas[change.group], change.replicas)
    dropped = lacking[frame.site[change.flows.group]]
    uncovered = change.group[stays & (change.replicas > replicas)]
    covered = exposure.classes[exposure.of_groups(uncovered)[1].rank]
    without = np.union1d(change.flows.cls[dropped], np.intersect1d(change.classes, covered))
    fits = Change(
        classes=change.classes,
        group=change.group,
        replicas=replicas,
        flows=change.flows.only(np.flatnonzero(~dropped)),
    )
    return fits, without
