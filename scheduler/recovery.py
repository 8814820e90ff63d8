"""What the ledger says at start: the next epoch, the plan in force, who is cordoned or drained.

Decides how entries fold into a `LedgerSnapshot`. Reading the ledger is `scheduler.ledger`'s; what
follows from the snapshot is the control loop's.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TypeVar

from scheduler.entries import CordonChanged, PlanAccepted, RolloutEnded, ServerStarted
from scheduler.events import LedgerSnapshot
from scheduler.ledger import LedgerReader
from scheduler.receipt import Receipt
from sites.plain import from_plain

T = TypeVar("T")

RECEIPTS_RECOVERED = 50


def recover(reader: LedgerReader) -> tuple[int, LedgerSnapshot]:
    """(next epoch, snapshot) of a ledger. Epochs only rise, so an older server's word is void.

    Raises InvalidFactError if an entry is not what its kind says.
    """
    epoch = max((e.epoch for e in _entries(reader, ServerStarted)), default=0) + 1
    last_version = 0
    previous: PlanAccepted | None = None  # the newest other plan: what an undo puts back
    accepted: PlanAccepted | None = None
    for plan in _entries(reader, PlanAccepted):
        if accepted is not None and plan.plan_digest != accepted.plan_digest:
            previous = accepted
        accepted = plan
        last_version = max(last_version, plan.version)
    cordoned: dict[str, bool] = {}
    for change in _entries(reader, CordonChanged):
        cordoned.pop(change.site_id, None)
        if change.cordoned:
            cordoned[change.site_id] = change.drained
    receipts: list[Receipt] = []
    for ended in _entries(reader, RolloutEnded):
        receipts = [*receipts[-RECEIPTS_RECOVERED + 1 :], ended.receipt]
    snapshot = LedgerSnapshot(
        accepted=accepted,
        previous=previous,
        last_version=last_version,
        cordoned=tuple(sorted(cordoned)),
        drained=tuple(sorted(s for s, drained in cordoned.items() if drained)),
        receipts=tuple(receipts),
    )
    return epoch, snapshot


def _entries(reader: LedgerReader, cls: type[T]) -> Iterable[T]:
    for entry in reader.entries(kind=cls.__name__):
        yield from_plain(cls, json.loads(entry.payload))
