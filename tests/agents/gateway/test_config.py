"""The rendered configuration: golden text, and what must never happen in any of them."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agents.gateway.config import render
from agents.gateway.facts import KINDS, GatewayFiles, GatewayTuning, ReplicaAddress
from agents.gateway.listeners import API_KEY_AUDIENCE, API_KEY_ISSUER
from scheduler import pki
from sites.assignment import GroupShare, GroupTarget, RouteDecision, SiteShare
from sites.errors import InvalidFactError, RefusedError
from sites.residency import ResidencyPolicy

GOLDEN = Path(__file__).parent / "golden"
WITH_FIXTURES = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None
)


def text(files: GatewayFiles) -> str:
    return json.dumps([files.bootstrap, *(getattr(files, k) for k in KINDS)])


@pytest.mark.parametrize("kind", ["bootstrap", *KINDS])
def test_a_small_configuration_reads_as_the_golden_text(
    kind: str, assignment: Any, ready: Any, paths: Any, tmp_path: Path
) -> None:
    """On purpose changed? Look at the difference, then copy the file the message names."""
    files = render(assignment, ready=ready, paths=paths)
    actual = json.dumps(getattr(files, kind), indent=1, sort_keys=True) + "\n"
    new = tmp_path / f"{kind}.json"
    new.write_text(actual)
    golden = GOLDEN / f"{kind}.json"
    wanted = golden.read_text() if golden.exists() else ""
    assert actual == wanted, f"differs from {golden}; what is rendered now is in {new}"


def test_order_of_facts_changes_nothing(assignment: Any, ready: Any, paths: Any) -> None:
    once = render(assignment, ready=ready, paths=paths)
    shuffled = replace(
        assignment,
        routes=assignment.routes[::-1],
        tenants=assignment.tenants[::-1],
        policies=assignment.policies[::-1],
    )
    turned = {group: replicas[::-1] for group, replicas in ready.items()}
    assert render(shuffled, ready=turned, paths=paths).digest == once.digest


def test_no_secret_enters_a_file(assignment: Any, ready: Any, paths: Any) -> None:
    rendered = text(render(assignment, ready=ready, paths=paths))
    assert "ab" * 32 not in rendered
    assert "cd" * 32 not in rendered
    assert "PRIVATE KEY" not in rendered


def test_keys_are_checked_as_the_control_plane_issues_them() -> None:
    assert (API_KEY_ISSUER, API_KEY_AUDIENCE) == (pki.API_KEY_ISSUER, pki.API_KEY_AUDIENCE)


def endpoints(cluster: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        host
        for locality in cluster["load_assignment"]["endpoints"]
        for host in locality["lb_endpoints"]
    ]


def shares(sites: list[str], cuts: list[int]) -> tuple[SiteShare, ...]:
    edges = [0, *sorted(cuts)[: len(sites) - 1], 10_000]
    return tuple(
        SiteShare(site_id=s, basis_points=edges[i + 1] - edges[i]) for i, s in enumerate(sites)
    )


@WITH_FIXTURES
@given(
    countries=st.lists(st.sampled_from(["CH", "LV", "NO", "US"]), min_size=1, max_size=5),
    cuts=st.lists(st.integers(0, 10_000), min_size=5, max_size=5, unique=True),
    backups=st.integers(0, 3),
)
def test_only_lawful_sites_are_ever_reachable(
    assignment: Any, ready: Any, paths: Any, countries: list[str], cuts: list[int], backups: int
) -> None:
    """Whatever shares an assignment gives, an unlawful one is refused and no other is added."""
    peer = assignment.peers[0]
    peers = tuple(
        replace(peer, site_id=f"s-{i}", country=c, peer_address=f"10.0.0.{i + 1}:1")
        for i, c in enumerate(countries)
    )
    sites = [p.site_id for p in peers]
    front, back = sites[: max(1, len(sites) - backups)], sites[max(1, len(sites) - backups) :]
    route = replace(
        assignment.routes[0],
        shares=shares(front, cuts),
        backups=tuple(SiteShare(site_id=s, basis_points=1) for s in back),
    )
    changed = replace(assignment, peers=peers, routes=(route,))
    lawful = all(c in ("LV", "NO") for c in countries)
    try:
        files = render(changed, ready=ready, paths=paths)
    except RefusedError as refusal:
        assert not lawful
        assert {v.code for v in refusal.violations} <= {"residency", "transit"}
        return
    assert lawful
    (cluster,) = [c for c in files.clusters if str(c["name"]).startswith("sites|")]
    reached = {h["metadata"]["filter_metadata"]["hinterland"]["site"] for h in endpoints(cluster)}
    named = {s.site_id for s in route.shares if s.basis_points} | set(back)
    assert reached == named
    weights = {
        h["metadata"]["filter_metadata"]["hinterland"]["site"]: h["load_balancing_weight"]
        for h in endpoints(cluster)
    }
    for share in route.shares:
        assert not share.basis_points or weights[share.site_id] == share.basis_points
    assert cluster["common_lb_config"]["healthy_panic_threshold"]["value"] == 0


def test_unlawful_transit_is_refused(assignment: Any, ready: Any, paths: Any) -> None:
    abroad = SiteShare(site_id="rix-1", basis_points=10_000, transit_countries=("BY",))
    route = replace(assignment.routes[0], shares=(abroad,))
    with pytest.raises(RefusedError, match="BY"):
        render(replace(assignment, routes=(route,)), ready=ready, paths=paths)


def client_routes(files: GatewayFiles) -> list[dict[str, Any]]:
    return list(files.routes_client[0]["virtual_hosts"][0]["routes"])  # type: ignore[index]


def peer_routes(files: GatewayFiles) -> list[dict[str, Any]]:
    return list(files.routes_peer[0]["virtual_hosts"][0]["routes"])  # type: ignore[index]


POLICIES = st.builds(
    lambda i, p, t: ResidencyPolicy(policy_id=f"p{i}", processing_countries=p, transit_countries=t),
    st.integers(0, 5),
    st.one_of(st.none(), st.lists(st.sampled_from(["CH", "LV", "NO"]), unique=True).map(tuple)),
    st.one_of(st.none(), st.lists(st.sampled_from(["DE", "SE"]), unique=True).map(tuple)),
)


@WITH_FIXTURES
@given(policies=st.lists(POLICIES, min_size=1, unique_by=lambda p: p.policy_id))
def test_a_wish_never_widens_where_data_may_go(
    assignment: Any, ready: Any, paths: Any, policies: list[ResidencyPolicy]
) -> None:
    """Every route a tenant can reach lies within its own policy, by brute force over countries."""
    own = policies[0]
    tenant = replace(assignment.tenants[0], residency_policy_id=own.policy_id)
    template = assignment.routes[0]
    here = SiteShare(site_id="osl-1", basis_points=10_000)

    def serves(policy: ResidencyPolicy) -> bool:
        return policy.processing_countries is None or "NO" in policy.processing_countries

    routes = tuple(
        replace(
            template,
            key=replace(template.key, residency_policy_id=p.policy_id),
            decision=RouteDecision.SERVE if serves(p) else RouteDecision.UNLAWFUL,
            shares=(here,) if serves(p) else (),
            groups=template.groups if serves(p) else (),
        )
        for p in policies
    )
    changed = replace(assignment, policies=tuple(policies), tenants=(tenant,), routes=routes)
    files = render(changed, ready=ready, paths=paths)
    by_id = {p.policy_id: p for p in policies}
    reachable = {
        match.group(1)
        for route in client_routes(files)
        if (match := re.match(r"(?:serve|unlawful|shed):chat\|acme\|(.*)", str(route["name"])))
    }
    for policy_id in reachable:
        policy = by_id[policy_id]
        for country in ("CH", "LV", "NO", "US"):
            inside = own.processing_countries is None or country in own.processing_countries
            wanted = policy.processing_countries is None or country in policy.processing_countries
            assert inside or not wanted, (policy, own)
    assert own.policy_id in reachable


def test_what_nobody_planned_for_is_unlawful(assignment: Any, ready: Any, paths: Any) -> None:
    """A stricter wish without a route of its own fails closed."""
    lone = replace(assignment, routes=(assignment.routes[0], assignment.routes[2]))
    files = render(lone, ready=ready, paths=paths)
    (route,) = [r for r in client_routes(files) if r["name"] == "unlawful:chat|acme|no"]
    assert route["direct_response"]["status"] == 451


def test_every_table_ends_with_a_refusal(assignment: Any, ready: Any, paths: Any) -> None:
    files = render(assignment, ready=ready, paths=paths)
    for table, status in ((client_routes(files), 401), (peer_routes(files), 451)):
        assert table[-1]["match"] == {"prefix": "/"}
        assert table[-1]["direct_response"]["status"] == status


def test_a_group_without_ready_replicas_answers_503_elsewhere(assignment: Any, paths: Any) -> None:
    files = render(assignment, ready={}, paths=paths)
    (route,) = [r for r in peer_routes(files) if r["name"] == "not_ready:chat|acme|eea"]
    assert route["direct_response"]["status"] == 503
    added = {h["header"]["key"] for h in route["response_headers_to_add"]}
    assert {"retry-after", "x-hinterland-retry"} <= added
    assert not [c for c in files.clusters if str(c["name"]).startswith("group|")]


def test_several_groups_share_in_proportion(assignment: Any, paths: Any) -> None:
    target: GroupTarget = assignment.groups[0]
    second = replace(
        target,
        group=replace(target.group, variant_id="big"),
        variant=replace(target.variant, variant_id="big"),
        point=replace(target.point, variant_id="big"),
    )
    other = second.group.group_id
    route = replace(
        assignment.routes[0],
        groups=(
            GroupShare(group_id=target.group.group_id, basis_points=7_000),
            GroupShare(group_id=other, basis_points=3_000),
        ),
    )
    changed = replace(
        assignment,
        groups=(target, second),
        routes=(route,),
        services=(("chat", ("big", "small")),),
    )
    ready = {
        target.group.group_id: tuple(ReplicaAddress(f"a{i}", "127.0.0.1", i) for i in (1, 2, 3)),
        other: (ReplicaAddress("b", "127.0.0.1", 9),),
    }
    files = render(changed, ready=ready, paths=paths)
    (split,) = [c for c in files.clusters if str(c["name"]).startswith("split|")]
    totals: dict[str, int] = {}
    for host in endpoints(split):
        group = host["metadata"]["filter_metadata"]["hinterland"]["group"]
        totals[group] = totals.get(group, 0) + host["load_balancing_weight"]
    assert totals[target.group.group_id] / totals[other] == pytest.approx(7 / 3, rel=1e-3)
    (served,) = [r for r in peer_routes(files) if r["name"] == "serve:chat|acme|eea"]
    assert served["route"]["cluster"] == split["name"]


@pytest.mark.parametrize("address", ["campus.example:8080", "127.0.0.1", "127.0.0.1:99999", ":1"])
def test_an_address_nobody_can_listen_on_is_refused(
    assignment: Any, ready: Any, paths: Any, address: str
) -> None:
    gateway = replace(assignment.gateway, client_address=address)
    with pytest.raises(RefusedError, match=r"gateway\.client_address"):
        render(replace(assignment, gateway=gateway), ready=ready, paths=paths)


def test_probes_stay_within_their_budget(assignment: Any, ready: Any, paths: Any) -> None:
    template = assignment.routes[0]
    many = tuple(
        replace(template, key=replace(template.key, tenant_id=f"t-{i}"), shares=uneven(i))
        for i in range(500)
    )
    tenants = tuple(replace(assignment.tenants[0], tenant_id=f"t-{i}") for i in range(500))
    tuning = GatewayTuning(health_checks_per_s=100)
    files = render(
        replace(assignment, routes=many, tenants=tenants), ready=ready, paths=paths, tuning=tuning
    )
    per_s = 0.0
    for cluster in files.clusters:
        if str(cluster["name"]).startswith("sites|"):
            probed = [h for h in endpoints(cluster) if "health_check_config" not in h["endpoint"]]
            interval = cluster["health_checks"][0]["interval"]  # type: ignore[index]
            per_s += len(probed) / float(interval.rstrip("s"))
    assert per_s == pytest.approx(100)


def uneven(i: int) -> tuple[SiteShare, ...]:
    return shares(["osl-1", "rix-1"], [i + 1])


def test_tenants_served_alike_share_a_cluster(assignment: Any, ready: Any, paths: Any) -> None:
    """Not with another policy or service, other shares, or other backups."""
    first = assignment.routes[0]
    backup = SiteShare(site_id="rix-1", basis_points=1)
    local = replace(first, shares=(SiteShare(site_id="osl-1", basis_points=10_000),))
    routes = (
        first,
        replace(first, key=replace(first.key, tenant_id="globex")),
        replace(first, key=replace(first.key, residency_policy_id="no"), shares=local.shares),
        replace(first, key=replace(first.key, service_id="other")),
        replace(first, key=replace(first.key, service_id="third"), shares=uneven(1)),
        replace(local, key=replace(first.key, service_id="local")),
        replace(
            local, key=replace(first.key, tenant_id="t", service_id="local"), backups=(backup,)
        ),
    )
    files = render(replace(assignment, routes=routes), ready=ready, paths=paths)
    named = {c["name"] for c in files.clusters if str(c["name"]).startswith("sites|")}
    assert len(named) == len(routes) - 1
    table = files.routes_client[0]["virtual_hosts"][0]["routes"]  # type: ignore[index]
    used = {r["route"]["cluster"] for r in table if "route" in r}
    assert used <= named


def test_many_policies_make_no_regular_expression(assignment: Any, ready: Any, paths: Any) -> None:
    """Envoy refuses one of more than 100 instructions."""
    policies = tuple(replace(assignment.policies[2], policy_id=f"p{i:02d}") for i in range(40))
    changed = replace(assignment, policies=(*assignment.policies, *policies))
    table = render(changed, ready=ready, paths=paths).routes_client[0]
    regexes = re.findall(r'"regex": "([^"]*)"', json.dumps(table))
    assert len(set(regexes)) == 1  # that of the API's paths
    (laxer,) = (
        r
        for r in table["virtual_hosts"][0]["routes"]  # type: ignore[index]
        if r["name"] == "acme:laxer"
    )
    barred = [h for h in laxer["match"]["headers"] if h.get("invert_match")]
    assert {h["string_match"]["exact"] for h in barred} == {
        "eea",
        "no",
        *(p.policy_id for p in policies),
    }


def test_a_tuning_of_zero_is_refused() -> None:
    with pytest.raises(InvalidFactError, match="retry_burst"):
        GatewayTuning(retry_burst=0)


@WITH_FIXTURES
@given(order=st.permutations(range(3)))
def test_versions_depend_on_content_alone(
    assignment: Any, ready: Any, paths: Any, order: list[int]
) -> None:
    once = render(assignment, ready=ready, paths=paths).digest
    turned = replace(assignment, routes=tuple(assignment.routes[i] for i in order))
    assert render(turned, ready=ready, paths=paths).digest == once
    newer = replace(assignment, version=8)
    assert render(newer, ready=ready, paths=paths).digest != once
