"""What a loss leads to while fewer replicas are ready than the detours held count on."""

from __future__ import annotations

from dataclasses import replace

import pytest

from optimizer.reroute_table import RerouteTable
from optimizer.verify import check_plan
from scheduler import failover
from scheduler.failover import predict_failover
from scheduler.state import CycleState, HeldDetours
from sites.errors import FatalError
from sites.units import WHOLE_BP
from tests.optimizer import builders as b
from tests.scheduler.states import state_in_force

A, B, C, D = (f"{s}/p/v/x1" for s in "abcd")


def stale(gone: str) -> CycleState:
    """Detours are held for all replicas; since then that of a site is gone. "strict" of b may go to
    c only, where "free", which is dear to shed, makes room for it by going to d.
    """
    countries = {"a": "DE", "b": "DE", "c": "FR", "d": "CH"}
    problem = b.problem(
        sites=[b.site(s, country=country) for s, country in countries.items()],
        links=[b.link("a", "b"), b.link("b", "c"), b.link("c", "d")],
        markets=[b.market(accesses={"b": 1.0})],
        classes=[
            b.traffic_class("strict", policy_id="eu", priority=9),
            b.traffic_class("free", priority=0),
        ],
    )
    plan = b.plan(
        problem,
        groups={A: 1, B: 1, C: 1, D: 1},
        shares={("strict", B): WHOLE_BP, ("free", C): WHOLE_BP},
    )
    state = state_in_force(problem, plan)
    standing = replace(state.problem_now(ready_only=True), running=())
    detours = RerouteTable(standing, plan).filled()
    state.held = HeldDetours(problem=standing, plan=plan, detours=detours)
    state.site(gone).replicas = ()
    return state


def test_where_mending_sheds_what_others_would_make_room_for_the_loss_is_worked_out() -> None:
    state = stale("b")
    assert state.held is not None
    running = state.problem_now(ready_only=True).running
    detour = state.held.detours.answer("a", running=running)
    assert detour.shed_bp("strict") == WHOLE_BP, "mending alone does not find it"
    assert detour.dearer_usd_per_h > 0.01 * state.held.plan.cost.total_usd_per_h, "and says so"
    found = predict_failover(state, "a")
    assert found is not None
    assert {(s.class_id, s.group_id) for s in found.plan.shares} == {("strict", C), ("free", D)}
    assert found.plan.shed == ()
    assert check_plan(found.problem, found.plan) == ()


def test_if_the_solver_errs_the_mended_answer_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    def erring(standing: object) -> RerouteTable:
        raise FatalError("HiGHS could not solve the flows of a reroute")

    monkeypatch.setattr(failover.RerouteTable, "on", erring)
    found = predict_failover(stale("b"), "a")
    assert found is not None
    assert {s.class_id: s.basis_points for s in found.plan.shed} == {"strict": WHOLE_BP}
    assert "HiGHS could not solve the flows of a reroute" in found.trouble


def test_what_mending_answers_well_enough_is_not_worked_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def unwanted(standing: object) -> RerouteTable:
        raise AssertionError("worked out")

    monkeypatch.setattr(failover.RerouteTable, "on", unwanted)
    found = predict_failover(stale("d"), "a")
    assert found is not None
    assert found.plan.shed == ()
