"""What explains a plan under mixes, zones, budgets, caps, losses, long contexts and at scale."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings

from optimizer import explain as explaining
from optimizer.explain import explain_plan
from optimizer.explain_text import (
    binding_lines,
    class_lines,
    left_out_lines,
    loss_lines,
    shed_lines,
)
from optimizer.outcome import Outcome, Relaxation, SolveStatus
from optimizer.plan import ExposedTraffic, PruneReason, RejectReason, SurvivalShare
from optimizer.problem import Problem
from optimizer.solve import solve
from tests.optimizer import builders as b

A, B = "a/p/v/x1", "b/p/v/x1"
REASONS = {r.value for r in PruneReason} | {r.value for r in RejectReason}


def test_a_context_too_long_for_the_model_is_the_reason() -> None:
    problem = b.problem(classes=[b.traffic_class(context_tokens=5_000.0)])
    plan = b.plan(problem, groups={}, shares={}, shed={"c": 10_000})
    assert shed_lines(explain_plan(problem, plan)) == (
        '10 req/s of "chat" (class c, policy any) can be served nowhere: '
        "a: context of v 5000 tokens, limit 4096 tokens",
    )


@pytest.mark.parametrize(
    ("asked", "because"),
    [
        ({"spread_zones": 2}, "spread_zones 2 (1 may serve it)"),
        ({"mean_quality_floor": 0.99}, "mean_quality_floor 0.99 (the best here is 0.9)"),
        ({"over_mix": True, "ttft_ms": 50.0}, "latency mix within 50 ms (no site alone is)"),
    ],
)
def test_what_a_class_asks_for_is_named_where_it_keeps_it_from_being_served(
    asked: dict[str, object], because: str
) -> None:
    one = b.traffic_class(**asked)  # type: ignore[arg-type]
    problem = b.problem(classes=[one], variants=[b.variant(quality=0.9)])
    plan = b.plan(problem, groups={}, shares={}, shed={"c": 10_000})
    (line,) = shed_lines(explain_plan(problem, plan))
    assert f"is not served because of {because}: " in line


def test_a_spent_budget_is_short_and_full() -> None:
    problem = b.problem(budgets={"t": 0.6})
    plan = b.plan(problem, groups={A: 1}, shares={("c", A): 5_000}, shed={"c": 5_000})
    explanation = explain_plan(problem, plan)
    (line,) = shed_lines(explanation)
    assert "cannot be served" in line and "/h budget)" in line
    spent = replace(problem, tenants=b.problem(budgets={"t": 0.515}).tenants)
    assert any("t: budget $0.515/h of" in x for x in binding_lines(explain_plan(spent, plan)))


def test_a_carbon_cap_that_is_full_is_told_in_kilograms() -> None:
    dirty = b.site("a", supplies=[b.supply(carbon_g=1e6)])
    policy = replace(b.DEFAULT_POLICY, carbon_cap_g_per_h=300_000.0)
    problem = b.problem(sites=[dirty], plan_policy=policy)
    plan = b.plan(problem, groups={A: 1}, shares={("c", A): 10_000})
    assert "Full: fleet: carbon cap 300 kgCO2e/h of 300 kgCO2e/h" in binding_lines(
        explain_plan(problem, plan)
    )


def test_of_many_full_limits_some_are_listed() -> None:
    problem = b.problem(sites=[b.site(pools=[b.pool(count=1)])])
    told = explain_plan(problem, b.plan(problem, groups={A: 1}, shares={("c", A): 10_000}))
    many = replace(told, binding=told.binding[:1] * 22)
    assert binding_lines(many)[-1] == "Full: 20 of 22 shown (--full shows all)"
    assert len(binding_lines(many)) == 21
    assert len(binding_lines(many, limit=None)) == 22


def test_what_a_loss_would_do_is_told() -> None:
    problem = b.two_sites(classes=[b.traffic_class(protected=True)])
    plan = b.plan(problem, groups={B: 1}, shares={("c", B): 10_000})
    assert loss_lines(explain_plan(problem, plan)) == ()
    bare = replace(
        plan, exposed=(ExposedTraffic(lost_site_id="b", class_id="c", basis_points=5_000),)
    )
    assert loss_lines(explain_plan(problem, bare)) == (
        "Exposed: losing b would leave 5 req/s unserved of protected c",
    )
    move = SurvivalShare(lost_site_id="b", class_id="c", group_id=A, basis_points=10_000)
    safe = replace(plan, survival=(move,))
    assert loss_lines(explain_plan(problem, safe)) == (
        "Survives: any one site may be lost, protected classes stay served",
    )


def test_chosen_classes_are_explained_as_among_all() -> None:
    problem = b.two_sites(classes=[b.traffic_class("c"), b.traffic_class("d")])
    plan = b.plan(problem, groups={B: 2}, shares={("c", B): 10_000, ("d", B): 10_000})
    every = {one.class_id: one for one in explain_plan(problem, plan).classes}
    (alone,) = explain_plan(problem, plan, class_ids=["d"]).classes
    assert alone == every["d"]


def test_a_large_problem_explains_what_is_shed_and_counts_the_rest() -> None:
    sites = [b.site(f"s{n:03d}", pools=[b.pool(count=0)]) for n in range(400)]
    count = explaining.PAIRS_MAX // len(sites) + 1
    classes = [b.traffic_class(f"c{n:04d}") for n in range(count)]
    problem = b.problem(sites=sites, markets=[b.market(accesses={"s000": 1.0})], classes=classes)
    plan = b.plan(problem, groups={}, shares={}, shed={"c0007": 10_000})
    assert explaining.is_large(problem)
    explanation = explain_plan(problem, plan)
    assert [one.class_id for one in explanation.classes] == ["c0007"]
    assert left_out_lines(explanation) == (
        f"Explained: 1 of {count} classes, those shed; --why CLASS explains any other",
    )
    (asked,) = explain_plan(problem, plan, class_ids=["c0001"]).classes
    assert asked.class_id == "c0001"


@settings(max_examples=25, deadline=None)
@given(b.rich_problems(max_classes=3))
def test_every_line_of_a_rich_plan_can_be_told(problem: Problem) -> None:
    outcome = solve(problem)
    assert outcome.plan is not None
    explanation = explain_plan(problem, outcome.plan, arcs=outcome.arcs, pruned=outcome.pruned)
    for one in explanation.classes:
        assert {r.reason for r in one.rejections} <= REASONS
        assert class_lines(one)
    assert len(shed_lines(explanation)) == len(outcome.plan.shed)
    assert binding_lines(explanation) is not None


def test_ways_out_of_an_infeasible_problem_are_told_apart() -> None:
    def part(code: str, *, way: int, price: float) -> Relaxation:
        return Relaxation(
            code=code,
            subject="a",
            limit=1.0,
            needed=2.0,
            unit="kW",
            price_usd_per_h=price,
            remedy="raise it",
            way=way,
        )

    found = (
        part("site_power", way=0, price=1.5),
        part("supply_limit", way=0, price=0.0),
        part("shed_cap", way=1, price=9.0),
    )
    outcome = Outcome(
        status=SolveStatus.INFEASIBLE,
        plan=None,
        arcs=(),
        pruned=(),
        bound_usd_per_h=0.0,
        relaxations=found,
    )
    assert outcome.ways == (found[:2], found[2:])
