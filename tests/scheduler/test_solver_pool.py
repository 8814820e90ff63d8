"""Solves in a real worker process: answers, refusals, lateness, a killed worker."""

from __future__ import annotations

import asyncio
import os
import signal
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from optimizer.outcome import SolveStatus
from optimizer.solve import solve
from scheduler.fleet_problem import read_problem
from scheduler.solver_pool import SolverPool, SolverPoolConfig
from sites.errors import RetryableError

FLEET = Path(__file__).resolve().parents[2] / "deploy" / "examples" / "demo"


def test_the_worker_answers_as_the_optimizer_does_and_outlives_a_kill(tmp_path: Path) -> None:
    problem = read_problem((FLEET,))

    async def story() -> None:
        pool = SolverPool(SolverPoolConfig(log_path=tmp_path / "solver.log"))
        try:
            first = await pool.solve(problem)
            assert first.status is SolveStatus.OPTIMAL
            assert first.plan == solve(problem).plan
            worker = pool.pid
            assert worker is not None
            assert (await pool.solve(problem)).plan == first.plan
            assert pool.pid == worker, "kept warm between solves"
            os.kill(worker, signal.SIGKILL)
            with pytest.raises(RetryableError, match="its process ended"):
                await pool.solve(problem)
            assert (await pool.solve(problem)).plan == first.plan
            worker = pool.pid
        finally:
            await pool.stop()
        assert worker is not None
        assert not psutil.pid_exists(worker)

    asyncio.run(story())


def test_a_late_solve_is_abandoned_with_its_worker(tmp_path: Path) -> None:
    problem = read_problem((FLEET,))
    hasty = replace(problem, plan_policy=replace(problem.plan_policy, time_limit_s=0.001))

    async def story() -> None:
        pool = SolverPool(SolverPoolConfig(log_path=tmp_path / "solver.log", margin_ms=0))
        try:
            await pool.warm_up()
            worker = pool.pid
            assert worker is not None
            with pytest.raises(RetryableError, match="no answer within"):
                await pool.solve(hasty)
            assert not psutil.pid_exists(worker)
        finally:
            await pool.stop()

    asyncio.run(story())
