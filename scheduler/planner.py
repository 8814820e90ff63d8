"""Every way a plan comes into force: proposed, solved, put back, finished, rerouted.

Decides which plan becomes the next change and what an order's receipt says if none does. The
change itself is walked by `desk`; when to call what is `cycle`'s decision.
"""

from __future__ import annotations

from dataclasses import replace

from optimizer.outcome import Outcome
from optimizer.plan import Plan
from optimizer.problem import Problem
from scheduler.change import Change, is_same_content, plan_change, reroute_change
from scheduler.desk import ChangeDesk, Order
from scheduler.entries import PlanAccepted
from scheduler.events import Alert, CycleEffect, PlanProposed, ReceiptChanged, SolveFinished
from scheduler.failover import predict_failover
from scheduler.gate import check_no_site_forgotten, check_proposal, check_reach
from scheduler.receipt import ChangeReason, RolloutState
from scheduler.reconcile import changes_at
from scheduler.replan import Asked, SolverDesk
from scheduler.state import CycleState
from scheduler.watch import is_one_returning
from sites.errors import RefusedError, Violation

Effects = tuple[CycleEffect, ...]

_WATCHED = frozenset({ChangeReason.APPLY, ChangeReason.RESUME, ChangeReason.UNDO})
"""Changes a person stands behind: where one stops, the person says how it goes on."""


class Planner:
    """Turns wishes into changes. One owner calls it, one event at a time."""

    def __init__(self, state: CycleState) -> None:
        self._state = state
        self._orders = 0
        self._question_before: tuple[str, Problem] | None = None  # and the receipt that changed it
        self.desk = ChangeDesk(state)
        self.solver = SolverDesk(state=state)

    @property
    def is_quiet(self) -> bool:
        """Whether no change is under way and no plan is awaited."""
        return not (self.desk.is_busy or self.solver.asked is not None or self.solver.wanted)

    def new_order(self, reason: ChangeReason) -> Order:
        """An order of the loop's own."""
        self._orders += 1
        return Order(receipt_id=f"{reason}-{self._state.epoch}.{self._orders}", reason=reason)

    def propose(self, event: PlanProposed, now_ms: int) -> Effects:
        """An operator's plan."""
        order = Order(receipt_id=event.receipt_id, reason=ChangeReason.APPLY)
        if self.desk.is_busy:
            return self._busy(order, now_ms)
        violations = check_proposal(
            self._state,
            event.problem,
            event.plan,
            state_serial=event.state_serial,
            allow_empty=event.allow_empty,
        )
        if violations:
            return self._reject(order, violations, now_ms)
        self._question_before = (order.receipt_id, self._state.problem)
        self._state.problem = self._bare(event.problem)
        effects = self._put_into_force(order, event.problem, event.plan, now_ms)
        self.settle_question()
        return effects

    def settle_question(self) -> None:
        """Take back the question of a change that ended before the ledger held its plan.

        Else the loop's own next plan would follow policies that nobody has put into force.
        """
        if self._question_before is None:
            return
        receipt_id, before = self._question_before
        receipt = self._state.receipts.get(receipt_id)
        if receipt is None or not receipt.is_final:
            return
        self._question_before = None
        was_refused = receipt.state in (RolloutState.REJECTED, RolloutState.SUPERSEDED)
        if was_refused and all(one.receipt_id != receipt_id for one in self._state.history):
            self._state.problem = before

    def stand_by_ledger(self, accepted: PlanAccepted | None) -> Effects:
        """At a start: what was applied stays the question; files that differ wait for an apply.

        Else an edit nobody applied, a laxer policy say, would come into force with the next
        failover. Sites only the files know stay in it, cordoned, so that their agents may connect.
        """
        files = self._state.problem
        if accepted is None or (standing := self._restated(accepted.problem)) == files:
            return ()
        known = {s.site_id for s in standing.fleet.sites}
        new = [replace(s, cordoned=True) for s in files.fleet.sites if s.site_id not in known]
        sites = tuple(sorted((*standing.fleet.sites, *new), key=lambda s: s.site_id))
        self._state.problem = replace(standing, fleet=replace(standing.fleet, sites=sites))
        text = (
            "the fleet files differ from what the plan in force was made from; what was applied "
            "stays until a plan of the files is: `hinterland plan -f` shows what it would change"
        )
        return (Alert(text=text),)

    def want_replan(self, order: Order, now_ms: int, *, message: str = "") -> Effects:
        """Have the optimizer asked as soon as it may be."""
        self.solver.want(order)
        receipt = self.desk.open_receipt(order, now_ms, message=message or "waits for a plan")
        self._state.keep_receipt(receipt)
        return (ReceiptChanged(receipt=receipt),)

    def ask(self, now_ms: int) -> Effects:
        """Start what can be started now that time has passed or something has ended."""
        late = self.solver.overdue(now_ms)
        if late is not None:
            return self._unsolved(late, "the solve ran out of time", now_ms)
        if self.desk.is_busy or is_one_returning(self._state, now_ms):
            return ()
        return self.solver.ask(now_ms)

    def solved(self, event: SolveFinished, now_ms: int) -> Effects:
        """The optimizer's answer."""
        asked = self.solver.take(event.request_id)
        if asked is None:
            return ()
        moved_on = asked.question != self.solver.question()
        if moved_on or self.desk.is_busy or is_one_returning(self._state, now_ms):
            for order in asked.orders:
                self.solver.want(order)
            return self.ask(now_ms)
        if event.outcome is None:
            return self._unsolved(asked, event.message or "the solver failed", now_ms)
        self.solver.failures = 0
        if event.outcome.plan is None:
            return self._no_plan(asked, event.outcome, now_ms)
        return self._answer(asked, event.outcome.plan, now_ms)

    def put_back(self, order: Order, accepted: PlanAccepted, now_ms: int) -> Effects:
        """Make an earlier accepted plan, or the one in force, happen as a new version."""
        if self.desk.is_busy:
            return self._busy(order, now_ms)
        violations = (
            *self._unusable(accepted.plan),
            *check_no_site_forgotten(self._state, accepted.problem),
        )
        if violations:
            return self._reject(order, violations, now_ms)
        effects = self._put_into_force(order, accepted.problem, accepted.plan, now_ms)
        if is_watched(order.reason) and not self._rejected(order):
            # else the next plan of the loop's own would bring back what a person took back
            self._question_before = (order.receipt_id, self._state.problem)
            self._state.problem = self._restated(accepted.problem)
        return effects

    def fail_over(self, site_id: str, now_ms: int) -> Effects:
        """Route around a site that was just declared lost; then ask for a full plan."""
        effects = list(self.desk.supersede(now_ms, f"site {site_id} was lost"))
        self.settle_question()
        answer = predict_failover(self._state, site_id)
        assert answer is not None, "sites are lost only while a plan is in force"
        if answer.trouble:
            effects.append(Alert(text=answer.trouble, site_id=site_id))
        order = self.new_order(ChangeReason.FAILOVER)
        change = reroute_change(self._state, answer.problem, answer.plan, now_ms=now_ms)
        if change.phases:
            effects += self.desk.begin(order, change, now_ms, urgent=True)
        else:
            text = "; ".join(v.message() for v in change.violations) or "no site left to tell"
            effects.append(Alert(text=f"reroute not safe: {text}", site_id=site_id))
            effects += self._reject(order, change.violations, now_ms)
        if self._state.config.auto_replan:
            effects += self.want_replan(self.new_order(ChangeReason.REPLAN), now_ms)
        return tuple(effects)

    def _answer(self, asked: Asked, plan: Plan, now_ms: int) -> Effects:
        order, *others = asked.orders
        violations = check_proposal(
            self._state, asked.problem, plan, state_serial=self._state.serial, allow_empty=True
        )
        effects: list[CycleEffect] = []
        for other in others:
            message = f"answered together with {order.receipt_id}"
            effects += self.desk.conclude(
                other, now_ms, state=RolloutState.SUPERSEDED, message=message
            )
        if violations:
            return (*effects, *self._reject(order, violations, now_ms))
        return (*effects, *self._put_into_force(order, asked.problem, plan, now_ms))

    def _put_into_force(self, order: Order, problem: Problem, plan: Plan, now_ms: int) -> Effects:
        try:
            change = plan_change(self._state, problem, plan, now_ms=now_ms)
        except RefusedError as refused:
            violation = Violation(
                code="unusable_plan", subject="plan", limit="known groups", actual=str(refused)
            )
            return self._reject(order, (violation,), now_ms)
        violations = (*change.violations, *check_reach(self._state, change))
        if violations:
            return self._reject(order, violations, now_ms)
        if self._changes_nothing(change):
            return self.desk.conclude(
                order,
                now_ms,
                state=RolloutState.UNCHANGED,
                message="the fleet already is as the plan says",
            )
        if not change.phases:
            return self._reject(order, (_nobody_there(),), now_ms)
        return self.desk.begin(order, change, now_ms)

    def _changes_nothing(self, change: Change) -> bool:
        state = self._state
        here = state.reachable()
        return bool(here) and all(
            is_same_content(state.site(s).in_force, change.finals[s])
            and state.desired is not None
            and state.site(s).rank == state.desired.rank
            and not any(
                c.must_start or c.must_stop
                for c in changes_at(state.site(s), change.finals[s].groups)
            )
            for s in here
        )

    def _unusable(self, plan: Plan) -> tuple[Violation, ...]:
        used = {g.group.site_id for g in plan.groups}
        gone = used & (set(self._state.lost) | self._state.drained)
        return tuple(
            Violation(
                code="lost_site",
                subject=f'site "{site_id}"',
                limit="a site that may be used",
                actual=self._state.lost.get(site_id, "drained"),
                remedy="plan anew without it",
            )
            for site_id in sorted(gone)
        )

    def _bare(self, problem: Problem) -> Problem:
        """The problem as files would state it: without what runs and what is out of use now."""
        own = {s.site_id: s.cordoned for s in self._state.problem.fleet.sites}
        sites = tuple(
            replace(s, cordoned=own.get(s.site_id, False))
            if s.site_id in self._state.cordoned
            else s
            for s in problem.fleet.sites
        )
        fleet = replace(problem.fleet, sites=sites)
        demand = () if self._state.config.use_forecast else problem.demand
        return replace(problem, fleet=fleet, demand=demand, running=(), lost_sites=())

    def _restated(self, problem: Problem) -> Problem:
        """An earlier problem as files would state it; cordons are those of now."""
        own = {s.site_id: s.cordoned for s in self._state.problem.fleet.sites}
        sites = tuple(
            replace(s, cordoned=own.get(s.site_id, s.cordoned)) for s in problem.fleet.sites
        )
        return self._bare(replace(problem, fleet=replace(problem.fleet, sites=sites)))

    def _unsolved(self, asked: Asked, message: str, now_ms: int) -> Effects:
        alert = Alert(text=f"{asked.request_id}: {message}")
        if self.solver.retry(asked, now_ms):
            return (alert,)
        return (alert, *self._give_up(asked, message, now_ms))

    def _no_plan(self, asked: Asked, outcome: Outcome, now_ms: int) -> Effects:
        remedies = "; ".join(r.remedy for r in outcome.relaxations)
        message = f"no plan ({outcome.status}): {outcome.message or remedies}"
        return (Alert(text=message), *self._give_up(asked, message, now_ms))

    def _give_up(self, asked: Asked, message: str, now_ms: int) -> Effects:
        effects: list[CycleEffect] = []
        for order in asked.orders:
            effects += self.desk.conclude(
                order, now_ms, state=RolloutState.REJECTED, message=message
            )
        return tuple(effects)

    def _rejected(self, order: Order) -> bool:
        receipt = self._state.receipts.get(order.receipt_id)
        return receipt is not None and receipt.state is RolloutState.REJECTED

    def _busy(self, order: Order, now_ms: int) -> Effects:
        violation = Violation(
            code="rollout_in_progress",
            subject="control loop",
            limit="one change at a time",
            actual=self.desk.receipt_id,
            remedy="wait until it has ended",
        )
        return self._reject(order, (violation,), now_ms)

    def _reject(self, order: Order, violations: tuple[Violation, ...], now_ms: int) -> Effects:
        message = "; ".join(v.message() for v in violations) or "no site can be told of it"
        rejected = self.desk.conclude(
            order,
            now_ms,
            state=RolloutState.REJECTED,
            message=message,
            violations=violations,
        )
        if order.reason in _WATCHED:
            return rejected
        return (Alert(text=f"{order.receipt_id} rejected: {message}"), *rejected)


def is_watched(reason: ChangeReason) -> bool:
    """Whether a person asked for the change and decides how it goes on when it stops."""
    return reason in _WATCHED


def _nobody_there() -> Violation:
    return Violation(
        code="unreachable_site",
        subject="fleet",
        limit="at least 1 connected site",
        actual=0,
        unit="sites",
        remedy="start the sites' agents",
    )
