"""Clusters of the model servers at this site: one per replica group, and one per split route.

Decides how requests spread over replicas. Which replicas are ready is the executor's to say.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from agents.gateway.endpoints import (
    BALANCING,
    HTTP_OPTIONS,
    METADATA,
    PERCENT_ALL,
    discovery,
    limits,
    socket_address,
)
from agents.gateway.facts import ReplicaAddress
from sites.assignment import GroupShare, Route, SiteAssignment

_WEIGHT_UNITS = 1_000  # a group's basis points divide among its replicas in these

Ready = Mapping[str, Sequence[ReplicaAddress | tuple[str, str, int]]]


def group_cluster_name(group_id: str) -> str:
    """Cluster of the ready replicas of one group."""
    return f"group|{group_id}"


def split_cluster_name(route: Route) -> str:
    """Cluster of all replicas that answer a route from several groups."""
    return f"split|{route.key.route_id}"


def usable_groups(route: Route, ready: Ready) -> tuple[GroupShare, ...]:
    """The groups of a route that have both a share and a ready replica here."""
    return tuple(
        g
        for g in sorted(route.groups, key=lambda g: g.group_id)
        if g.basis_points and ready.get(g.group_id)
    )


def render_replica_clusters(
    assignment: SiteAssignment, *, ready: Ready
) -> tuple[dict[str, Any], ...]:
    """A cluster per group with ready replicas, and one per route that several groups answer."""
    variants = {t.group.group_id: t.group.variant_id for t in assignment.groups}
    clusters = []
    for group_id in sorted(g for g in ready if ready[g]):
        endpoints = [
            _replica_endpoint(r, group_id, variants.get(group_id, ""), weight=1)
            for r in sorted(ready[group_id])
        ]
        name = group_cluster_name(group_id)
        clusters.append(_replica_cluster(name, endpoints, policy="LEAST_REQUEST"))
    for route in sorted(assignment.routes, key=lambda r: r.key):
        usable = usable_groups(route, ready)
        if len(usable) > 1:
            clusters.append(_split_cluster(route, usable, ready=ready, variants=variants))
    return tuple(clusters)


def _replica_endpoint(
    replica: ReplicaAddress | tuple[str, str, int], group_id: str, variant_id: str, *, weight: int
) -> dict[str, Any]:
    replica_id, host, port = replica
    return {
        "endpoint": {"address": socket_address(f"{host}:{port}")},
        "load_balancing_weight": weight,
        "metadata": {
            "filter_metadata": {
                METADATA: {"group": group_id, "variant": variant_id, "replica": replica_id}
            }
        },
    }


def _split_cluster(
    route: Route, usable: Sequence[GroupShare], *, ready: Ready, variants: Mapping[str, str]
) -> dict[str, Any]:
    endpoints = []
    for share in usable:
        replicas = sorted(ready[share.group_id])
        weight = max(1, share.basis_points * _WEIGHT_UNITS // len(replicas))
        endpoints += [
            _replica_endpoint(r, share.group_id, variants.get(share.group_id, ""), weight=weight)
            for r in replicas
        ]
    return _replica_cluster(split_cluster_name(route), endpoints, policy="ROUND_ROBIN")


def _replica_cluster(
    name: str, endpoints: Sequence[Mapping[str, Any]], *, policy: str
) -> dict[str, Any]:
    """HTTP/1.1 to model servers, one request per connection: some close it after a stream."""
    hosts = [e["endpoint"]["address"]["socket_address"]["address"] + ":0" for e in endpoints]
    return {
        "name": name,
        "type": discovery(hosts),
        "lb_policy": policy,
        "connect_timeout": "1s",
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": list(endpoints)}],
        },
        "common_lb_config": dict(BALANCING),
        "circuit_breakers": limits(),
        "outlier_detection": {
            "split_external_local_origin_errors": True,
            "consecutive_local_origin_failure": 1,
            "enforcing_consecutive_local_origin_failure": PERCENT_ALL,
            "enforcing_consecutive_5xx": 0,
            "enforcing_consecutive_gateway_failure": 0,
            "enforcing_success_rate": 0,
            "enforcing_local_origin_success_rate": 0,
            "interval": "0.2s",
            "base_ejection_time": "0.5s",
            "max_ejection_time": "2s",
            "max_ejection_percent": PERCENT_ALL,
        },
        "typed_extension_protocol_options": {
            HTTP_OPTIONS: {
                "@type": f"type.googleapis.com/{HTTP_OPTIONS}",
                "common_http_protocol_options": {"max_requests_per_connection": 1},
                "explicit_http_config": {"http_protocol_options": {}},
            }
        },
    }
