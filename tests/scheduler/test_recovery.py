"""What a ledger's entries fold into at the start of a server."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from optimizer.solve import solve
from scheduler.entries import CordonChanged, PlanAccepted, RolloutEnded, ServerStarted, kind_of
from scheduler.events import LedgerSnapshot
from scheduler.fleet_problem import read_problem
from scheduler.ledger import Ledger
from scheduler.receipt import ChangeReason, Receipt, RolloutState
from scheduler.recovery import RECEIPTS_RECOVERED, recover
from sites.clock import ManualClock

FLEET = Path(__file__).resolve().parents[2] / "deploy" / "examples" / "demo"


def cordon(site_id: str, *, cordoned: bool, drained: bool = False) -> CordonChanged:
    return CordonChanged(
        site_id=site_id, cordoned=cordoned, drained=drained, reason="test", at_ms=1
    )


def receipt(number: int) -> Receipt:
    return Receipt(
        receipt_id=f"apply-{number}",
        reason=ChangeReason.APPLY,
        state=RolloutState.DONE,
        plan_digest="",
        epoch=1,
        version=number,
        started_at_ms=1,
    )


def test_an_empty_ledger_begins_at_epoch_one(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path, clock=ManualClock(start_ms=1))
    assert recover(ledger.read) == (1, LedgerSnapshot())
    ledger.close()


def test_the_newest_word_of_each_kind_counts(tmp_path: Path) -> None:
    problem = read_problem((FLEET,))
    plan = solve(problem).plan
    assert plan is not None
    first = PlanAccepted(
        receipt_id="apply-1",
        reason=ChangeReason.APPLY,
        epoch=1,
        first_version=1,
        version=4,
        at_ms=1,
        plan_digest=plan.plan_digest,
        policy_digest="",
        problem=problem,
        plan=plan,
    )
    second = replace(first, receipt_id="apply-2", plan_digest="2", first_version=4, version=5)
    resumed = replace(second, receipt_id="resume-3", epoch=3, first_version=6, version=7)
    entries = [
        ServerStarted(epoch=1, at_ms=1),
        first,
        ServerStarted(epoch=3, at_ms=1),
        cordon("osl-1", cordoned=True),
        cordon("rix-1", cordoned=True, drained=True),
        cordon("waw-1", cordoned=True, drained=True),
        second,
        resumed,
        cordon("waw-1", cordoned=False),
        *(RolloutEnded(receipt=receipt(n), at_ms=1) for n in range(RECEIPTS_RECOVERED + 5)),
    ]
    ledger = Ledger(tmp_path, clock=ManualClock(start_ms=1))
    for entry in entries:
        ledger.append(kind_of(entry), entry)
    epoch, snapshot = recover(ledger.read)
    ledger.close()
    assert epoch == 4
    assert (snapshot.accepted, snapshot.previous) == (resumed, first)
    assert snapshot.last_version == 7
    assert snapshot.cordoned == ("osl-1", "rix-1")
    assert snapshot.drained == ("rix-1",)
    assert len(snapshot.receipts) == RECEIPTS_RECOVERED
    assert snapshot.receipts[-1].receipt_id == f"apply-{RECEIPTS_RECOVERED + 4}"
