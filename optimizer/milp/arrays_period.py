"""One period's columns for the array compiler: which there are, how far they go, what they cost.

Decides what `inputs`, `model` and `objective` decide for the Pyomo model, for chosen arcs: which
groups get replicas, how many at most, bounds and prices. The rows are `arrays_rows`,
`arrays_mix` and `arrays_search`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from optimizer.milp.constraints_survive import SurvivalCut
from optimizer.sweep import ArcTable
from optimizer.tables import NOWHERE, Floats, Ints, Tables, floats, ints

BLOCKS = ("n", "up", "down", "x", "shed", "defer", "due", "e", "open", "risk")
"""Variables of a period in the order of their columns, named as the Pyomo model names them."""

Kind = TypeVar("Kind", bound=np.generic)
Places = NDArray[np.int_] | Ints
"""Positions in a table or places among a period's groups, arcs or classes."""

_SLACK = 1e-9
_UNSOLVED = np.iinfo(np.int32).max


@dataclass(frozen=True, kw_only=True, slots=True)
class Placeable:
    """Groups that get replica columns (table positions, ascending), and the most of each."""

    group: Ints
    most: Ints


@dataclass(frozen=True, kw_only=True, slots=True)
class Deferrals:
    """Columns that move a class's rate to a period `to`, and the most of each (requests/s).

    `cls` is a class position in the period that holds the columns. `ago`: how many periods before
    the horizon it was asked for (0: in that period).
    """

    cls: Ints = field(default_factory=lambda: ints(()))
    to: Ints = field(default_factory=lambda: ints(()))
    ago: Ints = field(default_factory=lambda: ints(()))
    most_rps: Floats = field(default_factory=lambda: floats(()))

    @property
    def count(self) -> int:
        """How many columns."""
        return len(self.cls)


@dataclass(frozen=True, kw_only=True, slots=True)
class Moved:
    """All that moves into and out of a period: class position, column, +1 arriving, -1 leaving."""

    cls: Ints = field(default_factory=lambda: ints(()))
    column: Ints = field(default_factory=lambda: ints(()))
    sign: Floats = field(default_factory=lambda: floats(()))


@dataclass(frozen=True, kw_only=True, slots=True)
class Period:
    """Columns of one period. `tables.classes.rate_rps` is the most deferral can make of a rate.

    `site`, `supply`, `priced` (sites with a fixed price) are table positions of what holds a group.
    `asked_rps` is what each class asks of the period before deferral. `local[group]` is a group's
    place among `placeable`, NOWHERE if it has none. `by_group` orders the arcs by group. `defer`
    leaves the period, `due` was deferred before the horizon (first period only), `moved` is all
    that touches the period. `timed`: an hour of a horizon, `before` the one before. `cuts` are what
    losses of sites taught. `in_parts`: replicas need not be whole.
    """

    tables: Tables
    arcs: ArcTable
    placeable: Placeable
    site: Ints
    supply: Ints
    priced: Ints
    local: Ints
    by_group: NDArray[np.intp]
    asked_rps: Floats
    first: int = 0
    at: int = 0
    timed: bool = False
    defer: Deferrals = field(default_factory=Deferrals)
    due: Deferrals = field(default_factory=Deferrals)
    moved: Moved = field(default_factory=Moved)
    before: Period | None = None
    cuts: tuple[SurvivalCut, ...] = ()
    in_parts: bool = False

    @property
    def risks(self) -> tuple[tuple[str, str], ...]:
        """Losses (site id) and parts of the traffic that some cut speaks of."""
        return tuple(sorted({(cut.lost_site_id, part) for cut in self.cuts for part in cut.parts}))

    @property
    def groups(self) -> int:
        """How many groups have replica columns."""
        return len(self.placeable.group)

    @property
    def sizes(self) -> dict[str, int]:
        """How many columns each variable has."""
        return {
            "n": self.groups,
            "up": self.groups,
            "down": self.groups,
            "x": self.arcs.count,
            "shed": self.tables.classes.count,
            "defer": self.defer.count,
            "due": self.due.count,
            "e": len(self.supply),
            "open": len(self.priced),
            "risk": len(self.risks),
        }

    @property
    def width(self) -> int:
        """How many columns in all."""
        return sum(self.sizes.values())

    def column(self, variable: str, at: Places | None = None) -> Ints:
        """Columns of a variable at some of its places; None: at all."""
        sizes = self.sizes
        start = self.first + sum(sizes[name] for name in BLOCKS[: BLOCKS.index(variable)])
        places = np.arange(sizes[variable], dtype=np.int32) if at is None else at
        return (places + start).astype(np.int32)

    def of_groups(self, column: NDArray[Kind]) -> NDArray[Kind]:
        """A group table column at the placeable groups."""
        return column[self.placeable.group]


def lay_out(tables: Tables, arcs: ArcTable, *, placeable: Placeable | None = None) -> Period:
    """The columns of a single period: what is asked is what the tables say.

    `placeable` where other arcs than these decide it.
    """
    placeable = placeable or find_placeable(tables, arcs)
    groups, sites = tables.groups, tables.sites
    site = np.unique(groups.site[placeable.group])
    held = np.zeros(len(sites.ids), dtype=np.bool_)
    held[site] = True
    local = np.full(groups.count, NOWHERE, dtype=np.int32)
    local[placeable.group] = np.arange(len(placeable.group), dtype=np.int32)
    return Period(
        tables=tables,
        arcs=arcs,
        placeable=placeable,
        site=site,
        supply=np.flatnonzero(held[tables.supplies.site]).astype(np.int32),
        priced=site[sites.fixed_usd_per_h[site] > 0],
        local=local,
        by_group=np.argsort(arcs.group, kind="stable"),
        asked_rps=tables.classes.rate_rps,
    )


def find_placeable(tables: Tables, arcs: ArcTable) -> Placeable:
    """Groups that an arc, a replica floor or a running replica speaks of, and the most of each.

    Room in the pool and under the power budget; never more than the arcs could keep busy, unless a
    floor asks or power is sold below nothing. A cordoned site starts nothing. What runs now may
    stay while a move limit holds it.
    """
    groups, policy = tables.groups, tables.problem.plan_policy
    busy = arcs.replica_seconds * tables.classes.rate_rps[arcs.cls]
    work = np.bincount(arcs.group, weights=busy, minlength=groups.count)
    floored = _floored(tables)
    wanted = floored | (groups.running > 0)
    wanted[arcs.group] = True
    at = np.flatnonzero(wanted)
    site, running = groups.site[at], groups.running[at]
    usable = policy.utilisation_ceiling * groups.available[at]
    useful = np.ceil(np.divide(work[at], usable, out=np.zeros(len(at)), where=usable > 0) - _SLACK)
    useful[floored[at] | tables.sites.power_pays[site]] = _UNSOLVED
    room = groups.room[at]
    room = np.where(tables.sites.cordoned[site], np.minimum(room, running), room)
    most = np.minimum(room, useful).astype(np.int32)
    if policy.move_limit_replicas is not None:
        most = np.maximum(most, running)
    return Placeable(group=at.astype(np.int32), most=np.where(groups.fits[at], most, 0))


def _floored(tables: Tables) -> NDArray[np.bool_]:
    """Groups that fit and of which a replica bound asks for some."""
    site_at = {site_id: at for at, site_id in enumerate(tables.sites.ids)}
    variant_at = {variant_id: at for at, variant_id in enumerate(tables.variants.ids)}
    found = np.zeros(tables.groups.count, dtype=np.bool_)
    for bound in tables.problem.plan_policy.replica_bounds:
        if bound.fewest:
            found |= (tables.groups.site == site_at.get(bound.site_id, NOWHERE)) & (
                tables.groups.variant == variant_at.get(bound.variant_id, NOWHERE)
            )
    return found & tables.groups.fits


def bounds(p: Period) -> tuple[Floats, Floats]:
    """Least and most of every column of a period."""
    tables, classes = p.tables, p.tables.classes
    most = p.placeable.most.astype(np.float64)
    up = most.copy()
    if p.timed:
        up[tables.sites.cordoned[tables.groups.site[p.placeable.group]]] = 0.0
    down = p.of_groups(tables.groups.running) if p.before is None else p.before.placeable.most
    upper = np.concatenate(
        [
            most,
            up,
            down.astype(np.float64),
            classes.rate_rps[p.arcs.cls],
            classes.rate_rps,
            p.defer.most_rps,
            p.due.most_rps,
            np.full(len(p.supply), np.inf),
            np.ones(len(p.priced)),
            np.full(len(p.risks), np.inf),
        ]
    )
    return np.zeros(len(upper)), upper


def prices(p: Period) -> Floats:
    """Cost of every column of a period (USD/h per unit): the terms of `objective`."""
    groups, supplies = p.tables.groups, p.tables.supplies
    return np.concatenate(
        [
            p.of_groups(groups.hardware_usd_per_h) + p.of_groups(groups.risk_usd_per_h),
            p.of_groups(groups.start_usd_per_h),
            np.zeros(p.groups),
            p.arcs.network_usd_per_h,
            p.tables.classes.shed_usd_per_h_per_rps,
            np.zeros(p.defer.count + p.due.count),
            supplies.usd_per_kwh[p.supply] + supplies.carbon_usd_per_kwh[p.supply],
            p.tables.sites.fixed_usd_per_h[p.priced],
            np.ones(len(p.risks)),
        ]
    )


def integers(p: Period) -> NDArray[np.bool_]:
    """Which columns of a period are whole: replicas and open sites, unless it takes parts."""
    whole = np.zeros(p.width, dtype=np.bool_)
    for variable in () if p.in_parts else ("n", "open"):
        whole[p.column(variable) - p.first] = True
    return whole
