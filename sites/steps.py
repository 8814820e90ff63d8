"""The smallest changes an agent applies. Every step states the wanted end, so repeating it is
harmless.

A step is allowed only under the assignment version it names, which the agent has accepted.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from sites.errors import Violation
from sites.units import require_id, require_nonnegative


class StepKind(StrEnum):
    """What a step does. START waits until ready; DRAIN until nothing runs (or its timeout)."""

    START_REPLICAS = "start_replicas"
    SET_ROUTES = "set_routes"
    DRAIN_REPLICAS = "drain_replicas"
    STOP_REPLICAS = "stop_replicas"


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """One change at one site.

    START_REPLICAS: group `group_id` has at least `replicas` ready copies afterwards. SET_ROUTES:
    the gateway runs the routes of the accepted assignment. DRAIN_REPLICAS / STOP_REPLICAS: at most
    `replicas` copies take new requests / are running afterwards. `timeout_ms` bounds the step.
    """

    step_id: str
    site_id: str
    kind: StepKind
    epoch: int
    version: int
    group_id: str = ""
    replicas: int = 0
    timeout_ms: int = 60_000

    def __post_init__(self) -> None:
        require_id(self.step_id, field="step_id")
        require_id(self.site_id, field="site_id")
        require_nonnegative(self.replicas, field="replicas")


class StepOutcome(StrEnum):
    """How a step ended."""

    DONE = "done"
    FAILED = "failed"
    REFUSED = "refused"


@dataclass(frozen=True, kw_only=True, slots=True)
class StepResult:
    """What an agent says of a step. `finished_at_ms` is the site's wall clock."""

    step_id: str
    site_id: str
    outcome: StepOutcome
    finished_at_ms: int
    detail: str = ""
    violations: tuple[Violation, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class AssignmentVerdict:
    """An agent's ACK (no violations) or NACK of an assignment, and the rank it still runs."""

    site_id: str
    epoch: int
    version: int
    assignment_digest: str
    violations: tuple[Violation, ...]
    applied_epoch: int
    applied_version: int
    validate_only: bool = False

    @property
    def accepted(self) -> bool:
        """Whether the site will act on it."""
        return not self.violations
