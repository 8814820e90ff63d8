"""What exists: sites with their power and hardware, the links between them, the markets they serve.

Facts only. Quantities that change over the day are tuples: one value (constant) or one per period.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from sites.errors import InvalidFactError
from sites.units import (
    require_between,
    require_country,
    require_id,
    require_nonnegative,
    require_positive,
    require_unique,
)

PORT_MAX = 65_535


class SupplyKind(StrEnum):
    """Where a power supply comes from. PEAK: grid power beyond the contracted block, its price with
    the peak tax.
    """

    ON_SITE = "on_site"
    PPA = "ppa"
    GRID = "grid"
    PEAK = "peak"


class Ownership(StrEnum):
    """On what terms a hardware pool is held; decides what its price means."""

    OWNED = "owned"
    RENTED = "rented"
    SPOT = "spot"


@dataclass(frozen=True, kw_only=True, slots=True)
class PowerSupply:
    """One priced source of a site's power. Limits in W, prices in USD/kWh, carbon in gCO2e/kWh.

    Each tuple holds one value or one per period of the day.
    """

    supply_id: str
    kind: SupplyKind
    limit_w: tuple[float, ...]
    price_usd_per_kwh: tuple[float, ...]
    carbon_g_per_kwh: tuple[float, ...] = (0.0,)
    source: str = ""

    def __post_init__(self) -> None:
        require_id(self.supply_id, field="supply_id")
        for name in ("limit_w", "price_usd_per_kwh", "carbon_g_per_kwh"):
            values = getattr(self, name)
            if not values:
                raise InvalidFactError(f"supply {self.supply_id}: {name} is empty")
            if name != "price_usd_per_kwh":  # wholesale prices go below zero
                for value in values:
                    require_nonnegative(value, field=f"supply {self.supply_id}: {name}")
            else:
                for value in values:
                    require_between(value, low=-1e4, high=1e9, field=f"{self.supply_id}: {name}")


def at_period(values: tuple[float, ...], period: int) -> float:
    """The value of a per-period tuple in `period` (a single value is constant; longer tuples
    wrap).
    """
    return values[period % len(values)]


@dataclass(frozen=True, kw_only=True, slots=True)
class HardwarePool:
    """Identical accelerators at one site.

    `price_usd_per_accelerator_h` is wear for owned pools, rent for rented and spot ones; it is
    paid per accelerator in use. `interruption_per_h`: how often, per hour, a replica on a spot pool
    is expected to be taken away; only spot pools have one.
    """

    pool_id: str
    accelerator: str
    count: int
    memory_mib_per_accelerator: float
    price_usd_per_accelerator_h: float
    ownership: Ownership = Ownership.OWNED
    interruption_per_h: float = 0.0
    source: str = ""

    def __post_init__(self) -> None:
        require_id(self.pool_id, field="pool_id")
        require_between(
            self.interruption_per_h,
            low=0,
            high=60,
            field=f"pool {self.pool_id}: interruption_per_h",
        )
        if self.interruption_per_h > 0 and self.ownership is not Ownership.SPOT:
            raise InvalidFactError(
                f"pool {self.pool_id}: interruption_per_h {self.interruption_per_h:g} on a pool "
                f"that is {self.ownership}; only spot pools are interrupted"
            )
        require_id(self.accelerator, field=f"pool {self.pool_id}: accelerator")
        require_nonnegative(self.count, field=f"pool {self.pool_id}: count")
        require_positive(
            self.memory_mib_per_accelerator,
            field=f"pool {self.pool_id}: memory_mib_per_accelerator",
        )
        require_nonnegative(
            self.price_usd_per_accelerator_h,
            field=f"pool {self.pool_id}: price_usd_per_accelerator_h",
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class SiteGateway:
    """Where a site's Envoy listens: `client_address` for clients, `peer_address` for other sites'
    mTLS.

    Both are ``host:port``.
    """

    client_address: str
    peer_address: str


def _require_addresses(gateway: SiteGateway, *, field: str) -> None:
    for address in (gateway.client_address, gateway.peer_address):
        port = address.rpartition(":")[2]
        if not (port.isdecimal() and 1 <= int(port) <= PORT_MAX):
            raise InvalidFactError(f"{field}: {address}: a port lies between 1 and {PORT_MAX}")
    require_unique((gateway.client_address, gateway.peer_address), field=f"{field}: addresses")


@dataclass(frozen=True, kw_only=True, slots=True)
class Site:
    """A campus: power, hardware, law."""

    site_id: str
    country: str
    power_budget_w: tuple[float, ...]
    pue: float
    supplies: tuple[PowerSupply, ...]
    pools: tuple[HardwarePool, ...]
    residency_tags: tuple[str, ...] = ()
    legal_entity: str = ""
    region: str = ""
    latitude: float = 0.0
    longitude: float = 0.0
    fixed_price_usd_per_h: float = 0.0
    cordoned: bool = False
    gateway: SiteGateway | None = None
    source: str = ""

    def __post_init__(self) -> None:
        require_id(self.site_id, field="site_id")
        if "/" in self.site_id:
            raise InvalidFactError(
                f'site {self.site_id}: a site\'s name has no "/" (folders and certificates carry '
                "it); write - instead"
            )
        require_country(self.country, field=f"site {self.site_id}: country")
        require_between(self.pue, low=1.0, high=10.0, field=f"site {self.site_id}: pue")
        require_between(self.latitude, low=-90, high=90, field=f"site {self.site_id}: latitude")
        require_between(self.longitude, low=-180, high=180, field=f"site {self.site_id}: longitude")
        require_nonnegative(
            self.fixed_price_usd_per_h, field=f"site {self.site_id}: fixed_price_usd_per_h"
        )
        if not self.power_budget_w:
            raise InvalidFactError(f"site {self.site_id}: power_budget_w is empty")
        for budget_w in self.power_budget_w:
            require_positive(budget_w, field=f"site {self.site_id}: power_budget_w")
        if not self.supplies:
            raise InvalidFactError(f"site {self.site_id}: no power supply; give at least one")
        require_unique((s.supply_id for s in self.supplies), field=f"site {self.site_id}: supplies")
        require_unique((p.pool_id for p in self.pools), field=f"site {self.site_id}: pools")
        if self.gateway is not None:
            _require_addresses(self.gateway, field=f"site {self.site_id}: gateway")

    def pool(self, pool_id: str) -> HardwarePool:
        """The pool of that id; raises KeyError."""
        for pool in self.pools:
            if pool.pool_id == pool_id:
                return pool
        raise KeyError(f"site {self.site_id} has no pool {pool_id}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Link:
    """A backbone link between two sites, usable in both directions.

    `transit_countries` are the countries the cable crosses besides its two ends; `bandwidth_bps` is
    what inference may use in each direction.
    """

    site_a: str
    site_b: str
    rtt_ms: float
    bandwidth_bps: float
    price_usd_per_gb: float = 0.0
    transit_countries: tuple[str, ...] = ()
    source: str = ""

    def __post_init__(self) -> None:
        name = f"link {self.site_a} - {self.site_b}"
        if self.site_a == self.site_b:
            raise InvalidFactError(f"{name}: a link joins two different sites")
        require_nonnegative(self.rtt_ms, field=f"{name}: rtt_ms")
        require_positive(self.bandwidth_bps, field=f"{name}: bandwidth_bps")
        require_nonnegative(self.price_usd_per_gb, field=f"{name}: price_usd_per_gb")
        for country in self.transit_countries:
            require_country(country, field=f"{name}: transit_countries")

    @property
    def link_id(self) -> str:
        """``a--b`` with the ends in alphabetical order."""
        a, b = self.site_a, self.site_b
        return f"{a}--{b}" if a < b else f"{b}--{a}"


@dataclass(frozen=True, kw_only=True, slots=True)
class MarketAccess:
    """How far a market is from one site's gateway (RTT over the public network, ms)."""

    site_id: str
    rtt_ms: float

    def __post_init__(self) -> None:
        require_nonnegative(self.rtt_ms, field=f"access to {self.site_id}: rtt_ms")


@dataclass(frozen=True, kw_only=True, slots=True)
class Market:
    """A population centre where traffic is born. It enters at the nearest lawful site's gateway."""

    market_id: str
    country: str
    accesses: tuple[MarketAccess, ...]
    latitude: float = 0.0
    longitude: float = 0.0
    source: str = ""

    def __post_init__(self) -> None:
        require_id(self.market_id, field="market_id")
        require_country(self.country, field=f"market {self.market_id}: country")
        if not self.accesses:
            raise InvalidFactError(f"market {self.market_id}: no access; name at least one site")
        require_unique(
            (a.site_id for a in self.accesses), field=f"market {self.market_id}: accesses"
        )

    def by_distance(self) -> tuple[MarketAccess, ...]:
        """Accesses, nearest first (ties by site id)."""
        return tuple(sorted(self.accesses, key=lambda a: (a.rtt_ms, a.site_id)))


@dataclass(frozen=True, kw_only=True, slots=True)
class Fleet:
    """All sites, the links between them and the markets they serve; each sorted by id."""

    sites: tuple[Site, ...]
    links: tuple[Link, ...] = ()
    markets: tuple[Market, ...] = ()
    _by_id: dict[str, Site] = field(
        default_factory=dict, init=False, repr=False, compare=False, hash=False
    )

    def __post_init__(self) -> None:
        if not self.sites:
            raise InvalidFactError("fleet: no site; describe at least one site")
        require_unique((s.site_id for s in self.sites), field="fleet: sites")
        peers = (s.gateway.peer_address for s in self.sites if s.gateway is not None)
        require_unique(peers, field="fleet: peer addresses of gateways")
        require_unique((k.link_id for k in self.links), field="fleet: links")
        require_unique((m.market_id for m in self.markets), field="fleet: markets")
        known = {s.site_id for s in self.sites}
        for link in self.links:
            for end in (link.site_a, link.site_b):
                if end not in known:
                    raise InvalidFactError(f"link {link.link_id}: no site {end!r} in the fleet")
        for market in self.markets:
            for access in market.accesses:
                if access.site_id not in known:
                    raise InvalidFactError(
                        f"market {market.market_id}: no site {access.site_id!r} in the fleet"
                    )
        self._by_id.update({s.site_id: s for s in self.sites})

    def site(self, site_id: str) -> Site:
        """The site of that id; raises KeyError."""
        return self._by_id[site_id]
