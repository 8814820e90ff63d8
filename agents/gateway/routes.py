"""Which request goes where: the client listener's and the peer listener's route tables.

Decides by tenant (from the API key), model (from the body) and residency policy; everything that
matches nothing is refused, never passed on. Addresses and weights are `clusters`' business.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

from agents.gateway import headers
from agents.gateway.clusters import (
    METADATA,
    Ready,
    group_cluster_name,
    sites_cluster_name,
    split_cluster_name,
    usable_groups,
)
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

_API_PATHS = r"/v1/(chat/completions|completions|embeddings|responses)(\?.*)?"
_BODY_MAX = 1024 * 1024


def render_client_routes(assignment: SiteAssignment, *, tuning: GatewayTuning) -> dict[str, Any]:
    """The client listener's table: refusals of form first, then tenant by tenant."""
    tenants = sorted(assignment.tenants, key=lambda t: t.tenant_id)
    table: list[dict[str, Any]] = [_answer("health", {"path": "/healthz"}, status=200)]
    for tenant in tenants:
        table += _model_lists(assignment, tenant)
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
        table += _tenant_routes(assignment, tenant, tuning=tuning)
    table.append(_refuse("unknown_tenant", {"prefix": "/"}, UNKNOWN_TENANT))
    return _table(CLIENT_ROUTES, table, attempts=True)


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
        **_table(PEER_ROUTES, table, attempts=False),
        "response_headers_to_add": [
            _set(headers.SITE, assignment.site_id),
            _set(headers.VARIANT, f'%UPSTREAM_METADATA(["{METADATA}", "variant"])%'),
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
    assignment: SiteAssignment, tenant: TenantBinding, *, tuning: GatewayTuning
) -> Iterable[dict[str, Any]]:
    name = tenant.tenant_id
    known = {r.key: r for r in assignment.routes}
    allowed = [p.policy_id for p in stricter_policies(assignment, tenant)]
    own = _tenant_header(tenant)
    yield _refuse(f"{name}:bad_json", _where(own, fault="bad_json"), BAD_JSON)
    yield _refuse(f"{name}:missing_model", _where(own, fault="missing_model"), MISSING_MODEL)
    yield _refuse(f"{name}:no_body", _where(own, no_model=True), BAD_JSON)
    for policy_id in allowed:
        for service_id in tenant_services(assignment, tenant):
            key = RouteKey(service_id=service_id, tenant_id=name, residency_policy_id=policy_id)
            # A key nobody planned for has no lawful site that we know of: refused, not guessed.
            route = known.get(key) or Route(key=key, decision=RouteDecision.UNLAWFUL)
            for residency in _residency_headers(tenant, policy_id):
                match = _where([*own, residency], model=service_id)
                yield from _key_routes(assignment, route, match, tuning=tuning)
    yield _refuse(f"{name}:laxer", _where([*own, *_not_among(allowed)]), LAXER_RESIDENCY)
    services = tenant_services(assignment, tenant)
    yield _refuse(f"{name}:unknown_model", _where(own), unknown_model(services))


def tenant_services(assignment: SiteAssignment, tenant: TenantBinding) -> tuple[str, ...]:
    """Services the tenant may ask for: those any route of its own names."""
    return tuple(
        sorted({r.key.service_id for r in assignment.routes if r.key.tenant_id == tenant.tenant_id})
    )


def _key_routes(
    assignment: SiteAssignment, route: Route, match: dict[str, Any], *, tuning: GatewayTuning
) -> Iterable[dict[str, Any]]:
    name = route.key.route_id
    if route.decision is RouteDecision.UNLAWFUL:
        yield _refuse(f"unlawful:{name}", match, unlawful(reason=route.reason), route=route)
        return
    refusal = shed(retry_after_s=tuning.retry_after_s)
    if route.decision is RouteDecision.SHED:
        yield _refuse(f"shed:{name}", match, refusal, route=route)
        return
    if route.shed_basis_points:
        part = {"numerator": route.shed_basis_points, "denominator": "TEN_THOUSAND"}
        some = {**match, "runtime_fraction": {"default_value": part}}
        yield _refuse(f"shed:{name}", some, refusal, route=route)
    yield _serving_route(assignment, route, match, tuning=tuning)


def _serving_route(
    assignment: SiteAssignment, route: Route, match: dict[str, Any], *, tuning: GatewayTuning
) -> dict[str, Any]:
    crossed = {s.site_id: s.transit_countries for s in (*route.shares, *route.backups)}
    key = route.key
    return {
        "name": f"serve:{key.route_id}",
        "match": match,
        "metadata": _key_metadata(key),
        "request_headers_to_add": [
            _set(headers.SERVICE, key.service_id),
            _set(headers.POLICY, key.residency_policy_id),
            _set(headers.INGRESS, assignment.site_id),
            _set(headers.TRANSIT, headers.transit_text(crossed)),
        ],
        "request_headers_to_remove": [headers.RESIDENCY],
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
            _exact(headers.SERVICE, key.service_id),
            _exact(headers.TENANT, key.tenant_id),
            _exact(headers.POLICY, key.residency_policy_id),
        ],
    }
    policy = policies.get(key.residency_policy_id)
    lawful = policy is not None and may_process(
        policy, country=assignment.country, tags=assignment.residency_tags
    )
    if not lawful:
        refusal = unlawful(reason="the serving site may not process it")
        return _refuse(f"unlawful:{key.route_id}", match, refusal, route=route, elsewhere=True)
    usable = usable_groups(route, ready)
    if not usable:
        refusal = not_ready(retry_after_s=tuning.retry_after_s)
        return _refuse(f"not_ready:{key.route_id}", match, refusal, route=route)
    alone = len(usable) == 1
    cluster = group_cluster_name(usable[0].group_id) if alone else split_cluster_name(route)
    return {
        "name": f"serve:{key.route_id}",
        "match": match,
        "metadata": _key_metadata(key),
        "request_headers_to_remove": [*headers.INTERNAL, headers.IDEMPOTENCY, "x-forwarded-for"],
        "route": {
            "cluster": cluster,
            "timeout": "0s",
            "idle_timeout": f"{tuning.idle_timeout_ms / 1000:g}s",
        },
    }


def _model_lists(assignment: SiteAssignment, tenant: TenantBinding) -> Iterable[dict[str, Any]]:
    services = tenant_services(assignment, tenant)
    models = [
        {"id": s, "object": "model", "created": 0, "owned_by": "hinterland"} for s in services
    ]
    own = _tenant_header(tenant)
    listing = json.dumps({"object": "list", "data": models})
    where = {"path": "/v1/models", "headers": own}
    yield _answer(f"{tenant.tenant_id}:models", where, status=200, body=listing)
    for service_id, model in zip(services, models, strict=True):
        where = {"path": f"/v1/models/{service_id}", "headers": own}
        name = f"{tenant.tenant_id}:model:{service_id}"
        yield _answer(name, where, status=200, body=json.dumps(model))
    where = {"prefix": "/v1/models/", "headers": own}
    yield _refuse(f"{tenant.tenant_id}:no_such_model", where, unknown_model(services))


def _tenant_header(tenant: TenantBinding) -> list[dict[str, Any]]:
    return [_exact(headers.TENANT, tenant.tenant_id)]


def _residency_headers(tenant: TenantBinding, policy_id: str) -> Iterable[dict[str, Any]]:
    """How a request may ask for a policy: by name, or by silence if it is the tenant's own."""
    yield _exact(headers.RESIDENCY, policy_id)
    if policy_id == tenant.residency_policy_id:
        yield {"name": headers.RESIDENCY, "present_match": True, "invert_match": True}


def _not_among(allowed: Sequence[str]) -> list[dict[str, Any]]:
    present = {"name": headers.RESIDENCY, "present_match": True}
    if not allowed:
        return [present]
    regex = "|".join(re.escape(p) for p in allowed)
    other = {
        "name": headers.RESIDENCY,
        "string_match": {"safe_regex": {"regex": regex}},
        "invert_match": True,
    }
    return [present, other]


def _where(
    wanted: list[dict[str, Any]], *, model: str = "", fault: str = "", no_model: bool = False
) -> dict[str, Any]:
    match: dict[str, Any] = {"prefix": "/v1/", "headers": wanted}
    if model:
        match["dynamic_metadata"] = [_body_field("model", {"string_match": {"exact": model}})]
    if fault:
        match["dynamic_metadata"] = [_body_field("fault", {"string_match": {"exact": fault}})]
    if no_model:
        absent = _body_field("model", {"present_match": True})
        match["dynamic_metadata"] = [{**absent, "invert": True}]
    return match


def _body_field(key: str, value: dict[str, Any]) -> dict[str, Any]:
    return {"filter": METADATA, "path": [{"key": key}], "value": value}


def _exact(name: str, value: str) -> dict[str, Any]:
    return {"name": name, "string_match": {"exact": value}}


def _set(name: str, value: str) -> dict[str, Any]:
    return {
        "header": {"key": name, "value": value},
        "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
    }


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
            _set(RETRY_HEADER, "1"),
        ]
    metadata = {"metadata": _key_metadata(route.key)} if route else {}
    return {"name": name, "match": match, **metadata, **answer}


def _answer(name: str, match: dict[str, Any], *, status: int, body: str = "{}") -> dict[str, Any]:
    return {
        "name": name,
        "match": match,
        "direct_response": {"status": status, "body": {"inline_string": body}},
        "response_headers_to_add": [_set("content-type", "application/json")],
    }


def _key_metadata(key: RouteKey) -> dict[str, Any]:
    fields = {
        "service": key.service_id,
        "tenant": key.tenant_id,
        "policy": key.residency_policy_id,
    }
    return {"filter_metadata": {METADATA: fields}}


def _table(name: str, routes: list[dict[str, Any]], *, attempts: bool) -> dict[str, Any]:
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
