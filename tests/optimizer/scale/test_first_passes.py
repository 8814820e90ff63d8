"""What comes before passes over everything: where much is shed, its sites are mended at once."""

from __future__ import annotations

import pytest

from optimizer.milp.scale import solve as scale
from optimizer.milp.scale.batch import Search
from optimizer.problem import Problem
from tests.optimizer import builders as b
from tests.optimizer.scale.test_scale import plain


def crowded(*, urgent: bool) -> Problem:
    """Two accelerators, full of chat that may wait; `urgent` is another service's, shed last."""
    classes = [b.traffic_class(f"c{at}", rate_rps=7.0, priority=9) for at in range(2)]
    if urgent:
        classes.append(b.traffic_class("u", service_id="code", rate_rps=7.0, priority=0))
    return plain(
        b.problem(
            sites=[b.site("a", pools=[b.pool(count=2)])],
            variants=[b.variant("v"), b.variant("w")],
            points=[b.point("v"), b.point("w")],
            services={"chat": ["v"], "code": ["w"]},
            classes=classes,
        )
    )


def test_who_is_shed_last_has_its_room_before_the_first_pass(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first = scale.solve_at_scale(crowded(urgent=False))
    assert first.plan is not None and not first.plan.shed
    before: list[float] = []
    after: list[float] = []
    at_first = scale._at_first

    def noted(search: Search, **how: float) -> bool:
        before.extend(search.ledger.shed_part)
        done = at_first(search, **how)
        after.extend(search.ledger.shed_part)
        return done

    monkeypatch.setattr(scale, "FEW_GROUPS", 0)
    monkeypatch.setattr(scale, "_at_first", noted)
    found = scale.solve_at_scale(crowded(urgent=True), start=first.plan)

    assert before == [0.0, 0.0, 1.0], "what runs leaves no room"
    assert after[2] == 0.0
    assert found.plan is not None
    assert "u" not in {one.class_id for one in found.plan.shed}
