"""Which steps an agent refuses, and when a step under way has ended. Pure functions.

Decides about one step at a time from what the executor tells; keeps no state.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from agents.replica_set import TAKING, Life, Replica
from sites.assignment import Lease, SiteAssignment
from sites.errors import Violation
from sites.steps import Step, StepKind, StepOutcome


def check_step(
    step: Step,
    *,
    site_id: str,
    accepted: SiteAssignment | None,
    applied: SiteAssignment | None,
    lease: Lease | None,
    wall_ms: int,
    taking: Mapping[str, int],
) -> tuple[Violation, ...]:
    """Why the step may not be done; empty if it may.

    Codes: ``wrong_site``, ``step_rank`` (the accepted assignment is another), ``lease`` (none, of
    another epoch, or expired), ``expired`` (new routes of an assignment past its time),
    ``unknown_group``, ``group_replicas`` (more than assigned),
    ``absent_group`` (routes to a group nothing was started for), ``make_before_break`` (the last
    replicas of a group the gateway still routes to).
    """
    subject = f'site "{site_id}": step "{step.step_id}"'
    rank = (step.epoch, step.version)
    if step.site_id != site_id:
        return (Violation(code="wrong_site", subject=subject, limit=site_id, actual=step.site_id),)
    if accepted is None or accepted.rank != rank:
        return (
            Violation(
                code="step_rank",
                subject=subject,
                limit=_shown(accepted.rank) if accepted else "no assignment accepted",
                actual=_shown(rank),
                remedy="send the assignment of that version first",
            ),
        )
    return (
        *_check_lease(step, lease, wall_ms, subject),
        *_check_expiry(step, accepted, applied, wall_ms, subject),
        *_check_group(step, accepted, subject),
        *_check_routing(step, accepted, applied, taking, subject),
    )


def _check_lease(
    step: Step, lease: Lease | None, wall_ms: int, subject: str
) -> tuple[Violation, ...]:
    if lease is not None and lease.epoch == step.epoch and wall_ms < lease.expires_at_ms:
        return ()
    if lease is None:
        actual = "no lease"
    elif lease.epoch != step.epoch:
        actual = f"a lease of epoch {lease.epoch}"
    else:
        actual = f"a lease expired {wall_ms - lease.expires_at_ms} ms ago"
    return (
        Violation(
            code="lease",
            subject=subject,
            limit=f"a running lease of epoch {step.epoch}",
            actual=actual,
            remedy="renew the lease and send the step again",
        ),
    )


def _check_expiry(
    step: Step,
    accepted: SiteAssignment,
    applied: SiteAssignment | None,
    wall_ms: int,
    subject: str,
) -> tuple[Violation, ...]:
    is_applied = applied is not None and applied.rank == accepted.rank
    if step.kind is not StepKind.SET_ROUTES or is_applied or wall_ms < accepted.expires_at_ms:
        return ()
    return (
        Violation(
            code="expired",
            subject=subject,
            limit=accepted.expires_at_ms,
            actual=wall_ms,
            unit="ms",
            remedy="send the assignment anew under a higher version",
        ),
    )


def _check_group(step: Step, accepted: SiteAssignment, subject: str) -> tuple[Violation, ...]:
    if step.kind is not StepKind.START_REPLICAS:
        return ()
    target = next((t for t in accepted.groups if t.group.group_id == step.group_id), None)
    if target is None:
        return (
            Violation(
                code="unknown_group",
                subject=subject,
                limit="a group of the accepted assignment",
                actual=step.group_id,
            ),
        )
    if step.replicas > target.replicas:
        return (
            Violation(
                code="group_replicas",
                subject=subject,
                limit=target.replicas,
                actual=step.replicas,
                unit="replicas",
            ),
        )
    return ()


def _check_routing(
    step: Step,
    accepted: SiteAssignment,
    applied: SiteAssignment | None,
    taking: Mapping[str, int],
    subject: str,
) -> tuple[Violation, ...]:
    if step.kind is StepKind.SET_ROUTES:
        return tuple(
            Violation(
                code="absent_group",
                subject=subject,
                limit="groups with a replica here",
                actual=group_id,
                remedy="start its replicas first",
            )
            for group_id in sorted(_routed_groups(accepted))
            if taking.get(group_id, 0) == 0
        )
    takes_last = step.kind is not StepKind.START_REPLICAS and step.replicas == 0
    if takes_last and applied is not None and step.group_id in _routed_groups(applied):
        return (
            Violation(
                code="make_before_break",
                subject=subject,
                limit="no route to the group",
                actual=f"the gateway routes to {step.group_id}",
                remedy="move its routes first",
            ),
        )
    return ()


def _routed_groups(assignment: SiteAssignment) -> set[str]:
    return {g.group_id for r in assignment.routes for g in r.groups if g.basis_points > 0}


def has_equal_routes(one: SiteAssignment, other: SiteAssignment) -> bool:
    """Whether a gateway does the same under both, ranks and hardware aside."""
    same = ("gateway", "routes", "services", "tenants", "policies", "peers", "api_key_jwks")
    return all(getattr(one, name) == getattr(other, name) for name in same)


def state_of_start(
    step: Step, group: Sequence[Replica], *, is_late: bool, failures_limit: int
) -> tuple[StepOutcome | None, str]:
    """DONE once enough are ready; FAILED when late or when one keeps failing."""
    ready = sum(1 for r in group if r.life is Life.READY)
    if ready >= step.replicas:
        return StepOutcome.DONE, ""
    reasons = [f"{r.replica_id}: {r.detail}" for r in group if r.detail]
    if any(r.life is Life.FAILED and r.failures >= failures_limit for r in group):
        return StepOutcome.FAILED, "; ".join(reasons)
    if is_late:
        text = f"{ready} of {step.replicas} replicas ready after {step.timeout_ms} ms"
        return StepOutcome.FAILED, "; ".join([text, *reasons])
    return None, ""


def state_of_drain(
    step: Step, group: Sequence[Replica], *, is_late: bool
) -> tuple[StepOutcome | None, str]:
    """DONE once few enough take requests and the others are idle, or when their time is over;
    FAILED if by then the gateway still sends them requests.
    """
    draining = [r for r in group if r.life is Life.DRAINING]
    taking = sum(1 for r in group if r.life in TAKING)
    if taking <= step.replicas and not draining:
        return StepOutcome.DONE, ""
    if not is_late:
        return None, ""
    if any(not r.is_watched for r in draining):
        return StepOutcome.FAILED, f"the gateway still routes to it after {step.timeout_ms} ms"
    return StepOutcome.DONE, f"{len(draining)} replicas still busy after {step.timeout_ms} ms"


def state_of_stop(
    step: Step, group: Sequence[Replica], *, is_late: bool
) -> tuple[StepOutcome | None, str]:
    """DONE once few enough have a process; FAILED when late."""
    running = sum(1 for r in group if r.life is not Life.FAILED)
    if running <= step.replicas:
        return StepOutcome.DONE, ""
    if is_late:
        text = f"{running} replicas still run after {step.timeout_ms} ms, must be {step.replicas}"
        return StepOutcome.FAILED, text
    return None, ""


def _shown(rank: tuple[int, int]) -> str:
    return f"epoch {rank[0]} version {rank[1]}"
