"""An assignment and the ready replicas, rendered into everything an Envoy needs. Pure.

Decides nothing the assignment does not say, and refuses what residency forbids even if it says so:
the gateway is the last to judge before data moves. Writing files and running Envoy is `process`'s.
"""

from __future__ import annotations

from typing import Any

from agents.gateway.clusters import OWN_SECRET, TRUST_SECRET, render_clusters
from agents.gateway.facts import GatewayFiles, GatewayPaths, GatewayTuning
from agents.gateway.listeners import render_listeners
from agents.gateway.replica_clusters import Ready
from agents.gateway.routes import (
    CLIENT_ROUTES,
    PEER_ROUTES,
    render_client_routes,
    render_peer_routes,
)
from agents.trusted_plan import check_ingress
from sites.assignment import SiteAssignment
from sites.errors import RefusedError
from sites.fit import check_fit

CLUSTER_TYPE = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
SECRET_TYPE = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"

_CONNECTIONS_MAX = 50_000
_NEVER_ROUTED = frozenset({"residency", "transit", "unknown_peer", "unknown_policy"})


def render(
    assignment: SiteAssignment,
    *,
    ready: Ready,
    paths: GatewayPaths,
    tuning: GatewayTuning | None = None,
) -> GatewayFiles:
    """Configuration of the site's gateway.

    `ready`: group id -> its replicas that take new requests, as (replica_id, host, port). Raises
    RefusedError if a route breaks its residency policy, names an unknown site or if an address to
    listen on is not one.
    """
    _refuse_unlawful(assignment)
    chosen = tuning or GatewayTuning()
    clusters = render_clusters(assignment, ready=ready, tuning=chosen)
    files = GatewayFiles(
        bootstrap=_bootstrap(assignment, paths),
        secret_own=(_own_secret(paths),),
        secret_trust=(_trust_secret(paths),),
        clusters=tuple({"@type": CLUSTER_TYPE, **c} for c in clusters),
        routes_client=(render_client_routes(assignment, tuning=chosen),),
        routes_peer=(render_peer_routes(assignment, ready=ready, tuning=chosen),),
        listeners=render_listeners(assignment, tuning=chosen),
    )
    return _with_paths(files, paths)


def _refuse_unlawful(assignment: SiteAssignment) -> None:
    found = (*check_fit(assignment), *check_ingress(assignment))
    broken = tuple(v for v in found if v.code in _NEVER_ROUTED)
    if broken:
        raise RefusedError(
            "; ".join(v.message() for v in broken),
            violations=broken,
        )


def _own_secret(paths: GatewayPaths) -> dict[str, Any]:
    held = paths.credentials
    return {
        "@type": SECRET_TYPE,
        "name": OWN_SECRET,
        "tls_certificate": {
            "certificate_chain": {"filename": str(held.gateway_cert)},
            "private_key": {"filename": str(held.gateway_key)},
            "watched_directory": {"path": str(held.folder)},
        },
    }


def _trust_secret(paths: GatewayPaths) -> dict[str, Any]:
    held = paths.credentials
    return {
        "@type": SECRET_TYPE,
        "name": TRUST_SECRET,
        "validation_context": {
            "trusted_ca": {"filename": str(held.ca_cert)},
            "watched_directory": {"path": str(held.folder)},
        },
    }


def _bootstrap(assignment: SiteAssignment, paths: GatewayPaths) -> dict[str, Any]:
    """What never changes while Envoy runs: who it is, where its files lie, its admin port."""
    allowed = ("/ready", "/stats", "/clusters", "/config_dump", "/server_info", "/reopen_logs")
    return {
        "node": {"id": assignment.site_id, "cluster": "hinterland"},
        "admin": {
            "address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}},
            "allow_paths": [{"prefix": p} for p in (*allowed, "/drain_listeners")],
        },
        "dynamic_resources": {
            "cds_config": _source(paths, "clusters"),
            "lds_config": _source(paths, "listeners"),
        },
        "overload_manager": {
            "resource_monitors": [
                {
                    "name": "envoy.resource_monitors.global_downstream_max_connections",
                    "typed_config": {
                        "@type": "type.googleapis.com/envoy.extensions.resource_monitors."
                        "downstream_connections.v3.DownstreamConnectionsConfig",
                        "max_active_downstream_connections": _CONNECTIONS_MAX,
                    },
                }
            ]
        },
    }


def _source(paths: GatewayPaths, name: str) -> dict[str, Any]:
    return {
        "path_config_source": {"path": str(paths.resource(name))},
        "resource_api_version": "V3",
    }


def _with_paths(files: GatewayFiles, paths: GatewayPaths) -> GatewayFiles:
    """Replace the short names of files in the resources by where they lie."""
    places = {
        name: str(paths.resource(name))
        for name in (OWN_SECRET, TRUST_SECRET, CLIENT_ROUTES, PEER_ROUTES)
    }
    places["access_log"] = str(paths.access_log)
    return GatewayFiles(
        bootstrap=files.bootstrap,
        secret_own=files.secret_own,
        secret_trust=files.secret_trust,
        clusters=_placed(files.clusters, places),
        routes_client=files.routes_client,
        routes_peer=files.routes_peer,
        listeners=_placed(files.listeners, places),
    )


def _placed(value: Any, places: dict[str, str]) -> Any:
    if isinstance(value, dict):
        return {
            k: places.get(v, v) if k == "path" and isinstance(v, str) else _placed(v, places)
            for k, v in value.items()
        }
    if isinstance(value, list | tuple):
        return type(value)(_placed(v, places) for v in value)
    return value
