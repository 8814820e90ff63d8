"""Where a gateway may send: clusters over the serving sites of the routes.

Exact shares come from weighted round robin over one endpoint per site; backups are the next
priority. Decides weights, probes, ejection and retry budgets, and that tenants whose requests for
one service under one policy are shared out alike share a cluster: each host of each cluster costs
a probed connection (200 sites, 15 tenants: 21 000 with a cluster per route, 1 700 so). Local
replicas are `replica_clusters`' business; which request goes to which cluster is decided in
`routes`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from agents.credentials import gateway_identity
from agents.gateway.endpoints import (
    BALANCING,
    HTTP_OPTIONS,
    METADATA,
    PERCENT_ALL,
    discovery,
    limits,
    seconds,
    socket_address,
)
from agents.gateway.facts import GatewayTuning
from agents.gateway.replica_clusters import Ready, render_replica_clusters
from sites.assignment import Route, RouteDecision, SiteAssignment, SiteShare
from sites.units import MS_PER_S

PROBE_PREFIX = "peer|"
OWN_SECRET = "secret_own"
"""The gateway's own certificate and key; names both the secret and its file."""

TRUST_SECRET = "secret_trust"

_NAME_DIGITS = 16
_PROBE_HOST = "gateway.hinterland.internal"  # a cluster's name is no valid host name


def sites_cluster_name(route: Route) -> str:
    """Cluster of the sites that answer a route, named by what they answer and how they share it."""
    levels = [[(s.site_id, s.basis_points) for s in level] for level in _levels(route)]
    shared = hashlib.sha256(json.dumps(levels).encode()).hexdigest()[:_NAME_DIGITS]
    return f"sites|{route.key.service_id}|{route.key.residency_policy_id}|{shared}"


def _levels(route: Route) -> list[tuple[SiteShare, ...]]:
    """Sites by priority: those with a share, then the backups if there are any."""
    in_use = tuple(s for s in route.shares if s.basis_points)
    return [in_use, route.backups] if route.backups else [in_use]


def probe_cluster_name(site_id: str) -> str:
    """Cluster that only asks whether another site's gateway is alive."""
    return f"{PROBE_PREFIX}{site_id}"


def render_clusters(
    assignment: SiteAssignment, *, ready: Ready, tuning: GatewayTuning
) -> tuple[dict[str, Any], ...]:
    """Every cluster the assignment's routes need, by name."""
    routes = sorted(assignment.routes, key=lambda r: r.key)
    served = {
        sites_cluster_name(r): r for r in routes if r.decision is RouteDecision.SERVE
    }.values()
    addresses = site_addresses(assignment)
    interval_ms = _paced_interval_ms(assignment, served, tuning=tuning)
    clusters = [
        _sites_cluster(assignment, route, addresses, interval_ms=interval_ms, tuning=tuning)
        for route in served
    ]
    clusters += [
        _probe_cluster(assignment, peer.site_id, address=addresses[peer.site_id], tuning=tuning)
        for peer in assignment.peers
        if peer.site_id != assignment.site_id
    ]
    clusters += render_replica_clusters(assignment, ready=ready)
    return tuple(sorted(clusters, key=lambda c: str(c["name"])))


def _paced_interval_ms(
    assignment: SiteAssignment, served: Iterable[Route], *, tuning: GatewayTuning
) -> int:
    """Probe pace at which all route clusters together stay within the budget of probes."""
    remote = sum(
        1 for r in served for s in (*r.shares, *r.backups) if s.site_id != assignment.site_id
    )
    return max(tuning.health_interval_ms, remote * MS_PER_S // tuning.health_checks_per_s)


def _sites_cluster(
    assignment: SiteAssignment,
    route: Route,
    addresses: Mapping[str, str],
    *,
    interval_ms: int,
    tuning: GatewayTuning,
) -> dict[str, Any]:
    levels = _levels(route)
    localities = [
        {
            "priority": priority,
            "lb_endpoints": [
                _site_endpoint(assignment, share, address=addresses[share.site_id])
                for share in shares
            ],
        }
        for priority, shares in enumerate(levels)
    ]
    name = sites_cluster_name(route)
    hosts = [addresses[s.site_id] for shares in levels for s in shares]
    return {
        **_peer_base(assignment, name, hosts, localities, tuning=tuning),
        "lb_policy": "ROUND_ROBIN",
        "health_checks": [_health_check(interval_ms, tuning)],
        "close_connections_on_host_health_failure": True,
        "outlier_detection": _ejection(tuning),
        "circuit_breakers": limits(
            retry_budget={
                "budget_percent": {"value": tuning.retry_budget_percent},
                "min_retry_concurrency": tuning.retry_burst,
            }
        ),
    }


def _probe_cluster(
    assignment: SiteAssignment, site_id: str, *, address: str, tuning: GatewayTuning
) -> dict[str, Any]:
    share = SiteShare(site_id=site_id, basis_points=1)
    localities = [{"lb_endpoints": [_site_endpoint(assignment, share, address=address)]}]
    name = probe_cluster_name(site_id)
    return {
        **_peer_base(assignment, name, [address], localities, tuning=tuning),
        "health_checks": [_health_check(tuning.health_interval_ms, tuning)],
    }


def site_addresses(assignment: SiteAssignment) -> dict[str, str]:
    """Peer address (``host:port``) of every site a route may name, this one included."""
    addresses = {p.site_id: p.peer_address for p in assignment.peers}
    return {**addresses, assignment.site_id: assignment.gateway.peer_address}


def _peer_base(
    assignment: SiteAssignment,
    name: str,
    hosts: Sequence[str],
    localities: Sequence[Mapping[str, Any]],
    *,
    tuning: GatewayTuning,
) -> dict[str, Any]:
    """mTLS HTTP/2 towards gateways; each site's certificate must be that very site's."""
    site_ids = sorted(
        {
            e["metadata"]["filter_metadata"][METADATA]["site"]
            for x in localities
            for e in x["lb_endpoints"]
        }
    )
    return {
        "name": name,
        "type": discovery(hosts),
        "connect_timeout": seconds(tuning.connect_timeout_ms),
        "load_assignment": {"cluster_name": name, "endpoints": list(localities)},
        "common_lb_config": dict(BALANCING),
        "typed_extension_protocol_options": {
            HTTP_OPTIONS: {
                "@type": f"type.googleapis.com/{HTTP_OPTIONS}",
                "explicit_http_config": {
                    "http2_protocol_options": {
                        "connection_keepalive": {
                            "interval": seconds(tuning.ping_interval_ms),
                            "timeout": seconds(tuning.ping_timeout_ms),
                        }
                    }
                },
            }
        },
        "transport_socket_matches": [
            {
                "name": site_id,
                "match": {"site": site_id},
                "transport_socket": peer_transport(site_id),
            }
            for site_id in site_ids
        ],
    }


def peer_transport(site_id: str) -> dict[str, Any]:
    """Client side of a site-to-site hop: own gateway certificate, that site's identity wanted."""
    return {
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3."
            "UpstreamTlsContext",
            "common_tls_context": tls_context(exact_identity=gateway_identity(site_id)),
        },
    }


def tls_context(*, exact_identity: str = "", identity_prefix: str = "") -> dict[str, Any]:
    """Own certificate and the wanted SPIFFE identity of the other end; keys come from files."""
    matcher = {"exact": exact_identity} if exact_identity else {"prefix": identity_prefix}
    return {
        "tls_params": {
            "tls_minimum_protocol_version": "TLSv1_3",
            "tls_maximum_protocol_version": "TLSv1_3",  # Envoy's clients stop at 1.2 otherwise
        },
        "alpn_protocols": ["h2"],
        "tls_certificate_sds_secret_configs": [_secret(OWN_SECRET)],
        "combined_validation_context": {
            "default_validation_context": {
                "match_typed_subject_alt_names": [{"san_type": "URI", "matcher": matcher}]
            },
            "validation_context_sds_secret_config": _secret(TRUST_SECRET),
        },
    }


def _secret(name: str) -> dict[str, Any]:
    # The path is filled in by `config`, which alone knows where files lie.
    source = {"path_config_source": {"path": name}, "resource_api_version": "V3"}
    return {"name": name, "sds_config": source}


def _site_endpoint(assignment: SiteAssignment, share: SiteShare, *, address: str) -> dict[str, Any]:
    own = share.site_id == assignment.site_id
    # Were this Envoy dead, nobody would be asking: its own listener needs no probe.
    probe = {"health_check_config": {"disable_active_health_check": True}} if own else {}
    return {
        "endpoint": {"address": socket_address(address), **probe},
        "load_balancing_weight": max(1, share.basis_points),
        "metadata": {
            "filter_metadata": {
                METADATA: {"site": share.site_id},
                "envoy.transport_socket_match": {"site": share.site_id},
            }
        },
    }


def _health_check(interval_ms: int, tuning: GatewayTuning) -> dict[str, Any]:
    every = seconds(interval_ms)
    return {
        "timeout": seconds(tuning.health_timeout_ms),
        "interval": every,
        "no_traffic_interval": every,
        "no_traffic_healthy_interval": every,
        "unhealthy_interval": every,
        "unhealthy_edge_interval": every,
        "healthy_edge_interval": every,
        "interval_jitter_percent": 10,
        "unhealthy_threshold": tuning.unhealthy_after,
        "healthy_threshold": 1,
        "http_health_check": {
            "host": _PROBE_HOST,
            "path": "/healthz",
            "codec_client_type": "HTTP2",
        },
    }


def _ejection(tuning: GatewayTuning) -> dict[str, Any]:
    """Ejects a site on what real requests met there; a good probe alone does not bring it back."""
    return {
        "split_external_local_origin_errors": True,
        "consecutive_local_origin_failure": 2,
        "enforcing_consecutive_local_origin_failure": PERCENT_ALL,
        "consecutive_gateway_failure": 3,
        "enforcing_consecutive_gateway_failure": PERCENT_ALL,
        "enforcing_consecutive_5xx": 0,
        "enforcing_success_rate": 0,
        "enforcing_local_origin_success_rate": 0,
        "interval": seconds(max(50, tuning.ejection_ms // 5)),
        "base_ejection_time": seconds(tuning.ejection_ms),
        "max_ejection_time": seconds(tuning.ejection_ms * 10),
        "max_ejection_percent": PERCENT_ALL,
        "successful_active_health_check_uneject_host": False,
    }
