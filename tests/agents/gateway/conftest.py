"""One small assignment: Oslo, with a peer in Riga, one service, two tenants."""

from __future__ import annotations

from pathlib import Path

import pytest

from agents.credentials import SiteCredentials
from agents.gateway.facts import GatewayPaths, ReplicaAddress
from sites.assignment import (
    GroupShare,
    GroupTarget,
    Peer,
    ReplicaGroup,
    Route,
    RouteDecision,
    RouteKey,
    SiteAssignment,
    SiteShare,
    TenantBinding,
)
from sites.catalog import ServingPoint, Variant
from sites.fleet import HardwarePool, SiteGateway
from sites.residency import ResidencyPolicy

GROUP = "osl-1/cpu/small/x1"
JWKS = '{"keys":[{"kty":"EC","crv":"P-256","alg":"ES256","kid":"k","x":"AQ","y":"AQ"}]}'


def key(tenant: str, policy: str) -> RouteKey:
    return RouteKey(service_id="chat", tenant_id=tenant, residency_policy_id=policy)


def routes() -> tuple[Route, ...]:
    here = (GroupShare(group_id=GROUP, basis_points=10_000),)
    abroad = SiteShare(site_id="rix-1", basis_points=2_500, transit_countries=("SE",))
    return (
        Route(
            key=key("acme", "eea"),
            decision=RouteDecision.SERVE,
            shares=(SiteShare(site_id="osl-1", basis_points=7_500), abroad),
            shed_basis_points=100,
            groups=here,
        ),
        Route(
            key=key("acme", "no"),
            decision=RouteDecision.SERVE,
            shares=(SiteShare(site_id="osl-1", basis_points=10_000),),
            groups=here,
        ),
        Route(key=key("globex", "ch"), decision=RouteDecision.UNLAWFUL, reason="no site in CH"),
    )


@pytest.fixture
def assignment() -> SiteAssignment:
    variant = Variant(
        variant_id="small", model_id="m", precision="q8", weights_mib=150.0,
        kv_bytes_per_token=1_000.0, quality=0.5,
    )  # fmt: skip
    point = ServingPoint(
        variant_id="small", accelerator="cpu-thread", accelerators_per_replica=1,
        decode_tok_s=100.0, prefill_tok_s=1_000.0, ttft_ms=50.0, tpot_ms=10.0, concurrency=4,
        idle_w=5.0, full_w=20.0, memory_mib=300.0,
    )  # fmt: skip
    pool = HardwarePool(
        pool_id="cpu", accelerator="cpu-thread", count=4, memory_mib_per_accelerator=4_000.0,
        price_usd_per_accelerator_h=0.01,
    )  # fmt: skip
    group = ReplicaGroup(
        site_id="osl-1", pool_id="cpu", variant_id="small", accelerators_per_replica=1
    )
    return SiteAssignment(
        site_id="osl-1", country="NO", residency_tags=(), legal_entity="Oslo AS",
        gateway=SiteGateway(client_address="127.0.0.1:8080", peer_address="127.0.0.1:8443"),
        epoch=3, version=7, plan_digest="sha256:plan", policy_digest="sha256:policy",
        issued_at_ms=0, expires_at_ms=10**15, parent_digest="", power_budget_w=1_000.0, pue=1.5,
        pools=(pool,),
        groups=(GroupTarget(group=group, replicas=2, point=point, variant=variant),),
        routes=routes(), services=(("chat", ("small",)),),
        tenants=(
            TenantBinding(tenant_id="acme", residency_policy_id="eea", pseudonym_key="ab" * 32,
                          purpose="support", data_category="chat"),
            TenantBinding(tenant_id="globex", residency_policy_id="ch", pseudonym_key="cd" * 32),
        ),
        policies=(
            ResidencyPolicy(policy_id="ch", processing_countries=("CH",), transit_countries=()),
            ResidencyPolicy(policy_id="eea", processing_countries=("LV", "NO"),
                            transit_countries=("SE",), transfer_mechanism="intra-eea"),
            ResidencyPolicy(policy_id="no", processing_countries=("NO",), transit_countries=()),
        ),
        peers=(Peer(site_id="rix-1", country="LV", residency_tags=(),
                    peer_address="10.0.0.2:8443"),),
        api_key_jwks=JWKS,
    )  # fmt: skip


@pytest.fixture
def ready() -> dict[str, tuple[ReplicaAddress, ...]]:
    return {GROUP: (ReplicaAddress("r1", "127.0.0.1", 9001), ReplicaAddress("r0", "::1", 9000))}


@pytest.fixture
def paths() -> GatewayPaths:
    return GatewayPaths(
        folder=Path("/state/gateway"), credentials=SiteCredentials(folder=Path("/state/pki"))
    )
