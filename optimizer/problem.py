"""The whole question in one value: what exists, what is asked for, what runs now, what it costs."""

from __future__ import annotations

from dataclasses import dataclass, field

from optimizer.policy import PlanPolicy
from sites.assignment import ReplicaGroup
from sites.catalog import Catalog
from sites.digest import digest
from sites.errors import InvalidFactError
from sites.fleet import Fleet, at_period
from sites.residency import ResidencyPolicy
from sites.traffic import Demand, Service, Tenant, TrafficClass
from sites.units import require_nonnegative, require_unique


@dataclass(frozen=True, kw_only=True, slots=True)
class RunningGroup:
    """Replicas of a group that run now (loading and ready, not draining)."""

    group: ReplicaGroup
    replicas: int

    def __post_init__(self) -> None:
        require_nonnegative(self.replicas, field=f"running {self.group.group_id}: replicas")


@dataclass(frozen=True, kw_only=True, slots=True)
class Problem:
    """Everything a plan depends on; two equal problems have one digest and one plan.

    `demand` overrides the classes' own `rate_rps` where given (forecasts). `lost_sites` exist but
    may not be used in this plan (failed or drained). `period` is the hour of day prices and limits
    are read at.
    """

    fleet: Fleet
    catalog: Catalog
    services: tuple[Service, ...]
    tenants: tuple[Tenant, ...]
    policies: tuple[ResidencyPolicy, ...]
    classes: tuple[TrafficClass, ...]
    plan_policy: PlanPolicy
    demand: tuple[Demand, ...] = ()
    running: tuple[RunningGroup, ...] = ()
    lost_sites: tuple[str, ...] = ()
    period: int = 0
    _known: _Known = field(init=False, repr=False, compare=False, hash=False)

    def __post_init__(self) -> None:
        require_unique((s.service_id for s in self.services), field="problem: services")
        require_unique((t.tenant_id for t in self.tenants), field="problem: tenants")
        require_unique((p.policy_id for p in self.policies), field="problem: residency policies")
        require_unique((c.class_id for c in self.classes), field="problem: traffic classes")
        require_unique((r.group.group_id for r in self.running), field="problem: running groups")
        missing = _missing_references(self)
        if missing:
            raise InvalidFactError("problem: " + "; ".join(missing))
        object.__setattr__(self, "_known", _Known(self))

    @property
    def digest(self) -> str:
        """Its digest, worked out when first asked for."""
        return self._known.digest(self)

    def rate_rps(self, traffic_class: TrafficClass) -> float:
        """Demand of a class in this period (req/s): the forecast if there is one, else its own."""
        forecast = self._known.forecasts.get(traffic_class.class_id)
        return at_period(traffic_class.rate_rps, self.period) if forecast is None else forecast

    def residency(self, policy_id: str) -> ResidencyPolicy:
        """The residency policy of that id; raises KeyError."""
        return self._known.policies[policy_id]

    def service(self, service_id: str) -> Service:
        """The service of that id; raises KeyError."""
        return self._known.services[service_id]


class _Known:
    """What follows from a problem's fields and is asked for often; no part of the fact."""

    __slots__ = ("_digest", "forecasts", "policies", "services")

    def __init__(self, problem: Problem) -> None:
        self.policies = {p.policy_id: p for p in problem.policies}
        self.services = {s.service_id: s for s in problem.services}
        self.forecasts = {
            d.class_id: d.rate_rps for d in reversed(problem.demand) if d.period == problem.period
        }
        self._digest = ""

    def digest(self, problem: Problem) -> str:
        """The problem's digest, worked out once."""
        self._digest = self._digest or digest(problem)
        return self._digest


def _missing_references(problem: Problem) -> list[str]:
    variants = {v.variant_id for v in problem.catalog.variants}
    known = {
        "service_id": {s.service_id for s in problem.services},
        "tenant_id": {t.tenant_id for t in problem.tenants},
        "residency_policy_id": {p.policy_id for p in problem.policies},
        "market_id": {m.market_id for m in problem.fleet.markets},
    }
    missing = [
        f"service {s.service_id}: no variant {v!r}"
        for s in problem.services
        for v in s.variant_ids
        if v not in variants
    ]
    missing += [
        f"traffic class {c.class_id}: no {name.removesuffix('_id')} {getattr(c, name)!r}"
        for c in problem.classes
        for name, ids in known.items()
        if getattr(c, name) not in ids
    ]
    missing += [
        f"tenant {t.tenant_id}: no residency policy {t.residency_policy_id!r}"
        for t in problem.tenants
        if t.residency_policy_id not in known["residency_policy_id"]
    ]
    return missing
