"""The numbers of a large search: what a replica costs and takes, per group, and the shared limits.

Services that share no variant meet only in pools, power budgets and supplies. Prices on those three
(`Prices`) cut a fleet into components; `dual_offset` is what the limits themselves are worth at
those prices. Which prices are good is `ascent`'s and `price_lp`'s question.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from optimizer.milp.arrays_rows import merged_bounds
from optimizer.milp.constraints_mix import G_PER_KG
from optimizer.milp.scale.caps import CapPrices, Caps, of_bound, take_caps
from optimizer.sweep import Sweep
from optimizer.tables import NOWHERE, Floats, Tables
from optimizer.tabulate_classes import at_next_ingress
from sites.units import W_PER_KW

Positions = NDArray[np.intp]

_KEPT_ARCS = 40_000_000
"""Arcs kept after the first sweep: 1.1 GB. At 600 sites sweeping anew took a fifth of the time."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RoomPrices:
    """What sites' room for whole replicas costs where it is less than pools and budgets say
    (`rounding.Rooms`): USD/h of one replica of each group, and of all of it by site.
    """

    replica: Floats
    site: Floats


@dataclass(frozen=True, kw_only=True, slots=True)
class Prices:
    """USD/h of one accelerator of each pool, of one kW of each site's possible draw (budget), and
    of one kW of its mean draw (what power costs there at the margin); `room` where there are rows
    for whole replicas.
    """

    pool: Floats
    power: Floats
    energy: Floats
    room: RoomPrices | None = None

    def limits_usd_per_h(self, pool_count: Floats, budget_kw: Floats) -> float:
        """What the shared limits are worth in all."""
        room = 0.0 if self.room is None else float(self.room.site.sum())
        return float(self.pool @ pool_count + self.power @ budget_kw) + room


@dataclass(frozen=True, kw_only=True, slots=True)
class Stack:
    """Each site's supplies in the order they are taken, padded with empty ones.

    `limit_kw[site, rank]`, `usd_per_kwh[site, rank]` (energy and carbon, what the cap on carbon is
    worth included), `kg_per_kwh[site, rank]` emitted.
    """

    limit_kw: NDArray[np.float64]
    usd_per_kwh: NDArray[np.float64]
    kg_per_kwh: NDArray[np.float64]

    def taken_kw(self, draw_kw: Floats) -> NDArray[np.float64]:
        """What each supply gives to draws by site."""
        return _poured(draw_kw, self.limit_kw)


@dataclass(frozen=True, kw_only=True, slots=True)
class Opening:
    """Fixed prices of sites: `usd_per_h` by site, and `usd_per_kw_h`, what each kW of possible draw
    bears of it. Classes that must have sites open ask `asked_usd_per_h` of it in all; shed traffic
    of each saves `spared_usd_per_h` at most (`opening`). No plan costs less with what is borne and
    asked than with the prices themselves.
    """

    usd_per_h: Floats
    usd_per_kw_h: Floats
    asked_usd_per_h: float
    spared_usd_per_h: Floats

    def unborne_usd_per_h(self, is_open: NDArray[np.bool_], possible_kw: Floats) -> Floats:
        """What replicas do not bear of the fixed price of each site."""
        left: Floats = np.where(is_open, self.usd_per_h, 0.0) - self.usd_per_kw_h * possible_kw
        return left


@dataclass(frozen=True, kw_only=True, slots=True)
class PriceList:
    """Prices of what is `shared`, and at these `Frame.replica_price` and `Frame.work_price`."""

    shared: Prices
    replica_usd_per_h: Floats
    work_usd_per_h: Floats


@dataclass(frozen=True, kw_only=True, slots=True)
class Frame:
    """One problem's groups, limits and components as the large search sees them.

    Per group: `pool`, `site`, `accelerators`, `rateable` (ceiling x availability: busy replicas one
    replica may carry), `fixed_usd_per_h` (hardware and risk of one replica, and what it bears of
    its site's fixed price), `start_usd_per_h`, `most`, `least` and `running` replicas. Per class:
    `rate`, `shed_usd_per_h` (if unserved). `opening` is what sites cost that are used at all.
    `ingress` is the site a class enters at (NOWHERE: none), `next_sweep` sweeps as if each class
    had lost its own. `components` lists the class positions of each component. `caps` are limits
    over the fleet, `cap_prices` what they are worth; the stack and `toll_usd_per_h` know them.
    """

    tables: Tables
    sweep: Sweep
    next_sweep: Sweep
    ingress: Positions
    pool: Positions
    site: Positions
    accelerators: Floats
    possible_kw: Floats
    idle_kw: Floats
    busy_kw: Floats
    rateable: Floats
    fixed_usd_per_h: Floats
    start_usd_per_h: Floats
    running: Floats
    most: Floats
    least: Floats
    pool_count: Floats
    pool_site: Positions
    budget_kw: Floats
    opening: Opening
    stack: Stack
    rate: Floats
    shed_usd_per_h: Floats
    components: tuple[Positions, ...]
    caps: Caps
    cap_prices: CapPrices

    @property
    def groups(self) -> int:
        """How many replica groups."""
        return len(self.pool)

    @property
    def given_back_usd_per_h(self) -> float:
        """What a bound at the caps' prices proves too much."""
        return self.caps.given_back_usd_per_h(self.cap_prices)

    def at_cap_prices(self, prices: CapPrices) -> Frame:
        """The same where emission and what tenants are charged cost that much more."""
        usd_per_kg = prices.carbon_usd_per_kg
        stack = _stack(self.tables, usd_per_kg=usd_per_kg, order_usd_per_kg=usd_per_kg)
        return replace(self, stack=stack, cap_prices=prices)

    def without_cap_prices(self) -> Frame:
        """The same where neither costs more, but power is taken as if emission still did."""
        order_usd_per_kg = self.cap_prices.carbon_usd_per_kg
        stack = _stack(self.tables, usd_per_kg=0.0, order_usd_per_kg=order_usd_per_kg)
        return replace(self, stack=stack, cap_prices=self.caps.no_prices())

    def with_opening(self, opening: Opening) -> Frame:
        """The same with fixed prices split in another way; shed traffic costs what a bound may
        count (`as_paid` undoes that).
        """
        more = opening.usd_per_kw_h - self.opening.usd_per_kw_h
        spared = opening.spared_usd_per_h - self.opening.spared_usd_per_h
        return replace(
            self,
            fixed_usd_per_h=self.fixed_usd_per_h + self.possible_kw * more[self.site],
            shed_usd_per_h=self.shed_usd_per_h - spared,
            opening=opening,
        )

    def as_paid(self) -> Frame:
        """The same where shed traffic costs what a plan pays for it."""
        none = np.zeros(len(self.rate))
        return self.with_opening(replace(self.opening, spared_usd_per_h=none))

    def proven_usd_per_h(self, found_usd_per_h: float) -> float:
        """What a bound on this frame's costs proves of a plan's."""
        return found_usd_per_h - self.given_back_usd_per_h + self.opening.asked_usd_per_h

    def bears_usd_per_h(self, group: Positions) -> Floats:
        """What a replica of some groups bears of its site's fixed price."""
        borne: Floats = self.possible_kw[group] * self.opening.usd_per_kw_h[self.site[group]]
        return borne

    def toll_usd_per_h(
        self, cls: Positions, group: Positions, *, busy: Floats, network_usd_per_h: Floats
    ) -> Floats:
        """Transfer of some classes' traffic, and what it costs its tenants' budgets at prices."""
        if not self.cap_prices.budget.any():
            return network_usd_per_h
        rank = self.caps.tenant[cls]
        worth = np.where(rank == NOWHERE, 0.0, self.cap_prices.budget[rank])
        charged = self.caps.charged_usd_per_h(group, busy=busy, network_usd_per_h=network_usd_per_h)
        toll: Floats = network_usd_per_h + worth * charged
        return toll

    def replica_price(self, prices: Prices) -> Floats:
        """USD/h of one replica at prices, idle, start included unless one runs (lower bound)."""
        start = np.where(self.running > 0, 0.0, self.start_usd_per_h)
        own = self.fixed_usd_per_h + start + self.idle_kw * prices.energy[self.site]
        priced: Floats = own + self.shared_usd_per_h(prices)
        return priced

    def shared_usd_per_h(self, prices: Prices) -> Floats:
        """USD/h of what one replica of each group takes of pools, budgets and room."""
        shared = self.accelerators * prices.pool[self.pool]
        taken: Floats = shared + self.possible_kw * prices.power[self.site]
        return taken if prices.room is None else taken + prices.room.replica

    def work_price(self, prices: Prices) -> Floats:
        """USD/h of one replica-second per second on perfectly filled replicas of each group.

        A replica that earns (power below nothing) is worth nothing here: `dual_offset` takes what
        it earns apart from its work.
        """
        full = np.maximum(0.0, self.replica_price(prices)) / self.rateable
        priced: Floats = full + self.busy_kw * prices.energy[self.site]
        return priced

    def price_list(self, prices: Prices) -> PriceList:
        """Prices with what they make of every group: worked out once, asked for by every search."""
        return PriceList(
            shared=prices,
            replica_usd_per_h=self.replica_price(prices),
            work_usd_per_h=self.work_price(prices),
        )

    def dual_offset(self, prices: Prices) -> float:
        """USD/h that the shared limits take off any bound at these prices, every sign included.

        - pools x count - budgets x kW + supplies cheaper than the energy price, to their limits,
        + replicas that cost less than nothing, to their most.
        """
        limits = prices.limits_usd_per_h(self.pool_count, self.budget_kw)
        earned = np.minimum(0.0, self.stack.usd_per_kwh - prices.energy[:, None])
        earned_kw = (earned * self.stack.limit_kw).sum()
        idle = (np.minimum(0.0, self.replica_price(prices)) * self.most).sum()
        return float(earned_kw + idle - limits)

    def energy_usd_per_h(self, draw_kw: Floats) -> float:
        """Price of the mean draw of all sites (kW), supplies taken in their order."""
        return float((self.stack.taken_kw(draw_kw) * self.stack.usd_per_kwh).sum())

    def emitted_kg_per_h(self, draw_kw: Floats) -> float:
        """What the mean draw of all sites (kW) emits, supplies taken in their order."""
        return float((self.stack.taken_kw(draw_kw) * self.stack.kg_per_kwh).sum())

    def least_kg_per_h(self, draw_kw: Floats) -> float:
        """What it emits at least, each site's cleanest supplies first."""
        order = np.argsort(self.stack.kg_per_kwh, axis=1, kind="stable")
        limit_kw = np.take_along_axis(self.stack.limit_kw, order, axis=1)
        emits = np.take_along_axis(self.stack.kg_per_kwh, order, axis=1)
        return float((_poured(draw_kw, limit_kw) * emits).sum())


def _poured(draw_kw: Floats, limit_kw: NDArray[np.float64]) -> NDArray[np.float64]:
    """Draws by site over supplies of some limits, one after the other."""
    before = np.cumsum(limit_kw, axis=1) - limit_kw
    return np.clip(draw_kw[:, None] - before, 0.0, limit_kw)


def with_floors(frame: Frame, prices: Prices) -> Frame:
    """The frame with replicas that have to stand: what runs first, then the cheapest at prices, as
    far as there is room.
    """
    tables, least = frame.tables, np.zeros(frame.groups)
    price = frame.replica_price(prices)
    left, left_kw = frame.pool_count.copy(), frame.budget_kw.copy()
    for (site_id, variant_id), bound in merged_bounds(tables.problem).items():
        groups, wanted = of_bound(tables, site_id, variant_id), float(bound.fewest)
        for at in groups[np.lexsort((groups, price[groups], -frame.running[groups]))].tolist():
            room = left[frame.pool[at]] / frame.accelerators[at]
            room_kw = left_kw[frame.site[at]] / max(float(frame.possible_kw[at]), 1e-12)
            most = min(frame.most[at], np.floor(room + 1e-9), np.floor(room_kw + 1e-9))
            least[at] = min(most, wanted - float(least[groups].sum()))
            left[frame.pool[at]] -= least[at] * frame.accelerators[at]
            left_kw[frame.site[at]] -= least[at] * frame.possible_kw[at]
    return replace(frame, least=least)


def take_frame(tables: Tables) -> Frame:
    """The frame of some tables. Groups that do not fit or stand on cordoned sites start nothing."""
    groups, classes, policy = tables.groups, tables.classes, tables.problem.plan_policy
    most = np.where(groups.fits, groups.room, 0)
    site = groups.site.astype(np.intp)
    most = np.where(tables.sites.cordoned[site], np.minimum(most, groups.running), most)
    caps, opening = take_caps(tables), _opening(tables)
    capped = caps.bound != NOWHERE
    most[capped] = np.minimum(most[capped], caps.bound_most[caps.bound[capped]])
    return Frame(
        tables=tables,
        sweep=Sweep(tables, kept_arcs=_KEPT_ARCS),
        next_sweep=Sweep(at_next_ingress(tables), kept_arcs=_KEPT_ARCS // 4),
        ingress=_ingress(tables),
        pool=groups.pool.astype(np.intp),
        site=site,
        accelerators=groups.accelerators.astype(np.float64),
        possible_kw=groups.possible_kw,
        idle_kw=groups.idle_kw,
        busy_kw=groups.busy_kw,
        rateable=np.maximum(policy.utilisation_ceiling * groups.available, 1e-9),
        fixed_usd_per_h=groups.hardware_usd_per_h
        + groups.risk_usd_per_h
        + groups.possible_kw * opening.usd_per_kw_h[site],
        start_usd_per_h=groups.start_usd_per_h,
        running=groups.running.astype(np.float64),
        most=most.astype(np.float64),
        least=np.zeros(len(most)),
        pool_count=tables.pools.count.astype(np.float64),
        pool_site=tables.pools.site.astype(np.intp),
        budget_kw=tables.sites.budget_w / W_PER_KW,
        opening=opening,
        stack=_stack(tables, usd_per_kg=0.0, order_usd_per_kg=0.0),
        rate=classes.rate_rps,
        shed_usd_per_h=classes.shed_usd_per_h_per_rps * classes.rate_rps,
        components=_components(tables),
        caps=caps,
        cap_prices=caps.no_prices(),
    )


def _opening(tables: Tables) -> Opening:
    """A kW bears its part of what a site can draw: its budget, or what its pools can if less."""
    groups, pools, sites = tables.groups, tables.pools, tables.sites
    each_kw, pool_kw = groups.possible_kw / groups.accelerators, np.zeros(len(pools.ids))
    np.maximum.at(pool_kw, groups.pool, np.where(groups.room > 0, each_kw, 0.0))
    full_kw = np.bincount(pools.site, pool_kw * pools.count, len(sites.ids))
    full_kw = np.minimum(full_kw, sites.budget_w / W_PER_KW)
    each = np.where(full_kw > 0, sites.fixed_usd_per_h / np.maximum(full_kw, 1e-9), 0.0)
    return Opening(
        usd_per_h=sites.fixed_usd_per_h,
        usd_per_kw_h=each,
        asked_usd_per_h=0.0,
        spared_usd_per_h=np.zeros(tables.classes.count),
    )


def _ingress(tables: Tables) -> Positions:
    found = np.full(tables.classes.count, NOWHERE, dtype=np.intp)
    enters = tables.classes.route != NOWHERE
    found[enters] = tables.routes.source[tables.classes.route[enters]]
    return found


def _stack(tables: Tables, *, usd_per_kg: float, order_usd_per_kg: float) -> Stack:
    """Supplies that cost `usd_per_kg` beyond their price, in the order of costing another."""
    supplies = tables.supplies
    kg_per_kwh = supplies.carbon_g_per_kwh / G_PER_KG
    own = supplies.usd_per_kwh + supplies.carbon_usd_per_kwh
    price = own + usd_per_kg * kg_per_kwh
    order = np.lexsort((np.arange(len(price)), own + order_usd_per_kg * kg_per_kwh, supplies.site))
    site = supplies.site[order].astype(np.intp)
    rank = np.arange(len(order)) - np.searchsorted(site, site)
    shape = (len(tables.sites.ids), int(rank.max()) + 1)
    limit_kw, usd_per_kwh, emits = np.zeros(shape), np.full(shape, -np.inf), np.zeros(shape)
    limit_kw[site, rank] = supplies.limit_kw[order]
    usd_per_kwh[site, rank] = price[order]
    emits[site, rank] = kg_per_kwh[order]
    dearest = usd_per_kwh.max(axis=1, keepdims=True)
    filled = np.where(np.isneginf(usd_per_kwh), dearest, usd_per_kwh)
    return Stack(limit_kw=limit_kw, usd_per_kwh=filled, kg_per_kwh=emits)


def _components(tables: Tables) -> tuple[Positions, ...]:
    """Classes of services that share variants, directly or over others."""
    label = list(range(len(tables.variants.ids)))

    def root(at: int) -> int:
        while label[at] != at:
            at = label[at]
        return at

    for variants in tables.service_variants:
        first = root(int(variants[0]))
        for variant in variants[1:]:
            label[root(int(variant))] = first
    of_service = np.array([root(int(v[0])) for v in tables.service_variants], dtype=np.intp)
    of_class = of_service[tables.classes.service]
    found = [np.flatnonzero(of_class == one) for one in np.unique(of_class)]
    return tuple(found)
