"""When the optimizer is asked, and whether its answer still fits the question.

Decides that one solve runs at a time, that wishes arriving meanwhile are answered by one more, and
that an answer to a question that has changed since is thrown away. What happens with a good answer
is `cycle`'s decision.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from optimizer.problem import Problem
from scheduler.desk import Order
from scheduler.events import Solve
from scheduler.state import CycleState

Question = tuple[int, tuple[str, ...], tuple[str, ...], tuple[str, ...]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """A solve under way."""

    request_id: str
    problem: Problem
    question: Question
    orders: tuple[Order, ...]
    since_ms: int


@dataclass(kw_only=True, slots=True)
class SolverDesk:
    """Wishes for a re-plan and the one solve under way."""

    state: CycleState
    wanted: dict[str, Order] = field(default_factory=dict)
    asked: Asked | None = None
    not_before_ms: int = 0
    failures: int = 0
    _requests: int = 0

    def want(self, order: Order) -> None:
        """Ask for a re-plan; asking twice under one receipt is asking once."""
        self.wanted[order.receipt_id] = order

    def ask(self, now_ms: int) -> tuple[Solve, ...]:
        """Start a solve for all open wishes, if there are any and none is under way."""
        if self.asked is not None or not self.wanted or now_ms < self.not_before_ms:
            return ()
        self._requests += 1
        orders = tuple(self.wanted.values())
        self.wanted.clear()
        self.asked = Asked(
            request_id=f"solve-{self.state.epoch}.{self._requests}",
            problem=self.state.problem_now(),
            question=self.question(),
            orders=orders,
            since_ms=now_ms,
        )
        return (
            Solve(
                request_id=self.asked.request_id,
                problem=self.asked.problem,
                reason=", ".join(dict.fromkeys(o.reason.value for o in orders)),
                before=self.state.desired.plan if self.state.desired else None,
            ),
        )

    def take(self, request_id: str) -> Asked | None:
        """The question that answer belongs to; None for an answer nobody waits for."""
        if self.asked is None or self.asked.request_id != request_id:
            return None
        asked, self.asked = self.asked, None
        return asked

    def overdue(self, now_ms: int) -> Asked | None:
        """The solve under way if it has run out of time."""
        asked = self.asked
        if asked is None or now_ms - asked.since_ms < self.state.config.solve_timeout_ms:
            return None
        self.asked = None
        return asked

    def retry(self, asked: Asked, now_ms: int) -> bool:
        """Ask again a little later; False once the limit of failures in a row is reached."""
        self.failures += 1
        if self.failures > self.state.config.retry_limit:
            self.failures = 0
            return False
        self.not_before_ms = now_ms + self.state.config.retry_after_ms
        for order in asked.orders:
            self.want(order)
        return True

    def question(self) -> Question:
        """What an answer hangs on: the plan in force and which sites may be used."""
        state = self.state
        return (
            state.serial,
            tuple(sorted(state.lost)),
            tuple(sorted(state.drained)),
            tuple(sorted(state.cordoned)),
        )
