"""How plans that cannot be are told: each way out by itself, what belongs together on one."""

from __future__ import annotations

from optimizer.outcome import Outcome, Relaxation, SolveStatus
from scheduler.cli.plan_text import infeasible_lines


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
