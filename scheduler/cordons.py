"""Which sites are given nothing new: asked for, written down, and only then in force.

Decides that what an operator asks of a site (cordon, drain, free) begins once the ledger holds it;
where the ledger cannot take it nothing has changed, and the receipt says so. A site that its hub
shut out because its agent keeps refusing is out at once: that only ever holds work back. What a
drained site's work does next is `planner`'s decision.
"""

from __future__ import annotations

from dataclasses import dataclass

from scheduler.desk import Order
from scheduler.entries import CordonChanged
from scheduler.events import (
    Alert,
    AppendLedger,
    CordonRequested,
    CycleEffect,
    ReceiptChanged,
    UncordonRequested,
)
from scheduler.planner import Planner
from scheduler.receipt import ChangeReason, RolloutState
from scheduler.state import CycleState
from sites.hub_messages import CordonWanted, UncordonWanted

Effects = tuple[CycleEffect, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Asked:
    """A request whose entry is on its way to the ledger. `replans`: placement changes with it."""

    order: Order
    entry: CordonChanged
    replans: bool


class CordonDesk:
    """Owns the requests that wait for the ledger. One owner calls it, one event at a time."""

    def __init__(self, state: CycleState, planner: Planner) -> None:
        self._state = state
        self._planner = planner
        self._waiting: dict[str, _Asked] = {}

    def impose(self, site_id: str, reason: str, now_ms: int) -> Effects:
        """A hub has shut its site out: in force at once, and written down."""
        entry = CordonChanged(
            site_id=site_id,
            cordoned=True,
            drained=site_id in self._state.drained,
            reason=reason,
            at_ms=now_ms,
        )
        return (self._planner.desk.write(entry), *self._put_into_force(entry))

    def ask(self, event: CordonRequested | UncordonRequested, now_ms: int) -> Effects:
        """What an operator wants of a site; one request per site at a time."""
        state, site_id = self._state, event.site_id
        is_cordon = isinstance(event, CordonRequested)
        order = Order(
            receipt_id=event.receipt_id,
            reason=ChangeReason.DRAIN if is_cordon else ChangeReason.REBALANCE,
        )
        if site_id not in state.site_ids():
            return self._reject(order, f"no site {site_id!r} in the fleet", now_ms)
        if any(one.entry.site_id == site_id for one in self._waiting.values()):
            text = f"another request for {site_id} is being written down; ask again once it is"
            return self._reject(order, text, now_ms)
        was_drained = site_id in state.drained
        if isinstance(event, CordonRequested):
            reason = event.reason or state.cordoned.get(site_id) or "asked for by an operator"
            drained, replans = event.drain or was_drained, event.drain
        else:
            reason, drained, replans = event.reason or "freed", False, was_drained
        entry = CordonChanged(
            site_id=site_id, cordoned=is_cordon, drained=drained, reason=reason, at_ms=now_ms
        )
        return self._write(_Asked(order=order, entry=entry, replans=replans), now_ms)

    def on_appended(self, token: str, now_ms: int) -> Effects:
        """The entry is durable: the request comes into force."""
        asked = self._waiting.pop(token, None)
        if asked is None:
            return ()
        effects = self._put_into_force(asked.entry)
        if asked.replans and self._state.desired is not None:
            return (*effects, *self._planner.want_replan(asked.order, now_ms))
        done = f"{asked.entry.site_id} {'cordoned' if asked.entry.cordoned else 'freed'}"
        return (*effects, *self._conclude(asked.order, RolloutState.DONE, done, now_ms))

    def on_append_failed(self, token: str, reason: str, now_ms: int) -> Effects:
        """The ledger could not take it: nothing was changed."""
        asked = self._waiting.pop(token, None)
        if asked is None:
            return ()
        verb = "cordoned" if asked.entry.cordoned else "freed"
        text = f"{asked.entry.site_id} was not {verb}: the ledger refused the entry: {reason}"
        return self._reject(asked.order, text, now_ms)

    def _write(self, asked: _Asked, now_ms: int) -> Effects:
        append: AppendLedger = self._planner.desk.write(asked.entry)
        self._waiting[append.token] = asked
        message = "waits for the ledger"
        receipt = self._planner.desk.open_receipt(asked.order, now_ms, message=message)
        self._state.keep_receipt(receipt)
        return (append, ReceiptChanged(receipt=receipt))

    def _put_into_force(self, entry: CordonChanged) -> Effects:
        state, site_id = self._state, entry.site_id
        state.cordoned.pop(site_id, None)
        state.drained.discard(site_id)
        if not entry.cordoned:
            return (UncordonWanted(site_id=site_id),)
        state.cordoned[site_id] = entry.reason
        if entry.drained:
            state.drained.add(site_id)
        alert = Alert(text=f"site {site_id} cordoned: {entry.reason}", site_id=site_id)
        return (alert, CordonWanted(site_id=site_id, reason=entry.reason))

    def _reject(self, order: Order, message: str, now_ms: int) -> Effects:
        return self._conclude(order, RolloutState.REJECTED, message, now_ms)

    def _conclude(self, order: Order, state: RolloutState, message: str, now_ms: int) -> Effects:
        return self._planner.desk.conclude(order, now_ms, state=state, message=message)
