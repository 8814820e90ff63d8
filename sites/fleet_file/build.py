"""Well-formed documents to one `FleetDescription`: facts made, sorted, put together.

Decides which documents become which facts; a value a fact refuses becomes a fault at its place.
References between documents were checked before; whether a plan exists is not asked.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from sites.catalog import Catalog, Model, ServingPoint, Variant
from sites.errors import RefusedError
from sites.fleet import Fleet, Link, Market, Site
from sites.fleet_file import documents as d
from sites.fleet_file import facts
from sites.fleet_file.faults import Fault
from sites.fleet_file.reader import Node
from sites.residency import ResidencyPolicy
from sites.traffic import Service, Tenant, TrafficClass

T = TypeVar("T")
Path = tuple[str | int, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class FleetDescription:
    """Everything fleet files say, each part sorted by id.

    `plan_policy` holds plain values under the optimizer's plan policy's own field names and is
    empty where no file sets one; the stage that knows that type builds it.
    """

    fleet: Fleet
    catalog: Catalog
    services: tuple[Service, ...]
    tenants: tuple[Tenant, ...]
    policies: tuple[ResidencyPolicy, ...]
    classes: tuple[TrafficClass, ...]
    plan_policy: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """A document and the node it was read from; `document` is None where it was refused."""

    node: Node
    document: d.Document | None

    @property
    def kind(self) -> str:
        """The kind as written, known or not."""
        kind = self.node.get("kind")
        return str(kind.value) if kind else ""

    @property
    def name(self) -> str:
        """The name as written; empty if there is none."""
        name = self.node.get("metadata", "name")
        return name.value if name and isinstance(name.value, str) else ""

    def fault(self, message: str, *path: str | int) -> Fault:
        """A fault at the value under `path`, or as near to it as the document goes."""
        return self.node.nearest(*path).fault(message)


@dataclass(slots=True)
class _Parts:
    sites: list[Site] = field(default_factory=list)
    links: list[Link] = field(default_factory=list)
    markets: list[Market] = field(default_factory=list)
    models: list[Model] = field(default_factory=list)
    variants: list[Variant] = field(default_factory=list)
    points: list[ServingPoint] = field(default_factory=list)
    services: list[Service] = field(default_factory=list)
    tenants: list[Tenant] = field(default_factory=list)
    policies: list[ResidencyPolicy] = field(default_factory=list)
    classes: list[TrafficClass] = field(default_factory=list)
    plan_policy: dict[str, Any] = field(default_factory=dict)


def build(entries: list[Entry], faults: list[Fault]) -> FleetDescription | None:
    """The fleet the documents describe, or None with every fault added to `faults`."""
    parts = _Parts()
    tenant_policy = {
        e.document.metadata.name: e.document.spec.residency_policy
        for e in entries
        if isinstance(e.document, d.Tenant)
    }
    for entry in entries:
        _add(parts, entry, faults, tenant_policy=tenant_policy)
    return None if faults else _describe(parts)


def _add(
    parts: _Parts, entry: Entry, faults: list[Fault], *, tenant_policy: dict[str, str]
) -> None:
    def put(into: list[T], make: Callable[..., T], *given: Any, path: Path = ()) -> None:
        try:
            into.append(make(*given))
        except RefusedError as refused:
            faults.append(entry.fault(str(refused), *path))

    match entry.document:
        case d.Site() as doc:
            put(parts.sites, facts.site, doc)
        case d.Link() as doc:
            put(parts.links, facts.link, doc)
        case d.Market() as doc:
            put(parts.markets, facts.market, doc)
        case d.Model() as doc:
            put(parts.models, facts.model, doc)
            for index, one in enumerate(doc.spec.variants):
                path: Path = ("spec", "variants", index)
                put(parts.variants, facts.variant, doc.metadata.name, one, path=path)
            for index, point in enumerate(doc.spec.serving_points):
                path = ("spec", "servingPoints", index)
                put(parts.points, facts.serving_point, point, path=path)
        case d.TrafficClass() as doc:
            own = tenant_policy.get(doc.spec.tenant) or doc.spec.residency_policy
            made = [] if own is None else parts.classes  # the unknown tenant is a fault already
            put(made, facts.traffic_class, doc, own or doc.spec.tenant)
        case d.PlanPolicy() as doc:
            parts.plan_policy = facts.plan_policy(doc)
        case d.Service() | d.Tenant() | d.ResidencyPolicy() as doc:
            into, make = _PLAIN[type(doc)]
            put(getattr(parts, into), make, doc)


_PLAIN: dict[type[d.Document], tuple[str, Callable[[Any], Any]]] = {
    d.Service: ("services", facts.service),
    d.Tenant: ("tenants", facts.tenant),
    d.ResidencyPolicy: ("policies", facts.residency_policy),
}


def _describe(parts: _Parts) -> FleetDescription:
    return FleetDescription(
        fleet=Fleet(
            sites=tuple(sorted(parts.sites, key=lambda s: s.site_id)),
            links=tuple(sorted(parts.links, key=lambda k: k.link_id)),
            markets=tuple(sorted(parts.markets, key=lambda m: m.market_id)),
        ),
        catalog=Catalog(
            models=tuple(sorted(parts.models, key=lambda m: m.model_id)),
            variants=tuple(sorted(parts.variants, key=lambda v: v.variant_id)),
            serving_points=tuple(sorted(parts.points, key=lambda p: p.point_id)),
        ),
        services=tuple(sorted(parts.services, key=lambda s: s.service_id)),
        tenants=tuple(sorted(parts.tenants, key=lambda t: t.tenant_id)),
        policies=tuple(sorted(parts.policies, key=lambda p: p.policy_id)),
        classes=tuple(sorted(parts.classes, key=lambda c: c.class_id)),
        plan_policy=parts.plan_policy,
    )
