"""One change at a time: from a judged plan through the ledger to its rollout's end.

Decides that nothing is sent before the ledger holds the plan, what the receipt says, and what is
desired from then on. Which plan it is, and what follows, is `cycle`'s decision.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from optimizer.assign import policy_digest
from scheduler.change import Change
from scheduler.entries import LedgerEntry, PlanAccepted, RolloutEnded
from scheduler.events import AppendLedger, CycleEffect, ReceiptChanged
from scheduler.receipt import ChangeReason, Receipt, RolloutState
from scheduler.rollout import Rollout
from scheduler.state import CycleState, Desired
from sites.errors import Violation
from sites.steps import AssignmentVerdict, StepResult


@dataclass(frozen=True, kw_only=True, slots=True)
class Order:
    """Who wants a change and why. `undoes` names the receipt it continues or takes back."""

    receipt_id: str
    reason: ChangeReason
    undoes: str = ""


class ChangeDesk:
    """Owns the change under way. One owner calls it, one event at a time."""

    def __init__(self, state: CycleState) -> None:
        self._state = state
        self._change: Change | None = None
        self._rollout: Rollout | None = None
        self._accepted: PlanAccepted | None = None
        self._token = ""
        self._tokens = 0

    @property
    def is_busy(self) -> bool:
        """Whether a change is under way."""
        return self._rollout is not None

    @property
    def receipt_id(self) -> str:
        """Receipt of the change under way ("" if none)."""
        return self._rollout.receipt.receipt_id if self._rollout else ""

    def open_receipt(self, order: Order, now_ms: int, *, message: str = "") -> Receipt:
        """A receipt for something that has only been asked for."""
        return Receipt(
            receipt_id=order.receipt_id,
            reason=order.reason,
            state=RolloutState.ACCEPTING,
            plan_digest="",
            epoch=self._state.epoch,
            version=0,
            started_at_ms=now_ms,
            message=message,
            undoes=order.undoes,
        )

    def write(self, entry: LedgerEntry) -> AppendLedger:
        """Append an entry nobody waits for."""
        self._tokens += 1
        return AppendLedger(token=f"{self._state.epoch}/{self._tokens}", entry=entry)

    def conclude(
        self,
        order: Order,
        now_ms: int,
        *,
        state: RolloutState,
        message: str,
        violations: tuple[Violation, ...] = (),
    ) -> tuple[CycleEffect, ...]:
        """End an order without a rollout: rejected, unchanged or done at once."""
        receipt = replace(
            self._state.receipts.get(order.receipt_id) or self.open_receipt(order, now_ms),
            state=state,
            finished_at_ms=now_ms,
            message=message,
            violations=violations,
        )
        return self._ended(receipt, now_ms)

    def begin(
        self, order: Order, change: Change, now_ms: int, *, urgent: bool = False
    ) -> tuple[CycleEffect, ...]:
        """Start a change that was judged sound."""
        assert self._rollout is None, "one change at a time"
        receipt = replace(self.open_receipt(order, now_ms), plan_digest=change.plan.plan_digest)
        self._change = change
        self._rollout = Rollout(receipt, change.phases, config=self._state.config, urgent=urgent)
        self._state.version = change.phases[-1].rank[1]
        wishes = self._rollout.begin(now_ms)
        return (*self._publish(), *wishes, *self._advance(now_ms))

    def on_verdict(self, verdict: AssignmentVerdict, now_ms: int) -> tuple[CycleEffect, ...]:
        """Hand a verdict to the rollout."""
        if self._rollout is None:
            return ()
        wishes = self._rollout.on_verdict(verdict, now_ms)
        return (*self._sent(wishes), *self._advance(now_ms))

    def on_step(self, result: StepResult, now_ms: int) -> tuple[CycleEffect, ...]:
        """Hand a step's end to the rollout."""
        if self._rollout is None:
            return ()
        wishes = self._rollout.on_step(result, now_ms)
        for site_id, assignment in sorted(self._rollout.in_force.items()):
            site = self._state.site(site_id)
            if site.rank < assignment.rank:
                site.rank, site.in_force = assignment.rank, assignment
        return (*self._publish(), *self._sent(wishes), *self._advance(now_ms))

    def on_tick(self, now_ms: int) -> tuple[CycleEffect, ...]:
        """Let the rollout notice that time has passed."""
        if self._rollout is None:
            return ()
        wishes = self._rollout.on_tick(now_ms)
        return (*self._sent(wishes), *self._advance(now_ms))

    def on_appended(self, token: str, now_ms: int) -> tuple[CycleEffect, ...]:
        """The awaited entry is durable: its plan is the desired one, its steps may leave."""
        accepted = self._accepted
        if token != self._token or self._rollout is None or self._change is None:
            return ()
        assert accepted is not None, "what is durable was written here"
        self._token = ""
        self._state.history.append(accepted)
        self._state.desired = Desired(accepted=accepted, assignments=self._change.finals)
        for phase in self._rollout.phases:
            for assignment in phase.assignments:
                self._state.site(assignment.site_id).issued.append(assignment)
        wishes = self._rollout.run(now_ms)
        return (*self._publish(), *self._sent(wishes))

    def on_append_failed(self, token: str, reason: str, now_ms: int) -> tuple[CycleEffect, ...]:
        """The ledger could not take the plan: nothing was changed."""
        if token != self._token or self._rollout is None:
            return ()
        self._token = ""
        self._rollout.reject(now_ms, f"the ledger refused the plan: {reason}; nothing was changed")
        return self._advance(now_ms)

    def on_restart(
        self, site_id: str, *, before: Mapping[str, int], now: Mapping[str, int], now_ms: int
    ) -> tuple[CycleEffect, ...]:
        """An agent restarted in mid-change; ready replicas per group id before and now.

        Where replicas went with it that the change counts on, it must not go on to route there.
        """
        rollout = self._rollout
        if rollout is None or rollout.state is not RolloutState.RUNNING:
            return ()
        if rollout.urgent or site_id not in rollout.site_ids:
            return ()
        gone = {g for g in before if now.get(g, 0) < before[g]}
        gone |= set(rollout.missing_after(site_id, now))
        if not gone:
            return ()
        message = f"{site_id} restarted and lost replicas of {', '.join(sorted(gone))}"
        return (*rollout.halt(now_ms, message), *self._advance(now_ms))

    def supersede(self, now_ms: int, message: str) -> tuple[CycleEffect, ...]:
        """Drop the change under way for something more urgent."""
        if self._rollout is None:
            return ()
        self._token = ""
        wishes = self._rollout.supersede(now_ms, message)
        return (*wishes, *self._advance(now_ms))

    def wishes_at(self, site_ids: tuple[str, ...]) -> tuple[CycleEffect, ...]:
        """What is open at sites whose hubs forgot everything."""
        open_ = self._rollout.open_wishes() if self._rollout else ()
        return tuple(w for w in open_ if w.site_id in site_ids)

    def _sent(self, wishes: tuple[CycleEffect, ...]) -> tuple[CycleEffect, ...]:
        return (*self._publish(), *wishes) if wishes else ()

    def _publish(self) -> tuple[CycleEffect, ...]:
        if self._rollout is None:
            return ()
        self._state.keep_receipt(self._rollout.receipt)
        return (ReceiptChanged(receipt=self._rollout.receipt),)

    def _acceptance(self, now_ms: int) -> PlanAccepted:
        assert self._rollout is not None, "only a change under way is accepted"
        assert self._change is not None, "only a change under way is accepted"
        receipt = self._rollout.receipt
        return PlanAccepted(
            receipt_id=receipt.receipt_id,
            reason=receipt.reason,
            epoch=self._state.epoch,
            first_version=self._change.first_version,
            version=receipt.version,
            at_ms=now_ms,
            plan_digest=self._change.plan.plan_digest,
            policy_digest=policy_digest(self._change.problem),
            problem=self._change.problem,
            plan=self._change.plan,
        )

    def _advance(self, now_ms: int) -> tuple[CycleEffect, ...]:
        """Whatever follows from where the rollout stands now."""
        rollout = self._rollout
        if rollout is None:
            return ()
        if rollout.state is RolloutState.ACCEPTING and not self._token:
            self._accepted = self._acceptance(now_ms)
            append = self.write(self._accepted)
            self._token = append.token
            return (*self._publish(), append)
        if rollout.receipt.is_final:
            self._rollout = self._change = None
            return self._ended(rollout.receipt, now_ms)
        return ()

    def _ended(self, receipt: Receipt, now_ms: int) -> tuple[CycleEffect, ...]:
        self._state.keep_receipt(receipt)
        return (
            ReceiptChanged(receipt=receipt),
            self.write(RolloutEnded(receipt=receipt, at_ms=now_ms)),
        )
