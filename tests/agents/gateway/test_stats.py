"""What Envoy's admin port says, read into facts."""

from __future__ import annotations

from agents.gateway.stats import Live, observation, parse_live
from sites.telemetry import PeerHealth, RouteCount

CLUSTERS = {
    "cluster_statuses": [
        {"name": "peer|rix-1", "host_statuses": [{"health_status": {}}]},
        {
            "name": "peer|waw-1",
            "host_statuses": [{"health_status": {"failed_active_health_check": True}}],
        },
        {"name": "peer|gone", "host_statuses": []},
        {"name": "sites|x", "host_statuses": [{"health_status": {}}]},
    ]
}


def counter(route: str, site: str, status: int, value: int) -> dict[str, object]:
    name = f"hinterland.answers.route.{route}.site.{site}.status.{status}"
    return {"name": name, "value": value}


def test_counts_errors_retries_and_peers() -> None:
    stats = {
        "stats": [
            counter("serve:chat|acme|eea", "rix-1", 200, 90),
            counter("serve:chat|acme|eea", "rix-1", 502, 3),
            counter("serve:chat|acme|eea", "", 503, 2),
            counter("shed:chat|acme|eea", "", 503, 7),
            counter("unlawful:chat|acme|ch", "", 451, 4),
            counter("acme:laxer", "", 403, 1),
            {"name": "cluster.sites|chat|acme|eea.upstream_rq_retry", "value": 5},
            {"histograms": {"computed_quantiles": []}},
        ]
    }
    seen = observation(stats=stats, clusters=CLUSTERS, routes_digest="sha256:x")
    assert seen.live
    assert (seen.requests_total, seen.errors_total, seen.retries_total) == (107, 5, 5)
    assert seen.peers == (
        PeerHealth(site_id="gone", healthy=False),
        PeerHealth(site_id="rix-1", healthy=True),
        PeerHealth(site_id="waw-1", healthy=False),
    )
    assert seen.routes == (
        RouteCount(route_id="chat|acme|ch", serving_site_id="", requests_total=4, errors_total=0),
        RouteCount(route_id="chat|acme|eea", serving_site_id="", requests_total=9, errors_total=2),
        RouteCount(
            route_id="chat|acme|eea", serving_site_id="rix-1", requests_total=93, errors_total=3
        ),
    )
    assert seen.routes_digest == "sha256:x"


def test_an_idle_gateway_has_counted_nothing() -> None:
    seen = observation(stats={"stats": []}, clusters={}, routes_digest="")
    assert (seen.live, seen.requests_total, seen.peers, seen.routes) == (True, 0, (), ())


def test_live_only_when_every_version_runs_and_nothing_warms() -> None:
    stats = [
        {"name": "cluster_manager.cds.version_text", "value": "v2"},
        {"name": "http.client.rds.routes_client.version_text", "value": "v1"},
        {"name": "cluster_manager.cds.update_rejected", "value": 1},
        {"name": "http.client.rds.routes_client.update_rejected", "value": 2},
        {"name": "cluster_manager.warming_clusters", "value": 0},
    ]
    live = parse_live({"stats": stats})
    assert live.rejected == 3
    assert live.runs({"clusters": "v2"})
    assert not live.runs({"clusters": "v3"})
    assert not live.runs({"clusters": "v2", "routes_peer": "v1"})
    warming = [*stats[:-1], {"name": "cluster_manager.warming_clusters", "value": 2}]
    assert not parse_live({"stats": warming}).runs({"clusters": "v2"})
    assert not Live().runs({"clusters": "v2"})
