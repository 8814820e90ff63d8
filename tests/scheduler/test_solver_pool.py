"""Solves and reroute tables in real worker processes: answers, refusals, lateness, lost workers."""

from __future__ import annotations

import asyncio
import os
import signal
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from optimizer.outcome import SolveStatus
from optimizer.plan import Plan
from optimizer.problem import Problem, RunningGroup
from optimizer.reroute_table import RerouteTable
from optimizer.solve import solve
from scheduler.events import DetoursFilled, FillDetours, Solve, SolveFinished
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


def planned(problem: Problem) -> Plan:
    plan = solve(problem).plan
    assert plan is not None
    return plan


def test_a_table_filled_elsewhere_answers_as_one_filled_here(tmp_path: Path) -> None:
    problem = read_problem((FLEET,))
    plan = planned(problem)
    running = tuple(
        RunningGroup(group=g.group, replicas=g.replicas - (at == 0))
        for at, g in enumerate(plan.groups)
    )

    async def story() -> None:
        pool = SolverPool(SolverPoolConfig(log_path=tmp_path / "solver.log"))
        try:
            for _ in range(2):
                filled = await pool.fill(problem, plan, running=running)
                here = RerouteTable(problem, plan, running=running)
                assert filled is not None
                for site in problem.fleet.sites:
                    assert filled.answer(site.site_id) == here.detour(site.site_id)
            lost = replace(problem, lost_sites=(plan.shares[0].site_id,))
            assert await pool.fill(lost, plan, running=running) is None
        finally:
            await pool.stop()

    asyncio.run(story())


def test_a_solve_ends_a_table_under_way(tmp_path: Path) -> None:
    problem = read_problem((FLEET,))
    plan = planned(problem)
    fill = FillDetours(request_id="detours-1", problem=problem, plan=plan, running=())
    ask = Solve(request_id="solve-1", problem=problem, reason="replan")

    async def story() -> None:
        pool = SolverPool(SolverPoolConfig(log_path=tmp_path / "solver.log"))
        try:
            await pool.warm_up()
            filling = asyncio.create_task(pool.carry_out(fill))
            while pool.fill_pid is None:
                await asyncio.sleep(0.005)
            solved, ended = await asyncio.gather(pool.carry_out(ask), filling)
            assert isinstance(solved, SolveFinished)
            assert solved.outcome is not None
            assert isinstance(ended, DetoursFilled)
            assert "fill_host: its process ended" in ended.message
            again = await pool.carry_out(fill)
            assert isinstance(again, DetoursFilled)
            assert again.detours is not None
            assert pool.fill_pid is None, "its process ends with the table"
        finally:
            await pool.stop()

    asyncio.run(story())


def test_a_late_table_is_a_failure(tmp_path: Path) -> None:
    problem = read_problem((FLEET,))
    plan = planned(problem)
    config = SolverPoolConfig(log_path=tmp_path / "solver.log", fill_timeout_ms=1)

    async def story() -> None:
        pool = SolverPool(config)
        try:
            with pytest.raises(RetryableError, match="no answer within"):
                await pool.fill(problem, plan, running=())
        finally:
            await pool.stop()

    asyncio.run(story())
