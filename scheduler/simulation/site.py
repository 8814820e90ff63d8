"""A site that exists only in memory: agent, gateway and replicas, as the control plane sees them.

Stands in for an agent process in simulations: judges assignments with the same checker, takes
steps, keeps its applied rank across restarts, reports. It serves no request.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from sites.assignment import GroupTarget, ReplicaGroup, SiteAssignment
from sites.digest import digest
from sites.errors import Violation
from sites.fit import check_fit, possible_draw_w
from sites.hub_messages import (
    AssignmentWanted,
    HelloArrived,
    HubEvent,
    ObservationArrived,
    SendStep,
    StepResultArrived,
    VerdictArrived,
)
from sites.steps import AssignmentVerdict, Step, StepKind, StepOutcome, StepResult
from sites.telemetry import (
    GatewayObservation,
    Hello,
    PeerHealth,
    ReplicaObservation,
    ReplicaState,
    SiteObservation,
)


@dataclass(kw_only=True, slots=True)
class SimulatedReplica:
    """One copy; `due_at_ms` ends its LOADING or DRAINING."""

    replica_id: str
    group: ReplicaGroup
    state: ReplicaState
    due_at_ms: int


@dataclass(frozen=True, kw_only=True, slots=True)
class SiteHabits:
    """How long things take at a simulated site, and which steps go wrong (by kind).

    `refusing` answers every assignment with a NACK, `silent` answers nothing it is sent.
    """

    start_ms: int = 400
    drain_ms: int = 100
    heartbeat_ms: int = 200
    failing: tuple[StepKind, ...] = ()
    refusing: bool = False
    silent: bool = False


class SimulatedSite:
    """One agent with what it runs.

    `recovering`: killed since it last accepted an assignment and set its routes, so its old routes
    may point at replicas that are not back yet (its gateway's retries cover that until then).
    """

    def __init__(self, site_id: str, habits: SiteHabits | None = None) -> None:
        self.site_id = site_id
        self.habits = habits or SiteHabits()
        self.agent_up = True
        self.gateway_up = True
        self.recovering = False
        self._killed_at_rank = (0, 0)
        self.accepted: SiteAssignment | None = None
        self.applied: SiteAssignment | None = None
        self.replicas: list[SimulatedReplica] = []
        self.applied_ranks: list[tuple[int, int]] = []
        self._figures: dict[str, GroupTarget] = {}
        self._starts = 0
        self._numbers = 0
        self._sequence = 0
        self._heartbeat_at_ms = 0
        self._waiting: dict[str, Step] = {}

    @property
    def instance_id(self) -> str:
        """Changes with every start of the agent."""
        return f"{self.site_id}-{self._starts}"

    def start_agent(self, now_ms: int) -> tuple[HubEvent, ...]:
        """The agent comes up, starts what its assignment wants and is missing, says hello."""
        self.agent_up = self.gateway_up = True
        self._starts += 1
        self._waiting.clear()
        self._heartbeat_at_ms = now_ms
        for target in self.applied.groups if self.applied else ():
            self._start(target.group, target.replicas, now_ms)
        return (HelloArrived(hello=self._hello()),)

    def kill(self) -> None:
        """Agent, gateway and replicas die; what was applied stays on disk."""
        self.agent_up = self.gateway_up = False
        self.recovering = True
        self._killed_at_rank = self.accepted.rank if self.accepted else (0, 0)
        self.replicas.clear()
        self._waiting.clear()

    def kill_agent(self) -> None:
        """Only the agent dies: the gateway and the replicas go on serving."""
        self.agent_up = False
        self._waiting.clear()

    def take(self, frame: AssignmentWanted | SendStep, now_ms: int) -> tuple[HubEvent, ...]:
        """A frame from the control plane; the answers that are ready at once."""
        if not self.agent_up or self.habits.silent:
            return ()
        if isinstance(frame, AssignmentWanted):
            return (self._judge(frame),)
        return self._begin(frame.step, now_ms)

    def pass_time(self, now_ms: int, peers: dict[str, bool]) -> tuple[HubEvent, ...]:
        """Replicas load and drain, steps end, heartbeats leave. `peers`: who looks healthy."""
        for replica in self.replicas:
            if replica.state is ReplicaState.LOADING and now_ms >= replica.due_at_ms:
                replica.state = ReplicaState.READY
        if not self.agent_up:
            return ()
        events: list[HubEvent] = []
        for step in list(self._waiting.values()):
            if self._is_met(step, now_ms):
                del self._waiting[step.step_id]
                events.append(self._result(step, StepOutcome.DONE, now_ms))
        if now_ms >= self._heartbeat_at_ms:
            self._heartbeat_at_ms = now_ms + self.habits.heartbeat_ms
            events.append(ObservationArrived(observation=self._observation(now_ms, peers)))
        return tuple(events)

    def count(self, group_id: str, *states: ReplicaState) -> int:
        """Replicas of a group in one of `states` (none given: all)."""
        return sum(
            1
            for r in self.replicas
            if r.group.group_id == group_id and (not states or r.state in states)
        )

    def possible_draw_w(self) -> float:
        """Most W that what runs here can draw, cooling included."""
        if self.accepted is None:
            return 0.0
        targets = [replace(t, replicas=0) for t in self._figures.values()]
        running = {g: self.count(g) for g in self._figures}
        return possible_draw_w(targets, pue=self.accepted.pue, running=running)

    def _rank(self) -> tuple[int, int]:
        return self.applied.rank if self.applied else (0, 0)

    def _seen(self) -> tuple[ReplicaObservation, ...]:
        return tuple(
            ReplicaObservation(replica_id=r.replica_id, group=r.group, state=r.state)
            for r in self.replicas
        )

    def _hello(self) -> Hello:
        epoch, version = self._rank()
        return Hello(
            site_id=self.site_id,
            instance_id=self.instance_id,
            agent_version="simulated",
            inventory=(),
            epoch=epoch,
            version=version,
            assignment_digest=digest(self.applied) if self.applied else "",
            replicas=self._seen(),
        )

    def _observation(self, now_ms: int, peers: dict[str, bool]) -> SiteObservation:
        self._sequence += 1
        epoch, version = self._rank()
        health = tuple(PeerHealth(site_id=s, healthy=peers[s]) for s in sorted(peers))
        return SiteObservation(
            site_id=self.site_id,
            instance_id=self.instance_id,
            sequence=self._sequence,
            observed_at_ms=now_ms,
            epoch=epoch,
            version=version,
            assignment_digest="",
            replicas=self._seen(),
            gateway=GatewayObservation(
                live=self.gateway_up and self.applied is not None,
                peers=health if self.applied is not None else (),
            ),
            possible_draw_w=self.possible_draw_w(),
            draw_w=0.0,
        )

    def _judge(self, frame: AssignmentWanted) -> VerdictArrived:
        assignment = frame.assignment
        violations = self._faults_of(assignment)
        if not violations and not frame.validate_only:
            self.accepted = assignment
            self._figures |= {t.group.group_id: t for t in assignment.groups}
        epoch, version = self._rank()
        return VerdictArrived(
            verdict=AssignmentVerdict(
                site_id=self.site_id,
                epoch=assignment.epoch,
                version=assignment.version,
                assignment_digest=digest(assignment),
                violations=violations,
                applied_epoch=epoch,
                applied_version=version,
                validate_only=frame.validate_only,
            )
        )

    def _faults_of(self, assignment: SiteAssignment) -> tuple[Violation, ...]:
        if self.habits.refusing:
            return (Violation(code="refused", subject=self.site_id, limit="mood", actual="bad"),)
        newest = self.accepted.rank if self.accepted else (0, 0)
        if assignment.rank < newest:
            return (
                Violation(
                    code="old_rank",
                    subject=self.site_id,
                    limit=str(newest),
                    actual=str(assignment.rank),
                ),
            )
        return check_fit(assignment)

    def _begin(self, step: Step, now_ms: int) -> tuple[HubEvent, ...]:
        if self.accepted is None or self.accepted.rank != (step.epoch, step.version):
            return (self._result(step, StepOutcome.REFUSED, now_ms, detail="rank not accepted"),)
        if step.kind in self.habits.failing:
            return (self._result(step, StepOutcome.FAILED, now_ms, detail="told to fail"),)
        if step.kind is StepKind.SET_ROUTES:
            self.applied = self.accepted
            self.applied_ranks.append(self.applied.rank)
            if self.applied.rank > self._killed_at_rank:
                self.recovering = False
        elif step.kind is StepKind.START_REPLICAS:
            self._start(self._figures[step.group_id].group, step.replicas, now_ms)
        else:
            self._leave(step, now_ms)
        self._waiting[step.step_id] = step
        return ()

    def _start(self, group: ReplicaGroup, replicas: int, now_ms: int) -> None:
        while self.count(group.group_id) < replicas:
            self._numbers += 1
            self.replicas.append(
                SimulatedReplica(
                    replica_id=f"{group.group_id}#{self._numbers}",
                    group=group,
                    state=ReplicaState.LOADING,
                    due_at_ms=now_ms + self.habits.start_ms,
                )
            )

    def _leave(self, step: Step, now_ms: int) -> None:
        """Drain, or end, copies beyond what the step leaves; draining ones go first."""
        mine = [r for r in self.replicas if r.group.group_id == step.group_id]
        mine.sort(key=lambda r: (r.state is ReplicaState.DRAINING, r.replica_id))
        beyond = mine[step.replicas :]
        if step.kind is StepKind.STOP_REPLICAS:
            self.replicas = [r for r in self.replicas if r not in beyond]
            return
        for replica in beyond:
            if replica.state is not ReplicaState.DRAINING:
                replica.state = ReplicaState.DRAINING
                replica.due_at_ms = now_ms + self.habits.drain_ms

    def _is_met(self, step: Step, now_ms: int) -> bool:
        if step.kind is StepKind.START_REPLICAS:
            return self.count(step.group_id, ReplicaState.READY) >= step.replicas
        if step.kind is StepKind.DRAIN_REPLICAS:
            return all(
                now_ms >= r.due_at_ms
                for r in self.replicas
                if r.group.group_id == step.group_id and r.state is ReplicaState.DRAINING
            )
        return True

    def _result(
        self, step: Step, outcome: StepOutcome, now_ms: int, *, detail: str = ""
    ) -> StepResultArrived:
        return StepResultArrived(
            result=StepResult(
                step_id=step.step_id,
                site_id=self.site_id,
                outcome=outcome,
                finished_at_ms=now_ms,
                detail=detail,
            )
        )
