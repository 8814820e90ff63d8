"""The numbers of a large search: what a replica costs and takes, per group, and the shared limits.

Services that share no variant meet only in pools, power budgets and supplies. Prices on those three
(`Prices`) cut a fleet into components; `dual_offset` is what the limits themselves are worth at
those prices. Which prices are good is `ascent`'s and `price_lp`'s question.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from optimizer.sweep import Sweep
from optimizer.tables import NOWHERE, Floats, Tables
from optimizer.tabulate_classes import at_next_ingress
from sites.units import W_PER_KW

Positions = NDArray[np.intp]


@dataclass(frozen=True, kw_only=True, slots=True)
class Prices:
    """USD/h of one accelerator of each pool, of one kW of each site's possible draw (budget), and
    of one kW of its mean draw (what power costs there at the margin).
    """

    pool: Floats
    power: Floats
    energy: Floats


@dataclass(frozen=True, kw_only=True, slots=True)
class Stack:
    """Each site's supplies, cheapest first, padded with empty ones.

    `limit_kw[site, rank]` and `usd_per_kwh[site, rank]` (energy and carbon).
    """

    limit_kw: NDArray[np.float64]
    usd_per_kwh: NDArray[np.float64]


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
    replica may carry), `fixed_usd_per_h` (hardware and risk of one replica), `start_usd_per_h`,
    `most` and `running` replicas. Per class: `rate`, `shed_usd_per_h` (whole class unserved).
    `ingress` is the site a class enters at (NOWHERE: none), `next_sweep` sweeps as if each class
    had lost its own. `components` lists the class positions of each component.
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
    pool_count: Floats
    budget_kw: Floats
    stack: Stack
    rate: Floats
    shed_usd_per_h: Floats
    components: tuple[Positions, ...]

    @property
    def groups(self) -> int:
        """How many replica groups."""
        return len(self.pool)

    def replica_price(self, prices: Prices) -> Floats:
        """USD/h of one replica at prices, idle, start included unless one runs (lower bound)."""
        start = np.where(self.running > 0, 0.0, self.start_usd_per_h)
        own = self.fixed_usd_per_h + start + self.idle_kw * prices.energy[self.site]
        shared = self.accelerators * prices.pool[self.pool]
        priced: Floats = own + shared + self.possible_kw * prices.power[self.site]
        return priced

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
        limits = prices.pool @ self.pool_count + prices.power @ self.budget_kw
        earned = np.minimum(0.0, self.stack.usd_per_kwh - prices.energy[:, None])
        earned_kw = (earned * self.stack.limit_kw).sum()
        idle = (np.minimum(0.0, self.replica_price(prices)) * self.most).sum()
        return float(earned_kw + idle - limits)

    def energy_usd_per_h(self, draw_kw: Floats) -> float:
        """Price of the mean draw of all sites (kW), each covered cheapest supply first."""
        before = np.cumsum(self.stack.limit_kw, axis=1) - self.stack.limit_kw
        taken = np.clip(draw_kw[:, None] - before, 0.0, self.stack.limit_kw)
        return float((taken * self.stack.usd_per_kwh).sum())


def take_frame(tables: Tables) -> Frame:
    """The frame of some tables. Groups that do not fit or stand on cordoned sites start nothing."""
    groups, classes, policy = tables.groups, tables.classes, tables.problem.plan_policy
    most = np.where(groups.fits, groups.room, 0)
    site = groups.site.astype(np.intp)
    most = np.where(tables.sites.cordoned[site], np.minimum(most, groups.running), most)
    return Frame(
        tables=tables,
        sweep=Sweep(tables),
        next_sweep=Sweep(at_next_ingress(tables)),
        ingress=_ingress(tables),
        pool=groups.pool.astype(np.intp),
        site=site,
        accelerators=groups.accelerators.astype(np.float64),
        possible_kw=groups.possible_kw,
        idle_kw=groups.idle_kw,
        busy_kw=groups.busy_kw,
        rateable=np.maximum(policy.utilisation_ceiling * groups.available, 1e-9),
        fixed_usd_per_h=groups.hardware_usd_per_h + groups.risk_usd_per_h,
        start_usd_per_h=groups.start_usd_per_h,
        running=groups.running.astype(np.float64),
        most=most.astype(np.float64),
        pool_count=tables.pools.count.astype(np.float64),
        budget_kw=tables.sites.budget_w / W_PER_KW,
        stack=_stack(tables),
        rate=classes.rate_rps,
        shed_usd_per_h=classes.shed_usd_per_h_per_rps * classes.rate_rps,
        components=_components(tables),
    )


def _ingress(tables: Tables) -> Positions:
    found = np.full(tables.classes.count, NOWHERE, dtype=np.intp)
    enters = tables.classes.route != NOWHERE
    found[enters] = tables.routes.source[tables.classes.route[enters]]
    return found


def _stack(tables: Tables) -> Stack:
    supplies = tables.supplies
    price = supplies.usd_per_kwh + supplies.carbon_usd_per_kwh
    order = np.lexsort((np.arange(len(price)), price, supplies.site))
    site = supplies.site[order].astype(np.intp)
    rank = np.arange(len(order)) - np.searchsorted(site, site)
    shape = (len(tables.sites.ids), int(rank.max()) + 1)
    limit_kw, usd_per_kwh = np.zeros(shape), np.full(shape, -np.inf)
    limit_kw[site, rank] = supplies.limit_kw[order]
    usd_per_kwh[site, rank] = price[order]
    return Stack(limit_kw=limit_kw, usd_per_kwh=np.maximum.accumulate(usd_per_kwh, axis=1))


def _components(tables: Tables) -> tuple[Positions, ...]:
    """Classes of services that share variants, directly or over others; largest demand first."""
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
