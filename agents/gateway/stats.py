"""What Envoy's admin port says, read into facts. Pure.

Decides what counts as an error (a final answer of 5xx other than a planned shed) and as a healthy
peer (its gateway answers probes over mTLS).
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from agents.gateway.clusters import PROBE_PREFIX
from agents.gateway.listeners import COUNTERS
from agents.gateway.routes import CLIENT_ROUTES, KEY_PREFIXES, PEER_ROUTES, SHED_PREFIX
from sites.telemetry import GatewayObservation, PeerHealth, RouteCount

_VERSION_STATS = {
    "clusters": "cluster_manager.cds.version_text",
    "listeners": "listener_manager.lds.version_text",
    CLIENT_ROUTES: f"http.client.rds.{CLIENT_ROUTES}.version_text",
    PEER_ROUTES: f"http.peer.rds.{PEER_ROUTES}.version_text",
}
_ANSWERS = re.compile(
    rf"{COUNTERS}\.answers\.route\.(?P<route>.*)\.site\.(?P<site>.*)\.status\.(?P<status>\d+)\Z"
)
_LOG_FAILED = "filesystem.write_failed"
OBSERVED = rf"^{COUNTERS}\.answers|^cluster\.sites.*\.upstream_rq_retry$|^filesystem\.write_failed$"
"""Filter of the stats that `observation` and `failed_log_writes` read."""

PROBES = f"^{re.escape(PROBE_PREFIX)}"
"""Filter of the clusters that `observation` reads: thousands of others would come with them."""

SWITCHED = (
    r"^(cluster_manager\.cds|listener_manager\.lds|http\.(client|peer)\.rds\..*)"
    r"\.(version_text|update_rejected|update_failure)$|(warming_clusters|listeners_warming)$"
)
"""Filter of the stats that `parse_live` reads."""


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
        warming=sum(
            int(v)
            for n, v in values.items()
            if n.endswith(("warming_clusters", "listeners_warming"))
        ),
    )


def observation(
    *, stats: Mapping[str, Any], clusters: Mapping[str, Any], routes_digest: str
) -> GatewayObservation:
    """Facts from ``/stats?format=json`` and ``/clusters?format=json``.

    Counts are of final answers to clients since Envoy started.
    """
    values = {s["name"]: s["value"] for s in stats.get("stats", ()) if "name" in s}
    answers = [a for name, value in sorted(values.items()) for a in _answers(name, value)]
    return GatewayObservation(
        live=True,
        requests_total=sum(a.count for a in answers),
        errors_total=sum(a.count for a in answers if a.is_error),
        retries_total=sum(int(v) for n, v in values.items() if n.endswith(".upstream_rq_retry")),
        peers=_peers(clusters),
        routes=_route_counts(answers),
        routes_digest=routes_digest,
    )


def failed_log_writes(stats: Mapping[str, Any]) -> int:
    """Writes to Envoy's log files that failed since it started; each lost one line or more."""
    named = (s for s in stats.get("stats", ()) if s.get("name") == _LOG_FAILED)
    return sum(int(s["value"]) for s in named)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Answers:
    route_name: str
    site_id: str
    status: int
    count: int

    @property
    def is_error(self) -> bool:
        return self.status >= 500 and not self.route_name.startswith(SHED_PREFIX)


def _answers(name: str, value: Any) -> tuple[_Answers, ...]:
    found = _ANSWERS.match(name)
    if found is None:
        return ()
    return (
        _Answers(
            route_name=found["route"],
            site_id=found["site"],
            status=int(found["status"]),
            count=int(value),
        ),
    )


def _route_counts(answers: Sequence[_Answers]) -> tuple[RouteCount, ...]:
    totals: dict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0])
    for one in answers:
        kind, _, route_id = one.route_name.partition(":")
        if f"{kind}:" in KEY_PREFIXES:
            total = totals[route_id, one.site_id]
            total[0] += one.count
            total[1] += one.count if one.is_error else 0
    return tuple(
        RouteCount(
            route_id=route_id, serving_site_id=site_id, requests_total=count, errors_total=errors
        )
        for (route_id, site_id), (count, errors) in sorted(totals.items())
    )


def _peers(clusters: Mapping[str, Any]) -> tuple[PeerHealth, ...]:
    healthy: dict[str, bool] = {}
    for cluster in clusters.get("cluster_statuses", ()):
        name = str(cluster.get("name", ""))
        if name.startswith(PROBE_PREFIX):
            healthy[name.removeprefix(PROBE_PREFIX)] = any(
                not host.get("health_status", {}).get("failed_active_health_check", False)
                for host in cluster.get("host_statuses", ())
            )
    return tuple(PeerHealth(site_id=s, healthy=h) for s, h in sorted(healthy.items()))
