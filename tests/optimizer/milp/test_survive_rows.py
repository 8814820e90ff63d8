"""The rows of `survive_one` as they are written, and the rounds of cuts that make them."""

from __future__ import annotations

from dataclasses import replace

from optimizer.arcs import find_arcs
from optimizer.milp.constraints_survive import SurvivalCut, survive_one
from optimizer.milp.formulate import attempt, formulate
from optimizer.milp.model import lp_text
from optimizer.problem import Problem
from optimizer.solve import solve
from optimizer.verify import check_plan
from tests.optimizer import builders as b

GOLDEN = """\
c_l_survive_one(a_0)_:
+1.0 risk(a_chat)
+10.0 n(b_p_v_x1)
+0.5 shed(c)
>= 30.0

c_l_survive_one(a_1)_:
+1.0 risk(a_chat)
+4.0 n(b_p_v_x1)
>= 5.0

c_l_survive_one(b_0)_:
+1.0 risk(b_chat)
+10.0 n(a_p_v_x1)
+0.5 shed(c)
>= 30.0

bounds
"""


def two_sites() -> Problem:
    """30 USD/h at stake; a replica elsewhere carries a third of it."""
    problem = b.two_sites(classes=[b.traffic_class(rate_rps=20.0, protected=True)])
    return replace(problem, plan_policy=replace(problem.plan_policy, exposure_part=1.0))


def cut(lost: str, other: str, *, worth: float = 10.0, price: float = 0.5) -> SurvivalCut:
    return SurvivalCut(
        lost_site_id=lost,
        parts=("chat",),
        per_replica={f"{other}/p/v/x1": worth},
        per_rps={"c": price},
        least=30.0 if price else 5.0,
    )


def test_rows_are_as_written() -> None:
    problem = two_sites()
    one = formulate(problem, find_arcs(problem).arcs)
    survive_one(one, [cut("a", "b"), cut("a", "b", worth=4.0, price=0.0), cut("b", "a")])
    assert GOLDEN in lp_text(one, family="survive_one")


def test_the_risk_of_every_site_is_in_the_objective() -> None:
    problem = two_sites()
    one = formulate(problem, find_arcs(problem).arcs)
    before = attempt(one).point
    survive_one(one, [cut("a", "b", worth=0.0, price=0.0)])
    after = attempt(one).point
    assert after.values["risk"]["a", "chat"] == 5.0
    assert abs(after.cost - before.cost - 5.0) < 1e-6


def test_each_site_gets_what_the_other_one_would_lose() -> None:
    """20 req/s are two replicas; either site lost, the other must carry all: two replicas each."""
    problem = two_sites()
    plan = solve(problem).plan
    assert plan is not None
    assert {g.group.group_id: g.replicas for g in plan.groups} == {"a/p/v/x1": 2, "b/p/v/x1": 2}
    assert plan.exposed == ()
    assert check_plan(problem, plan) == ()
