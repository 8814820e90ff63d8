"""Solves in a worker process, one after the other, each with a wall-clock limit.

Decides nothing about plans. The worker is kept warm between solves (building the formulation's
library takes seconds) and replaced when it was lost.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optimizer.outcome import Outcome
from optimizer.plan import Plan
from optimizer.problem import Problem
from scheduler.child import Child
from sites.errors import RetryableError


@dataclass(frozen=True, kw_only=True, slots=True)
class SolverPoolConfig:
    """`margin_ms` is what a solve gets beyond its policy's own `time_limit_s` before it is
    abandoned (building and checking take time too).
    """

    log_path: Path
    start_timeout_ms: int = 60_000
    margin_ms: int = 60_000


class SolverPool:
    """Owns the worker process."""

    def __init__(self, config: SolverPoolConfig) -> None:
        self._config = config
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="solver-pool")
        self._child = Child("scheduler.solver_host", log_path=config.log_path)

    @property
    def pid(self) -> int | None:
        """Process id of the worker while it runs."""
        return self._child.pid

    async def warm_up(self) -> None:
        """Start the worker ahead of its first solve. Raises RetryableError if it cannot start."""
        await self._run(self._ensure_started)

    async def solve(self, problem: Problem, *, before: Plan | None = None) -> Outcome:
        """`optimizer.solve` of the problem, steadied by the plan in force (`before`).

        Raises RetryableError if it failed or was late.
        """
        verdict, value = await self._run(self._solve, problem, before)
        if verdict == "ok":
            assert isinstance(value, Outcome)
            return value
        raise RetryableError(f"solver: {value}")

    async def stop(self) -> None:
        """End the worker, whatever it is doing."""
        self._child.kill()
        await self._run(self._stop)

    async def _run(self, function: Any, *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._thread, function, *arguments)

    def _ensure_started(self) -> None:
        if self._child.pid is None:
            self._child.start(timeout_s=self._config.start_timeout_ms / 1_000)

    def _stop(self) -> None:
        self._child.stop(patience_s=0.0)

    def _solve(self, problem: Problem, before: Plan | None) -> tuple[str, Any]:
        self._ensure_started()
        limit_s = problem.plan_policy.time_limit_s + self._config.margin_ms / 1_000
        verdict, value = self._child.ask((problem, before), timeout_s=limit_s)
        return (verdict, value)
