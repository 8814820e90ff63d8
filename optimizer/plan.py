"""One consistent answer for all sites: replicas, traffic shares, shed traffic, cost. Facts only."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from sites.assignment import ReplicaGroup
from sites.digest import digest
from sites.units import WHOLE_BP, require_between, require_nonnegative, require_unique


class PruneReason(StrEnum):
    """Why a (class, replica group) pair is not a candidate arc. Stable codes."""

    RESIDENCY = "residency"
    TRANSIT = "transit"
    LATENCY = "latency"
    MEMORY = "memory"
    QUALITY = "quality"
    NO_PATH = "no_path"
    NO_SERVING_POINT = "no_serving_point"
    NO_INGRESS = "no_ingress"
    SITE_UNAVAILABLE = "site_unavailable"
    ACCELERATORS = "accelerators"
    CONTEXT = "context"


class RejectReason(StrEnum):
    """Why a lawful candidate arc was not chosen, beyond `PruneReason`. Stable codes."""

    POWER = "power"
    ACCELERATORS = "accelerators"
    BANDWIDTH = "bandwidth"
    BUDGET = "budget"
    CARBON = "carbon"
    PRICE = "price"


@dataclass(frozen=True, kw_only=True, slots=True)
class CandidateArc:
    """A permitted (class, replica group) pair.

    `ttft_ms` = market->ingress RTT + ingress->site path RTT + queueing + TTFT of the serving point.
    `path` is the lawful backbone path (site ids, ingress first), `transit_countries` what it
    crosses, both ends excluded. `replica_seconds` is what one request keeps busy;
    `network_usd_per_request` its transfer.
    """

    class_id: str
    group: ReplicaGroup
    ingress_site_id: str
    path: tuple[str, ...]
    transit_countries: tuple[str, ...]
    ttft_ms: float
    replica_seconds: float
    network_usd_per_request: float


@dataclass(frozen=True, kw_only=True, slots=True)
class PrunedArc:
    """A (class, site[, variant]) pair ruled out, with its reason and its figures."""

    class_id: str
    site_id: str
    variant_id: str
    reason: PruneReason
    limit: float | str
    actual: float | str
    unit: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class PlannedGroup:
    """How many replicas of a group the plan wants (only groups with at least one)."""

    group: ReplicaGroup
    replicas: int


@dataclass(frozen=True, kw_only=True, slots=True)
class TrafficShare:
    """Part of a class's demand routed over one arc, in basis points of the whole class."""

    class_id: str
    group_id: str
    site_id: str
    ingress_site_id: str
    basis_points: int
    transit_countries: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        require_between(self.basis_points, low=1, high=WHOLE_BP, field=f"share of {self.class_id}")


@dataclass(frozen=True, kw_only=True, slots=True)
class ShedTraffic:
    """Part of a class's demand the plan chooses not to serve."""

    class_id: str
    basis_points: int

    def __post_init__(self) -> None:
        require_between(self.basis_points, low=1, high=WHOLE_BP, field=f"shed of {self.class_id}")


@dataclass(frozen=True, kw_only=True, slots=True)
class SurvivalShare:
    """Where a protected class is served if one site is lost: so many basis points at `group_id`,
    whose site keeps its replicas. The entries of a (loss, class) are the whole of what it then
    has, not what is added; a class without entries keeps its shares.
    """

    lost_site_id: str
    class_id: str
    group_id: str
    basis_points: int

    def __post_init__(self) -> None:
        require_between(self.basis_points, low=1, high=WHOLE_BP, field=f"move of {self.class_id}")


@dataclass(frozen=True, kw_only=True, slots=True)
class ExposedTraffic:
    """Part of a protected class that the loss of one site would leave unserved, beyond what the
    plan sheds anyway and although another site might lawfully serve it.
    """

    lost_site_id: str
    class_id: str
    basis_points: int

    def __post_init__(self) -> None:
        require_between(self.basis_points, low=1, high=WHOLE_BP, field=f"risk of {self.class_id}")


@dataclass(frozen=True, kw_only=True, slots=True)
class SupplyUse:
    """Power a plan takes from one supply (W, cooling included)."""

    site_id: str
    supply_id: str
    power_w: float


@dataclass(frozen=True, kw_only=True, slots=True)
class CostBreakdown:
    """What a plan costs, USD per hour. `energy` includes cooling (PUE); `cooling` is the part of
    it due to PUE above 1. `risk` is expected interruptions of spot replicas and what is exposed to
    the loss of one site.
    """

    hardware_usd_per_h: float = 0.0
    energy_usd_per_h: float = 0.0
    cooling_usd_per_h: float = 0.0
    network_usd_per_h: float = 0.0
    migration_usd_per_h: float = 0.0
    carbon_usd_per_h: float = 0.0
    shed_usd_per_h: float = 0.0
    site_usd_per_h: float = 0.0
    risk_usd_per_h: float = 0.0

    @property
    def total_usd_per_h(self) -> float:
        """Sum of all terms; cooling is already inside energy."""
        return (
            self.hardware_usd_per_h
            + self.energy_usd_per_h
            + self.network_usd_per_h
            + self.migration_usd_per_h
            + self.carbon_usd_per_h
            + self.shed_usd_per_h
            + self.site_usd_per_h
            + self.risk_usd_per_h
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """One answer. Shares + shed of each class with demand sum to exactly 10 000 bp.

    `bound_usd_per_h` is the least any plan of this problem can cost (by `method`); `gap` is
    (cost - bound) / max(|cost|, 1e-9), relative. `hit_limit` names the budget that stopped the
    search ("" if none did). `survival` and `exposed` say, loss by loss, where protected traffic of
    a lost site would go and what of it nobody could take.
    """

    problem_digest: str
    groups: tuple[PlannedGroup, ...]
    shares: tuple[TrafficShare, ...]
    shed: tuple[ShedTraffic, ...]
    supplies: tuple[SupplyUse, ...]
    cost: CostBreakdown
    bound_usd_per_h: float
    gap: float
    method: str
    hit_limit: str = ""
    survival: tuple[SurvivalShare, ...] = ()
    exposed: tuple[ExposedTraffic, ...] = ()

    def __post_init__(self) -> None:
        require_unique((g.group.group_id for g in self.groups), field="plan: groups")
        require_unique((s.class_id for s in self.shed), field="plan: shed")
        for one in self.groups:
            require_nonnegative(one.replicas, field=f"plan: {one.group.group_id}")

    @property
    def plan_digest(self) -> str:
        """Digest over everything the plan says; equal problems give equal plans."""
        return digest(self)
