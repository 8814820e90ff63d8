"""Receipts and alerts reach whoever watches, and a slow watcher costs nobody else anything."""

from __future__ import annotations

import asyncio

import pytest
import structlog.testing

from scheduler.board import UPDATES_PER_WATCHER, Board
from scheduler.events import Alert
from scheduler.receipt import ChangeReason, Receipt, RolloutState
from sites.errors import RetryableError


def receipt(state: RolloutState) -> Receipt:
    return Receipt(
        receipt_id="apply-1",
        reason=ChangeReason.APPLY,
        state=state,
        plan_digest="",
        epoch=1,
        version=1,
        started_at_ms=1,
    )


def test_a_wait_ends_with_the_final_receipt() -> None:
    async def story() -> None:
        board = Board()
        waiting = asyncio.create_task(board.wait_for("apply-1", timeout_ms=20_000))
        for state in (RolloutState.ACCEPTING, RolloutState.RUNNING, RolloutState.DONE):
            await asyncio.sleep(0)
            assert not waiting.done()
            board.post_receipt(receipt(state))
        assert (await waiting).state is RolloutState.DONE
        assert await board.wait_for("apply-1", timeout_ms=0) == receipt(RolloutState.DONE)

    asyncio.run(story())


def test_a_wait_that_is_too_short_says_that_the_change_goes_on() -> None:
    async def story() -> None:
        board = Board()
        board.post_receipt(receipt(RolloutState.RUNNING))
        with pytest.raises(RetryableError, match="not finished within 1 ms; it goes on"):
            await board.wait_for("apply-1", timeout_ms=1)

    asyncio.run(story())


def test_a_slow_watcher_loses_the_oldest() -> None:
    async def story() -> None:
        board = Board()
        with structlog.testing.capture_logs():
            async with board.subscribe() as updates:
                for number in range(UPDATES_PER_WATCHER + 3):
                    board.post_alert(Alert(text=str(number)))
                assert updates.qsize() == UPDATES_PER_WATCHER
                assert updates.get_nowait() == Alert(text="3")
            board.post_alert(Alert(text="again"))
            board.post_alert(Alert(text="again"))
        assert [a.text for a in board.alerts][-2:] == [str(UPDATES_PER_WATCHER + 2), "again"]

    asyncio.run(story())
