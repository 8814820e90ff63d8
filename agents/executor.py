"""The step machine of one site: what to start, route, drain and stop, and what to answer.

Decides which steps are begun, in what order their parts happen and how they end, and that a crashed
replica comes back. It does nothing itself: the shell (`agents.core`) carries the effects out and
reports back as events. Steps state the wanted end, so a repeated one is harmless.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from agents import step_rules
from agents.executor_messages import (
    AssignmentAccepted,
    ExecutorEffect,
    ExecutorEvent,
    LeaseRenewed,
    MarkApplied,
    ReplicaExited,
    ReplicaIdle,
    ReplicaReady,
    ReplicaStopped,
    Report,
    RoutesApplied,
    RoutesRejected,
    StepArrived,
    Ticked,
)
from agents.replica_book import ReplicaBook
from agents.replica_set import Life, Replica, check_room
from agents.route_publisher import RoutePublisher
from sites.assignment import GroupTarget, Lease, SiteAssignment
from sites.errors import Violation
from sites.fit import possible_draw_w
from sites.steps import Step, StepKind, StepOutcome, StepResult

FAILURES_LIMIT = 3
"""A START step gives up once a replica of its group has failed so often in a row."""

REMEMBERED_RESULTS = 1_024


@dataclass(frozen=True, kw_only=True, slots=True)
class Resumed:
    """What an agent finds when it starts: its disk's memory and the processes still running."""

    accepted: SiteAssignment | None = None
    applied: SiteAssignment | None = None
    wanted: Mapping[str, int] | None = None
    next_replica: int = 1
    replicas: tuple[Replica, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class _Active:
    """A step under way and how many replicas of its group were wanted before it."""

    step: Step
    began_ms: int
    wanted_before: int


class Executor:
    """One owner calls `handle`; times are monotonic ms (`now_ms`) and wall ms (`wall_ms`)."""

    def __init__(self, site_id: str, resumed: Resumed) -> None:
        self._site_id = site_id
        self._accepted = resumed.accepted
        self._routes = RoutePublisher(resumed.applied)
        self._book = ReplicaBook(
            resumed.replicas, wanted=resumed.wanted or {}, next_replica=resumed.next_replica
        )
        self._lease: Lease | None = None
        self._steps: dict[str, _Active] = {}
        self._done: dict[str, StepResult] = {}
        self._effects: list[ExecutorEffect] = []

    @property
    def accepted(self) -> SiteAssignment | None:
        """The assignment whose steps are allowed."""
        return self._accepted

    @property
    def applied(self) -> SiteAssignment | None:
        """The assignment whose routes the gateway runs."""
        return self._routes.applied

    def replicas(self) -> tuple[Replica, ...]:
        """Every replica, oldest first."""
        return self._book.all()

    def held(self) -> tuple[GroupTarget, ...]:
        """Groups with the replicas that hold hardware now or have it reserved for a restart."""
        return self._book.held()

    def ready_by_group(self) -> tuple[tuple[str, tuple[str, ...]], ...]:
        """Ids of the ready replicas of each group that has any."""
        return self._book.ready_by_group()

    def possible_draw_w(self) -> float:
        """Most W the site can draw now, cooling included."""
        newest = self._limits()
        return possible_draw_w(self.held(), pue=newest.pue) if newest else 0.0

    def faults(self) -> tuple[str, ...]:
        """What does not work at this moment, for the heartbeat."""
        broken = [f"{r.replica_id}: {r.detail}" for r in self.replicas() if r.life is Life.FAILED]
        return (*broken, *([self._routes.fault] if self._routes.fault else []))

    def start(self, *, now_ms: int, wall_ms: int) -> tuple[ExecutorEffect, ...]:
        """First effects after an agent's start: bring back what was wanted when it ended."""
        for group_id in sorted({r.group_id for r in self.replicas()}):
            self._book.drain_to(group_id, self._book.wanted(group_id), now_ms=now_ms)
        for group_id in self._book.wanted_groups():
            self._start_to(group_id, self._book.wanted(group_id), now_ms=now_ms)
        self._book.is_ready_set_new = True
        return self._finish(now_ms=now_ms, wall_ms=wall_ms)

    def handle(
        self, event: ExecutorEvent, *, now_ms: int, wall_ms: int
    ) -> tuple[ExecutorEffect, ...]:
        """Take one event; the effects are to be carried out in order."""
        match event:
            case StepArrived():
                self._on_step(event.step, now_ms=now_ms, wall_ms=wall_ms)
            case AssignmentAccepted():
                self._on_accepted(event.assignment)
            case LeaseRenewed():
                self._on_lease(event.lease)
            case ReplicaReady():
                self._book.on_ready(event.replica_id, now_ms=now_ms)
            case ReplicaExited():
                self._book.on_exited(event.replica_id, detail=event.detail, now_ms=now_ms)
            case ReplicaIdle():
                self._book.on_idle(event.replica_id, now_ms=now_ms)
            case ReplicaStopped():
                self._book.on_stopped(event.replica_id)
            case RoutesApplied() | RoutesRejected():
                self._on_routes(event, now_ms=now_ms, wall_ms=wall_ms)
            case Ticked():
                pass
        return self._finish(now_ms=now_ms, wall_ms=wall_ms)

    def _finish(self, *, now_ms: int, wall_ms: int) -> tuple[ExecutorEffect, ...]:
        """Whatever the event has made due; then its effects, in order."""
        self._book.restart_due(targets=self._targets(), limits=self._limits(), now_ms=now_ms)
        self._book.stop_due(now_ms)
        self._publish_if_due(now_ms)
        self._settle_steps(now_ms=now_ms, wall_ms=wall_ms)
        self._publish_if_due(now_ms)
        self._take_book_effects()
        effects, self._effects = tuple(self._effects), []
        return effects

    def _publish_if_due(self, now_ms: int) -> None:
        if self._book.is_ready_set_new or self._routes.is_due(now_ms):
            self._publish()

    def _publish(self) -> None:
        self._book.is_ready_set_new = False
        if self._routes.wanted is None:
            self._book.watch_drains(())
        self._take_book_effects()
        self._effects += self._routes.publish(self._book.ready_by_group())

    def _take_book_effects(self) -> None:
        self._effects += self._book.effects
        self._book.effects.clear()

    # Assignments and leases

    def _on_accepted(self, assignment: SiteAssignment) -> None:
        if self._accepted is not None and assignment.rank <= self._accepted.rank:
            return
        self._accepted = assignment
        if self.applied is not None and step_rules.has_equal_routes(assignment, self.applied):
            self._routes.wanted = assignment
            self._publish()

    def _on_lease(self, lease: Lease) -> None:
        newest = (self._lease.epoch, self._lease.expires_at_ms) if self._lease else (-1, 0)
        if (lease.epoch, lease.expires_at_ms) > newest:
            self._lease = lease

    def _on_routes(
        self, event: RoutesApplied | RoutesRejected, *, now_ms: int, wall_ms: int
    ) -> None:
        asked, is_new = self._routes.settle(event, now_ms=now_ms)
        if asked is None:
            return
        if is_new:
            self._effects.append(MarkApplied(assignment=asked.assignment))
        if isinstance(event, RoutesApplied):
            self._book.watch_drains(asked.ready)
            return
        for active in tuple(self._steps.values()):
            rank = (active.step.epoch, active.step.version)
            if active.step.kind is StepKind.SET_ROUTES and rank == asked.assignment.rank:
                self._end_step(
                    active, StepOutcome.FAILED, self._routes.fault, now_ms=now_ms, wall_ms=wall_ms
                )

    # Steps

    def _on_step(self, step: Step, *, now_ms: int, wall_ms: int) -> None:
        if step.step_id in self._done:
            self._effects.append(Report(result=self._done[step.step_id]))
            return
        if step.step_id in self._steps:
            return
        violations = step_rules.check_step(
            step,
            site_id=self._site_id,
            accepted=self._accepted,
            applied=self.applied,
            lease=self._lease,
            wall_ms=wall_ms,
            taking=self._book.taking_by_group(),
        )
        violations = violations or self._check_room_for(step)
        if violations:
            self._report(step, StepOutcome.REFUSED, violations[0].message(), wall_ms, violations)
            return
        before = self._book.wanted(step.group_id)
        self._steps[step.step_id] = _Active(step=step, began_ms=now_ms, wanted_before=before)
        self._begin(step, now_ms=now_ms)

    def _check_room_for(self, step: Step) -> tuple[Violation, ...]:
        target = self._targets().get(step.group_id)
        more = step.replicas - self._book.reusable(step.group_id)
        if step.kind is not StepKind.START_REPLICAS or more <= 0 or target is None:
            return ()
        assert self._accepted is not None, "only steps of an accepted assignment get here"
        return check_room(self._accepted, held=self.held(), more=target, count=more)

    def _begin(self, step: Step, *, now_ms: int) -> None:
        wanted = self._book.wanted(step.group_id)
        if step.kind is StepKind.SET_ROUTES:
            self._routes.wanted = self._accepted
            self._publish()
        elif step.kind is StepKind.START_REPLICAS:
            self._book.want(step.group_id, max(wanted, step.replicas))
            self._start_to(step.group_id, step.replicas, now_ms=now_ms)
        else:
            self._book.want(step.group_id, min(wanted, step.replicas))
            self._book.drain_to(step.group_id, step.replicas, now_ms=now_ms)
            if step.kind is StepKind.STOP_REPLICAS:
                by_ms = now_ms + step.timeout_ms // 2
                self._book.stop_to(step.group_id, step.replicas, by_ms=by_ms)
                self._book.stop_due(now_ms)

    def _start_to(self, group_id: str, count: int, *, now_ms: int) -> None:
        target = self._targets().get(group_id)
        if target is not None:
            self._book.start_to(target, count, limits=self._limits(), now_ms=now_ms)

    def _settle_steps(self, *, now_ms: int, wall_ms: int) -> None:
        for active in tuple(self._steps.values()):
            outcome, detail = self._state_of(active, now_ms=now_ms)
            if outcome is not None:
                self._end_step(active, outcome, detail, now_ms=now_ms, wall_ms=wall_ms)

    def _state_of(self, active: _Active, *, now_ms: int) -> tuple[StepOutcome | None, str]:
        """How a step stands: no outcome while it goes on."""
        step = active.step
        group = self._book.group(step.group_id)
        is_late = now_ms >= active.began_ms + step.timeout_ms
        if step.kind is StepKind.START_REPLICAS:
            return step_rules.state_of_start(
                step, group, is_late=is_late, failures_limit=FAILURES_LIMIT
            )
        if step.kind is StepKind.DRAIN_REPLICAS:
            return step_rules.state_of_drain(step, group, is_late=is_late)
        if step.kind is StepKind.STOP_REPLICAS:
            return step_rules.state_of_stop(step, group, is_late=is_late)
        if self.applied is not None and self.applied.rank >= (step.epoch, step.version):
            return StepOutcome.DONE, ""
        if is_late:
            return StepOutcome.FAILED, f"the gateway gave no answer in {step.timeout_ms} ms"
        return None, ""

    def _end_step(
        self, active: _Active, outcome: StepOutcome, detail: str, *, now_ms: int, wall_ms: int
    ) -> None:
        step = active.step
        del self._steps[step.step_id]
        if outcome is not StepOutcome.DONE and step.kind is StepKind.START_REPLICAS:
            self._undo_start(active, now_ms=now_ms)
        elif outcome is not StepOutcome.DONE and step.kind is StepKind.SET_ROUTES:
            self._routes.wanted = self.applied
        self._report(step, outcome, detail, wall_ms)

    def _undo_start(self, active: _Active, *, now_ms: int) -> None:
        """A failed START leaves nothing loading behind that was not there before it."""
        group_id = active.step.group_id
        ready = sum(1 for r in self._book.taking(group_id) if r.life is Life.READY)
        kept = max(active.wanted_before, ready)
        self._book.want(group_id, kept)
        self._book.drain_to(group_id, kept, now_ms=now_ms)
        self._book.stop_to(group_id, kept, by_ms=now_ms)
        self._book.stop_due(now_ms)

    def _report(
        self,
        step: Step,
        outcome: StepOutcome,
        detail: str,
        wall_ms: int,
        violations: tuple[Violation, ...] = (),
    ) -> None:
        result = StepResult(
            step_id=step.step_id,
            site_id=self._site_id,
            outcome=outcome,
            finished_at_ms=wall_ms,
            detail=detail,
            violations=violations,
        )
        if outcome is StepOutcome.DONE:
            self._done[step.step_id] = result
            while len(self._done) > REMEMBERED_RESULTS:
                del self._done[next(iter(self._done))]
        self._take_book_effects()
        self._effects.append(Report(result=result))

    # What is known

    def _limits(self) -> SiteAssignment | None:
        """The newest power budget and pools known here."""
        return self._accepted or self.applied

    def _targets(self) -> dict[str, GroupTarget]:
        """The newest definition of every group known here."""
        targets = {r.group_id: r.target for r in self.replicas()}
        for assignment in (self.applied, self._accepted):
            if assignment is not None:
                targets |= {t.group.group_id: t for t in assignment.groups}
        return targets
