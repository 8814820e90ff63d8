"""Walks the phases of one change: validate everywhere, accept, then wave after wave of steps.

Decides what is sent next and when a change has ended, and keeps its receipt exact: of every step it
is known whether it was sent and how it ended. A refused assignment or a failed step stops it. It
waits in ACCEPTING until the control loop says that the plan is durable. An urgent rollout (a
failover) neither validates first nor lets one site wait for, or be stopped by, another.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from scheduler.phases import Phase
from scheduler.receipt import Receipt, RolloutState, StepReceipt, StepStatus
from scheduler.state import CycleConfig
from sites.assignment import SiteAssignment
from sites.errors import Violation
from sites.hub_messages import AssignmentWanted, StepsForgotten, StepWanted
from sites.steps import AssignmentVerdict, Step, StepKind, StepOutcome, StepResult

RolloutEffect = AssignmentWanted | StepWanted | StepsForgotten

_STATUS = {
    StepOutcome.DONE: StepStatus.DONE,
    StepOutcome.FAILED: StepStatus.FAILED,
    StepOutcome.REFUSED: StepStatus.REFUSED,
}


class Rollout:
    """One change on its way. One owner calls it, one event at a time."""

    def __init__(
        self, receipt: Receipt, phases: tuple[Phase, ...], *, config: CycleConfig, urgent: bool
    ) -> None:
        assert phases, "a change without phases is no rollout"
        self._receipt = replace(receipt, version=phases[-1].rank[1])
        self.phases = phases
        self.urgent = urgent
        self._config = config
        self._phase = 0
        self._wave = -1  # -1: assignments are out, verdicts awaited
        self._awaited: set[str] = set()
        self._deadline_ms = 0
        self._steps = {
            step.step_id: StepReceipt(step=step, phase=phase.name, status=StepStatus.NOT_STARTED)
            for phase in phases
            for wave in phase.waves
            for step in wave
        }
        self.in_force: dict[str, SiteAssignment] = {}

    @property
    def receipt(self) -> Receipt:
        """The receipt as of now."""
        return replace(self._receipt, steps=tuple(self._steps.values()))

    @property
    def state(self) -> RolloutState:
        """Where it stands."""
        return self._receipt.state

    @property
    def site_ids(self) -> tuple[str, ...]:
        """Sites that take part."""
        return tuple(sorted({a.site_id for p in self.phases for a in p.assignments}))

    def begin(self, now_ms: int) -> tuple[RolloutEffect, ...]:
        """Ask every site whether it would accept; an urgent rollout goes straight on."""
        if self.urgent:
            self._become(RolloutState.ACCEPTING)
            return ()
        self._become(RolloutState.VALIDATING)
        return self._ask(now_ms, validate_only=True)

    def run(self, now_ms: int) -> tuple[RolloutEffect, ...]:
        """The plan is durable: send the first phase."""
        assert self.state is RolloutState.ACCEPTING, "run follows ACCEPTING"
        self._become(RolloutState.RUNNING)
        self._phase, self._wave = 0, -1
        return self._ask(now_ms, validate_only=False)

    def on_verdict(self, verdict: AssignmentVerdict, now_ms: int) -> tuple[RolloutEffect, ...]:
        """Take in an ACK or NACK; anything not awaited is ignored."""
        expected = RolloutState.VALIDATING if verdict.validate_only else RolloutState.RUNNING
        rank = (verdict.epoch, verdict.version)
        if self.state is not expected or rank != self.phases[self._phase].rank:
            return ()
        if self._wave >= 0 or verdict.site_id not in self._awaited:
            return ()
        if not verdict.accepted:
            return self._on_nack(verdict, now_ms)
        self._awaited.discard(verdict.site_id)
        # a large fleet's assignments are signed, and leave, one after the other
        self._deadline_ms = now_ms + self._config.verdict_timeout_ms
        if self.urgent:
            return self._send(
                tuple(s for w in self.phases[0].waves for s in w if s.site_id == verdict.site_id),
                now_ms,
            )
        if self._awaited:
            return ()
        if self.state is RolloutState.VALIDATING:
            return self._next_validation(now_ms)
        return self._next_wave(now_ms)

    def on_step(self, result: StepResult, now_ms: int) -> tuple[RolloutEffect, ...]:
        """Take in how a step ended."""
        held = self._steps.get(result.step_id)
        if held is None or held.status is not StepStatus.SENT:
            return ()
        said = [result.detail] if result.detail else []
        detail = "; ".join([*said, *(v.message() for v in result.violations)])
        self._steps[result.step_id] = replace(
            held, status=_STATUS[result.outcome], finished_at_ms=now_ms, detail=detail
        )
        if result.outcome is StepOutcome.DONE:
            self._note_routes(held.step)
        if self.urgent:
            return self._end_if_settled(now_ms)
        if result.outcome is not StepOutcome.DONE and not self._receipt.message:
            message = f"{held.step.kind} at {held.step.site_id} {result.outcome}: {detail}"
            self._stopping(message, result.violations)
        self._awaited.discard(result.step_id)
        if self._awaited or self.state is not RolloutState.RUNNING:
            return ()
        if self._receipt.message:
            self._finish(RolloutState.STOPPED, now_ms, self._receipt.message)
            return ()
        return self._next_wave(now_ms)

    def on_tick(self, now_ms: int) -> tuple[RolloutEffect, ...]:
        """Give up on verdicts that never came. Steps have their own clock, in their hub."""
        waiting = self._wave < 0 and self._awaited
        if not waiting or self._receipt.is_final or now_ms < self._deadline_ms:
            return ()
        sites = ", ".join(sorted(self._awaited))
        message = f"no verdict from {sites} within {self._config.verdict_timeout_ms} ms"
        if self.urgent:
            self._awaited.clear()
            self._receipt = replace(self._receipt, message=message)
            return self._end_if_settled(now_ms)
        if self.state is RolloutState.VALIDATING:
            self._finish(RolloutState.REJECTED, now_ms, f"{message}; nothing was changed")
            return ()
        self._stopping(message, ())
        self._finish(RolloutState.STOPPED, now_ms, message)
        return ()

    def open_wishes(self) -> tuple[RolloutEffect, ...]:
        """What is awaited now, to be said again to hubs rebuilt from nothing."""
        if self._receipt.is_final or self.state is RolloutState.ACCEPTING:
            return ()
        phase = self.phases[self._phase]
        validate_only = self.state is RolloutState.VALIDATING
        wishes: list[RolloutEffect] = []
        if self._wave < 0:
            wishes += [
                AssignmentWanted(assignment=a, validate_only=validate_only)
                for a in phase.assignments
                if a.site_id in self._awaited
            ]
        wishes += [
            StepWanted(step=s.step) for s in self._steps.values() if s.status is StepStatus.SENT
        ]
        return tuple(wishes)

    def missing_after(self, site_id: str, ready: Mapping[str, int]) -> tuple[str, ...]:
        """Groups at a site that this rollout has started, yet whose copies are not all `ready`."""
        return tuple(
            s.step.group_id
            for s in self._steps.values()
            if s.step.site_id == site_id
            and s.step.kind is StepKind.START_REPLICAS
            and s.status is StepStatus.DONE
            and ready.get(s.step.group_id, 0) < s.step.replicas
        )

    def halt(self, now_ms: int, message: str) -> tuple[RolloutEffect, ...]:
        """What the change stood on has gone: send nothing more, wait for nothing more."""
        self._stopping(message, ())
        self._finish(RolloutState.STOPPED, now_ms, message)
        return self._forget()

    def supersede(self, now_ms: int, message: str) -> tuple[RolloutEffect, ...]:
        """Something more urgent takes over; what is under way is forgotten."""
        self._finish(RolloutState.SUPERSEDED, now_ms, message)
        return self._forget()

    def reject(self, now_ms: int, message: str) -> None:
        """The plan could not be made durable: nothing was changed."""
        self._finish(RolloutState.REJECTED, now_ms, message)

    def _ask(self, now_ms: int, *, validate_only: bool) -> tuple[RolloutEffect, ...]:
        phase = self.phases[self._phase]
        self._awaited = {a.site_id for a in phase.assignments}
        self._deadline_ms = now_ms + self._config.verdict_timeout_ms
        return tuple(
            AssignmentWanted(assignment=a, validate_only=validate_only)
            for a in sorted(phase.assignments, key=lambda a: a.site_id)
        )

    def _next_validation(self, now_ms: int) -> tuple[RolloutEffect, ...]:
        if self._phase + 1 < len(self.phases):
            self._phase += 1
            return self._ask(now_ms, validate_only=True)
        self._become(RolloutState.ACCEPTING)
        return ()

    def _next_wave(self, now_ms: int) -> tuple[RolloutEffect, ...]:
        self._wave += 1
        phase = self.phases[self._phase]
        if self._wave < len(phase.waves):
            return self._send(phase.waves[self._wave], now_ms)
        if self._phase + 1 < len(self.phases):
            self._phase, self._wave = self._phase + 1, -1
            return self._ask(now_ms, validate_only=False)
        self._finish(RolloutState.DONE, now_ms, "")
        return ()

    def _send(self, steps: tuple[Step, ...], now_ms: int) -> tuple[RolloutEffect, ...]:
        if not self.urgent:
            self._awaited = {s.step_id for s in steps}
        for step in steps:
            self._steps[step.step_id] = replace(
                self._steps[step.step_id], status=StepStatus.SENT, sent_at_ms=now_ms
            )
        return tuple(StepWanted(step=s) for s in steps)

    def _on_nack(self, verdict: AssignmentVerdict, now_ms: int) -> tuple[RolloutEffect, ...]:
        message = f"{verdict.site_id} refused: " + "; ".join(
            v.message() for v in verdict.violations
        )
        if self.urgent:
            self._awaited.discard(verdict.site_id)
            violations = (*self._receipt.violations, *verdict.violations)
            self._receipt = replace(self._receipt, violations=violations, message=message)
            return self._end_if_settled(now_ms)
        if self.state is RolloutState.VALIDATING:
            self._receipt = replace(self._receipt, violations=verdict.violations)
            self._finish(RolloutState.REJECTED, now_ms, message)
            return ()
        self._stopping(message, verdict.violations)
        self._finish(RolloutState.STOPPED, now_ms, message)
        return ()

    def _end_if_settled(self, now_ms: int) -> tuple[RolloutEffect, ...]:
        """An urgent rollout ends when every site has answered or been given up."""
        sent = any(s.status is StepStatus.SENT for s in self._steps.values())
        if sent or self._awaited:
            return ()
        done = all(s.status is StepStatus.DONE for s in self._steps.values())
        state = RolloutState.DONE if done else RolloutState.STOPPED
        self._finish(state, now_ms, self._receipt.message)
        return ()

    def _note_routes(self, step: Step) -> None:
        if step.kind is StepKind.SET_ROUTES:
            phase = next(p for p in self.phases if p.rank == (step.epoch, step.version))
            assignment = phase.assignment(step.site_id)
            assert assignment is not None, "a step's site takes part in its phase"
            self.in_force[step.site_id] = assignment

    def _stopping(self, message: str, violations: tuple[Violation, ...]) -> None:
        """Nothing new is sent from here on; what is out is still waited for, so that the receipt
        says of every step how it ended.
        """
        self._receipt = replace(self._receipt, message=message, violations=violations)

    def _forget(self) -> tuple[RolloutEffect, ...]:
        """Steps still out are no longer resent; the receipt keeps saying they were sent."""
        open_ids: dict[str, list[str]] = {}
        for one in self._steps.values():
            if one.status is StepStatus.SENT:
                open_ids.setdefault(one.step.site_id, []).append(one.step.step_id)
        return tuple(
            StepsForgotten(site_id=site_id, step_ids=tuple(open_ids[site_id]))
            for site_id in sorted(open_ids)
        )

    def _become(self, state: RolloutState) -> None:
        self._receipt = replace(self._receipt, state=state)

    def _finish(self, state: RolloutState, now_ms: int, message: str) -> None:
        self._receipt = replace(self._receipt, state=state, finished_at_ms=now_ms, message=message)
