"""The diff between plans: what counts as which change, and the lines people read."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings

from optimizer.arcs import find_arcs
from optimizer.diff import ROUTES_SHOWN, Mark, diff_lines, diff_plans
from optimizer.greedy import greedy_plan
from optimizer.plan import Plan
from optimizer.problem import Problem
from sites.digest import canonical_json
from tests.optimizer import builders as b

A, B = "a/p/v/x1", "b/p/v/x1"


def text(before: Plan | None, after: Plan, problem: Problem, *, full: bool = False) -> str:
    return "\n".join(
        line.text for line in diff_lines(diff_plans(before, after, problem), full=full)
    )


def test_a_first_plan_only_adds() -> None:
    problem = b.two_sites()
    plan = b.plan(problem, groups={B: 1}, shares={("c", B): 10_000})
    assert text(None, plan, problem) == (
        "  +   place  v  b  1×gpu  $0.29/Mtok  p99 65 ms\n"
        "  +   route  c  b 100%  p99 65/500 ms\n"
        "Cost $1.03/h   Power 300 W\n"
        "Plan: 2 add, 0 change, 0 replace, 0 remove; 0 unchanged"
    )


def test_each_kind_of_change_has_its_line() -> None:
    problem = b.problem(
        sites=[b.site("a"), b.site("b"), b.site("d")],
        links=[b.link("a", "b"), b.link("a", "d")],
        variants=[b.variant("v"), b.variant("w", quality=0.95)],
        points=[b.point("v"), b.point("w")],
        services={"chat": ["v", "w"]},
    )
    before = b.plan(
        problem, groups={A: 1, B: 1, "d/p/v/x1": 2}, shares={("c", A): 7_000, ("c", B): 3_000}
    )
    after = b.plan(
        problem, groups={A: 2, "b/p/w/x1": 1}, shares={("c", A): 9_000}, shed={"c": 1_000}
    )
    assert text(before, after, problem) == (
        "  ~   place  v  a  1→2 replicas  2×gpu  $0.63/Mtok  p99 55 ms\n"
        "  -/+ place  w  b  v→w quality -5.0%  1×gpu  idle\n"
        "  -   place  v  d  frees 2×gpu\n"
        "  ~   route  c  a 70→90%, b 30→0%, shed 0→10%  p99 65→55/500 ms\n"
        "Cost $4.06/h → $93.05/h (+2191.8%)   Power 600 → 480 W\n"
        "Plan: 0 add, 2 change, 1 replace, 1 remove; 0 unchanged"
    )


def test_unchanged_things_show_only_in_full() -> None:
    problem = b.two_sites()
    plan = b.plan(problem, groups={A: 1}, shares={("c", A): 10_000})
    assert text(plan, plan, problem) == (
        "Cost $2.03/h → $2.03/h (+0.0%)   Power 300 → 300 W\n"
        "Plan: 0 add, 0 change, 0 replace, 0 remove; 2 unchanged (--full)"
    )
    assert "route  c  a 100%" in text(plan, plan, problem, full=True)


def test_a_long_list_of_routes_is_counted_not_cut_silently() -> None:
    classes = [b.traffic_class(f"c{i:02d}", rate_rps=0.1) for i in range(ROUTES_SHOWN + 5)]
    problem = b.problem(classes=classes)
    plan = b.plan(problem, groups={A: 1}, shares={(c.class_id, A): 10_000 for c in classes})
    assert f"… {ROUTES_SHOWN} of {ROUTES_SHOWN + 5} changed routes shown" in text(
        None, plan, problem
    )
    assert text(None, plan, problem, full=True).count("route") == ROUTES_SHOWN + 5


def test_what_the_new_fleet_no_longer_knows_is_shown_as_removed() -> None:
    problem = b.two_sites()
    before = b.plan(problem, groups={B: 1}, shares={("c", B): 10_000})
    smaller = b.problem()
    after = b.plan(smaller, groups={A: 1}, shares={("c", A): 10_000})
    diff = diff_plans(before, after, smaller)
    assert [(g.site_id, g.mark) for g in diff.groups] == [("a", Mark.ADD), ("b", Mark.REMOVE)]
    assert [(p.site_id, p.before_bp, p.after_bp) for p in diff.routes[0].parts] == [
        ("a", 0, 10_000),
        ("b", 10_000, 0),
    ]


@settings(max_examples=60, deadline=None)
@given(b.small_problems(), b.small_problems())
def test_any_two_plans_can_be_compared_and_the_diff_saved(one: Problem, other: Problem) -> None:
    before = greedy_plan(one, find_arcs(one).arcs)
    after = greedy_plan(other, find_arcs(other).arcs)
    diff = diff_plans(before, after, other)
    assert canonical_json(diff)
    assert diff_lines(diff, full=True)
    assert diff_plans(after, after, other).is_empty
    assert diff.is_empty == (_content(before) == _content(after))


def _content(plan: Plan) -> tuple[object, ...]:
    shares: dict[tuple[str, str], int] = {}
    for share in plan.shares:
        key = (share.class_id, share.site_id)
        shares[key] = shares.get(key, 0) + share.basis_points
    return plan.groups, shares, {s.class_id: s.basis_points for s in plan.shed}


def test_a_change_of_replica_size_is_a_replacement() -> None:
    problem = b.problem(points=[b.point(), b.point(accelerators=2, decode_tok_s=2_500.0)])
    before = b.plan(problem, groups={A: 1}, shares={("c", A): 10_000})
    after = b.plan(problem, groups={"a/p/v/x2": 1}, shares={("c", "a/p/v/x2"): 10_000})
    (change,) = diff_plans(before, after, problem).groups
    assert (change.mark, change.accelerators) == (Mark.REPLACE, 2)
    assert "other replica size" in text(before, after, replace(problem))
