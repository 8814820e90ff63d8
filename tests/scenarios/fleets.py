"""The fleet the scenarios are told with: three sites in three countries, two residency classes."""

from __future__ import annotations

from optimizer.problem import Problem
from tests.optimizer import builders as b


def three_sites() -> Problem:
    """Sites bru (DE), lyo (FR) and zur (CH); "eu" data may not go to zur."""
    return b.problem(
        sites=[
            b.site("bru", country="DE", pools=[b.pool(price=1.0, count=3)]),
            b.site("lyo", country="FR", pools=[b.pool(price=2.0, count=3)]),
            b.site("zur", country="CH", pools=[b.pool(price=3.0, count=3)]),
        ],
        links=[
            b.link("bru", "lyo", rtt_ms=8.0),
            b.link("bru", "zur", rtt_ms=9.0),
            b.link("lyo", "zur", rtt_ms=6.0),
        ],
        markets=[
            b.market("north", accesses={"bru": 4.0, "lyo": 9.0, "zur": 12.0}),
            b.market("south", country="FR", accesses={"lyo": 4.0, "bru": 9.0, "zur": 11.0}),
        ],
        classes=[
            b.traffic_class("north-eu", market_id="north", policy_id="eu", rate_rps=8.0),
            b.traffic_class("north-any", market_id="north", policy_id="any", rate_rps=12.0),
            b.traffic_class("south-eu", market_id="south", policy_id="eu", rate_rps=7.0),
            b.traffic_class("south-any", market_id="south", policy_id="any", rate_rps=15.0),
        ],
    )
