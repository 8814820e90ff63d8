"""One well-formed document to one fact. Decides only which field goes where; facts check values."""

from __future__ import annotations

from typing import Any

from sites.catalog import Model, ServingPoint, Variant
from sites.fleet import (
    HardwarePool,
    Link,
    Market,
    MarketAccess,
    Ownership,
    PowerSupply,
    Site,
    SiteGateway,
    SupplyKind,
)
from sites.fleet_file import documents as d
from sites.residency import ResidencyPolicy
from sites.traffic import Service, SloTarget, Tenant, TrafficClass
from sites.units import WHOLE_BP


def site(doc: d.Site) -> Site:
    """The campus a Site document describes."""
    spec = doc.spec
    return Site(
        site_id=doc.metadata.name,
        country=spec.country,
        power_budget_w=spec.power.budget,
        pue=spec.power.pue,
        supplies=tuple(_supply(one) for one in spec.power.supplies),
        pools=tuple(_pool(one) for one in spec.pools),
        residency_tags=tuple(sorted(set(spec.residency_tags))),
        legal_entity=spec.legal_entity,
        region=spec.region,
        latitude=spec.location.latitude if spec.location else 0.0,
        longitude=spec.location.longitude if spec.location else 0.0,
        fixed_price_usd_per_h=spec.fixed_price,
        cordoned=spec.cordoned,
        gateway=_gateway(spec.gateway),
        source=_joined(spec.source, spec.power.source),
    )


def _joined(*sources: str) -> str:
    return "; ".join(one for one in sources if one)


def _supply(spec: d.Supply) -> PowerSupply:
    return PowerSupply(
        supply_id=spec.name,
        kind=SupplyKind(spec.kind),
        limit_w=spec.limit,
        price_usd_per_kwh=spec.price,
        carbon_g_per_kwh=spec.carbon,
        source=spec.source,
    )


def _pool(spec: d.Pool) -> HardwarePool:
    return HardwarePool(
        pool_id=spec.name,
        accelerator=spec.accelerator,
        count=spec.count,
        memory_mib_per_accelerator=spec.memory,
        price_usd_per_accelerator_h=spec.price,
        ownership=Ownership(spec.ownership),
        interruption_per_h=spec.interruption,
        source=spec.source,
    )


def _gateway(spec: d.Gateway | None) -> SiteGateway | None:
    if spec is None:
        return None
    return SiteGateway(client_address=spec.client, peer_address=spec.peer)


def link(doc: d.Link) -> Link:
    """The backbone link a Link document describes."""
    spec = doc.spec
    return Link(
        site_a=spec.between[0],
        site_b=spec.between[1],
        rtt_ms=spec.rtt,
        bandwidth_bps=spec.bandwidth,
        price_usd_per_gb=spec.price,
        transit_countries=tuple(sorted(set(spec.transit_countries))),
        source=spec.source,
    )


def market(doc: d.Market) -> Market:
    """The market a Market document describes."""
    spec = doc.spec
    return Market(
        market_id=doc.metadata.name,
        country=spec.country,
        accesses=tuple(MarketAccess(site_id=a.site, rtt_ms=a.rtt) for a in spec.accesses),
        latitude=spec.location.latitude if spec.location else 0.0,
        longitude=spec.location.longitude if spec.location else 0.0,
        source=spec.source,
    )


def model(doc: d.Model) -> Model:
    """The model a Model document describes, without its variants."""
    spec = doc.spec
    return Model(
        model_id=doc.metadata.name,
        parameters_b=spec.parameters_b,
        context_tokens=spec.context_tokens,
        license=spec.license,
        source=spec.source,
    )


def variant(model_id: str, spec: d.VariantSpec) -> Variant:
    """One variant of a model."""
    return Variant(
        variant_id=spec.name,
        model_id=model_id,
        precision=spec.precision,
        weights_mib=spec.weights,
        kv_bytes_per_token=spec.cache_per_token,
        quality=spec.quality,
        artifact=spec.artifact,
        artifact_sha256=spec.artifact_sha256,
        source=spec.source,
    )


def serving_point(spec: d.ServingPointSpec) -> ServingPoint:
    """One operating point."""
    return ServingPoint(
        variant_id=spec.variant,
        accelerator=spec.accelerator,
        accelerators_per_replica=spec.accelerators_per_replica,
        decode_tok_s=spec.decode,
        prefill_tok_s=spec.prefill,
        ttft_ms=spec.ttft,
        tpot_ms=spec.tpot,
        concurrency=spec.concurrency,
        idle_w=spec.idle_power,
        full_w=spec.full_power,
        memory_mib=spec.memory,
        percentile=spec.percentile,
        start_ms=spec.start_time,
        estimated=spec.estimated,
        source=spec.source,
    )


def service(doc: d.Service) -> Service:
    """The service a Service document describes; its variants keep the order given."""
    return Service(
        service_id=doc.metadata.name,
        variant_ids=tuple(doc.spec.variants),
        source=doc.spec.source,
    )


def traffic_class(doc: d.TrafficClass, tenant_policy_id: str) -> TrafficClass:
    """The class a TrafficClass document describes, under its tenant's policy if it names none."""
    spec = doc.spec
    return TrafficClass(
        class_id=doc.metadata.name,
        market_id=spec.market,
        service_id=spec.service,
        tenant_id=spec.tenant,
        residency_policy_id=spec.residency_policy or tenant_policy_id,
        slo=_slo(spec.slo),
        rate_rps=spec.rate,
        input_tokens=spec.input_tokens,
        output_tokens=spec.output_tokens,
        bytes_per_request=spec.bytes_per_request,
        priority=spec.priority,
        protected=spec.protected,
        quality_floor=spec.quality_floor,
        mean_quality_floor=spec.mean_quality_floor,
        spread_sites=spec.spread_sites,
        spread_zones=spec.spread_zones,
        deferrable_h=round(spec.deferrable),
        context_tokens=spec.context_tokens,
        source=spec.source,
    )


def _slo(spec: d.SloSpec) -> SloTarget:
    return SloTarget(
        ttft_ms=spec.ttft,
        tpot_ms=spec.tpot,
        percentile=spec.percentile,
        over_mix=spec.over_mix,
    )


def residency_policy(doc: d.ResidencyPolicy) -> ResidencyPolicy:
    """The residency class a ResidencyPolicy document describes."""
    spec = doc.spec
    return ResidencyPolicy(
        policy_id=doc.metadata.name,
        processing_countries=_countries(spec.processing_countries),
        transit_countries=_countries(spec.transit_countries),
        required_tags=tuple(sorted(set(spec.required_tags))),
        transfer_mechanism=spec.transfer_mechanism,
        source=spec.source,
    )


def _countries(given: list[str] | str) -> tuple[str, ...] | None:
    return None if isinstance(given, str) else tuple(sorted(set(given)))


def tenant(doc: d.Tenant) -> Tenant:
    """The customer a Tenant document describes."""
    spec = doc.spec
    return Tenant(
        tenant_id=doc.metadata.name,
        residency_policy_id=spec.residency_policy,
        legal_name=spec.legal_name,
        purpose=spec.purpose,
        data_category=spec.data_category,
        budget_usd_per_h=spec.budget,
        source=spec.source,
    )


POLICY_FIELDS = {
    "utilisation_ceiling": "utilisation_ceiling",
    "shed_price": "shed_usd_per_mtok",
    "carbon_price": "carbon_usd_per_t",
    "migration_price": "migration_usd_per_gib",
    "migration_horizon": "migration_horizon_h",
    "queueing_at_ceiling": "queueing_ms_at_ceiling",
    "move_limit_replicas": "move_limit_replicas",
    "max_shed": "max_shed_basis_points",
    "carbon_cap": "carbon_cap_g_per_h",
    "exposure_part": "exposure_part",
    "gap_limit": "gap_limit",
    "node_limit": "node_limit",
    "time_limit": "time_limit_s",
    "seed": "seed",
}
"""Field of a PlanPolicy document -> the plan policy's own, in the same unit but for `max_shed`."""


def plan_policy(doc: d.PlanPolicy) -> dict[str, Any]:
    """The plan policy as plain values under its own field names."""
    spec = doc.spec
    return {
        "policy_id": doc.metadata.name,
        **{own: getattr(spec, field) for field, own in POLICY_FIELDS.items()},
        "max_shed_basis_points": None if spec.max_shed is None else round(spec.max_shed * WHOLE_BP),
        "replica_bounds": [
            {"site_id": b.site, "variant_id": b.variant, "fewest": b.fewest, "most": b.most}
            for b in spec.replica_bounds
        ],
        "source": spec.source,
    }
