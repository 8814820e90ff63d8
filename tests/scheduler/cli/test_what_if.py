"""plan --what-if and --why: two plans side by side, nothing written, bad lines without a plan."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from optimizer.compare import Figure
from optimizer.costs import priced_plan
from optimizer.outcome import Outcome
from optimizer.reach import Reach
from scheduler.cli import plan as plan_module
from scheduler.cli.what_if import style_of
from scheduler.plan_file import read_plan

TINY = Path(__file__).with_name("tiny.yaml")


def test_two_plans_stand_side_by_side_and_nothing_is_written(hinterland, tmp_path: Path) -> None:
    result = hinterland("plan", "-f", TINY, "--what-if", "lose osl-1")
    assert result.code == 0, result.err
    lines = result.out.splitlines()
    assert lines[0] == "What if: lose osl-1"
    assert lines[1].split() == ["now", "what", "if", "change"]
    assert re.match(r"status +optimal +optimal", lines[2])
    assert re.match(r"cost +\$[\d.]+/h +\$[\d.]+/h +\+\$[\d.]+/h \(\+[\d.]+%\)$", lines[3])
    assert any(line.startswith("Moved: ") for line in lines)
    assert list(tmp_path.iterdir()) == []
    assert "\x1b[" not in result.out


def test_a_plan_that_is_better_without_the_change_too_stands_on_both_sides(
    hinterland, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The search for the first plan stops at the gap; what it missed is not the change's doing."""
    found = plan_module.solved
    outcomes: list[Outcome] = []

    def careless_at_first(*given: Any, **more: Any) -> Outcome:
        outcome = found(*given, **more)
        assert outcome.plan is not None
        outcomes.append(outcome)
        if len(outcomes) > 1:
            return outcome
        spoilt = tuple(replace(g, replicas=g.replicas + 1) for g in outcome.plan.groups)
        reach = Reach(given[1])
        worse = priced_plan(
            reach, groups=spoilt, shares=outcome.plan.shares, shed=outcome.plan.shed,
            bound_usd_per_h=outcome.bound_usd_per_h, method=outcome.plan.method,
        )  # fmt: skip
        return replace(outcome, plan=worse)

    monkeypatch.setattr(plan_module, "solved", careless_at_first)
    result = hinterland("plan", "-f", TINY, "--what-if", "price osl-1 +1%", "-o", "json")

    figures = {f["name"]: f for f in json.loads(result.out)["comparison"]["figures"]}
    assert figures["cost"]["before"] == pytest.approx(outcomes[0].plan.cost.total_usd_per_h)
    assert figures["cost"]["after"] >= figures["cost"]["before"]


def test_data_carries_both_plans_and_their_differences(hinterland) -> None:
    result = hinterland("plan", "-f", TINY, "--what-if", "demand x2", "-o", "json")
    data = json.loads(result.out)
    assert (data["kind"], data["changes"]) == ("what_if", ["demand x2"])
    assert data["before"]["plan_digest"] != data["after"]["plan_digest"]
    figures = {f["name"].strip(): f for f in data["comparison"]["figures"]}
    assert figures["cost"]["after"] == pytest.approx(
        data["after"]["plan"]["cost"]["hardware_usd_per_h"]
        + data["after"]["plan"]["cost"]["energy_usd_per_h"]
        + data["after"]["plan"]["cost"]["network_usd_per_h"]
        + data["after"]["plan"]["cost"]["carbon_usd_per_h"]
        + data["after"]["plan"]["cost"]["migration_usd_per_h"]
        + data["after"]["plan"]["cost"]["shed_usd_per_h"]
        + data["after"]["plan"]["cost"]["risk_usd_per_h"]
    )
    assert data["within_gaps"] is False


def test_full_adds_what_would_run_elsewhere(hinterland) -> None:
    short = hinterland("plan", "-f", TINY, "--what-if", "lose osl-1").out
    full = hinterland("plan", "-f", TINY, "--what-if", "lose osl-1", "--full").out
    assert full.startswith(short)
    assert "  -   place  small-fp8  osl-1" in full


def test_exit_codes_are_plans(hinterland) -> None:
    same = ("plan", "-f", TINY, "--what-if", "site osl-1 power +1 kW", "--detailed-exitcode")
    assert hinterland(*same).code == 0
    other = ("plan", "-f", TINY, "--what-if", "demand x9", "--detailed-exitcode")
    assert hinterland(*other).code == 2
    none = hinterland(
        "plan", "-f", TINY, "--what-if", "policy max-shed 0 %", "--what-if", "demand x500"
    )
    assert none.code == 3
    assert "infeasible" in none.out
    assert "after the change no plan meets every limit" in none.err
    data = hinterland(
        "plan", "-f", TINY, "-o", "json", "--what-if", "policy max-shed 0 %", "--what-if",
        "demand x500",
    )  # fmt: skip
    assert data.code == 3
    assert json.loads(data.out)["after"]["status"] == "infeasible"


def test_bad_lines_are_all_told_before_anything_is_solved(hinterland) -> None:
    result = hinterland(
        "plan", "-f", TINY, "--what-if", "site rix-9 power +1 kW", "--what-if",
        "site rix-1 power +1 kg", "--what-if", "make it cheap",
    )  # fmt: skip
    assert (result.code, result.out) == (1, "")
    assert 'no site "rix-9"; did you mean "rix-1"?' in result.err
    assert '"kg" is no unit of power budget' in result.err
    assert 'no change is called "make"' in result.err


@pytest.mark.parametrize("other", [("--out", "p.plan"), ("--why", "chat/shop")])
def test_what_if_only_compares(hinterland, other: tuple[str, str]) -> None:
    for hours in ((), ("--periods", "2")):
        result = hinterland("plan", "-f", TINY, "--what-if", "lose osl-1", *hours, *other)
        assert result.code == 64
    assert not Path("p.plan").exists()


def test_why_explains_classes_of_a_new_plan_and_of_a_saved_one(hinterland) -> None:
    told = hinterland("plan", "-f", TINY, "--why", "chat/clinic", "--out", "p.plan")
    assert told.code == 0
    assert "100% at rix-1" in told.out and "chat/shop" not in told.out
    assert hinterland("show", "p.plan", "--why", "chat/clinic").out == told.out
    both = hinterland("show", "p.plan", "--why", "chat/clinic", "--why", "chat/shop")
    assert both.out.startswith(told.out) and "chat/shop" in both.out
    unknown = hinterland("plan", "-f", TINY, "--why", "chat/nobody")
    assert (unknown.code, unknown.out) == (1, "")
    assert "chat/clinic, chat/shop" in unknown.err


def test_colours_say_better_and_worse() -> None:
    def figure(after: float, *, lower_is_better: bool | None = True) -> Figure:
        return Figure(
            name="cost", unit="USD/h", before=2.0, after=after, lower_is_better=lower_is_better
        )

    assert [style_of(figure(x)) for x in (1.0, 3.0, 2.0)] == ["green", "red", ""]
    assert style_of(figure(1.0, lower_is_better=None)) == style_of(None) == ""


def test_a_plan_says_what_a_unit_of_a_full_limit_is_worth(hinterland, tmp_path: Path) -> None:
    text = TINY.read_text().replace("rate: 3 req/s", "rate: 300 req/s")
    path = tmp_path / "full.yaml"
    path.write_text(text)
    result = hinterland("plan", "-f", path)
    worth = [line for line in result.out.splitlines() if line.startswith("Worth: one more ")]
    assert worth, result.out
    data = json.loads(hinterland("plan", "-f", path, "-o", "json").out)
    assert {one["code"] for one in data["worth"]} >= {"pool_accelerators"}
    assert [w["usd_per_h"] for w in data["worth"]] == sorted(
        (w["usd_per_h"] for w in data["worth"]), reverse=True
    )


def test_several_hours_are_planned_together_and_the_first_is_saved(hinterland) -> None:
    result = hinterland("plan", "-f", TINY, "--periods", "3", "--period", "22", "--out", "p.plan")
    assert result.code == 0, result.err
    assert result.out.startswith("3 hours for $")
    assert [f"{hour}:00" in result.out for hour in ("22", "23", "00", "01")] == [
        True, True, True, False,
    ]  # fmt: skip
    assert read_plan(Path("p.plan")).problem.period == 22
    data = json.loads(hinterland("plan", "-f", TINY, "--periods", "2", "-o", "json").out)
    assert (data["kind"], len(data["hours"])) == ("day", 2)
    assert hinterland("plan", "-f", TINY, "--periods", "0").code == 64
    assert hinterland("plan", "-f", TINY, "--periods", "2", "--why", "chat/shop").code == 64
