"""What is asked for: services, tenants, traffic classes and their demand. Facts only."""

from __future__ import annotations

from dataclasses import dataclass

from sites.errors import InvalidFactError
from sites.units import (
    require_between,
    require_id,
    require_nonnegative,
    require_positive,
    require_unique,
)

RATE_RPS_MAX = 1e6
"""Far above any one class; beyond it the solver's figures differ too much in size to be trusted."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SloTarget:
    """Time to first token and time per output token that `percentile` % of requests must meet.

    `over_mix`: the mean TTFT over all arcs of the class must meet `ttft_ms`, not each arc alone.
    """

    ttft_ms: float
    tpot_ms: float
    percentile: float = 99.0
    over_mix: bool = False

    def __post_init__(self) -> None:
        require_positive(self.ttft_ms, field="slo: ttft_ms")
        require_positive(self.tpot_ms, field="slo: tpot_ms")
        require_between(self.percentile, low=1, high=100, field="slo: percentile")


@dataclass(frozen=True, kw_only=True, slots=True)
class Service:
    """A name clients put in the ``model`` field of a request, and the variants that may answer."""

    service_id: str
    variant_ids: tuple[str, ...]
    source: str = ""

    def __post_init__(self) -> None:
        require_id(self.service_id, field="service_id")
        if not self.variant_ids:
            raise InvalidFactError(f"service {self.service_id}: no variant may answer it")
        require_unique(self.variant_ids, field=f"service {self.service_id}: variants")


@dataclass(frozen=True, kw_only=True, slots=True)
class Tenant:
    """A customer. Its residency policy is what holds unless a request asks for a stricter one.

    `budget_usd_per_h`: the most its served traffic may cost, each request priced on replicas used
    to the ceiling (None: no limit).
    """

    tenant_id: str
    residency_policy_id: str
    legal_name: str = ""
    purpose: str = ""
    data_category: str = ""
    budget_usd_per_h: float | None = None
    source: str = ""

    def __post_init__(self) -> None:
        require_id(self.tenant_id, field="tenant_id")
        if self.budget_usd_per_h is not None:
            require_nonnegative(
                self.budget_usd_per_h, field=f"tenant {self.tenant_id}: budget_usd_per_h"
            )
        require_id(self.residency_policy_id, field=f"tenant {self.tenant_id}: residency_policy_id")


@dataclass(frozen=True, kw_only=True, slots=True)
class TrafficClass:
    """Requests alike in market, service, tenant, residency, SLO and priority, and their rate.

    `rate_rps` is the demand (requests/s; one value or one per period); tokens are means per
    request; `bytes_per_request` is what one request and its answer move over the network.
    `priority` 0 is shed last, 9 first. `protected` classes must survive the loss of one site.
    `spread_sites` asks for at least that many serving sites, `spread_zones` for that many of their
    regions. `quality_floor` is the lowest variant quality that may answer, `mean_quality_floor` the
    lowest mean quality of what is answered. `deferrable_h`: requests may wait so many hours.
    `context_tokens`: the longest request with its answer (0: as long as the mean).
    """

    class_id: str
    market_id: str
    service_id: str
    tenant_id: str
    residency_policy_id: str
    slo: SloTarget
    rate_rps: tuple[float, ...]
    input_tokens: float
    output_tokens: float
    bytes_per_request: float = 0.0
    priority: int = 5
    protected: bool = False
    quality_floor: float = 0.0
    spread_sites: int = 1
    spread_zones: int = 1
    mean_quality_floor: float = 0.0
    deferrable_h: int = 0
    context_tokens: float = 0.0
    source: str = ""

    def __post_init__(self) -> None:
        name = f"traffic class {self.class_id}"
        for one in ("class_id", "market_id", "service_id", "tenant_id", "residency_policy_id"):
            require_id(getattr(self, one), field=f"{name}: {one}")
        if not self.rate_rps:
            raise InvalidFactError(f"{name}: rate_rps is empty")
        for rate in self.rate_rps:
            require_between(rate, low=0, high=RATE_RPS_MAX, field=f"{name}: rate_rps")
        require_nonnegative(self.input_tokens, field=f"{name}: input_tokens")
        require_positive(self.output_tokens, field=f"{name}: output_tokens")
        require_nonnegative(self.bytes_per_request, field=f"{name}: bytes_per_request")
        require_between(self.priority, low=0, high=9, field=f"{name}: priority")
        require_between(self.quality_floor, low=0, high=1, field=f"{name}: quality_floor")
        require_between(self.spread_sites, low=1, high=1000, field=f"{name}: spread_sites")
        require_between(self.spread_zones, low=1, high=1000, field=f"{name}: spread_zones")
        require_between(self.mean_quality_floor, low=0, high=1, field=f"{name}: mean_quality_floor")
        require_between(self.deferrable_h, low=0, high=23, field=f"{name}: deferrable_h")
        require_nonnegative(self.context_tokens, field=f"{name}: context_tokens")


@dataclass(frozen=True, kw_only=True, slots=True)
class Demand:
    """Forecast rate of one class in one period (requests/s)."""

    class_id: str
    period: int
    rate_rps: float

    def __post_init__(self) -> None:
        require_nonnegative(self.rate_rps, field=f"demand of {self.class_id}: rate_rps")
