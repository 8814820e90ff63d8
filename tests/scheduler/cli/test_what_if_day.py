"""plan --periods N --what-if: two days side by side, nothing written, exit codes as of one plan."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from optimizer import solve_day as solver
from optimizer.milp import day_bound, day_whole
from optimizer.milp.day_rows import DayRows
from optimizer.tables import Floats

TINY = Path(__file__).with_name("tiny.yaml")
HOURS = ("plan", "-f", TINY, "--periods", "3")


def test_two_days_stand_side_by_side_and_nothing_is_written(hinterland, tmp_path: Path) -> None:
    result = hinterland(*HOURS, "--what-if", "lose osl-1")
    assert result.code == 0, result.err
    lines = result.out.splitlines()
    assert lines[0] == "What if: lose osl-1"
    assert lines[1].split() == ["now", "what", "if", "change"]
    assert re.match(r"status +optimal +optimal", lines[2])
    assert re.match(r"cost +\$[\d.]+ +\$[\d.]+ +\+\$[\d.]+ \(\+[\d.]+%\)$", lines[3])
    names = {line.split()[0] for line in lines[3:]}
    assert {"drawn", "emission", "started", "stopped", "deferred", "unserved", "gap"} <= names
    assert list(tmp_path.iterdir()) == []


def test_full_adds_the_hours_after_the_change(hinterland) -> None:
    short = hinterland(*HOURS, "--what-if", "demand x2").out
    full = hinterland(*HOURS, "--what-if", "demand x2", "--full").out
    assert full.startswith(short)
    rest = full.removeprefix(short).splitlines()
    assert rest[0] == "After the change:"
    assert [line[:5] for line in rest[2:5]] == ["00:00", "01:00", "02:00"]


def test_data_carries_both_days_and_their_differences(hinterland) -> None:
    result = hinterland(*HOURS, "--what-if", "demand x2", "-o", "json")
    data = json.loads(result.out)
    assert (data["kind"], data["changes"]) == ("what_if_day", ["demand x2"])
    assert data["before"]["schedule_digest"] != data["after"]["schedule_digest"]
    figures = {f["name"]: f for f in data["comparison"]["figures"]}
    assert figures["cost"]["after"] == data["after"]["cost_usd"]
    assert figures["bound"]["before"] == data["before"]["bound_usd"]
    assert figures["started"]["after"] == sum(h["started"] for h in data["after"]["hours"])
    assert data["within_gaps"] is False


def test_exit_codes_are_those_of_one_plan(hinterland) -> None:
    same = (*HOURS, "--what-if", "site osl-1 power +1 kW", "--detailed-exitcode")
    assert hinterland(*same).code == 0
    assert hinterland(*HOURS, "--what-if", "demand x9", "--detailed-exitcode").code == 2
    changes = ("--what-if", "policy max-shed 0 %", "--what-if", "demand x500")
    none = hinterland(*HOURS, *changes)
    assert none.code == 3
    assert "infeasible" in none.out
    assert "after the change no plan of these hours: hour 0: infeasible" in none.err
    data = hinterland(*HOURS, *changes, "-o", "json")
    assert data.code == 3
    after = json.loads(data.out)["after"]
    assert (after["status"], after["failed_period"]) == ("infeasible", 0)
    assert after["relaxations"]


def test_bad_lines_are_told_as_for_one_plan_before_anything_is_solved(hinterland) -> None:
    changes = ("--what-if", "site rix-9 power +1 kW", "--what-if", "make it cheap")
    one, day = hinterland("plan", "-f", TINY, *changes), hinterland(*HOURS, *changes)
    assert (day.code, day.out, day.err) == (1, "", one.err)
    assert 'no site "rix-9"; did you mean "rix-1"?' in day.err


def test_hours_planned_one_by_one_have_a_gap_too(
    hinterland, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(solver, "WHOLE_ARCS_MOST", 0)
    told: dict[str, Any] = json.loads(hinterland(*HOURS, "-o", "json").out)
    assert "bound by its hours in whole replicas" in told["method"]
    assert 0 < told["bound_usd"] <= told["cost_usd"]
    shown = hinterland(*HOURS).out
    assert re.match(r"3 hours for \$[\d.]+, gap [\d.]+%, milp hour by hour", shown), shown
    whole = day_whole.hours_in_whole_usd

    def half(day: DayRows, proving: Floats, *, time_s: float) -> float:
        return whole(day, proving, time_s=time_s) / 2

    monkeypatch.setattr(day_bound, "hours_in_whole_usd", half)
    compared = hinterland(*HOURS, "--what-if", "lose osl-1").out
    assert compared.splitlines()[-1].startswith(("Proven: the best schedule", "Within the gap:"))
