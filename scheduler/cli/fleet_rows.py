"""What a fleet view comes to as rows and details, kind by kind. Pure.

Names and units are those of the facts; nothing is computed that a stage has not said, except sums.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from scheduler.cli.output import Column, power
from scheduler.cli.times import show_time
from scheduler.view import FleetView, SiteView
from sites.digest import to_plain
from sites.fleet import Site, at_period
from sites.hub_messages import ConnectionState
from sites.telemetry import ReplicaState

Row = dict[str, Any]
List = tuple[list[Row], tuple[Column, ...]]

SITE_COLUMNS = (
    Column(title="name", field="name"),
    Column(title="country", field="country"),
    Column(title="state", field="state"),
    Column(title="ready", field="ready", number=True),
    Column(title="wanted", field="wanted", number=True),
    Column(title="draw", field="draw", number=True),
    Column(title="budget", field="budget", number=True),
    Column(title="applied", field="applied"),
    Column(title="accelerators", field="accelerators"),
    Column(title="tags", field="tags", wide=True),
    Column(title="entity", field="legal_entity", wide=True),
    Column(title="heard", field="heard", wide=True),
    Column(title="reason", field="reason", wide=True),
)


def _site_rows(view: FleetView) -> List:
    live = {one.site_id: one for one in view.sites}
    rows = [_site_row(view, site, live.get(site.site_id)) for site in view.problem.fleet.sites]
    return rows, SITE_COLUMNS


def _site_row(view: FleetView, site: Site, live: SiteView | None) -> Row:
    pools = [f"{p.count}×{p.accelerator}" for p in site.pools]
    budget_w = at_period(site.power_budget_w, view.problem.period)
    row: Row = {
        "name": site.site_id,
        "country": site.country,
        "budget": power(budget_w),
        "budget_w": budget_w,
        "accelerators": " ".join(pools),
        "tags": list(site.residency_tags),
        "legal_entity": site.legal_entity,
    }
    if live is None:
        return row
    # what an unreachable site was last seen doing says nothing of what it does
    seen = live.observation if live.state is not ConnectionState.UNREACHABLE else None
    groups = live.assignment.groups if live.assignment else ()
    return {
        **row,
        "state": _state(live),
        "ready": sum(r.state is ReplicaState.READY for r in seen.replicas) if seen else None,
        "wanted": sum(g.replicas for g in groups),
        "draw": power(seen.draw_w) if seen else None,
        "draw_w": seen.draw_w if seen else None,
        "applied": f"{live.applied_epoch}.{live.applied_version}",
        "heard": show_time(live.heard_at_ms) if live.heard_at_ms else None,
        "reason": live.reason,
    }


def _state(live: SiteView) -> str:
    marks = [("lost", live.lost), ("drained", live.drained), ("cordoned", live.cordoned)]
    return ",".join([live.state.value, *(name for name, holds in marks if holds)])


def _model_rows(view: FleetView) -> List:
    running: dict[str, int] = {}
    for group in view.plan.groups if view.plan else ():
        variant = group.group.variant_id
        running[variant] = running.get(variant, 0) + group.replicas
    models = {m.model_id: m for m in view.problem.catalog.models}
    points = view.problem.catalog.serving_points
    rows = [
        {
            "name": v.variant_id,
            "model": v.model_id,
            "precision": v.precision,
            "parameters_b": models[v.model_id].parameters_b,
            "quality": v.quality,
            "weights_mib": v.weights_mib,
            "accelerators": sorted({p.accelerator for p in points if p.variant_id == v.variant_id}),
            "replicas": running.get(v.variant_id, 0),
            "artifact": v.artifact,
            "license": models[v.model_id].license,
        }
        for v in view.problem.catalog.variants
    ]
    return rows, (
        Column(title="variant", field="name"),
        Column(title="model", field="model"),
        Column(title="precision", field="precision"),
        Column(title="params B", field="parameters_b", number=True),
        Column(title="quality", field="quality", number=True),
        Column(title="weights MiB", field="weights_mib", number=True),
        Column(title="runs on", field="accelerators"),
        Column(title="replicas", field="replicas", number=True),
        Column(title="license", field="license", wide=True),
        Column(title="artifact", field="artifact", wide=True),
    )


def _service_rows(view: FleetView) -> List:
    problem = view.problem
    rows = []
    for service in problem.services:
        classes = [c for c in problem.classes if c.service_id == service.service_id]
        rates = [problem.rate_rps(c) for c in classes]
        tokens = [problem.rate_rps(c) * c.output_tokens for c in classes]
        rows.append(
            {
                "name": service.service_id,
                "variants": list(service.variant_ids),
                "classes": len(classes),
                "tenants": len({c.tenant_id for c in classes}),
                "rate_rps": sum(rates),
                "tok_s": sum(tokens),
            }
        )
    return rows, (
        Column(title="service", field="name"),
        Column(title="variants", field="variants"),
        Column(title="classes", field="classes", number=True),
        Column(title="tenants", field="tenants", number=True),
        Column(title="req/s", field="rate_rps", number=True),
        Column(title="tok/s", field="tok_s", number=True),
    )


def _route_rows(view: FleetView) -> List:
    """Routes as assigned, one row per ingress site and key."""
    rows = [
        {
            "name": f"{live.site_id}:{route.key.route_id}",
            "ingress": live.site_id,
            "service": route.key.service_id,
            "tenant": route.key.tenant_id,
            "policy": route.key.residency_policy_id,
            "decision": route.decision.value,
            "to": [f"{s.site_id} {s.basis_points / 100:g}%" for s in route.shares],
            "backups": [s.site_id for s in route.backups],
            "shed_percent": route.shed_basis_points / 100,
            "reason": route.reason,
        }
        for live in view.sites
        for route in (live.assignment.routes if live.assignment else ())
    ]
    return rows, (
        Column(title="ingress", field="ingress"),
        Column(title="service", field="service"),
        Column(title="tenant", field="tenant"),
        Column(title="policy", field="policy"),
        Column(title="decision", field="decision"),
        Column(title="to", field="to"),
        Column(title="backups", field="backups", wide=True),
        Column(title="shed %", field="shed_percent", number=True, wide=True),
        Column(title="reason", field="reason", wide=True),
    )


def _tenant_rows(view: FleetView) -> List:
    rows = []
    for tenant in view.problem.tenants:
        policy = view.problem.residency(tenant.residency_policy_id)
        lawful = policy.processing_countries
        rows.append(
            {
                "name": tenant.tenant_id,
                "policy": tenant.residency_policy_id,
                "where": "anywhere" if lawful is None else _countries(lawful),
                "processing": "any" if lawful is None else list(lawful),
                "required_tags": list(policy.required_tags),
                "purpose": tenant.purpose,
                "data_category": tenant.data_category,
            }
        )
    return rows, (
        Column(title="tenant", field="name"),
        Column(title="policy", field="policy"),
        Column(title="processing in", field="where"),
        Column(title="countries", field="processing", wide=True),
        Column(title="tags", field="required_tags"),
        Column(title="purpose", field="purpose", wide=True),
        Column(title="data", field="data_category", wide=True),
    )


def _countries(codes: tuple[str, ...]) -> str:
    return ",".join(codes) if len(codes) <= 4 else f"{len(codes)} countries"


def _plan_rows(view: FleetView) -> List:
    """The plan in force; earlier ones are in `rollout history` and in the ledger."""
    rows: list[Row] = []
    if view.plan is not None:
        plan = view.plan
        rows.append(
            {
                "name": plan.plan_digest.removeprefix("sha256:")[:12],
                "rank": f"{view.epoch}.{view.version}",
                "because": view.plan_reason,
                "replicas": sum(g.replicas for g in plan.groups),
                "sites": len({g.group.site_id for g in plan.groups}),
                "cost_usd_per_h": plan.cost.total_usd_per_h,
                "gap_percent": plan.gap * 100,
                "shed_classes": len(plan.shed),
                "state_serial": view.state_serial,
            }
        )
    return rows, (
        Column(title="plan", field="name"),
        Column(title="rank", field="rank"),
        Column(title="because", field="because"),
        Column(title="replicas", field="replicas", number=True),
        Column(title="sites", field="sites", number=True),
        Column(title="$/h", field="cost_usd_per_h", number=True),
        Column(title="gap %", field="gap_percent", number=True),
        Column(title="shedding", field="shed_classes", number=True),
        Column(title="serial", field="state_serial", number=True),
    )


LISTS: dict[str, Callable[[FleetView], List]] = {
    "sites": _site_rows,
    "models": _model_rows,
    "services": _service_rows,
    "routes": _route_rows,
    "tenants": _tenant_rows,
    "plans": _plan_rows,
}


def details(view: FleetView, *, kind: str, name: str) -> Row | None:
    """Everything known of one item, or None."""
    row = next((one for one in LISTS[kind](view)[0] if one["name"] == name), None)
    if row is None:
        return None
    return {**row, **_MORE.get(kind, _nothing)(view, name)}


def _nothing(_: FleetView, __: str) -> Row:
    return {}


def _site_more(view: FleetView, name: str) -> Row:
    live = next((one for one in view.sites if one.site_id == name), None)
    more: Row = {"site": to_plain(view.problem.fleet.site(name))}
    if live is not None and live.observation is not None:
        more["observed"] = to_plain(live.observation)
    if live is not None and live.assignment is not None:
        groups = [(g.group.group_id, g.replicas) for g in live.assignment.groups]
        more["desired"] = [{"group": group, "replicas": n} for group, n in groups]
    return more


def _model_more(view: FleetView, name: str) -> Row:
    catalog = view.problem.catalog
    variant = catalog.variant(name)
    return {
        "variant": to_plain(variant),
        "published": to_plain(next(m for m in catalog.models if m.model_id == variant.model_id)),
        "serving_points": [to_plain(p) for p in catalog.serving_points if p.variant_id == name],
    }


def _service_more(view: FleetView, name: str) -> Row:
    return {"classes": [to_plain(c) for c in view.problem.classes if c.service_id == name]}


def _tenant_more(view: FleetView, name: str) -> Row:
    tenant = next(t for t in view.problem.tenants if t.tenant_id == name)
    policy = view.problem.residency(tenant.residency_policy_id)
    return {"described": to_plain(tenant), "residency": to_plain(policy)}


def _plan_more(view: FleetView, name: str) -> Row:
    return {"plan": to_plain(view.plan)} if view.plan else {}


_MORE: dict[str, Callable[[FleetView, str], Row]] = {
    "sites": _site_more,
    "models": _model_more,
    "services": _service_more,
    "tenants": _tenant_more,
    "plans": _plan_more,
}
