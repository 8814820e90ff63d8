"""What is wanted at one site: which replicas, which routes, under which limits. Facts only.

A `SiteAssignment` is self-contained: an agent can judge it (fit, residency, epoch, version) without
the catalog, the fleet file or trust in whoever made it.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import Any

from sites.catalog import ServingPoint, Variant
from sites.errors import InvalidFactError
from sites.fleet import HardwarePool, SiteGateway
from sites.residency import ResidencyPolicy
from sites.units import (
    WHOLE_BP,
    require_between,
    require_country,
    require_id,
    require_nonnegative,
    require_unique,
)


@dataclass(frozen=True, kw_only=True, slots=True, order=True)
class ReplicaGroup:
    """The copies of one variant on one pool of one site, each on so many accelerators."""

    site_id: str
    pool_id: str
    variant_id: str
    accelerators_per_replica: int

    @property
    def group_id(self) -> str:
        """``site/pool/variant/xN``; unique in the fleet."""
        return f"{self.site_id}/{self.pool_id}/{self.variant_id}/x{self.accelerators_per_replica}"


@dataclass(frozen=True, kw_only=True, slots=True)
class GroupTarget:
    """How many replicas of a group are wanted, and what the site needs to run and check them."""

    group: ReplicaGroup
    replicas: int
    point: ServingPoint
    variant: Variant

    def __post_init__(self) -> None:
        require_nonnegative(self.replicas, field=f"group {self.group.group_id}: replicas")
        if self.point.variant_id != self.group.variant_id:
            raise InvalidFactError(
                f"group {self.group.group_id}: serving point is of {self.point.variant_id}"
            )


class RouteDecision(StrEnum):
    """What an ingress gateway does with a route's requests."""

    SERVE = "serve"
    SHED = "shed"
    UNLAWFUL = "unlawful"


@dataclass(frozen=True, kw_only=True, slots=True, order=True)
class RouteKey:
    """What a gateway can tell about a request: service, tenant, residency policy in force.

    `route_id`, ``service|tenant|policy``, follows from the rest: a large fleet looks millions of
    keys up by it.
    """

    service_id: str
    tenant_id: str
    residency_policy_id: str
    route_id: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        route_id = f"{self.service_id}|{self.tenant_id}|{self.residency_policy_id}"
        object.__setattr__(self, "route_id", route_id)

    def __hash__(self) -> int:
        return hash(self.route_id)


@dataclass(frozen=True, kw_only=True, slots=True)
class SiteShare:
    """Part of a route's requests sent from this ingress site to `site_id` (possibly itself).

    `transit_countries`: countries the lawful path crosses, both ends excluded.
    """

    site_id: str
    basis_points: int
    transit_countries: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        require_between(self.basis_points, low=0, high=WHOLE_BP, field=f"share to {self.site_id}")
        for country in self.transit_countries:
            require_country(country, field=f"share to {self.site_id}: transit_countries")


@dataclass(frozen=True, kw_only=True, slots=True)
class GroupShare:
    """Part of a route's requests that, once at their serving site, go to `group_id`."""

    group_id: str
    basis_points: int

    def __post_init__(self) -> None:
        require_between(self.basis_points, low=0, high=WHOLE_BP, field=f"share to {self.group_id}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Route:
    """What this site does with requests of one key.

    As ingress: `shares` (sum 10 000 bp when SERVE; of the part not shed) name serving sites,
    `backups` further lawful sites in order of preference (basis_points there are weights),
    `shed_basis_points` is the part of the requests answered 503 at once. As serving site: `groups`
    (sum 10 000 bp, or empty if nothing here answers this key) splits what arrives here.
    """

    key: RouteKey
    decision: RouteDecision
    shares: tuple[SiteShare, ...] = ()
    backups: tuple[SiteShare, ...] = ()
    shed_basis_points: int = 0
    groups: tuple[GroupShare, ...] = ()
    reason: str = ""

    def __post_init__(self) -> None:
        self.require_sound()

    def require_sound(self) -> None:
        """Refuse shares that are given twice, out of range or do not sum up (InvalidFactError).
        No rule looks at the key beyond naming it.
        """
        name = f"route {self.key.route_id}"
        require_between(self.shed_basis_points, low=0, high=WHOLE_BP, field=f"{name}: shed")
        require_unique((s.site_id for s in self.shares), field=f"{name}: shares")
        require_unique((g.group_id for g in self.groups), field=f"{name}: groups")
        if self.decision is RouteDecision.SERVE:
            total_bp = sum(s.basis_points for s in self.shares)
            if total_bp != WHOLE_BP:
                raise InvalidFactError(f"{name}: shares sum to {total_bp} bp, must be {WHOLE_BP}")
        elif self.shares or self.backups:
            raise InvalidFactError(f"{name}: {self.decision} carries no shares")
        if self.groups and sum(g.basis_points for g in self.groups) != WHOLE_BP:
            raise InvalidFactError(f"{name}: group shares must sum to {WHOLE_BP} bp")

    def under(self, key: RouteKey) -> Route:
        """The same for another key, as sound as this one is."""
        made = object.__new__(Route)
        for read, write in _SLOTS:
            write(made, read(self))
        _KEY_SLOT.__set__(made, key)
        return made


_KEY_SLOT: Any = Route.__dict__["key"]
_SLOTS = tuple(
    (slot.__get__, slot.__set__) for slot in (Route.__dict__[f.name] for f in fields(Route))
)
"""How each field of a route is read and written, for copies by the million."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TenantBinding:
    """Which residency policy holds for a tenant's requests that name none.

    `pseudonym_key` (hex, secret) keys the HMAC under which the tenant's and its requests' ids enter
    execution records; destroying every copy of it makes the records anonymous.
    """

    tenant_id: str
    residency_policy_id: str
    pseudonym_key: str = field(default="", repr=False)
    purpose: str = ""
    data_category: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Peer:
    """Another site this gateway may send to: its country, tags and mTLS address (``host:port``)."""

    site_id: str
    country: str
    residency_tags: tuple[str, ...]
    peer_address: str


@dataclass(frozen=True, kw_only=True, slots=True)
class SiteAssignment:
    """One site's part of a plan. Newer means higher (epoch, version); the digest of the fact names
    it.

    `expires_at_ms` (wall): no agent takes the assignment up after it; where in force, it stays so.
    `power_budget_w` and `pue` are the site's limits in the plan's period.
    `api_key_jwks` is the JSON Web Key Set (text) against which the gateway checks tenants' API
    keys.
    """

    site_id: str
    country: str
    residency_tags: tuple[str, ...]
    legal_entity: str
    gateway: SiteGateway
    epoch: int
    version: int
    plan_digest: str
    policy_digest: str
    issued_at_ms: int
    expires_at_ms: int
    parent_digest: str
    power_budget_w: float
    pue: float
    pools: tuple[HardwarePool, ...]
    groups: tuple[GroupTarget, ...]
    routes: tuple[Route, ...]
    services: tuple[tuple[str, tuple[str, ...]], ...]
    tenants: tuple[TenantBinding, ...]
    policies: tuple[ResidencyPolicy, ...]
    peers: tuple[Peer, ...]
    api_key_jwks: str

    def __post_init__(self) -> None:
        require_id(self.site_id, field="site_id")
        require_nonnegative(self.epoch, field="epoch")
        require_nonnegative(self.version, field="version")
        require_unique((g.group.group_id for g in self.groups), field="assignment: groups")
        require_unique((r.key.route_id for r in self.routes), field="assignment: routes")
        require_unique((p.site_id for p in self.peers), field="assignment: peers")

    @property
    def rank(self) -> tuple[int, int]:
        """(epoch, version): what decides which of two assignments is newer."""
        return (self.epoch, self.version)


@dataclass(frozen=True, kw_only=True, slots=True)
class Lease:
    """How long an agent may *start* changes. An expired lease never stops anything."""

    epoch: int
    expires_at_ms: int
