"""What single classes ask of their mix: spread over sites and zones, mean latency, mean quality.

Decides what gives way in a finished plan that cut parts of a mix. Searches have rows for mixes
(`component_caps.mix`), prices do not: without them a bound is lower, and holds.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from optimizer.milp.scale.catalogue import (
    ComponentArcs,
    cheapest_sites,
    component_arcs,
    full_price,
)
from optimizer.milp.scale.frame import Frame, Positions
from optimizer.milp.scale.ledger import Change, Flows, Ledger
from optimizer.tables import Floats

_WITHIN = 1 - 1e-7
_DUST = 1e-9
_ROUNDS = 10
_SPREAD_SITES = 8


def mixed(frame: Frame) -> NDArray[np.bool_]:
    """Mask of the classes that ask something of their mix."""
    classes = frame.tables.classes
    asks: NDArray[np.bool_] = classes.over_mix | (classes.mean_quality_floor > 0)
    return asks | (classes.spread_sites > 1) | (classes.spread_zones > 1)


def spreads(frame: Frame) -> list[tuple[Positions, Positions, int]]:
    """For sites and zones: over how many each class is spread, which of them each site is, and how
    many there are.
    """
    classes, sites = frame.tables.classes, frame.tables.sites
    own = np.arange(len(sites.ids))
    return [
        (classes.spread_sites.astype(np.intp), own, len(own)),
        (classes.spread_zones.astype(np.intp), sites.zone.astype(np.intp), len(sites.zone_ids)),
    ]


def excess(frame: Frame, cls: Positions, group: Positions) -> list[tuple[Positions, Floats]]:
    """For each mean: which of some (class, group) pairs are asked for it, and by how much each is
    above it, relative to the mean for latency; means of at most 0 are asked for.
    """
    classes, tables = frame.tables.classes, frame.tables
    found = []
    timed = np.flatnonzero(classes.over_mix[cls])
    if len(timed):
        late = _ttft_ms(frame, cls[timed], group[timed]) / classes.slo_ttft_ms[cls[timed]] - 1.0
        found.append((timed, late))
    asked = np.flatnonzero(classes.mean_quality_floor[cls] > 0)
    if len(asked):
        quality = tables.variants.quality[tables.groups.variant[group[asked]]]
        found.append((asked, classes.mean_quality_floor[cls[asked]] - quality))
    return found


def for_mixes(frame: Frame, arcs: ComponentArcs, price: Floats) -> NDArray[np.bool_]:
    """Mask of arcs with which a mix can be kept: the cheapest at several sites, and at those sites
    the cheapest of those that are above no mean.
    """
    cls = arcs.classes[arcs.row]
    kept = cheapest_sites(frame, arcs, np.where(mixed(frame)[cls], price, np.inf), _SPREAD_SITES)
    for which, above in excess(frame, cls, arcs.group):
        helps = np.full(arcs.count, np.inf)
        helps[which[above <= 0]] = price[which[above <= 0]]
        kept |= cheapest_sites(frame, arcs, helps, _SPREAD_SITES)
    return kept


def worth_for_mixes(frame: Frame, work_usd_per_h: Floats) -> NDArray[np.bool_]:
    """Mask of the groups with which classes can keep what they ask of their mix at least cost."""
    worth, asks = np.zeros(frame.groups, dtype=np.bool_), mixed(frame)
    for component in frame.components:
        arcs = component_arcs(frame, component[asks[component]])
        price = full_price(frame, arcs, work_usd_per_h)
        price[frame.most[arcs.group] <= 0] = np.inf
        worth[arcs.group[for_mixes(frame, arcs, price)]] = True
    return worth


def _ttft_ms(frame: Frame, cls: Positions, group: Positions) -> Floats:
    """Time to first token over arcs that there are."""
    ttft_ms = np.zeros(len(cls))
    for one in np.unique(cls).tolist():
        arcs = frame.sweep.arcs_of(one)
        order = np.argsort(arcs.group, kind="stable")
        mine = np.flatnonzero(cls == one)
        ttft_ms[mine] = arcs.ttft_ms[order][np.searchsorted(arcs.group[order], group[mine])]
    return ttft_ms


def trim_mixes(ledger: Ledger) -> None:
    """Cut the flows of every class that breaks what it asks of its mix, as little as it takes."""
    frame = ledger.frame
    asks = np.flatnonzero(mixed(frame))
    for at in asks.tolist():
        flows = ledger.flows_of(np.array([at]))
        if len(flows.cls) == 0:
            continue
        part = _both(frame, at, flows)
        kept = part / np.maximum(flows.part, _DUST)
        if (kept >= 1.0).all():
            continue
        cut = flows.times(kept).only(np.flatnonzero(part > _DUST))
        none = np.zeros(0, dtype=np.intp)
        ledger.put(Change(classes=np.array([at]), group=none, replicas=np.zeros(0), flows=cut))


def _both(frame: Frame, at: int, flows: Flows) -> Floats:
    """Parts of one class's flows that keep means and spread; none where the two pull apart."""
    part = flows.part
    for _ in range(_ROUNDS):
        before = part
        part = _spread(frame, at, _mean(frame, flows, part), frame.site[flows.group])
        if np.array_equal(part, before):
            return part
    return np.zeros(len(part))


def _mean(frame: Frame, flows: Flows, part: Floats) -> Floats:
    """Parts of one class's flows so that its means hold: the worst arcs give way."""
    part = part.copy()
    for which, above in excess(frame, flows.cls, flows.group):
        for at in np.lexsort((which, -above)).tolist():
            over = float(above @ part[which])
            if over <= _DUST or above[at] <= 0:
                break
            part[which[at]] = max(0.0, part[which[at]] * _WITHIN - over / above[at])
    return part


def _spread(frame: Frame, at: int, part: Floats, site: Positions) -> Floats:
    """Parts of one class's flows so that no site or zone has more than its part of what is served:
    ``sum_s min(x_s, T / k) = T`` for the largest T. Fewer than k of them serve nothing.
    """
    for wanted, place_of, count in spreads(frame):
        k = int(wanted[at])
        if k <= 1:
            continue
        place = place_of[site]
        given = np.bincount(place, part, count)
        most = np.sort(given)[::-1]
        # with the j largest cut to T / k: T (1 - j / k) = what the others give
        rest = given.sum() - np.cumsum(most)
        totals = [rest[j - 1] / (1 - j / k) for j in range(1, k) if j <= count]
        served = min([float(given.sum()), *map(float, totals)])
        fill = np.minimum(1.0, served / k * _WITHIN / np.maximum(given, _DUST))
        if (given > served / k * (1 + _DUST) + _DUST).any():
            part = part * fill[place]
    return part
