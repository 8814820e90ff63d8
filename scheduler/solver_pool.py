"""Solves and reroute tables in worker processes, each with a wall-clock limit.

Decides nothing about plans. Solves run one after the other; their worker is kept warm in between
(building the formulation's library takes seconds) and replaced when it was lost. A table has a
process of its own, which ends with it and at once when a solve or another table is wanted.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optimizer.outcome import Outcome
from optimizer.plan import Plan
from optimizer.problem import Problem, RunningGroup
from optimizer.reroute_detours import Detours
from scheduler.child import Child
from scheduler.events import DetoursFilled, FillDetours, Solve, SolveFinished
from sites.errors import RetryableError


@dataclass(frozen=True, kw_only=True, slots=True)
class SolverPoolConfig:
    """`margin_ms` is what a solve gets beyond its policy's own `time_limit_s` before it is
    abandoned (building and checking take time too); `fill_timeout_ms` is what a table gets.
    """

    log_path: Path
    start_timeout_ms: int = 60_000
    margin_ms: int = 60_000
    fill_timeout_ms: int = 900_000


class SolverPool:
    """Owns the worker processes."""

    def __init__(self, config: SolverPoolConfig) -> None:
        self._config = config
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="solver-pool")
        self._fill_thread = ThreadPoolExecutor(1, thread_name_prefix="detours")
        self._child = Child("scheduler.solver_host", log_path=config.log_path)
        self._filler = Child("scheduler.fill_host", log_path=config.log_path)

    @property
    def pid(self) -> int | None:
        """Process id of the worker while it runs."""
        return self._child.pid

    @property
    def fill_pid(self) -> int | None:
        """Process id of the worker that fills a table, if there is one."""
        return self._filler.pid

    async def warm_up(self) -> None:
        """Start the worker ahead of its first solve. Raises RetryableError if it cannot start."""
        await self._run(self._ensure_started)

    async def carry_out(self, asked: Solve | FillDetours) -> SolveFinished | DetoursFilled:
        """What the control loop asks for; a failure is an answer too."""
        request_id = asked.request_id
        match asked:
            case Solve():
                try:
                    outcome = await self.solve(asked.problem, before=asked.before)
                    return SolveFinished(request_id=request_id, outcome=outcome)
                except RetryableError as fault:
                    return SolveFinished(request_id=request_id, outcome=None, message=str(fault))
            case FillDetours():
                try:
                    detours = await self.fill(asked.problem, asked.plan, running=asked.running)
                    return DetoursFilled(request_id=request_id, detours=detours)
                except RetryableError as fault:
                    return DetoursFilled(request_id=request_id, detours=None, message=str(fault))

    async def solve(self, problem: Problem, *, before: Plan | None = None) -> Outcome:
        """`optimizer.solve` of the problem, steadied by the plan in force (`before`).

        Raises RetryableError if it failed or was late.
        """
        self._filler.kill()
        verdict, value = await self._run(self._solve, problem, before)
        if verdict == "ok":
            assert isinstance(value, Outcome)
            return value
        raise RetryableError(f"solver: {value}")

    async def fill(
        self, problem: Problem, plan: Plan, *, running: tuple[RunningGroup, ...]
    ) -> Detours | None:
        """`optimizer.fill_detours`, ready to answer.

        Raises RetryableError if it failed, was late or was ended for something else.
        """
        self._filler.kill()
        loop = asyncio.get_running_loop()
        verdict, value = await loop.run_in_executor(
            self._fill_thread, self._fill, problem, plan, running
        )
        if verdict == "ok":
            assert value is None or isinstance(value, Detours)
            return value
        raise RetryableError(f"detours: {value}")

    async def stop(self) -> None:
        """End the workers, whatever they are doing."""
        self._child.kill()
        self._filler.kill()
        await self._run(self._stop)
        await asyncio.get_running_loop().run_in_executor(
            self._fill_thread, lambda: self._filler.stop(patience_s=0.0)
        )

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

    def _fill(
        self, problem: Problem, plan: Plan, running: tuple[RunningGroup, ...]
    ) -> tuple[str, Any]:
        try:
            self._filler.start(timeout_s=self._config.start_timeout_ms / 1_000)
            limit_s = self._config.fill_timeout_ms / 1_000
            verdict, value = self._filler.ask((problem, plan, running), timeout_s=limit_s)
        finally:
            self._filler.stop(patience_s=0.0)
        if isinstance(value, Detours):
            value.standing.warm()
        return (verdict, value)
