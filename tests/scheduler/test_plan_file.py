"""Saved plans: what was written comes back, and nothing else passes for one."""

from __future__ import annotations

import dataclasses
import functools
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optimizer.outcome import SolveStatus
from optimizer.plan import CostBreakdown, Plan
from optimizer.policy import PlanPolicy
from optimizer.problem import Problem
from scheduler.fleet_problem import description_digest
from scheduler.plan_file import (
    Binding,
    SavedPlan,
    SolveSummary,
    StalePlanError,
    dump_plan,
    parse_plan,
    read_plan,
    require_fresh,
    write_plan,
)
from sites.catalog import Catalog
from sites.digest import digest
from sites.errors import RefusedError
from sites.fleet import Fleet, PowerSupply, Site, SupplyKind


@functools.cache
def _saved() -> SavedPlan:
    supply = PowerSupply(
        supply_id="grid", kind=SupplyKind.GRID, limit_w=(1e6,), price_usd_per_kwh=(0.1,)
    )
    site = Site(
        site_id="rix-1",
        country="LV",
        power_budget_w=(1e6,),
        pue=1.2,
        supplies=(supply,),
        pools=(),
    )
    problem = Problem(
        fleet=Fleet(sites=(site,)),
        catalog=Catalog(models=(), variants=(), serving_points=()),
        services=(),
        tenants=(),
        policies=(),
        classes=(),
        plan_policy=PlanPolicy(),
    )
    plan = Plan(
        problem_digest=digest(problem),
        groups=(),
        shares=(),
        shed=(),
        supplies=(),
        cost=CostBreakdown(energy_usd_per_h=0.1 + 0.2),
        bound_usd_per_h=0.25,
        gap=0.01,
        method="milp",
    )
    return SavedPlan(
        problem=problem,
        plan=plan,
        before=None,
        summary=SolveSummary(status=SolveStatus.OPTIMAL, nodes=1, solve_s=0.5),
        binding=Binding(
            state_serial=418,
            fleet_digest=description_digest(problem),
            problem_digest=digest(problem),
            fleet_paths=("fleet",),
        ),
    )


def test_what_was_written_comes_back(tmp_path: Path) -> None:
    write_plan(tmp_path / "p.plan", _saved())
    assert read_plan(tmp_path / "p.plan") == _saved()
    assert [path.name for path in tmp_path.iterdir()] == ["p.plan"]


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_a_truncated_file_is_refused(data: st.DataObject) -> None:
    text = dump_plan(_saved())
    end = data.draw(st.integers(0, len(text) - 2))
    with pytest.raises(RefusedError, match=r"not a plan file|cut off"):
        parse_plan(text[:end], name="p")


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_an_edited_character_is_refused_or_means_nothing(data: st.DataObject) -> None:
    text = dump_plan(_saved())
    at = data.draw(st.integers(0, len(text) - 1))
    edited = text[:at] + data.draw(st.sampled_from('0129aeZ{}[]",: ')) + text[at + 1 :]
    try:
        assert parse_plan(edited, name="p") == _saved()
    except RefusedError as refused:
        assert str(refused).startswith("p: ")


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda d: d["content"]["plan"].update(gap=0.5), "was edited or damaged"),
        (lambda d: d["content"]["binding"].update(state_serial=419), "was edited or damaged"),
        (lambda d: d.update(format_version=2), "plan format 2, this program reads 1"),
        (lambda d: d.update(kind="other"), "not a plan file"),
        (lambda d: d.pop("content"), "not a plan file"),
        (lambda d: d["content"].update(surplus=1), "was edited or damaged"),
    ],
)
def test_edits_are_named(change: object, complaint: str) -> None:
    document = json.loads(dump_plan(_saved()))
    change(document)  # type: ignore[operator]
    with pytest.raises(RefusedError, match=complaint):
        parse_plan(json.dumps(document), name="p")


def test_an_edit_with_a_mended_digest_still_has_to_fit_together() -> None:
    document = json.loads(dump_plan(_saved()))
    document["content"]["problem"]["period"] = 7
    document["content_digest"] = digest(document["content"])
    with pytest.raises(RefusedError, match="answers another problem"):
        parse_plan(json.dumps(document), name="p")
    document["content"]["surplus"] = 1
    document["content_digest"] = digest(document["content"])
    with pytest.raises(RefusedError, match="surplus: unknown field"):
        parse_plan(json.dumps(document), name="p")


@given(st.text(max_size=60))
def test_no_text_crashes_the_reader(text: str) -> None:
    with pytest.raises(RefusedError):
        parse_plan(text, name="p")


def test_missing_binary_and_unreadable_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    for name in ("nowhere", "binary", "."):
        with pytest.raises(RefusedError):
            read_plan(tmp_path / name)


def test_a_plan_goes_stale_by_serial_and_by_files() -> None:
    saved = _saved()
    require_fresh(saved, state_serial=418, fleet_digest=saved.binding.fleet_digest)
    require_fresh(saved)
    with pytest.raises(StalePlanError, match="made at state serial 418, the fleet is at 419"):
        require_fresh(saved, state_serial=419)
    with pytest.raises(StalePlanError, match="the fleet in fleet was changed since"):
        require_fresh(saved, fleet_digest="sha256:other")


def test_description_digest_sees_the_files_and_not_what_runs() -> None:
    problem = _saved().problem
    lost = dataclasses.replace(problem, lost_sites=("rix-1",))
    assert description_digest(lost) == description_digest(problem)
    other = dataclasses.replace(problem, period=3)
    assert description_digest(other) != description_digest(problem)
