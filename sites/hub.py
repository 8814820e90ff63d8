"""The control plane's live stand-in for one site: is it connected, what was sent, what is answered.

Decides when a site is stale or unreachable, what to send again (assignments and steps state the
wanted end, so repeating them is harmless) and when a site that keeps refusing is cordoned. What is
wanted at all is the control loop's decision; sending is the shell's. A hub holds nothing that
cannot be rebuilt from the newest assignment, the control loop's open wishes and the next hello.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from sites.assignment import Lease
from sites.hub_messages import (
    AssignmentJudged,
    AssignmentNamed,
    ConnectionChanged,
    ConnectionState,
    CordonWanted,
    HelloArrived,
    HubEffect,
    HubEvent,
    ObservationArrived,
    SendAssignment,
    SendLease,
    SendStep,
    SiteCordoned,
    SiteObserved,
    SiteSaidHello,
    StepFinished,
    StepResultArrived,
    StepsForgotten,
    StepWanted,
    StreamClosed,
    Ticked,
    UncordonWanted,
    VerdictArrived,
)
from sites.steps import AssignmentVerdict, Step, StepOutcome, StepResult
from sites.telemetry import Hello, SiteObservation
from sites.units import require_positive

MOST_OPEN_STEPS = 1_000
"""Steps one hub keeps open at a time; more are refused at once."""


@dataclass(frozen=True, kw_only=True, slots=True)
class HubConfig:
    """Times (ms) and bounds of a hub.

    A site is stale after `stale_after_ms` without a word and unreachable after
    `unreachable_after_ms` or when its stream closes. Leases last `lease_ms` and are renewed after a
    third of it. What is not answered is sent again every `resend_after_ms`, `attempts_limit` times
    per connection; a step is reported FAILED `step_grace_ms` after its own timeout.
    `nack_limit` refusals in a row cordon the site.
    """

    epoch: int
    stale_after_ms: int = 1_000
    unreachable_after_ms: int = 3_000
    lease_ms: int = 30_000
    resend_after_ms: int = 2_000
    attempts_limit: int = 10
    step_grace_ms: int = 2_000
    nack_limit: int = 3

    def __post_init__(self) -> None:
        for name in ("stale_after_ms", "unreachable_after_ms", "lease_ms", "resend_after_ms"):
            require_positive(getattr(self, name), field=f"hub: {name}")
        for name in ("attempts_limit", "nack_limit"):
            require_positive(getattr(self, name), field=f"hub: {name}")


@dataclass(frozen=True, kw_only=True, slots=True)
class _Open:
    """Something wanted of the agent and not answered yet."""

    wanted_at_ms: int
    sent_at_ms: int = 0
    attempts: int = 0


class EdgeHub:
    """Step machine of one site. Not thread-safe: one owner calls `handle`, one event at a time."""

    def __init__(self, site_id: str, config: HubConfig) -> None:
        self.site_id = site_id
        self.state = ConnectionState.UNREACHABLE
        self.hello: Hello | None = None
        self.observation: SiteObservation | None = None
        self.cordoned_because = ""
        self._config = config
        self._heard_at_ms = 0
        self._lease_sent_at_ms = 0
        self._nacks_in_a_row = 0
        self._newest: tuple[int, int] | None = None
        self._assignments: dict[bool, tuple[tuple[int, int], _Open]] = {}
        self._steps: dict[str, tuple[Step, _Open]] = {}

    @classmethod
    def start(
        cls, site_id: str, config: HubConfig, *, newest: tuple[int, int] | None = None
    ) -> EdgeHub:
        """A hub that knows nothing but, if given, the rank of what is wanted at its site."""
        hub = cls(site_id, config)
        hub._newest = newest
        return hub

    def handle(self, event: HubEvent, now_ms: int) -> tuple[HubEffect, ...]:
        """Take one event in; return what is to be done about it, in order."""
        match event:
            case HelloArrived():
                return self._on_hello(event.hello, now_ms)
            case ObservationArrived():
                return self._on_observation(event.observation, now_ms)
            case VerdictArrived():
                return self._on_verdict(event.verdict, now_ms)
            case StepResultArrived():
                return self._on_result(event.result, now_ms)
            case StreamClosed():
                return self._on_closed(event)
            case Ticked():
                return self._on_tick(now_ms)
            case AssignmentNamed():
                return self._on_assignment_named(event, now_ms)
            case StepWanted():
                return self._on_step_wanted(event.step, now_ms)
            case StepsForgotten():
                for step_id in event.step_ids:
                    self._steps.pop(step_id, None)
                return ()
            case CordonWanted():
                self.cordoned_because = event.reason
                return ()
            case UncordonWanted():
                self.cordoned_because = ""
                self._nacks_in_a_row = 0
                return ()

    def _on_hello(self, hello: Hello, now_ms: int) -> tuple[HubEffect, ...]:
        assert hello.site_id == self.site_id, "the shell hands a hello to its own site's hub"
        self.hello = hello
        self.observation = None
        effects = self._heard(now_ms, reason=f"agent {hello.instance_id} connected")
        effects.append(SiteSaidHello(site_id=self.site_id, hello=hello))
        effects.append(self._renew_lease(now_ms))
        newest = self._newest
        if newest is not None and (hello.epoch, hello.version) < newest:
            self._assignments.setdefault(False, (newest, _Open(wanted_at_ms=now_ms)))
        # A new stream knows nothing of what the old one carried: everything open is sent again.
        for validate_only, (rank, open_) in sorted(self._assignments.items(), reverse=True):
            self._assignments[validate_only] = (rank, replace(open_, attempts=0))
        for step_id, (step, open_) in self._steps.items():
            self._steps[step_id] = (step, replace(open_, attempts=0))
        return (*effects, *self._send_open(now_ms, at_once=True))

    def _on_observation(self, observation: SiteObservation, now_ms: int) -> tuple[HubEffect, ...]:
        if self.hello is None or observation.instance_id != self.hello.instance_id:
            return ()  # a late word of an agent that was replaced
        last = self.observation
        effects = self._heard(now_ms, reason="heartbeat")
        if last is not None and observation.sequence <= last.sequence:
            return tuple(effects)
        self.observation = observation
        effects.append(SiteObserved(site_id=self.site_id, observation=observation))
        return tuple(effects)

    def _on_verdict(self, verdict: AssignmentVerdict, now_ms: int) -> tuple[HubEffect, ...]:
        effects = self._heard(now_ms, reason="verdict")
        held = self._assignments.get(verdict.validate_only)
        if held is not None and held[0] == (verdict.epoch, verdict.version):
            del self._assignments[verdict.validate_only]
        effects.append(AssignmentJudged(site_id=self.site_id, verdict=verdict))
        if verdict.accepted:
            self._nacks_in_a_row = 0
            return tuple(effects)
        self._nacks_in_a_row += 1
        if self._nacks_in_a_row >= self._config.nack_limit and not self.cordoned_because:
            self.cordoned_because = (
                f"refused {self._nacks_in_a_row} assignments in a row; the last: "
                + "; ".join(v.message() for v in verdict.violations)
            )
            effects.append(SiteCordoned(site_id=self.site_id, reason=self.cordoned_because))
        return tuple(effects)

    def _on_result(self, result: StepResult, now_ms: int) -> tuple[HubEffect, ...]:
        effects = self._heard(now_ms, reason="step result")
        if self._steps.pop(result.step_id, None) is not None:
            effects.append(StepFinished(site_id=self.site_id, result=result))
        return tuple(effects)

    def _on_closed(self, event: StreamClosed) -> tuple[HubEffect, ...]:
        if self.hello is None or event.instance_id != self.hello.instance_id:
            return ()
        return self._become(ConnectionState.UNREACHABLE, event.reason or "stream closed")

    def _on_tick(self, now_ms: int) -> tuple[HubEffect, ...]:
        effects = list(self._judge_silence(now_ms))
        if self.state is ConnectionState.CONNECTED:
            if now_ms - self._lease_sent_at_ms >= self._config.lease_ms // 3:
                effects.append(self._renew_lease(now_ms))
            effects += self._send_open(now_ms)
        return (*effects, *self._expire_steps(now_ms))

    def _on_assignment_named(self, event: AssignmentNamed, now_ms: int) -> tuple[HubEffect, ...]:
        assert event.site_id == self.site_id, "the shell hands a wish to its own site's hub"
        newest = self._newest
        if newest is not None and event.rank < newest:
            return ()  # an older wish must never overtake a newer one
        if not event.validate_only:
            self._newest = event.rank
        self._assignments[event.validate_only] = (event.rank, _Open(wanted_at_ms=now_ms))
        return tuple(self._send_open(now_ms))

    def _on_step_wanted(self, step: Step, now_ms: int) -> tuple[HubEffect, ...]:
        assert step.site_id == self.site_id, "the shell hands a wish to its own site's hub"
        if len(self._steps) >= MOST_OPEN_STEPS:
            return (self._failed(step, now_ms, f"{MOST_OPEN_STEPS} steps are open already"),)
        if step.step_id not in self._steps:
            self._steps[step.step_id] = (step, _Open(wanted_at_ms=now_ms))
        return tuple(self._send_open(now_ms))

    def _heard(self, now_ms: int, *, reason: str) -> list[HubEffect]:
        self._heard_at_ms = now_ms
        return list(self._become(ConnectionState.CONNECTED, reason))

    def _become(self, state: ConnectionState, reason: str) -> tuple[HubEffect, ...]:
        if state is self.state:
            return ()
        self.state = state
        return (ConnectionChanged(site_id=self.site_id, state=state, reason=reason),)

    def _judge_silence(self, now_ms: int) -> tuple[HubEffect, ...]:
        silent_ms = now_ms - self._heard_at_ms
        reason = f"no word for {silent_ms} ms"
        if self.state is ConnectionState.UNREACHABLE:
            return ()
        if silent_ms >= self._config.unreachable_after_ms:
            return self._become(ConnectionState.UNREACHABLE, reason)
        if silent_ms >= self._config.stale_after_ms:
            return self._become(ConnectionState.STALE, reason)
        return ()

    def _renew_lease(self, now_ms: int) -> SendLease:
        self._lease_sent_at_ms = now_ms
        expires_at_ms = now_ms + self._config.lease_ms
        return SendLease(
            site_id=self.site_id,
            lease=Lease(epoch=self._config.epoch, expires_at_ms=expires_at_ms),
        )

    def _send_open(self, now_ms: int, *, at_once: bool = False) -> list[HubEffect]:
        """Send what is open and due: assignments before steps, for a step needs its assignment."""
        effects: list[HubEffect] = []
        if self.state is not ConnectionState.CONNECTED:
            return effects
        for validate_only, (rank, open_) in sorted(
            self._assignments.items(), key=lambda item: not item[0]
        ):
            if at_once or self._due(open_, now_ms):
                self._assignments[validate_only] = (rank, _sent(open_, now_ms))
                effects.append(
                    SendAssignment(site_id=self.site_id, rank=rank, validate_only=validate_only)
                )
        for step_id, (step, open_) in list(self._steps.items()):
            if at_once or self._due(open_, now_ms):
                self._steps[step_id] = (step, _sent(open_, now_ms))
                effects.append(SendStep(site_id=self.site_id, step=step))
        return effects

    def _due(self, open_: _Open, now_ms: int) -> bool:
        if open_.attempts == 0:
            return True
        if open_.attempts >= self._config.attempts_limit:
            return False
        return now_ms - open_.sent_at_ms >= self._config.resend_after_ms

    def _expire_steps(self, now_ms: int) -> list[HubEffect]:
        effects: list[HubEffect] = []
        for step_id, (step, open_) in list(self._steps.items()):
            limit_ms = step.timeout_ms + self._config.step_grace_ms
            if now_ms - open_.wanted_at_ms >= limit_ms:
                del self._steps[step_id]
                detail = f"no answer within {limit_ms} ms ({open_.attempts} times sent)"
                effects.append(self._failed(step, now_ms, detail))
        return effects

    def _failed(self, step: Step, now_ms: int, detail: str) -> StepFinished:
        result = StepResult(
            step_id=step.step_id,
            site_id=self.site_id,
            outcome=StepOutcome.FAILED,
            finished_at_ms=now_ms,
            detail=detail,
        )
        return StepFinished(site_id=self.site_id, result=result)


def _sent(open_: _Open, now_ms: int) -> _Open:
    return replace(open_, sent_at_ms=now_ms, attempts=open_.attempts + 1)
