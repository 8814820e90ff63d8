"""When the answers to every single loss are worked out ahead, and which of them are held.

Decides that one table is worked out at a time, for the plan in force and the replicas seen ready,
once neither has changed for a while; that a solve comes first; and that what was asked before a
change is thrown away. How a loss is answered from the table is `failover`'s.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from optimizer.plan import Plan
from optimizer.problem import Problem, RunningGroup
from scheduler.events import Alert, CycleEffect, DetoursFilled, FillDetours
from scheduler.forecast import Entry
from scheduler.state import CycleState, HeldDetours
from sites.telemetry import ReplicaState

Effects = tuple[CycleEffect, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Ground:
    """What a table hangs on; quicker to compare than the problem it makes."""

    problem: Problem
    plan: Plan
    running: tuple[RunningGroup, ...]
    out_of_use: tuple[tuple[str, ...], ...]
    rates: tuple[tuple[Entry, float], ...]


class DetourDesk:
    """Owns the one table being worked out. One owner calls it, one event at a time."""

    def __init__(self, state: CycleState) -> None:
        self._state = state
        self._asked: FillDetours | None = None
        self._asked_on: _Ground | None = None
        self._answered: _Ground | None = None
        self._seen: _Ground | None = None
        self._look_at_ms = 0
        self._not_before_ms = 0
        self._failures = 0
        self._requests = 0

    def ask(self, now_ms: int, *, is_quiet: bool) -> Effects:
        """Have a table worked out where what is held stands on something else.

        `is_quiet`: no change is under way and no solve is wanted; else what was asked is given up.
        """
        state = self._state
        if not is_quiet or state.desired is None:
            self._asked = self._seen = None
            return ()
        if now_ms < self._look_at_ms or self._is_one_to_come(now_ms):
            return ()
        self._look_at_ms = now_ms + state.config.detours_settle_ms
        before, self._seen = self._seen, self._ground(state.desired.plan)
        is_settled = before == self._seen != self._answered
        if self._asked is not None or not is_settled or now_ms < self._not_before_ms:
            return ()
        self._requests += 1
        self._asked_on = self._seen
        self._asked = FillDetours(
            request_id=f"detours-{state.epoch}.{self._requests}",
            problem=replace(state.problem_now(ready_only=True), running=()),
            plan=self._seen.plan,
            running=self._seen.running,
        )
        self._not_before_ms = now_ms + state.config.detours_spacing_ms
        return (self._asked,)

    def filled(self, event: DetoursFilled, now_ms: int) -> Effects:
        """Hold the table; a failure is told once until one succeeds."""
        asked = self._asked
        if asked is None or asked.request_id != event.request_id:
            return ()
        self._asked = None
        self._not_before_ms = now_ms + self._state.config.detours_spacing_ms
        if event.message:
            return self._failed(event)
        self._failures, self._answered = 0, self._asked_on
        if event.detours is not None:
            self._state.held = HeldDetours(
                problem=asked.problem, plan=asked.plan, detours=event.detours
            )
        return ()

    def _failed(self, event: DetoursFilled) -> Effects:
        self._failures += 1
        if self._failures > self._state.config.retry_limit:
            self._answered = self._asked_on  # enough: until something changes
        if self._failures > 1:
            return ()
        text = f"{event.request_id}: {event.message}; losses are answered when they happen"
        return (Alert(text=text),)

    def _is_one_to_come(self, now_ms: int) -> bool:
        """Whether sites not heard of yet may only be starting: what runs there is not known."""
        state = self._state
        return now_ms - state.started_at_ms < state.config.first_contact_ms and any(
            not state.site(s).heard_at_ms and s not in state.lost for s in state.site_ids()
        )

    def _ground(self, plan: Plan) -> _Ground:
        state = self._state
        ready = state.replicas(ReplicaState.READY)
        return _Ground(
            problem=state.problem,
            plan=plan,
            running=tuple(
                RunningGroup(
                    group=one.group, replicas=min(one.replicas, ready.get(one.group.group_id, 0))
                )
                for one in plan.groups
            ),
            out_of_use=tuple(
                tuple(sorted(some)) for some in (state.lost, state.drained, state.cordoned)
            ),
            rates=tuple(sorted(state.rates.items())) if state.config.use_forecast else (),
        )
