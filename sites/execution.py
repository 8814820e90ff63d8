"""Evidence of one request attempt: site, country, plan, policy. No prompts, no completions.

One record per attempt at a serving site, and one per request refused or shed at an ingress site: a
fail-closed decision is evidence too. Tenant and request ids arrive here already pseudonymised.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from sites.units import require_country, require_id, require_nonnegative


class ExecutionDecision(StrEnum):
    """What the gateway did with the attempt; UNRECORDED: how its records of a time were lost."""

    SERVED = "served"
    FAILED = "failed"
    SHED = "shed"
    REFUSED_RESIDENCY = "refused_residency"
    REFUSED_UNKNOWN_MODEL = "refused_unknown_model"
    REFUSED_UNAUTHENTICATED = "refused_unauthenticated"
    REFUSED_BAD_REQUEST = "refused_bad_request"
    UNRECORDED = "unrecorded"


@dataclass(frozen=True, kw_only=True, slots=True)
class ExecutionRecord:
    """One attempt. `sequence` has no gaps per agent; `serving_site` is empty where nothing ran.

    Times are wall milliseconds at the recording site; `clock_error_ms` bounds their error.
    `tokens_in` / `tokens_out` are -1 where the model server did not say. `hop` is ``serving``
    (written where the attempt ran) or ``ingress`` (written where the request was answered without
    running). `policy_digest` and `plan_digest` name the versions in force. `agent_identity` is
    the SPIFFE URI of the certificate the agent reports with.
    """

    agent_site_id: str
    agent_identity: str
    sequence: int
    hop: str
    request_id: str
    attempt: int
    idempotency_key: str
    tenant_pseudonym: str
    service_id: str
    variant_id: str
    replica_group_id: str
    residency_policy_id: str
    ingress_site_id: str
    serving_site_id: str
    serving_country: str
    legal_entity: str
    transit_countries: tuple[str, ...]
    started_at_ms: int
    ended_at_ms: int
    tokens_in: int
    tokens_out: int
    energy_j_estimated: float
    epoch: int
    version: int
    plan_digest: str
    policy_digest: str
    decision: ExecutionDecision
    http_status: int
    reason: str = ""
    purpose: str = ""
    data_category: str = ""
    transfer_mechanism: str = ""
    clock_error_ms: int = 0

    def __post_init__(self) -> None:
        require_id(self.agent_site_id, field="agent_site_id")
        require_nonnegative(self.sequence, field="sequence")
        if self.serving_country:
            require_country(self.serving_country, field="serving_country")
        for country in self.transit_countries:
            require_country(country, field="transit_countries")
