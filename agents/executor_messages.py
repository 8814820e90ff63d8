"""What the executor is told and what it wants done. Facts only; `agents.executor` decides."""

from __future__ import annotations

from dataclasses import dataclass

from sites.assignment import GroupTarget, Lease, SiteAssignment
from sites.steps import Step, StepResult


@dataclass(frozen=True, kw_only=True, slots=True)
class AssignmentAccepted:
    """A judged assignment, already durable. Its steps are allowed from now on."""

    assignment: SiteAssignment


@dataclass(frozen=True, kw_only=True, slots=True)
class LeaseRenewed:
    """The control plane allows new changes for a while."""

    lease: Lease


@dataclass(frozen=True, kw_only=True, slots=True)
class StepArrived:
    """The control plane wants a step done (possibly not for the first time)."""

    step: Step


@dataclass(frozen=True, kw_only=True, slots=True)
class ReplicaReady:
    """A replica answers its health check."""

    replica_id: str


@dataclass(frozen=True, kw_only=True, slots=True)
class ReplicaExited:
    """A replica's process ended unasked, or could not be started."""

    replica_id: str
    detail: str


@dataclass(frozen=True, kw_only=True, slots=True)
class ReplicaIdle:
    """A replica on `WatchIdle` has no request left."""

    replica_id: str


@dataclass(frozen=True, kw_only=True, slots=True)
class ReplicaStopped:
    """The process of a `StopReplica` is gone."""

    replica_id: str


@dataclass(frozen=True, kw_only=True, slots=True)
class RoutesApplied:
    """The gateway runs what `ApplyRoutes` of that token asked for."""

    token: int


@dataclass(frozen=True, kw_only=True, slots=True)
class RoutesRejected:
    """The gateway kept its old configuration."""

    token: int
    detail: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Ticked:
    """Time passed."""


ExecutorEvent = (
    AssignmentAccepted
    | LeaseRenewed
    | StepArrived
    | ReplicaReady
    | ReplicaExited
    | ReplicaIdle
    | ReplicaStopped
    | RoutesApplied
    | RoutesRejected
    | Ticked
)


@dataclass(frozen=True, kw_only=True, slots=True)
class StartReplica:
    """Start a server process; answer with `ReplicaReady` or `ReplicaExited`."""

    replica_id: str
    target: GroupTarget


@dataclass(frozen=True, kw_only=True, slots=True)
class StopReplica:
    """End the process; answer with `ReplicaStopped`."""

    replica_id: str


@dataclass(frozen=True, kw_only=True, slots=True)
class WatchIdle:
    """Tell with `ReplicaIdle` when the replica has no request left; it receives no new ones."""

    replica_id: str


@dataclass(frozen=True, kw_only=True, slots=True)
class ApplyRoutes:
    """Have the gateway run the assignment's routes over these ready replicas of each group."""

    token: int
    assignment: SiteAssignment
    ready: tuple[tuple[str, tuple[str, ...]], ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class SaveWanted:
    """Make durable how many replicas are wanted per group, before anything is started for it."""

    replicas: tuple[tuple[str, int], ...]
    next_replica: int


@dataclass(frozen=True, kw_only=True, slots=True)
class MarkApplied:
    """Make durable that the gateway runs this assignment's routes."""

    assignment: SiteAssignment


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """Tell the control plane how a step ended."""

    result: StepResult


ExecutorEffect = (
    StartReplica | StopReplica | WatchIdle | ApplyRoutes | SaveWanted | MarkApplied | Report
)
