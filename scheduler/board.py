"""What is told to whoever watches the control loop: receipts and alerts, newest form of each.

Decides only what a slow watcher loses (the oldest). Used from one event loop.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog

from scheduler.events import Alert
from scheduler.receipt import Receipt
from sites.errors import RetryableError

_log = structlog.get_logger(__name__)

ALERTS_KEPT = 200
RECEIPTS_KEPT = 500
UPDATES_PER_WATCHER = 1_000

Update = Receipt | Alert
"""What watchers are told."""


class Board:
    """Receipts, alerts and their watchers."""

    def __init__(self) -> None:
        self.alerts: deque[Alert] = deque(maxlen=ALERTS_KEPT)
        self._receipts: dict[str, Receipt] = {}
        self._watchers: list[asyncio.Queue[Update]] = []

    def receipt(self, receipt_id: str) -> Receipt | None:
        """The newest form of a receipt."""
        return self._receipts.get(receipt_id)

    def post_receipt(self, receipt: Receipt) -> None:
        """Keep the newest form of a receipt and tell the watchers."""
        self._receipts[receipt.receipt_id] = receipt
        if len(self._receipts) > RECEIPTS_KEPT:
            del self._receipts[next(iter(self._receipts))]
        self._publish(receipt)

    def post_alert(self, alert: Alert) -> None:
        """Log an alert and tell the watchers; the same one twice in a row is told once."""
        if self.alerts and self.alerts[-1] == alert:
            return
        _log.warning("alert", text=alert.text, site=alert.site_id)
        self.alerts.append(alert)
        self._publish(alert)

    async def wait_for(self, receipt_id: str, *, timeout_ms: int) -> Receipt:
        """The receipt once it is final. Raises RetryableError after `timeout_ms`."""
        async with self.subscribe() as updates:
            try:
                async with asyncio.timeout(timeout_ms / 1_000):
                    while True:
                        known = self._receipts.get(receipt_id)
                        if known is not None and known.is_final:
                            return known
                        await updates.get()
            except TimeoutError as fault:
                raise RetryableError(
                    f"change {receipt_id}: not finished within {timeout_ms} ms; it goes on"
                ) from fault

    @asynccontextmanager
    async def subscribe(self) -> AsyncIterator[asyncio.Queue[Update]]:
        """Receipts and alerts as they change."""
        updates: asyncio.Queue[Update] = asyncio.Queue(UPDATES_PER_WATCHER)
        self._watchers.append(updates)
        try:
            yield updates
        finally:
            self._watchers.remove(updates)

    def _publish(self, update: Update) -> None:
        for updates in self._watchers:
            if updates.full():
                updates.get_nowait()
            updates.put_nowait(update)
