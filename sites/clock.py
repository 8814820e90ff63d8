"""The only home of time. Everything else is handed a `Clock` (shell) or a number (decision)."""

from __future__ import annotations

import asyncio
import time
from typing import Protocol


class Clock(Protocol):
    """Wall and monotonic milliseconds, and a way to wait that simulation can replace."""

    def wall_ms(self) -> int:
        """Milliseconds since the Unix epoch, UTC."""
        ...

    def monotonic_ms(self) -> int:
        """Milliseconds that never run backwards; only differences mean anything."""
        ...

    async def sleep_ms(self, duration_ms: int) -> None:
        """Wait without blocking the event loop."""
        ...

    def block_ms(self, duration_ms: int) -> None:
        """Wait in a thread of one's own (never on an event loop)."""
        ...


class SystemClock:
    """The machine's clocks."""

    def wall_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def monotonic_ms(self) -> int:
        return time.monotonic_ns() // 1_000_000

    async def sleep_ms(self, duration_ms: int) -> None:
        await asyncio.sleep(duration_ms / 1_000)

    def block_ms(self, duration_ms: int) -> None:
        time.sleep(duration_ms / 1_000)


class ManualClock:
    """A clock that moves only when told; waiting moves it."""

    def __init__(self, *, start_ms: int = 0) -> None:
        self._now_ms = start_ms

    def wall_ms(self) -> int:
        return self._now_ms

    def monotonic_ms(self) -> int:
        return self._now_ms

    def advance_ms(self, duration_ms: int) -> None:
        """Move time forward."""
        assert duration_ms >= 0, "time never runs backwards"
        self._now_ms += duration_ms

    async def sleep_ms(self, duration_ms: int) -> None:
        self.advance_ms(duration_ms)
        await asyncio.sleep(0)

    def block_ms(self, duration_ms: int) -> None:
        self.advance_ms(duration_ms)
