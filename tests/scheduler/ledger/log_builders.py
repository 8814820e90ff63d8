"""Small ledgers for the tests of this folder: a fleet of two sites, one policy, plain records."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from optimizer.plan import CostBreakdown, Plan
from optimizer.policy import PlanPolicy
from optimizer.problem import Problem
from scheduler.entries import PlanAccepted
from scheduler.ledger import Ledger
from scheduler.receipt import ChangeReason
from sites.catalog import Catalog
from sites.clock import ManualClock
from sites.digest import canonical_json, digest
from sites.execution import ExecutionDecision, ExecutionRecord
from sites.fleet import Fleet, PowerSupply, Site, SupplyKind
from sites.residency import ResidencyPolicy

EU = ResidencyPolicy(
    policy_id="eu", processing_countries=("LV", "PL"), transit_countries=("SE",), required_tags=()
)
STRICT = ResidencyPolicy(policy_id="eu", processing_countries=("LV",), transit_countries=())


def site(site_id: str, country: str) -> Site:
    supply = PowerSupply(
        supply_id="grid", kind=SupplyKind.GRID, limit_w=(1e6,), price_usd_per_kwh=(0.1,)
    )
    return Site(
        site_id=site_id,
        country=country,
        power_budget_w=(1e6,),
        pue=1.2,
        supplies=(supply,),
        pools=(),
    )


def accepted(*policies: ResidencyPolicy, at_ms: int, version: int = 1) -> PlanAccepted:
    """A PlanAccepted entry of a fleet in Latvia and Norway."""
    problem = Problem(
        fleet=Fleet(sites=(site("osl-1", "NO"), site("rix-1", "LV"))),
        catalog=Catalog(models=(), variants=(), serving_points=()),
        services=(),
        tenants=(),
        policies=policies,
        classes=(),
        plan_policy=PlanPolicy(),
    )
    plan = Plan(
        problem_digest=digest(problem),
        groups=(),
        shares=(),
        shed=(),
        supplies=(),
        cost=CostBreakdown(),
        bound_usd_per_h=0.0,
        gap=0.0,
        method="test",
    )
    return PlanAccepted(
        receipt_id=f"receipt-{version}",
        reason=ChangeReason.APPLY,
        epoch=1,
        first_version=version,
        version=version,
        at_ms=at_ms,
        plan_digest=plan.plan_digest,
        policy_digest=digest(policies),
        problem=problem,
        plan=plan,
    )


def record(sequence: int, **changes: Any) -> ExecutionRecord:
    """One served attempt of tenant `acme` (pseudonym ``p-acme``) at rix-1 under `EU`."""
    base = ExecutionRecord(
        agent_site_id="rix-1",
        agent_identity="spiffe://hinterland/site/rix-1",
        sequence=sequence,
        hop="serving",
        request_id=f"request-{sequence}",
        attempt=1,
        idempotency_key="",
        tenant_pseudonym="p-acme",
        service_id="chat",
        variant_id="smollm2-q4",
        replica_group_id="rix-1/cpu/smollm2-q4/x1",
        residency_policy_id="eu",
        ingress_site_id="rix-1",
        serving_site_id="rix-1",
        serving_country="LV",
        legal_entity="Baltic Compute",
        transit_countries=(),
        started_at_ms=2_000 + sequence,
        ended_at_ms=3_000 + sequence,
        tokens_in=10,
        tokens_out=20,
        energy_j_estimated=1.5,
        epoch=1,
        version=1,
        plan_digest="sha256:plan",
        policy_digest=digest((EU,)),
        decision=ExecutionDecision.SERVED,
        http_status=200,
    )
    return dataclasses.replace(base, **changes)


def refused(sequence: int, decision: ExecutionDecision, **changes: Any) -> ExecutionRecord:
    """One request answered at the ingress without running anywhere."""
    nowhere = {"hop": "ingress", "serving_site_id": "", "serving_country": "", "tokens_out": -1}
    return record(sequence, decision=decision, http_status=451, **{**nowhere, **changes})


def as_bytes(*records: ExecutionRecord) -> list[bytes]:
    return [canonical_json(one) for one in records]


def open_ledger(folder: Path, clock: ManualClock | None = None) -> Ledger:
    return Ledger(folder, clock=clock or ManualClock(start_ms=1_000))


def fill(folder: Path, *, records: int = 20) -> None:
    """A closed ledger: one accepted plan, then records of rix-1."""
    ledger = open_ledger(folder)
    ledger.append("PlanAccepted", accepted(EU, at_ms=1_000))
    ledger.append_records("rix-1", as_bytes(*(record(i) for i in range(records))))
    ledger.close()
