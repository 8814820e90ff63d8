"""Which request goes where: the client listener's and the peer listener's route tables.

Decides by tenant (from the API key), model (from the body) and residency policy; everything that
matches nothing is refused, never passed on. Addresses and weights are `clusters`' business.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from agents.gateway import headers
from agents.gateway.clusters import sites_cluster_name
from agents.gateway.endpoints import METADATA
from agents.gateway.errors import (
    BAD_JSON,
    LAXER_RESIDENCY,
    MISSING_MODEL,
    RETRY_HEADER,
    UNKNOWN_PATH,
    UNKNOWN_TENANT,
    Refusal,
    direct_response,
    not_ready,
    shed,
    unknown_model,
    unlawful,
)
from agents.gateway.facts import GatewayTuning
from agents.gateway.matchers import (
    body_match,
    exact,
    not_among,
    residency_headers,
    set_header,
    tenant_header,
)
from agents.gateway.replica_clusters import (
    Ready,
    group_cluster_name,
    split_cluster_name,
    usable_groups,
)
from sites.assignment import (
    Route,
    RouteDecision,
    RouteKey,
    SiteAssignment,
    SiteShare,
    TenantBinding,
)
from sites.residency import ResidencyPolicy, is_at_least_as_strict, may_process

CLIENT_ROUTES = "routes_client"
PEER_ROUTES = "routes_peer"

SERVE_PREFIX = "serve:"
SHED_PREFIX = "shed:"
UNLAWFUL_PREFIX = "unlawful:"
NOT_READY_PREFIX = "not_ready:"
KEY_PREFIXES = (SERVE_PREFIX, SHED_PREFIX, UNLAWFUL_PREFIX, NOT_READY_PREFIX)
"""How names of routes of a route key begin; its route_id follows."""

_API_PATHS = r"/v1/(chat/completions|completions|embeddings|responses)(\?.*)?"
_BODY_MAX = 1024 * 1024


def render_client_routes(assignment: SiteAssignment, *, tuning: GatewayTuning) -> dict[str, Any]:
    """The client listener's table: refusals of form first, then tenant by tenant."""
    tenants = sorted(assignment.tenants, key=lambda t: t.tenant_id)
    services = _services_by_tenant(assignment)
    known = {r.key: r for r in assignment.routes}
    table: list[dict[str, Any]] = [_answer("health", {"path": "/healthz"}, status=200)]
    for tenant in tenants:
        table += _model_lists(tenant, services.get(tenant.tenant_id, ()))
    table.append(
        _refuse(
            "unknown_path",
            {
                "prefix": "/",
                "headers": [
                    {
                        "name": ":path",
                        "string_match": {"safe_regex": {"regex": _API_PATHS}},
                        "invert_match": True,
                    }
                ],
            },
            UNKNOWN_PATH,
        )
    )
    for tenant in tenants:
        asked = services.get(tenant.tenant_id, ())
        table += _tenant_routes(assignment, tenant, asked, known=known, tuning=tuning)
    table.append(_refuse("unknown_tenant", {"prefix": "/"}, UNKNOWN_TENANT))
    return _table(assignment, CLIENT_ROUTES, table, attempts=True)


def render_peer_routes(
    assignment: SiteAssignment, *, ready: Ready, tuning: GatewayTuning
) -> dict[str, Any]:
    """The peer listener's table: trusted headers in, a local replica out, or 451 / 503."""
    policies = {p.policy_id: p for p in assignment.policies}
    table = [_answer("health", {"path": "/healthz"}, status=200)]
    for route in sorted(assignment.routes, key=lambda r: r.key):
        table.append(_peer_route(assignment, route, policies=policies, ready=ready, tuning=tuning))
    unknown = unlawful(reason="unknown to the serving site")
    table.append(_refuse("unknown_key", {"prefix": "/"}, unknown, elsewhere=True))
    return {
        **_table(assignment, PEER_ROUTES, table, attempts=False),
        "response_headers_to_add": [
            set_header(headers.SITE, assignment.site_id),
            set_header(headers.VARIANT, f'%UPSTREAM_METADATA(["{METADATA}", "variant"])%'),
        ],
    }


def stricter_policies(
    assignment: SiteAssignment, tenant: TenantBinding
) -> tuple[ResidencyPolicy, ...]:
    """Policies a tenant's request may name: its own and every one at least as strict."""
    known = {p.policy_id: p for p in assignment.policies}
    own = known.get(tenant.residency_policy_id)
    if own is None:
        return ()
    return tuple(p for _, p in sorted(known.items()) if is_at_least_as_strict(p, own))


def _tenant_routes(
    assignment: SiteAssignment,
    tenant: TenantBinding,
    services: tuple[str, ...],
    *,
    known: Mapping[RouteKey, Route],
    tuning: GatewayTuning,
) -> Iterable[dict[str, Any]]:
    name = tenant.tenant_id
    allowed = [p.policy_id for p in stricter_policies(assignment, tenant)]
    own = tenant_header(tenant)
    yield _refuse(f"{name}:bad_json", body_match(own, fault="bad_json"), BAD_JSON)
    yield _refuse(f"{name}:missing_model", body_match(own, fault="missing_model"), MISSING_MODEL)
    yield _refuse(f"{name}:no_body", body_match(own, no_model=True), BAD_JSON)
    for policy_id in allowed:
        for service_id in services:
            key = RouteKey(service_id=service_id, tenant_id=name, residency_policy_id=policy_id)
            # A key nobody planned for has no lawful site that we know of: refused, not guessed.
            route = known.get(key) or Route(key=key, decision=RouteDecision.UNLAWFUL)
            for residency in residency_headers(tenant, policy_id):
                match = body_match([*own, residency], model=service_id)
                yield from _key_routes(assignment, route, match, tuning=tuning)
    yield _refuse(f"{name}:laxer", body_match([*own, *not_among(allowed)]), LAXER_RESIDENCY)
    yield _refuse(f"{name}:unknown_model", body_match(own), unknown_model(services))


def _services_by_tenant(assignment: SiteAssignment) -> dict[str, tuple[str, ...]]:
    """Services each tenant may ask for: those any route of its own names."""
    named: dict[str, set[str]] = {}
    for route in assignment.routes:
        named.setdefault(route.key.tenant_id, set()).add(route.key.service_id)
    return {tenant_id: tuple(sorted(services)) for tenant_id, services in named.items()}


def _key_routes(
    assignment: SiteAssignment, route: Route, match: dict[str, Any], *, tuning: GatewayTuning
) -> Iterable[dict[str, Any]]:
    name = route.key.route_id
    if route.decision is RouteDecision.UNLAWFUL:
        yield _refuse(f"{UNLAWFUL_PREFIX}{name}", match, unlawful(reason=route.reason), route=route)
        return
    refusal = shed(retry_after_s=tuning.retry_after_s)
    if route.decision is RouteDecision.SHED:
        yield _refuse(f"{SHED_PREFIX}{name}", match, refusal, route=route)
        return
    if route.shed_basis_points:
        part = {"numerator": route.shed_basis_points, "denominator": "TEN_THOUSAND"}
        some = {**match, "runtime_fraction": {"default_value": part}}
        yield _refuse(f"{SHED_PREFIX}{name}", some, refusal, route=route)
    yield _serving_route(assignment, route, match, tuning=tuning)


def _serving_route(
    assignment: SiteAssignment, route: Route, match: dict[str, Any], *, tuning: GatewayTuning
) -> dict[str, Any]:
    crossed = {s.site_id: s.transit_countries for s in (*route.shares, *route.backups)}
    key = route.key
    return {
        "name": f"{SERVE_PREFIX}{key.route_id}",
        "match": match,
        "metadata": _key_metadata(key),
        "request_headers_to_add": [
            set_header(headers.SERVICE, key.service_id),
            set_header(headers.POLICY, key.residency_policy_id),
            set_header(headers.INGRESS, assignment.site_id),
            set_header(headers.TRANSIT, headers.transit_text(crossed)),
        ],
        "request_headers_to_remove": [headers.RESIDENCY, "x-forwarded-for"],
        "response_headers_to_remove": [RETRY_HEADER],
        "route": {
            "cluster": sites_cluster_name(route),
            "timeout": "0s",
            "idle_timeout": f"{tuning.idle_timeout_ms / 1000:g}s",
            "retry_policy": _retry_policy(
                [s for s in route.shares if s.basis_points], route.backups, tuning=tuning
            ),
        },
    }


def _retry_policy(
    shares: Sequence[SiteShare], backups: Sequence[SiteShare], *, tuning: GatewayTuning
) -> dict[str, Any]:
    """Other sites only, first among the shares, then the backups. Safe to repeat: inference has
    no effect besides its answer, and nothing is repeated once an answer has begun.
    """
    policy: dict[str, Any] = {
        "retry_on": "connect-failure,refused-stream,reset,gateway-error,retriable-headers",
        "retriable_headers": [{"name": RETRY_HEADER, "present_match": True}],
        "num_retries": tuning.retries,
        "per_try_idle_timeout": f"{tuning.idle_timeout_ms / 1000:g}s",
        "retry_host_predicate": [
            {
                "name": "envoy.retry_host_predicates.previous_hosts",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3."
                    "PreviousHostsPredicate"
                },
            }
        ],
        "host_selection_retry_max_attempts": 20,
        "retry_back_off": {"base_interval": "0.002s", "max_interval": "0.02s"},
    }
    if backups:
        policy["retry_priority"] = {
            "name": "envoy.retry_priorities.previous_priorities",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.retry.priority."
                "previous_priorities.v3.PreviousPrioritiesConfig",
                "update_frequency": max(1, min(len(shares), tuning.retries)),
            },
        }
    return policy


def _peer_route(
    assignment: SiteAssignment,
    route: Route,
    *,
    policies: dict[str, ResidencyPolicy],
    ready: Ready,
    tuning: GatewayTuning,
) -> dict[str, Any]:
    key = route.key
    match = {
        "prefix": "/v1/",
        "headers": [
            exact(headers.SERVICE, key.service_id),
            exact(headers.TENANT, key.tenant_id),
            exact(headers.POLICY, key.residency_policy_id),
        ],
    }
    policy = policies.get(key.residency_policy_id)
    lawful = policy is not None and may_process(
        policy, country=assignment.country, tags=assignment.residency_tags
    )
    if not lawful:
        refusal = unlawful(reason="the serving site may not process it")
        return _refuse(
            f"{UNLAWFUL_PREFIX}{key.route_id}", match, refusal, route=route, elsewhere=True
        )
    usable = usable_groups(route, ready)
    if not usable:
        refusal = not_ready(retry_after_s=tuning.retry_after_s)
        return _refuse(f"{NOT_READY_PREFIX}{key.route_id}", match, refusal, route=route)
    alone = len(usable) == 1
    cluster = group_cluster_name(usable[0].group_id) if alone else split_cluster_name(route)
    return {
        "name": f"{SERVE_PREFIX}{key.route_id}",
        "match": match,
        "metadata": _key_metadata(key),
        "request_headers_to_remove": [*headers.INTERNAL, headers.IDEMPOTENCY, "x-forwarded-for"],
        "route": {
            "cluster": cluster,
            "timeout": "0s",
            "idle_timeout": f"{tuning.idle_timeout_ms / 1000:g}s",
        },
    }


def _model_lists(tenant: TenantBinding, services: tuple[str, ...]) -> Iterable[dict[str, Any]]:
    models = [
        {"id": s, "object": "model", "created": 0, "owned_by": "hinterland"} for s in services
    ]
    own = tenant_header(tenant)
    listing = json.dumps({"object": "list", "data": models})
    where = {"path": "/v1/models", "headers": own}
    yield _answer(f"{tenant.tenant_id}:models", where, status=200, body=listing)
    for service_id, model in zip(services, models, strict=True):
        where = {"path": f"/v1/models/{service_id}", "headers": own}
        name = f"{tenant.tenant_id}:model:{service_id}"
        yield _answer(name, where, status=200, body=json.dumps(model))
    where = {"prefix": "/v1/models/", "headers": own}
    yield _refuse(f"{tenant.tenant_id}:no_such_model", where, unknown_model(services))


def _refuse(
    name: str,
    match: dict[str, Any],
    refusal: Refusal,
    *,
    route: Route | None = None,
    elsewhere: bool = False,
) -> dict[str, Any]:
    answer = direct_response(refusal)
    if elsewhere and not refusal.elsewhere:
        answer["response_headers_to_add"] = [
            *answer["response_headers_to_add"],
            set_header(RETRY_HEADER, "1"),
        ]
    metadata = {"metadata": _key_metadata(route.key)} if route else {}
    return {"name": name, "match": match, **metadata, **answer}


def _answer(name: str, match: dict[str, Any], *, status: int, body: str = "{}") -> dict[str, Any]:
    return {
        "name": name,
        "match": match,
        "direct_response": {"status": status, "body": {"inline_string": body}},
        "response_headers_to_add": [set_header("content-type", "application/json")],
    }


def _key_metadata(key: RouteKey) -> dict[str, Any]:
    fields = {
        "service": key.service_id,
        "tenant": key.tenant_id,
        "policy": key.residency_policy_id,
    }
    return {"filter_metadata": {METADATA: fields}}


def _table(
    assignment: SiteAssignment, name: str, routes: list[dict[str, Any]], *, attempts: bool
) -> dict[str, Any]:
    # On every route, so that a log line names the plan its request was really handled under.
    in_force = {
        "epoch": str(assignment.epoch),
        "version": str(assignment.version),
        "plan_digest": assignment.plan_digest,
        "policy_digest": assignment.policy_digest,
    }
    for route in routes:
        known = route.get("metadata", {}).get("filter_metadata", {}).get(METADATA, {})
        route["metadata"] = {"filter_metadata": {METADATA: {**known, **in_force}}}
    return {
        "@type": "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
        "name": name,
        "max_direct_response_body_size_bytes": _BODY_MAX,
        "virtual_hosts": [
            {
                "name": name,
                "domains": ["*"],
                "include_request_attempt_count": attempts,
                "include_attempt_count_in_response": attempts,
                "routes": routes,
            }
        ],
    }
