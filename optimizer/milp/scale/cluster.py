"""A few sites placed anew, all services at once, while all other sites stand.

Decides which columns that takes: replicas of the groups worth having at these sites, traffic of the
classes answered or shed there, over those and over what stands elsewhere. Protected classes keep
their cover against the loss of any site or pay for what they lack.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from optimizer.milp.scale.catalogue import (
    ComponentArcs,
    cheapest,
    component_arcs,
    flow_price,
    full_price,
    transfer,
)
from optimizer.milp.scale.component import Kernel
from optimizer.milp.scale.component_caps import cap, mix
from optimizer.milp.scale.frame import Frame, Positions, PriceList
from optimizer.milp.scale.ledger import Change, Ledger, Use, is_open
from optimizer.milp.scale.mixes import for_mixes, mixed
from optimizer.tables import Floats

_INSIDE = 32
_ARCS, _EARLY_ARCS = 12_000, 4_000
"""Arcs that the classes of one search share, if that is more than `_INSIDE` for each: of 27 classes
over 92 groups the cheapest 32 arcs each came to $35.4/h, all to 30.1, 3 % above the relaxation. A
first plan is worth less time.
"""
_OUTSIDE = 4
_USELESS = 1e-9


@dataclass(frozen=True, kw_only=True, slots=True)
class Effort:
    """Sites of a neighbourhood, gap and nodes of one search; without nodes it dives. `thorough` as
    in `Kernel.solve`.
    """

    sites: int
    gap: float
    nodes: int
    thorough: bool = False


def rearrange(
    ledger: Ledger,
    classes: Positions,
    *,
    free: NDArray[np.bool_],
    prices: PriceList,
    early: bool = False,
    priced: bool = False,
    effort: Effort,
    is_over: Callable[[], bool],
) -> Change | None:
    """The cheapest answer for some classes over the `free` groups and what stands elsewhere, all
    other classes' traffic standing; None if the search finds none. If it is `priced` replicas pay
    the prices of pools and budgets as well. Who comes `early` pays them too, and leaves room to who
    comes later; what stands then stays.
    """
    frame = ledger.frame
    arcs = component_arcs(frame, classes)
    few = arcs.only(_choose(frame, arcs, ledger, free=free, prices=prices, early=early))
    group = _columns(ledger, classes, few.group, free=free)
    left, base = ledger.others(classes, group)
    made = Kernel(
        frame,
        few,
        transfer(frame, few),
        group=group,
        shed_usd_per_h=frame.shed_usd_per_h[classes],
        base=base,
    )
    made.stand(ledger.replicas[group], fixed=~free[group], grows=early)
    made.within(left)
    cap(made, ledger, left)
    mix(made)
    made.cover()
    shed = ledger.shed_part
    rows = made.survive_with(
        ledger.exposure,
        free=free,
        replicas=ledger.replicas,
        shed=shed,
        price=np.maximum(0.0, prices.replica_usd_per_h),
        grows=early,
    )
    made.survive_together(ledger.exposure, shed=shed, free=free, rows=rows)
    replica = _price_of(frame, group, prices if early or priced else None)
    if not early:
        fixed = group[~free[group] & (ledger.replicas[group] > 0)]
        replica -= _paid_anyway(frame, group, left, fixed=fixed)
    values = made.solve(
        replica,
        gap=effort.gap,
        nodes=effort.nodes,
        start=ledger.replicas[group],
        is_over=is_over,
        thorough=effort.thorough,
    )
    return None if values is None else made.change(values)


def _columns(
    ledger: Ledger, classes: Positions, few: Positions, *, free: NDArray[np.bool_]
) -> Positions:
    """Groups of the `few` arcs, of the classes' traffic now, free ones that stand or shelter."""
    now = ledger.flows_of(classes).group
    stands = np.flatnonzero(free & (ledger.replicas > 0))
    return np.unique(np.concatenate([few, now, stands, _refuges(ledger, free)]))


def _price_of(frame: Frame, group: Positions, prices: PriceList | None) -> Floats:
    """USD/h of a new replica of some groups, with what it takes of pools and budgets at prices."""
    price: Floats = frame.fixed_usd_per_h[group] + frame.start_usd_per_h[group]
    if prices is None:
        return price
    return price + frame.shared_usd_per_h(prices.shared)[group]


def _paid_anyway(frame: Frame, group: Positions, others: Use, *, fixed: Positions) -> Floats:
    """What a replica of some groups bears of its site's price where others stand there, or groups
    that are `fixed`.
    """
    stays = is_open(frame, others)
    stays[frame.site[fixed]] = True
    return np.where(stays[frame.site[group]], frame.bears_usd_per_h(group), 0.0)


def _refuges(ledger: Ledger, free: NDArray[np.bool_]) -> Positions:
    """Free groups that could take what is exposed now to the loss of its ingress."""
    exposure = ledger.exposure
    lacks = exposure.alone > 0
    lacks[: exposure.own] = False
    group = np.flatnonzero(free)
    place, entries = exposure.of_groups(group)
    found: Positions = np.unique(group[place[lacks[entries.rank]]])
    return found


def concerned(ledger: Ledger, reach: NDArray[np.bool_], *, here: NDArray[np.bool_]) -> Positions:
    """Classes answered at the sites of a mask, and those shed that reach one."""
    frame = ledger.frame
    flows = ledger.all_flows()
    concerned = reach[:, here].any(axis=1) & (ledger.shed_part > 1e-6)
    concerned[flows.cls[here[frame.site[flows.group]]]] = True
    return np.flatnonzero(concerned)


def _choose(
    frame: Frame,
    arcs: ComponentArcs,
    ledger: Ledger,
    *,
    free: NDArray[np.bool_],
    prices: PriceList,
    early: bool,
) -> NDArray[np.bool_]:
    """The used arcs, each class's cheapest to groups that are free here, on replicas that stand
    anyway and on its own, and the cheapest few to others standing; for what a class asks of its mix
    the cheapest at several sites, and of those that help its means.
    """
    usable = arcs.busy > _USELESS
    inside = free[arcs.group] & usable
    outside = (ledger.replicas > 0)[arcs.group] & ~free[arcs.group] & usable
    flow = flow_price(frame, arcs, prices.shared)
    full = full_price(frame, arcs, prices.work_usd_per_h)
    kept = outside & cheapest(arcs, np.where(outside, flow, np.inf), _OUTSIDE)
    arcs_in_all = _EARLY_ARCS if early else _ARCS
    count = max(_INSIDE, arcs_in_all // max(1, len(arcs.classes)))
    for price in (flow, full):
        kept |= inside & cheapest(arcs, np.where(inside, price, np.inf), count)
    if mixed(frame)[arcs.classes].any():
        kept |= for_mixes(frame, arcs, np.where(inside | outside, full, np.inf))
    flows = ledger.flows_of(arcs.classes)
    here = np.searchsorted(arcs.classes, flows.cls) * frame.groups + flows.group
    return kept | (np.isin(arcs.row * frame.groups + arcs.group, here) & usable)
