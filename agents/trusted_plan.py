"""Whether this site accepts an assignment. Pure: the shell hands in facts and the time.

Decides about audience, rank, expiry, inventory and fit, trusting nobody's word that a plan is good.
The signature was checked when the envelope was opened (`agents.envelope`); a refusal changes
nothing at the site.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from sites.assignment import RouteDecision, SiteAssignment
from sites.assignment_json import assignment_digest
from sites.errors import Violation
from sites.fit import check_fit
from sites.residency import may_transit
from sites.steps import AssignmentVerdict
from sites.telemetry import PoolInventory

VIOLATIONS_MAX = 100
"""Violations that a verdict tells one by one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Standing:
    """Where the site stands: accepted and applied assignment, what hardware was found (empty:
    nobody looked).
    """

    site_id: str
    accepted: SiteAssignment | None = None
    applied: SiteAssignment | None = None
    inventory: tuple[PoolInventory, ...] = ()

    @property
    def applied_rank(self) -> tuple[int, int]:
        """(0, 0) if nothing was ever applied."""
        return self.applied.rank if self.applied else (0, 0)


def judge(
    assignment: SiteAssignment, standing: Standing, *, wall_ms: int, validate_only: bool = False
) -> AssignmentVerdict:
    """ACK (no violations) or NACK.

    Codes beside those of `sites.fit.check_fit`: ``wrong_site``, ``stale_epoch``,
    ``stale_version``, ``conflicting_version`` (another assignment of the rank already accepted),
    ``expired``, ``missing_accelerators``, and ``transit`` also for data that may not even enter
    here. The accepted assignment sent again is an ACK, even after
    its expiry.
    """
    own = assignment_digest(assignment)
    accepted = standing.accepted
    is_repeated = (
        accepted is not None
        and accepted.rank == assignment.rank
        and assignment_digest(accepted) == own
    )
    found = () if is_repeated else _violations(assignment, standing, wall_ms=wall_ms)
    applied_epoch, applied_version = standing.applied_rank
    return AssignmentVerdict(
        site_id=standing.site_id,
        epoch=assignment.epoch,
        version=assignment.version,
        assignment_digest=own,
        violations=_bounded(found, standing),
        applied_epoch=applied_epoch,
        applied_version=applied_version,
        validate_only=validate_only,
    )


def refuse_unreadable(
    reason: str, standing: Standing, *, validate_only: bool = False
) -> AssignmentVerdict:
    """NACK of bytes that are no assignment signed by the control plane; rank (0, 0), no digest."""
    applied_epoch, applied_version = standing.applied_rank
    return AssignmentVerdict(
        site_id=standing.site_id,
        epoch=0,
        version=0,
        assignment_digest="",
        violations=(
            Violation(
                code="envelope",
                subject=f'site "{standing.site_id}": assignment',
                limit="an assignment signed by the control plane",
                actual=reason,
            ),
        ),
        applied_epoch=applied_epoch,
        applied_version=applied_version,
        validate_only=validate_only,
    )


def refuse_undurable(reason: str, verdict: AssignmentVerdict) -> AssignmentVerdict:
    """NACK instead of an ACK that could not be made durable."""
    violation = Violation(
        code="disk",
        subject=f'site "{verdict.site_id}": assignment',
        limit="a durable copy",
        actual=reason,
    )
    return replace(verdict, violations=(violation,))


def _bounded(found: tuple[Violation, ...], standing: Standing) -> tuple[Violation, ...]:
    """The first ones, and how many there are: thousands of routes may all break one limit, and the
    verdict has to fit into one message.
    """
    if len(found) <= VIOLATIONS_MAX:
        return found
    summary = Violation(
        code="more_violations",
        subject=f'site "{standing.site_id}": assignment',
        limit=VIOLATIONS_MAX,
        actual=len(found),
        unit="violations told",
        remedy="mend those before this one, then send it anew",
    )
    return (*found[:VIOLATIONS_MAX], summary)


def _violations(
    assignment: SiteAssignment, standing: Standing, *, wall_ms: int
) -> tuple[Violation, ...]:
    subject = f'site "{standing.site_id}": assignment'
    if assignment.site_id != standing.site_id:
        return (
            Violation(
                code="wrong_site",
                subject=subject,
                limit=standing.site_id,
                actual=assignment.site_id,
                remedy="send each site its own assignment",
            ),
        )
    return (
        *_check_rank(assignment, standing, subject),
        *_check_expiry(assignment, wall_ms, subject),
        *_check_inventory(assignment, standing.inventory),
        *check_fit(assignment),
        *check_ingress(assignment),
    )


def check_ingress(assignment: SiteAssignment) -> Iterable[Violation]:
    """Routes by which this gateway would serve data that may not cross its country."""
    barred = {
        p.policy_id: p  # `check_fit` names policies unknown here
        for p in assignment.policies
        if not may_transit(p, country=assignment.country)
    }
    let_in = [
        r
        for r in assignment.routes
        if r.key.residency_policy_id in barred and r.decision is RouteDecision.SERVE
    ]
    for route in sorted(let_in, key=lambda r: r.key):
        policy = barred[route.key.residency_policy_id]
        yield Violation(
            code="transit",
            subject=f'site "{assignment.site_id}": route "{route.key.route_id}"',
            limit=", ".join(policy.transit_countries or ()) or "no country",
            actual=f"enters in {assignment.country}",
            remedy=f'policy "{policy.policy_id}" must allow crossing {assignment.country}',
        )


def _check_rank(
    assignment: SiteAssignment, standing: Standing, subject: str
) -> Iterable[Violation]:
    newest = max(standing.applied_rank, standing.accepted.rank if standing.accepted else (0, 0))
    if assignment.rank > newest:
        return
    code = "conflicting_version"
    if assignment.epoch < newest[0]:
        code = "stale_epoch"
    elif assignment.rank < newest:
        code = "stale_version"
    yield Violation(
        code=code,
        subject=subject,
        limit=f"above epoch {newest[0]} version {newest[1]}",
        actual=f"epoch {assignment.epoch} version {assignment.version}",
        remedy="send it under a higher version",
    )


def _check_expiry(assignment: SiteAssignment, wall_ms: int, subject: str) -> Iterable[Violation]:
    if wall_ms >= assignment.expires_at_ms:
        yield Violation(
            code="expired",
            subject=subject,
            limit=assignment.expires_at_ms,
            actual=wall_ms,
            unit="ms",
            remedy="compare the clocks of site and control plane, then send it anew",
        )


def _check_inventory(
    assignment: SiteAssignment, inventory: tuple[PoolInventory, ...]
) -> Iterable[Violation]:
    found = {p.pool_id: p for p in inventory}
    for pool in assignment.pools if inventory else ():
        real = found.get(pool.pool_id)
        count = real.count if real and real.accelerator == pool.accelerator else 0
        if count < pool.count:
            yield Violation(
                code="missing_accelerators",
                subject=f'pool "{assignment.site_id}/{pool.pool_id}"',
                limit=count,
                actual=pool.count,
                unit=f"accelerators of type {pool.accelerator}",
                remedy="correct the fleet file or repair the hardware",
            )
