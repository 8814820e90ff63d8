"""Prices, weights and limits a plan is made under. Facts only; set by the `PlanPolicy` document."""

from __future__ import annotations

from dataclasses import dataclass

from sites.units import WHOLE_BP, require_between, require_nonnegative, require_positive


@dataclass(frozen=True, kw_only=True, slots=True)
class GroupBound:
    """Fewest and most replicas of a variant at a site (over its pools). `most` None = no cap."""

    site_id: str
    variant_id: str
    fewest: int = 0
    most: int | None = None

    def __post_init__(self) -> None:
        name = f"replica bound {self.site_id}/{self.variant_id}"
        require_nonnegative(self.fewest, field=f"{name}: fewest")
        if self.most is not None:
            require_nonnegative(self.most, field=f"{name}: most")


@dataclass(frozen=True, kw_only=True, slots=True)
class PlanPolicy:
    """How plans are priced and searched.

    `utilisation_ceiling`: part of a serving point's throughput a plan may use. `shed_usd_per_mtok`:
    price of a million output tokens not served at priority 9; a class of priority p pays
    ``shed_usd_per_mtok * (10 - p)``. `queueing_ms_at_ceiling`: waiting added to every arc's TTFT.
    `migration_usd_per_gib`: price of moving a GiB of weights to start a replica, spread over
    `migration_horizon_h`. `move_limit_replicas`: most replicas started plus stopped in one plan
    (None: no limit). `gap_limit` is relative (0.01 = 1 %); `node_limit` bounds the search;
    `time_limit_s` is only an outer abort. `max_shed_basis_points` (None: priced only) makes
    shedding more than that part of any class infeasible. `carbon_cap_g_per_h`: most emission of a
    plan (None: priced only). `exposure_part`: protected traffic that the loss of one site would
    leave unserved pays this part of its shed price, loss by loss (0: losses are not looked at). Far
    below 1, because a loss is an exception: at 1 a plan would shed for certain what a loss might.
    """

    policy_id: str = "default"
    utilisation_ceiling: float = 0.8
    shed_usd_per_mtok: float = 50.0
    carbon_usd_per_t: float = 0.0
    migration_usd_per_gib: float = 0.0
    migration_horizon_h: float = 24.0
    queueing_ms_at_ceiling: float = 0.0
    move_limit_replicas: int | None = None
    max_shed_basis_points: int | None = None
    carbon_cap_g_per_h: float | None = None
    exposure_part: float = 0.1
    replica_bounds: tuple[GroupBound, ...] = ()
    gap_limit: float = 0.01
    node_limit: int = 100_000
    time_limit_s: float = 300.0
    seed: int = 0
    source: str = ""

    def __post_init__(self) -> None:
        require_between(self.utilisation_ceiling, low=0.01, high=1, field="utilisation_ceiling")
        for name in (
            "shed_usd_per_mtok",
            "carbon_usd_per_t",
            "migration_usd_per_gib",
            "queueing_ms_at_ceiling",
            "gap_limit",
            "exposure_part",
        ):
            require_nonnegative(getattr(self, name), field=f"plan policy: {name}")
        for name in ("migration_horizon_h", "node_limit", "time_limit_s"):
            require_positive(getattr(self, name), field=f"plan policy: {name}")
        if self.carbon_cap_g_per_h is not None:
            require_nonnegative(self.carbon_cap_g_per_h, field="plan policy: carbon_cap_g_per_h")
        if self.move_limit_replicas is not None:
            require_nonnegative(self.move_limit_replicas, field="plan policy: move_limit_replicas")
        if self.max_shed_basis_points is not None:
            require_between(
                self.max_shed_basis_points,
                low=0,
                high=WHOLE_BP,
                field="plan policy: max_shed_basis_points",
            )
