"""What rows for whole replicas were worth in an earlier search, at a problem like its own.

Decides which of them still have a subject. The rows themselves are made anew from this problem's
numbers, and any worth of a row that holds gives a bound: what was proven of the earlier problem
counts for nothing, and yet the bound is near as good where little changed, in the time of a sweep.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np

from optimizer.milp.scale.block_search import Relaxed
from optimizer.milp.scale.catalogue import component_arcs
from optimizer.milp.scale.frame import Frame, Prices
from optimizer.milp.scale.losses import losses_of
from optimizer.milp.scale.master import MasterPoint, Rowed
from optimizer.milp.scale.rounding import (
    Cuts,
    Needs,
    joined_needs,
    need_by,
    needs_of,
    room_prices,
    rooms_by,
)
from optimizer.outcome import RowPrices
from optimizer.tables import Floats

Key = TypeVar("Key", bound=Hashable)

_WORTH = 1e-9
"""USD/h from which a row is carried."""


def row_prices(
    frame: Frame, point: MasterPoint, apart: Sequence[Relaxed | None]
) -> RowPrices | None:
    """A point's prices by what they are prices of; of a component relaxed `apart` what that found
    its rows to be worth. None where the point has no rows for whole replicas.
    """
    if not (point.cuts or point.rowed.classes.size or point.rowed.losses.size):
        return None
    tables, sites = frame.tables, len(frame.budget_kw)
    site_ids, class_ids = tables.sites.ids, tables.classes.ids
    demand, cover, loss, need = _by_row(frame, point, apart)
    rooms = [one.rooms for one in point.cuts]
    site = [at for one in rooms for at in one.site.tolist()]
    unit_kw = [kw for one in rooms for kw in one.unit_kw.tolist()]
    prices = point.prices
    return RowPrices(
        pool_usd_per_h=_named(tables.pools.ids, prices.pool),
        power_usd_per_kw_h=_named(site_ids, prices.power),
        energy_usd_per_kwh=_named(site_ids, prices.energy),
        demand_usd_per_h_per_rps=_named(class_ids, demand / np.maximum(frame.rate, _WORTH)),
        cover_usd_per_h=_named(class_ids, cover),
        loss_usd_per_h={
            (class_ids[at // sites], site_ids[at % sites]): usd_per_h
            for at, usd_per_h in zip(point.rowed.losses.tolist(), loss.tolist(), strict=True)
            if usd_per_h > _WORTH
        },
        need_usd_per_h=_summed(_needs_by_name(frame, needs_of(point.cuts), need)),
        room_usd_per_h=_summed(
            ((site_ids[at], kw), usd_per_h)
            for at, kw, usd_per_h in zip(site, unit_kw, point.room.tolist(), strict=True)
        ),
    )


def point_at(frame: Frame, known: RowPrices, plain: MasterPoint) -> MasterPoint:
    """A plain relaxation's point at carried prices; what those do not know has the point's own."""
    tables, sites = frame.tables, len(frame.budget_kw)
    class_ids, site_ids = tables.classes.ids, tables.sites.ids
    class_at = {one: at for at, one in enumerate(class_ids)}
    site_at = {one: at for at, one in enumerate(site_ids)}
    losses = {
        class_at[one] * sites + site_at[site_id]: usd_per_h
        for (one, site_id), usd_per_h in known.loss_usd_per_h.items()
        if one in class_at and site_id in site_at
    }
    held = np.intersect1d(np.array(sorted(losses), dtype=np.intp), losses_of(frame))
    needs, need = _needs_again(frame, known, class_at)
    units = [key for key in known.room_usd_per_h if key[0] in site_at]
    rooms = rooms_by(frame, [(site_at[site_id], unit_kw) for site_id, unit_kw in units])
    room = np.array([known.room_usd_per_h[key] for key in units])
    asked = known.demand_usd_per_h_per_rps
    demand = [
        asked[one] * rate if one in asked else own
        for one, rate, own in zip(class_ids, frame.rate, plain.demand, strict=True)
    ]
    old = plain.prices
    return replace(
        plain,
        rowed=Rowed(classes=plain.rowed.classes, losses=held),
        prices=Prices(
            pool=_known(tables.pools.ids, known.pool_usd_per_h, old.pool),
            power=_known(site_ids, known.power_usd_per_kw_h, old.power),
            energy=_known(site_ids, known.energy_usd_per_kwh, old.energy),
            room=room_prices(frame, [rooms], room),
        ),
        demand=np.array(demand),
        cover=_known(class_ids, known.cover_usd_per_h, plain.cover),
        loss=np.array([losses[at] for at in held.tolist()]),
        cuts=(Cuts(needs=needs, rooms=rooms),),
        need=need,
        room=room,
    )


def _by_row(
    frame: Frame, point: MasterPoint, apart: Sequence[Relaxed | None]
) -> tuple[Floats, Floats, Floats, Floats]:
    """What demand and cover by class, losses and needs are worth."""
    demand, cover = point.demand.copy(), point.cover.copy()
    loss, need = point.loss.copy(), point.need.copy()
    needs, sites = needs_of(point.cuts), len(frame.budget_kw)
    for classes, found in zip(frame.components, apart, strict=False):
        if found is not None:
            worth = found.worth
            demand[classes], cover[classes] = worth.demand, worth.cover
            loss[np.isin(point.rowed.losses // sites, classes)] = worth.loss
            need[needs.of(classes)] = worth.need
    return demand, cover, loss, need


def _needs_by_name(
    frame: Frame, needs: Needs, usd_per_h: Floats
) -> Iterator[tuple[tuple[tuple[str, ...], str], float]]:
    tables, shed = frame.tables, needs.shed
    for cut in np.flatnonzero(usd_per_h > _WORTH).tolist():
        classes = np.sort(shed.at[shed.cut == cut]).tolist()
        key = (
            tuple(tables.classes.ids[at] for at in classes),
            tables.group_id(int(needs.group[cut])),
        )
        yield key, float(usd_per_h[cut])


def _needs_again(frame: Frame, known: RowPrices, class_at: dict[str, int]) -> tuple[Needs, Floats]:
    """The carried needs that there still are, over this frame's arcs, and what they are worth."""
    group_at = frame.tables.positions({group_id: 0 for _, group_id in known.need_usd_per_h})
    found, worth = [], []
    for (class_ids, group_id), usd_per_h in known.need_usd_per_h.items():
        classes = np.array(sorted(class_at[one] for one in class_ids if one in class_at))
        if group_id not in group_at or len(classes) == 0:
            continue
        cut = need_by(frame, component_arcs(frame, classes.astype(np.intp)), group_at[group_id])
        if cut is not None:
            found.append(cut)
            worth.append(usd_per_h)
    return joined_needs(found), np.array(worth)


def _named(ids: Sequence[str], usd: Floats) -> dict[str, float]:
    return dict(zip(ids, usd.tolist(), strict=True))


def _known(ids: Sequence[str], usd: Mapping[str, float], otherwise: Floats) -> Floats:
    return np.array([usd.get(one, old) for one, old in zip(ids, otherwise, strict=True)])


def _summed(parts: Iterable[tuple[Key, float]]) -> dict[Key, float]:
    """By key what its parts come to, those worth something."""
    found: dict[Key, float] = {}
    for key, usd_per_h in parts:
        if usd_per_h > _WORTH:
            found[key] = found.get(key, 0.0) + usd_per_h
    return found
