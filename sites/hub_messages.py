"""What an `EdgeHub` is told and what it wants done. Facts only; `sites.hub` decides.

Every effect a hub emits besides the three ``Send*`` is also, unchanged, an event of the control
loop (`scheduler.events`). `StepWanted`, `StepsForgotten`, `CordonWanted` and `UncordonWanted` are
effects of the control loop that its shell hands, unchanged, to the hub of the site they name (all
have `site_id`). Of `AssignmentWanted` the shell keeps the assignment and hands on the name: hubs
decide by rank alone, and what they hold travels between processes.
Times called ``now_ms`` are wall milliseconds that the shell keeps from running backwards.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from sites.assignment import Lease, SiteAssignment
from sites.steps import AssignmentVerdict, Step, StepResult
from sites.telemetry import Hello, SiteObservation


class ConnectionState(StrEnum):
    """What the fleet view says of a site's agent."""

    CONNECTED = "connected"
    STALE = "stale"
    UNREACHABLE = "unreachable"


@dataclass(frozen=True, kw_only=True, slots=True)
class HelloArrived:
    """The site's agent opened a stream (or its hello is told again to a rebuilt hub)."""

    hello: Hello


@dataclass(frozen=True, kw_only=True, slots=True)
class ObservationArrived:
    """A heartbeat."""

    observation: SiteObservation


@dataclass(frozen=True, kw_only=True, slots=True)
class VerdictArrived:
    """An ACK or NACK."""

    verdict: AssignmentVerdict


@dataclass(frozen=True, kw_only=True, slots=True)
class StepResultArrived:
    """How a step ended, as the agent says."""

    result: StepResult


@dataclass(frozen=True, kw_only=True, slots=True)
class StreamClosed:
    """The stream of that agent instance ended; closing an old instance's stream changes nothing."""

    instance_id: str
    reason: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Ticked:
    """Time passed. Sent to every hub and to the control loop every 50-250 ms."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AssignmentWanted:
    """The control loop wants this assignment judged (`validate_only`) or accepted at its site."""

    assignment: SiteAssignment
    validate_only: bool = False

    @property
    def site_id(self) -> str:
        """The site it is for."""
        return self.assignment.site_id

    def named(self) -> AssignmentNamed:
        """The same wish without the assignment itself."""
        return AssignmentNamed(
            site_id=self.site_id, rank=self.assignment.rank, validate_only=self.validate_only
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class AssignmentNamed:
    """The assignment of that (epoch, version), which the shell keeps, is wanted at its site."""

    site_id: str
    rank: tuple[int, int]
    validate_only: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class StepWanted:
    """The control loop wants this step done at its site."""

    step: Step

    @property
    def site_id(self) -> str:
        """The site it is for."""
        return self.step.site_id


@dataclass(frozen=True, kw_only=True, slots=True)
class StepsForgotten:
    """The control loop no longer waits for these steps: never resend them, report no timeout."""

    site_id: str
    step_ids: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class CordonWanted:
    """The site is to receive nothing new (an operator's wish)."""

    site_id: str
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class UncordonWanted:
    """The site may receive new work again; past NACKs are forgiven."""

    site_id: str


HubEvent = (
    HelloArrived
    | ObservationArrived
    | VerdictArrived
    | StepResultArrived
    | StreamClosed
    | Ticked
    | AssignmentNamed
    | StepWanted
    | StepsForgotten
    | CordonWanted
    | UncordonWanted
)


@dataclass(frozen=True, kw_only=True, slots=True)
class SendAssignment:
    """Send the assignment of that rank, which the shell keeps, down the site's stream (dropped if
    there is none: the hub resends).
    """

    site_id: str
    rank: tuple[int, int]
    validate_only: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class SendStep:
    """Send the step down the site's stream."""

    site_id: str
    step: Step


@dataclass(frozen=True, kw_only=True, slots=True)
class SendLease:
    """Send a lease renewal down the site's stream."""

    site_id: str
    lease: Lease


@dataclass(frozen=True, kw_only=True, slots=True)
class ConnectionChanged:
    """The site's connection state is another now."""

    site_id: str
    state: ConnectionState
    reason: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class SiteSaidHello:
    """An agent introduced itself; what it runs and which rank it has applied."""

    site_id: str
    hello: Hello


@dataclass(frozen=True, kw_only=True, slots=True)
class SiteObserved:
    """A fresh observation, in sequence."""

    site_id: str
    observation: SiteObservation


@dataclass(frozen=True, kw_only=True, slots=True)
class AssignmentJudged:
    """The site's verdict on an assignment this hub sent."""

    site_id: str
    verdict: AssignmentVerdict


@dataclass(frozen=True, kw_only=True, slots=True)
class StepFinished:
    """A step ended, or was never answered in time (outcome FAILED, detail says so)."""

    site_id: str
    result: StepResult


@dataclass(frozen=True, kw_only=True, slots=True)
class SiteCordoned:
    """The hub gave up on the site (repeated NACKs)."""

    site_id: str
    reason: str


HubEffect = (
    SendAssignment
    | SendStep
    | SendLease
    | ConnectionChanged
    | SiteSaidHello
    | SiteObserved
    | AssignmentJudged
    | StepFinished
    | SiteCordoned
)
