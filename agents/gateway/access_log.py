"""Access-log lines into execution records. Pure; reading the file is `agents.log_tail`'s.

Decides what a line proves: an attempt that ran here (serving), a request answered without running
(ingress), or an attempt sent to a site that never finished (broken). Lines that prove nothing (a
model listing, a request whose serving site writes its own record) yield nothing; lines that do not
parse are counted, never dropped unseen. Sequence numbers are the spool's.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from agents.credentials import gateway_identity
from agents.gateway.headers import transit_of
from agents.gateway.log_format import BROKEN_FLAGS
from agents.gateway.routes import KEY_PREFIXES, NOT_READY_PREFIX, SHED_PREFIX
from sites.assignment import GroupTarget, SiteAssignment, TenantBinding
from sites.errors import InvalidFactError
from sites.execution import ExecutionDecision, ExecutionRecord
from sites.residency import ResidencyPolicy
from sites.units import MS_PER_S

_COUNT_MAX = 2**53
_VIA_UPSTREAM = "via_upstream"
_CLIENT_LEFT_FLAGS = frozenset({"DC", "DR"})
_UNSENT_FLAGS = frozenset({"UF", "UH", "UO", "NC", "NR"})
_REFUSALS = {
    400: ExecutionDecision.REFUSED_BAD_REQUEST,
    401: ExecutionDecision.REFUSED_UNAUTHENTICATED,
    403: ExecutionDecision.REFUSED_RESIDENCY,
    404: ExecutionDecision.REFUSED_UNKNOWN_MODEL,
    408: ExecutionDecision.REFUSED_BAD_REQUEST,
    413: ExecutionDecision.REFUSED_BAD_REQUEST,
    431: ExecutionDecision.REFUSED_BAD_REQUEST,
    451: ExecutionDecision.REFUSED_RESIDENCY,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class LogFault:
    """A line that is no record: why, and how it began."""

    reason: str
    line_start: str


@dataclass(frozen=True, kw_only=True, slots=True)
class LogContext:
    """What a line does not say itself: the site, its groups, tenants and policies."""

    assignment: SiteAssignment
    agent_identity: str
    clock_error_ms: int = 0
    _targets: dict[str, GroupTarget] = field(default_factory=dict, init=False, repr=False)
    _tenants: dict[str, TenantBinding] = field(default_factory=dict, init=False, repr=False)
    _policies: dict[str, ResidencyPolicy] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        self._targets.update({t.group.group_id: t for t in self.assignment.groups})
        self._tenants.update({t.tenant_id: t for t in self.assignment.tenants})
        self._policies.update({p.policy_id: p for p in self.assignment.policies})

    def tenant(self, tenant_id: str) -> TenantBinding | None:
        """The tenant's binding, if the assignment knows it."""
        return self._tenants.get(tenant_id)

    def transfer_mechanism(self, policy_id: str) -> str:
        """Legal basis the policy names, or nothing."""
        policy = self._policies.get(policy_id)
        return policy.transfer_mechanism if policy else ""

    def energy_j(
        self, group_id: str, *, tokens_in: int, tokens_out: int, duration_ms: int
    ) -> float:
        """Estimated energy of one attempt (J, cooling included).

        Replica-seconds of its tokens at the serving point x full draw x PUE; where the model
        server told no tokens, its time x its share of the replica's concurrency.
        """
        target = self._targets.get(group_id)
        if target is None:
            return 0.0
        point = target.point
        if tokens_in >= 0 and tokens_out >= 0:
            busy_s = point.replica_seconds(input_tokens=tokens_in, output_tokens=tokens_out)
        else:
            busy_s = duration_ms / MS_PER_S / point.concurrency
        return busy_s * point.full_w * self.assignment.pue

    def unrecorded(self, failed_writes: int, *, between_ms: tuple[int, int]) -> ExecutionRecord:
        """The record that others are missing: so many log writes failed between two instants."""
        site = self.assignment
        return ExecutionRecord(
            agent_site_id=site.site_id,
            agent_identity=self.agent_identity,
            sequence=0,
            hop="ingress",
            request_id="",
            attempt=1,
            idempotency_key="",
            tenant_pseudonym="",
            service_id="",
            variant_id="",
            replica_group_id="",
            residency_policy_id="",
            ingress_site_id=site.site_id,
            serving_site_id="",
            serving_country="",
            legal_entity="",
            transit_countries=(),
            started_at_ms=between_ms[0],
            ended_at_ms=between_ms[1],
            tokens_in=-1,
            tokens_out=-1,
            energy_j_estimated=0.0,
            epoch=site.epoch,
            version=site.version,
            plan_digest=site.plan_digest,
            policy_digest=site.policy_digest,
            decision=ExecutionDecision.UNRECORDED,
            http_status=0,
            reason=f"{failed_writes} writes of the gateway's log failed; their records are lost",
            clock_error_ms=self.clock_error_ms,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class ParsedLines:
    """Records in the order of their lines (sequence 0 throughout), and what did not parse."""

    records: tuple[ExecutionRecord, ...]
    faults: tuple[LogFault, ...]


def parse_lines(lines: Iterable[bytes], *, context: LogContext) -> ParsedLines:
    """Parse whole lines; never raises for what they hold."""
    records: list[ExecutionRecord] = []
    faults: list[LogFault] = []
    for line in lines:
        parsed = parse_line(line, context=context)
        if isinstance(parsed, ExecutionRecord):
            records.append(parsed)
        elif parsed is not None:
            faults.append(parsed)
    return ParsedLines(records=tuple(records), faults=tuple(faults))


def parse_line(line: bytes, *, context: LogContext) -> ExecutionRecord | LogFault | None:
    """One line's record; None if the line proves nothing; a fault if it cannot be read."""
    try:
        fields = json.loads(line)
        if not isinstance(fields, dict):
            return _fault("is not a JSON object", line)
        hop = fields["hop"]
        if hop == "serving":
            return _serving(fields, context)
        if hop == "ingress":
            return _ingress(fields, context)
        if hop == "broken":
            return _broken(fields, context)
        return _fault(f"has the unknown hop {hop!r}", line)
    except (ValueError, InvalidFactError, RecursionError) as fault:
        return _fault(str(fault), line)
    except (KeyError, TypeError, OverflowError) as fault:
        return _fault(f"lacks or garbles {fault}", line)


def _serving(fields: Mapping[str, Any], context: LogContext) -> ExecutionRecord:
    status = _count(fields["status"])
    flags = _flags(fields)
    has_run = fields["details"] == _VIA_UPSTREAM or bool(
        fields.get("group") and not flags & _UNSENT_FLAGS
    )
    decision, reason = _serving_decision(fields, status=status, flags=flags)
    return _record(fields, context, decision=decision, reason=reason, has_run=has_run)


def _serving_decision(
    fields: Mapping[str, Any], *, status: int, flags: frozenset[str]
) -> tuple[ExecutionDecision, str]:
    if status == 451:
        return ExecutionDecision.REFUSED_RESIDENCY, _refusal(_text(fields, "route"))
    if _text(fields, "route").startswith(NOT_READY_PREFIX):
        return ExecutionDecision.FAILED, "no ready replica at this site"
    if flags and flags <= _CLIENT_LEFT_FLAGS and 200 <= status < 400:
        # Clients of streams close once they have read the last token; the answer was given.
        return ExecutionDecision.SERVED, "the client closed before the end of the stream"
    if flags:
        return ExecutionDecision.FAILED, f"{'+'.join(sorted(flags))} {_text(fields, 'details')}"
    if status >= 400:
        return ExecutionDecision.FAILED, f"model server answered {status}"
    return ExecutionDecision.SERVED, ""


def _ingress(fields: Mapping[str, Any], context: LogContext) -> ExecutionRecord | None:
    """A record only of what no serving site can have recorded."""
    status = _count(fields["status"])
    if fields["details"] == _VIA_UPSTREAM:
        return None
    if status < 400:
        return None  # a model listing
    route = _text(fields, "route")
    if route.startswith(SHED_PREFIX):
        decision, reason = ExecutionDecision.SHED, "shed by the plan"
    elif status in _REFUSALS:
        decision, reason = _REFUSALS[status], _refusal(route)
    else:
        flags = "+".join(sorted(_flags(fields)))
        decision, reason = ExecutionDecision.FAILED, f"no site answered: {flags}"
    return _record(fields, context, decision=decision, reason=reason, has_run=False)


def _refusal(route: str) -> str:
    """A refusing route's name as a reason: without the tenant, whom records never name."""
    if route.startswith(KEY_PREFIXES):
        return route.partition(":")[0]
    return route.rpartition(":")[2]


def _broken(fields: Mapping[str, Any], context: LogContext) -> ExecutionRecord:
    """An attempt sent to a site that may have died before it could write its own record."""
    flags = "+".join(sorted(_flags(fields) & set(BROKEN_FLAGS)))
    reason = f"sent to {_text(fields, 'to_site') or 'a site'}, which gave no whole answer: {flags}"
    failed = ExecutionDecision.FAILED
    return _record(fields, context, decision=failed, reason=reason, has_run=False)


def _record(
    fields: Mapping[str, Any],
    context: LogContext,
    *,
    decision: ExecutionDecision,
    reason: str,
    has_run: bool,
) -> ExecutionRecord:
    site = context.assignment
    tenant = context.tenant(_text(fields, "tenant"))
    policy_id = _text(fields, "policy")
    group_id = _text(fields, "group") if has_run else ""
    started_ms, duration_ms = _count(fields["start_ms"]), _count(fields["duration_ms"])
    tokens_in, tokens_out = _tokens(fields)
    ingress_id = _ingress_site(fields, context)
    sent_to = site.site_id if has_run else _broken_site(fields)
    return ExecutionRecord(
        agent_site_id=site.site_id,
        agent_identity=context.agent_identity,
        sequence=0,
        hop="serving" if fields["hop"] == "serving" else "ingress",
        request_id=_request(tenant, _text(fields, "request_id")),
        attempt=_count(fields.get("attempt") or 1),
        idempotency_key=_idempotency(tenant, _text(fields, "idempotency_key")),
        tenant_pseudonym=tenant_pseudonym(tenant) if tenant else "",
        service_id=_text(fields, "service"),
        variant_id=_text(fields, "variant") if has_run else "",
        replica_group_id=group_id,
        residency_policy_id=policy_id,
        ingress_site_id=ingress_id,
        serving_site_id=sent_to,
        serving_country=_country(sent_to, context),
        legal_entity=site.legal_entity if has_run else "",
        transit_countries=transit_of(_text(fields, "transit"), site_id=sent_to),
        started_at_ms=started_ms,
        ended_at_ms=started_ms + duration_ms,
        tokens_in=tokens_in,
        tokens_out=tokens_out,
        energy_j_estimated=context.energy_j(
            group_id, tokens_in=tokens_in, tokens_out=tokens_out, duration_ms=duration_ms
        ),
        epoch=_count(fields.get("epoch") or site.epoch),
        version=_count(fields.get("version") or site.version),
        plan_digest=_text(fields, "plan_digest") or site.plan_digest,
        policy_digest=_text(fields, "policy_digest") or site.policy_digest,
        decision=decision,
        http_status=_count(fields["status"]),
        reason=reason,
        purpose=tenant.purpose if tenant else "",
        data_category=tenant.data_category if tenant else "",
        transfer_mechanism=context.transfer_mechanism(policy_id),
        clock_error_ms=context.clock_error_ms,
    )


def _ingress_site(fields: Mapping[str, Any], context: LogContext) -> str:
    """Where the request came in: what the sender's certificate says, not what it claims."""
    if fields["hop"] != "serving":
        return context.assignment.site_id
    return _text(fields, "peer").removeprefix(gateway_identity(""))


def _broken_site(fields: Mapping[str, Any]) -> str:
    return _text(fields, "to_site") if fields["hop"] == "broken" else ""


def _country(site_id: str, context: LogContext) -> str:
    site = context.assignment
    if site_id == site.site_id:
        return site.country
    return next((p.country for p in site.peers if p.site_id == site_id), "")


def _tokens(fields: Mapping[str, Any]) -> tuple[int, int]:
    """Tokens in and out: the OpenAI usage, else llama.cpp's timings, else -1."""
    tokens_in, tokens_out = fields.get("tokens_in"), fields.get("tokens_out")
    if tokens_in is None and "timings_in" in fields:
        tokens_in = float(fields["timings_in"]) + float(fields.get("timings_cached") or 0)
    if tokens_out is None:
        tokens_out = fields.get("timings_out")
    return (
        -1 if tokens_in is None else _count(tokens_in),
        -1 if tokens_out is None else _count(tokens_out),
    )


def tenant_pseudonym(tenant: TenantBinding) -> str:
    """The tenant's name in execution records: 64 hex digits, by its key and id alone.

    Raises ValueError if the key is not hexadecimal.
    """
    return _pseudonym(tenant, "tenant", tenant.tenant_id)


def _request(tenant: TenantBinding | None, value: str) -> str:
    """A request id; the gateway's own random one tells nothing of a client that is no tenant."""
    return _pseudonym(tenant, "request", value) if tenant and value else value


def _idempotency(tenant: TenantBinding | None, value: str) -> str:
    """A client's own words: without a tenant's key to hide them, they are left out."""
    return _pseudonym(tenant, "idempotency", value) if tenant and value else ""


def _pseudonym(tenant: TenantBinding, kind: str, value: str) -> str:
    """HMAC-SHA256 under the tenant's key."""
    key = bytes.fromhex(tenant.pseudonym_key)
    return hmac.new(key, f"{kind}:{value}".encode(), hashlib.sha256).hexdigest()


def _count(value: Any) -> int:
    """A number no record's canonical JSON would garble (RFC 8785: below 2**53)."""
    number = int(value)
    if not 0 <= number < _COUNT_MAX:
        raise ValueError(f"{value!r} is not a count")
    return number


def _flags(fields: Mapping[str, Any]) -> frozenset[str]:
    return frozenset(_text(fields, "flags").replace("-", "").split(",")) - {""}


def _text(fields: Mapping[str, Any], name: str) -> str:
    value = fields.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise TypeError(f"{name}={value!r}")
    return value


def _fault(reason: str, line: bytes) -> LogFault:
    return LogFault(reason=reason[:200], line_start=line[:80].decode(errors="replace"))
