"""How plans that cannot be are told, each way out by itself; what a large plan says of worth."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from optimizer.milp.scale.worth import find_worth_at_scale
from optimizer.outcome import Outcome, Relaxation, SolveStatus
from optimizer.worth import worth_lines
from scheduler.cli.plan_text import infeasible_lines
from scheduler.plan_file import read_plan
from sites.digest import to_plain

TINY = Path(__file__).with_name("tiny.yaml")


def outcome(*relaxations: Relaxation, message: str = "") -> Outcome:
    return Outcome(
        status=SolveStatus.INFEASIBLE,
        plan=None,
        arcs=(),
        pruned=(),
        bound_usd_per_h=0.0,
        message=message,
        relaxations=relaxations,
    )


def part(code: str, *, way: int, price: float = 0.0) -> Relaxation:
    return Relaxation(
        code=code,
        subject="a",
        limit=1.0,
        needed=2.5,
        unit="kW",
        price_usd_per_h=price,
        remedy="raise it",
        way=way,
    )


def test_any_way_is_enough_and_its_parts_belong_together() -> None:
    several = outcome(
        part("site_power", way=0, price=1.5), part("supply_limit", way=0), part("spread", way=1)
    )
    assert infeasible_lines(several) == [
        "no plan meets every limit; any one of these is enough:",
        "  1. site_power a: 1 → 2.5 kW ($1.50/h); raise it",
        "     and supply_limit a: 1 → 2.5 kW; raise it",
        "  2. spread a: 1 → 2.5 kW; raise it",
    ]
    assert infeasible_lines(outcome(part("spread", way=0))) == [
        "no plan meets every limit:",
        "  1. spread a: 1 → 2.5 kW; raise it",
    ]


def test_where_nothing_helps_the_message_stands_alone() -> None:
    assert infeasible_lines(outcome(message="whatever gives way")) == [
        "no plan meets every limit",
        "  whatever gives way",
    ]


def test_a_large_plan_says_what_a_unit_is_worth_in_lines_and_figures(
    hinterland, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "full.yaml"
    path.write_text(TINY.read_text().replace("rate: 3 req/s", "rate: 300 req/s"))
    monkeypatch.setattr("scheduler.cli.plan_text.is_large", lambda _: True)
    told = hinterland("plan", "-f", path, "--out", "p.plan").out
    lines = [line for line in told.splitlines() if line.startswith("Worth")]
    assert lines == [
        "Worth: one more accelerator in osl-1/gpu saves $599.60/h",
        "Worth: one more accelerator in rix-1/gpu saves $599.49/h",
        "Worth is a relaxation's: parts of replicas, no losses, spread, means, floors, moves; "
        "--what-if plans for sure",
    ]
    found = find_worth_at_scale(read_plan(Path("p.plan")).problem)
    assert found is not None and tuple(lines) == worth_lines(found)
    assert tuple(w for w in hinterland("show", "p.plan").out.splitlines() if w in lines) == tuple(
        lines
    )
    data = json.loads(hinterland("plan", "-f", path, "-o", "json").out)
    assert data["worth"] == to_plain(found)


def test_worth_that_takes_too_long_is_not_known(
    hinterland, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scheduler.cli.plan_text.is_large", lambda _: True)
    monkeypatch.setattr("scheduler.cli.plan_text.MS_PER_S", 0)
    told = hinterland("plan", "-f", TINY).out
    assert "Worth: not known, its relaxation takes longer than the plan's time limit" in told
    data = json.loads(hinterland("plan", "-f", TINY, "-o", "json").out)
    assert data["worth"] is None
