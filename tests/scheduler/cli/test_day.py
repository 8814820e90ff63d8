"""How a day is shown: a table with bars for people, everything as data, refusals as exit codes."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from optimizer.policy import GroupBound
from optimizer.solve_day import solve_day
from optimizer.verify import check_plan
from scheduler.cli.day import bar, first_hour, plan_day, show_day
from scheduler.cli.output import CliError, ExitCode, Output
from scheduler.cli.session import Session
from tests.optimizer import builders as b
from tests.optimizer import days

GOLDEN = """\
4 hours for $12.12, gap 0%, milp over 4 hours at once, 0.0 s
HOUR    COST  POWER  REPLICAS  STARTED  STOPPED  DEMAND  DEFERRED  ARRIVED  SHED
00:00  $4.00  300 W         1        1        -      10        10        -     -  ████████████████
01:00  $4.00  300 W         1        -        -      10        10        -     -  ████████████████
"""


def test_a_day_is_a_table_with_bars(capsys: pytest.CaptureFixture[str]) -> None:
    show_day(Session(), solve_day(days.dear_then_cheap(), periods=4))

    lines = capsys.readouterr().out.splitlines()
    assert lines[:4] == GOLDEN.splitlines()
    assert [line[:5] for line in lines[4:6]] == ["02:00", "03:00"]
    assert lines[6] == 'Deferred: 72.0k requests of "later", by 2 h at the most'
    assert len(lines) == 7


def test_a_day_as_data_says_all_of_it(capsys: pytest.CaptureFixture[str]) -> None:
    outcome = plan_day(Session(out=Output(form="json")), days.dear_then_cheap(), periods=4)

    told = json.loads(capsys.readouterr().out)
    assert outcome.schedule is not None
    assert (told["kind"], told["status"]) == ("day", "optimal")
    assert told["cost_usd"] == outcome.schedule.cost_usd
    assert told["schedule_digest"] == outcome.schedule.schedule_digest
    assert [hour["deferred_rps"] for hour in told["hours"]] == pytest.approx([10, 10, 0, 0])
    assert sum(hour["arrived_rps"] for hour in told["hours"]) == pytest.approx(20)
    assert {d["class_id"] for d in told["deferrals"]} == {"later"}
    assert told["hours"][0]["plan"]["groups"][0]["replicas"] == 1


def test_shed_traffic_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    problem = replace(days.dear_then_cheap(), classes=(days.class_at("now", [50.0]),))
    show_day(Session(), solve_day(problem, periods=2))

    assert "Shed: 36.0k requests over all hours" in capsys.readouterr().out


@pytest.mark.parametrize("form", ["table", "json"])
def test_hours_without_a_plan_end_the_command(
    form: str, capsys: pytest.CaptureFixture[str]
) -> None:
    floor = GroupBound(site_id="a", variant_id="v", fewest=5)
    problem = replace(
        days.dear_then_cheap(), plan_policy=replace(b.DEFAULT_POLICY, replica_bounds=(floor,))
    )
    with pytest.raises(CliError, match="hour 0") as refusal:
        show_day(Session(out=Output(form=form)), solve_day(problem, periods=2))

    assert refusal.value.code is ExitCode.INFEASIBLE
    out = capsys.readouterr().out
    assert (json.loads(out)["failed_period"] == 0) if form == "json" else not out


def test_the_first_hour_is_an_ordinary_plan() -> None:
    outcome = solve_day(days.dear_then_cheap(), periods=4)
    problem, answer = first_hour(outcome)

    assert answer.plan is not None
    assert check_plan(problem, answer.plan) == ()


@pytest.mark.parametrize(
    ("value", "drawn"), [(0.0, ""), (-1.0, ""), (2.0, "█" * 16), (1.0, "█" * 8), (0.07, "▌")]
)
def test_bars_are_drawn_in_eighths(value: float, drawn: str) -> None:
    assert bar(value, whole=2.0) == drawn
