"""The whole control loop as a value: event in, effects out.

Decides what happens when: a plan is proposed, a site is lost or back, a solve ends, time passes.
It never waits, reads a clock or sends anything; `driver` carries its effects out, and in
simulation something else does. The parts it decides with: `planner` (which plan comes into force,
with `gate` and `change`), `desk` (one change at a time), `replan` (one solve at a time), `watch`
(who is lost), `cordons` (who is given nothing new), `failover` (where traffic goes then, for most
losses as `detours` had it worked out ahead), `reconcile` (has anything drifted).
"""

from __future__ import annotations

from dataclasses import replace

from scheduler.cordons import CordonDesk
from scheduler.desk import Order
from scheduler.detours import DetourDesk
from scheduler.entries import PlanAccepted, ServerStarted, SiteBack, SiteLost
from scheduler.events import (
    Alert,
    CordonRequested,
    CycleEffect,
    CycleEvent,
    DetoursFilled,
    HubsRestarted,
    LedgerAppended,
    LedgerFailed,
    PlanProposed,
    ReplanRequested,
    ResumeRequested,
    SolveFinished,
    Started,
    UncordonRequested,
    UndoRequested,
)
from scheduler.failover import predict_failover
from scheduler.planner import Planner, is_watched
from scheduler.receipt import ChangeReason, Receipt, RolloutState
from scheduler.reconcile import drift
from scheduler.state import CycleConfig, CycleState, Desired, Keys, SiteState
from scheduler.view import Drill, FleetView
from scheduler.view_of import fleet_view
from scheduler.watch import Loss, losses, returns
from sites.errors import RefusedError
from sites.hub_messages import (
    AssignmentJudged,
    ConnectionChanged,
    ConnectionState,
    SiteCordoned,
    SiteObserved,
    SiteSaidHello,
    StepFinished,
    Ticked,
)
from sites.telemetry import Hello, ReplicaState

Effects = tuple[CycleEffect, ...]


class Cycle:
    """The control loop. Not thread-safe: one owner calls `handle`, one event at a time.

    ``now_ms`` is wall milliseconds that the owner keeps from running backwards. The first event is
    `Started`.
    """

    def __init__(self, started: Started, *, config: CycleConfig, keys: Keys) -> None:
        """Know what the ledger and the fleet files say. `handle(started, now)` then begins."""
        snapshot = started.snapshot
        self._state = CycleState(
            config=config,
            keys=keys,
            problem=replace(started.problem, running=(), lost_sites=()),
            epoch=started.epoch,
            version=snapshot.last_version,
        )
        self._planner = Planner(self._state)
        self._cordons = CordonDesk(self._state, self._planner)
        self._detours = DetourDesk(self._state)
        self._retries = 0
        self._not_before_ms = 0
        self._held_by = ""  # a stopped change a person stands behind: nothing is mended meanwhile
        self._ended: set[str] = {r.receipt_id for r in snapshot.receipts}
        for receipt in snapshot.receipts:
            self._state.keep_receipt(receipt)
        for site_id in snapshot.cordoned:
            self._state.cordoned[site_id] = "cordoned before the restart"
        self._state.drained |= set(snapshot.drained)
        self._at_start = self._planner.stand_by_ledger(snapshot.accepted)
        self._recall(snapshot.previous, snapshot.accepted)

    def site_ids(self) -> tuple[str, ...]:
        """Sites of the fleet, sorted."""
        return self._state.site_ids()

    def view(self) -> FleetView:
        """What is known now."""
        return fleet_view(self._state, self._planner)

    def predict_failover(self, site_id: str) -> Drill:
        """What the loss of a site would do now. Raises RefusedError: no such site, or no plan."""
        if site_id not in self._state.site_ids():
            raise RefusedError(
                f"no site {site_id!r} in the fleet; it has {', '.join(self._state.site_ids())}"
            )
        if site_id in self._state.lost:
            raise RefusedError(f"site {site_id} is lost already: {self._state.lost[site_id]}")
        answer = predict_failover(self._state, site_id)
        if answer is None:
            raise RefusedError("no plan is in force yet; apply one first")
        return answer.drill

    def handle(self, event: CycleEvent, now_ms: int) -> Effects:
        """Take one event in; return what is to be done about it, in order."""
        effects = self._take(event, now_ms)
        follow: list[CycleEffect] = []
        if not isinstance(event, Started):
            self._planner.settle_question()
            follow += self._judge_sites(now_ms)
            follow += self._after_changes(now_ms)
            follow += self._planner.ask(now_ms)
            follow += self._detours.ask(now_ms, is_quiet=self._planner.is_quiet)
        return (*effects, *follow)

    def _take(self, event: CycleEvent, now_ms: int) -> Effects:
        match event:
            case Started():
                self._state.started_at_ms = now_ms
                entry = ServerStarted(epoch=self._state.epoch, at_ms=now_ms)
                return (self._planner.desk.write(entry), *self._at_start)
            case ConnectionChanged() | SiteSaidHello() | SiteObserved():
                return self._on_site(event, now_ms)
            case AssignmentJudged():
                return self._planner.desk.on_verdict(event.verdict, now_ms)
            case StepFinished():
                return self._planner.desk.on_step(event.result, now_ms)
            case LedgerAppended():
                return (
                    *self._planner.desk.on_appended(event.token, now_ms),
                    *self._cordons.on_appended(event.token, now_ms),
                )
            case LedgerFailed():
                return (
                    *self._planner.desk.on_append_failed(event.token, event.reason, now_ms),
                    *self._cordons.on_append_failed(event.token, event.reason, now_ms),
                )
            case SolveFinished():
                return self._planner.solved(event, now_ms)
            case DetoursFilled():
                return self._detours.filled(event, now_ms)
            case HubsRestarted():
                return self._planner.desk.wishes_at(event.site_ids)
            case Ticked():
                return self._on_tick(now_ms)
            case SiteCordoned():
                return self._cordons.impose(event.site_id, event.reason, now_ms)
            case _:
                return self._on_request(event, now_ms)

    def _on_request(
        self,
        event: PlanProposed
        | ReplanRequested
        | CordonRequested
        | UncordonRequested
        | ResumeRequested
        | UndoRequested,
        now_ms: int,
    ) -> Effects:
        """What a person asked for."""
        match event:
            case PlanProposed():
                return self._planner.propose(event, now_ms)
            case ReplanRequested():
                order = Order(receipt_id=event.receipt_id, reason=ChangeReason.REPLAN)
                return self._planner.want_replan(order, now_ms, message=event.reason)
            case CordonRequested() | UncordonRequested():
                return self._cordons.ask(event, now_ms)
            case ResumeRequested():
                return self._on_resume(event, now_ms)
            case UndoRequested():
                return self._on_undo(event, now_ms)

    def _recall(self, previous: PlanAccepted | None, accepted: PlanAccepted | None) -> None:
        """Know again what was accepted, and with it what the sites' ranks mean."""
        state = self._state
        state.history.extend(one for one in (previous, accepted) if one is not None)
        if accepted is None:
            return
        cut = state.cut(
            accepted.problem, accepted.plan, version=accepted.version, now_ms=accepted.at_ms
        )
        finals = {s: replace(a, epoch=accepted.epoch) for s, a in sorted(cut.items())}
        state.desired = Desired(accepted=accepted, assignments=finals)
        for site_id in state.site_ids():
            if site_id in finals:
                state.site(site_id).issued.append(finals[site_id])

    def _on_site(
        self, event: ConnectionChanged | SiteSaidHello | SiteObserved, now_ms: int
    ) -> Effects:
        site = self._state.site(event.site_id)
        match event:
            case ConnectionChanged():
                was_connected = site.is_connected
                site.connection, site.connection_reason = event.state, event.reason
                if event.state is ConnectionState.CONNECTED or was_connected:
                    site.changed_at_ms = now_ms
                    self._retries = 0
            case SiteSaidHello():
                return self._on_hello(site, event.hello, now_ms)
            case SiteObserved():
                seen = event.observation
                self._state.sample(site, seen)
                site.heard_at_ms = now_ms
                site.observation, site.replicas = seen, seen.replicas
                if (seen.epoch, seen.version) != site.rank:
                    site.see_rank((seen.epoch, seen.version))
        return ()

    def _on_hello(self, site: SiteState, hello: Hello, now_ms: int) -> Effects:
        is_new = site.hello is not None and site.hello.instance_id != hello.instance_id
        before = site.counts(ReplicaState.READY)
        site.heard_at_ms = now_ms
        site.hello, site.replicas, site.observation = hello, hello.replicas, None
        site.see_rank((hello.epoch, hello.version))
        if not is_new:
            return ()
        now = site.counts(ReplicaState.READY)
        return self._planner.desk.on_restart(site.site_id, before=before, now=now, now_ms=now_ms)

    def _judge_sites(self, now_ms: int) -> Effects:
        effects: list[CycleEffect] = []
        for loss in losses(self._state, now_ms):
            effects += self._on_loss(loss, now_ms)
        for site_id in returns(self._state, now_ms):
            del self._state.lost[site_id]
            entry = SiteBack(site_id=site_id, at_ms=now_ms)
            effects.append(self._planner.desk.write(entry))
            effects.append(Alert(text=f"site {site_id} is back", site_id=site_id))
            if self._state.config.auto_replan:
                order = self._planner.new_order(ChangeReason.REBALANCE)
                effects += self._planner.want_replan(order, now_ms)
        return tuple(effects)

    def _on_loss(self, loss: Loss, now_ms: int) -> Effects:
        self._state.lost[loss.site_id] = loss.evidence
        entry = SiteLost(site_id=loss.site_id, at_ms=now_ms, evidence=loss.evidence)
        return (
            self._planner.desk.write(entry),
            Alert(text=f"site {loss.site_id} lost: {loss.evidence}", site_id=loss.site_id),
            *self._planner.fail_over(loss.site_id, now_ms),
        )

    def _after_changes(self, now_ms: int) -> Effects:
        """Look once at every receipt that has ended since: does it go on, and who says so?"""
        for receipt in list(self._state.receipts.values()):
            if receipt.is_final and receipt.receipt_id not in self._ended:
                self._ended.add(receipt.receipt_id)
                self._note_end(receipt, now_ms)
        self._ended &= self._state.receipts.keys()
        return ()

    def _note_end(self, receipt: Receipt, now_ms: int) -> None:
        if receipt.state in (RolloutState.DONE, RolloutState.UNCHANGED):
            self._retries, self._held_by = 0, ""
        elif receipt.state is RolloutState.STOPPED and is_watched(receipt.reason):
            self._held_by = receipt.receipt_id
        elif receipt.state in (RolloutState.STOPPED, RolloutState.REJECTED):
            self._not_before_ms = now_ms + self._state.config.retry_after_ms

    def _on_tick(self, now_ms: int) -> Effects:
        if self._planner.is_quiet:
            self._state.digest_one()
        return (*self._planner.desk.on_tick(now_ms), *self._mend_drift(now_ms))

    def _mend_drift(self, now_ms: int) -> Effects:
        """Put right what has differed from the desired state for long enough."""
        state = self._state
        if state.desired is None or self._planner.desk.is_busy or self._held_by:
            return ()
        due = False
        for site_id in state.reachable():
            site, wanted = state.site(site_id), state.desired.assignments.get(site_id)
            if wanted is None or site.observation is None or not drift(site, wanted):
                site.drift_since_ms = 0
                continue
            site.drift_since_ms = site.drift_since_ms or now_ms
            due |= now_ms - site.drift_since_ms >= state.config.reconcile_after_ms
        if not due or not self._planner.is_quiet or now_ms < self._not_before_ms:
            return ()
        if self._retries >= state.config.retry_limit:
            return ()
        self._retries += 1
        self._not_before_ms = now_ms + state.config.retry_after_ms
        order = self._planner.new_order(ChangeReason.RECONCILE)
        return self._planner.put_back(order, state.desired.accepted, now_ms)

    def _on_resume(self, event: ResumeRequested, now_ms: int) -> Effects:
        stopped = event.stopped_receipt_id or self._held_by or self._newest_stopped()
        order = Order(receipt_id=event.receipt_id, reason=ChangeReason.RESUME, undoes=stopped)
        desired = self._state.desired
        if desired is None or desired.accepted.receipt_id != stopped:
            message = f"change {stopped!r} is not what the fleet is to become any more"
            if not stopped:
                message = "no change has stopped: there is nothing to finish"
            return self._conclude(order, RolloutState.REJECTED, message, now_ms)
        return self._planner.put_back(order, desired.accepted, now_ms)

    def _on_undo(self, event: UndoRequested, now_ms: int) -> Effects:
        history = list(self._state.history)
        undone = event.undone_receipt_id or (history[-1].receipt_id if history else "")
        order = Order(receipt_id=event.receipt_id, reason=ChangeReason.UNDO, undoes=undone)
        place = max((i for i, one in enumerate(history) if one.receipt_id == undone), default=0)
        # resumed or mended, a change is in the history again: before it is before all of these
        while place and history[place - 1].plan_digest == history[place].plan_digest:
            place -= 1
        if not place:
            message = f"no plan is known from before {undone or 'the first change'}"
            return self._conclude(order, RolloutState.REJECTED, message, now_ms)
        return self._planner.put_back(order, history[place - 1], now_ms)

    def _newest_stopped(self) -> str:
        for receipt in reversed(self._state.receipts.values()):
            if receipt.state is RolloutState.STOPPED:
                return receipt.receipt_id
        return ""

    def _conclude(self, order: Order, state: RolloutState, message: str, now_ms: int) -> Effects:
        return self._planner.desk.conclude(order, now_ms, state=state, message=message)
