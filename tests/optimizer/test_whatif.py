"""What-if lines: each changes what it says and nothing else, and bad ones are told all at once."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optimizer.policy import GroupBound, PlanPolicy
from optimizer.problem import Problem
from optimizer.whatif import EXAMPLES, WhatIfError, what_if
from sites.errors import RefusedError
from sites.fleet import Site
from sites.traffic import Demand, TrafficClass
from tests.optimizer import builders as b

PROBLEM = b.two_sites(
    classes=[
        b.traffic_class("c", rate_rps=5.0),
        replace(b.traffic_class("d", rate_rps=2.0), rate_rps=tuple([2.0] * 24)),
    ]
)


def site_b(problem: Problem) -> Site:
    return problem.fleet.site("b")


def class_of(problem: Problem, class_id: str) -> TrafficClass:
    return next(c for c in problem.classes if c.class_id == class_id)


@pytest.mark.parametrize(
    ("line", "watts"),
    [
        ("site b power +500 kW", 1.5e6),
        ("site b power -50%", 0.5e6),
        ("site b power x2", 2e6),
        ("site b power ×1.5", 1.5e6),
        ("site b power = 2 MW", 2e6),
        ("power b 2 MW", 2e6),
        ("power b - 1 kW", 999_000.0),
    ],
)
def test_power_is_added_taken_scaled_or_set(line: str, watts: float) -> None:
    changed = what_if(PROBLEM, [line])
    assert site_b(changed).power_budget_w == (watts,)
    assert changed.fleet.site("a") == PROBLEM.fleet.site("a")
    assert replace(changed, fleet=PROBLEM.fleet) == PROBLEM


def test_prices_of_energy_and_data_and_hardware() -> None:
    price = site_b(PROBLEM).supplies[0].price_usd_per_kwh[0]
    dearer = what_if(PROBLEM, ["site b price +20%"])
    assert site_b(dearer).supplies[0].price_usd_per_kwh == (pytest.approx(price * 1.2),)
    free = what_if(PROBLEM, ["price b = -$0.01/kWh"])
    assert site_b(free).supplies[0].price_usd_per_kwh == (-0.01,)
    supply_id = site_b(PROBLEM).supplies[0].supply_id
    narrow = what_if(PROBLEM, [f"site b supply {supply_id} limit 5 kW"])
    assert site_b(narrow).supplies[0].limit_w == (5_000.0,)
    link = what_if(PROBLEM, ["link b--a bandwidth +10 Gbit/s", "link a--b price $0.02/GB"])
    was = PROBLEM.fleet.links[0].bandwidth_bps
    assert link.fleet.links[0].bandwidth_bps == was + 10e9
    assert link.fleet.links[0].price_usd_per_gb == 0.02
    rented = what_if(PROBLEM, ["site b hardware-price p $9/h", "site b accelerators p +8"])
    pool, before = site_b(rented).pools[0], site_b(PROBLEM).pools[0]
    assert (pool.price_usd_per_accelerator_h, pool.count) == (9.0, before.count + 8)


def test_demand_of_all_of_some_and_of_one() -> None:
    problem = replace(PROBLEM, demand=(Demand(class_id="c", period=0, rate_rps=7.0),))
    more = what_if(problem, ["demand +30%"])
    assert [more.rate_rps(c) for c in more.classes] == pytest.approx([9.1, 2.6])
    assert class_of(more, "d").rate_rps == (2.6,) * 24
    one = what_if(problem, ["demand class c x2"])
    assert [one.rate_rps(c) for c in one.classes] == [14.0, 2.0]
    fixed = what_if(problem, ["demand class c = 3 req/s"])
    assert [fixed.rate_rps(c) for c in fixed.classes] == [3.0, 2.0]
    assert what_if(problem, ["demand service chat x2"]) == what_if(problem, ["demand x2"])


def test_policy_class_tenant_replicas_and_loss() -> None:
    changed = what_if(
        PROBLEM,
        [
            "policy carbon-price $100/t",
            "policy move-limit 4",
            "policy max-shed 1 %",
            "policy carbon-cap 5 kg/h",
            "class c protected true",
            "class c ttft 250 ms",
            "class c deferrable 6 h",
            "tenant t budget $50/h",
            "replicas b v most 3",
            "replicas b v most +1",
            "lose a",
        ],
    )
    assert changed.plan_policy == replace(
        PROBLEM.plan_policy,
        carbon_usd_per_t=100.0,
        move_limit_replicas=4,
        max_shed_basis_points=100,
        carbon_cap_g_per_h=5_000.0,
        replica_bounds=(GroupBound(site_id="b", variant_id="v", most=4),),
    )
    one = class_of(changed, "c")
    assert (one.protected, one.slo.ttft_ms, one.deferrable_h) == (True, 250.0, 6)
    assert changed.tenants[0].budget_usd_per_h == 50.0
    assert changed.lost_sites == ("a",)
    assert what_if(changed, ["policy move-limit none"]).plan_policy.move_limit_replicas is None


BAD = (
    ("", "is empty; write e.g. site NAME power +500 kW"),
    ("lsoe a", 'no change is called "lsoe"; did you mean "lose"?'),
    ("lose z", 'no site "z"; one of a, b'),
    ("lose a b", '"b" is too much; one site a line'),
    ("site", "site is missing"),
    ("site a", "what to change of site a is missing"),
    ("site a powr +1 kW", 'no figure of a site "powr"; did you mean "power"?'),
    ("site a power", "by how much?"),
    ("site a power +5 kg", '"5 kg": "kg" is no unit of power budget; write e.g. "2 MW"'),
    ("site a power 5", '5 has no unit; write e.g. "2 MW"'),
    ("site a power -2 GW", "site a: power_budget_w: -1999000000.0 must be finite and above 0"),
    ("site a power -100%", "site a: power_budget_w: 0.0 must be finite and above 0"),
    ("site a power +1e999 kW", "is not a number with a unit"),
    ("site a power none", 'is not a quantity; write e.g. "2 MW"'),
    ("site a pue none", "an empty value must be a valid number"),
    ("class c deferrable none", "is not a quantity"),
    ("site a accelerators q +1", 'no pool "q" at a; one of p'),
    ("site a accelerators p +1.5", "1.5 must be a valid integer"),
    ("site a accelerators p x1.33", "which is not a whole number"),
    ("site a interruption p 1/h", "only spot pools are interrupted"),
    ("site a cordoned +1", "1 must be a valid boolean"),
    ("link a--z bandwidth +1 Gbit/s", 'no link "a--z"; did you mean "a--b"?'),
    ("demand + 2 req/s", "2 classes: scale them with +20% or x2, or name one class"),
    ("demand class z x2", 'no class "z"; one of c, d'),
    ("demand sevice chat x2", 'no part of the demand "sevice"; did you mean "service"?'),
    ("policy carbon-price 100", '100 has no unit; write e.g. "$80/t"'),
    ("policy carbonprice $1/t", 'did you mean "carbon-price"?'),
    ("policy carbon-cap +1 kg/h", "there is none to change; set one with = and its value"),
    ("policy seed much", '"much" must be a valid integer'),
    ("class c deferrable 90 min", '"90 min" is not a whole number of h'),
    ("class c protected +true", "cannot be added; set it with ="),
    ("tenant t budget -5 km", "there is none to change"),
    ("replicas a w most 1", 'no variant "w"; one of v'),
    ("price \x1b[2J", 'no site "\\x1b[2J"; one of a, b'),
)


@pytest.mark.parametrize(("line", "complaint"), BAD)
def test_a_bad_line_says_what_is_wrong(line: str, complaint: str) -> None:
    with pytest.raises(WhatIfError) as refused:
        what_if(PROBLEM, [line])
    assert complaint in str(refused.value)
    assert "\x1b" not in str(refused.value)


def test_all_bad_lines_are_told_at_once_and_in_order() -> None:
    with pytest.raises(WhatIfError) as refused:
        what_if(PROBLEM, [line for line, _ in BAD])
    assert len(refused.value.faults) == len(BAD)
    for (_, complaint), fault in zip(BAD, refused.value.faults, strict=True):
        assert complaint in fault


def test_every_figure_of_the_plan_policy_can_be_changed() -> None:
    ours = set(PlanPolicy.__dataclass_fields__) - {"policy_id", "source", "replica_bounds"}
    reached = set()
    for name, value in {
        "utilisation-ceiling": "70 %",
        "shed-price": "$7/Mtok",
        "carbon-price": "$7/t",
        "migration-price": "$7/GiB",
        "migration-horizon": "7 h",
        "queueing-at-ceiling": "7 ms",
        "move-limit-replicas": "7",
        "max-shed": "7 %",
        "carbon-cap": "7 kg/h",
        "exposure-part": "7 %",
        "gap-limit": "7 %",
        "node-limit": "7",
        "time-limit": "7 s",
        "seed": "7",
    }.items():
        new = what_if(PROBLEM, [f"policy {name} {value}"]).plan_policy
        reached |= {f for f in ours if getattr(new, f) != getattr(PROBLEM.plan_policy, f)}
    assert reached == ours


WORDS = sorted(
    {word for line in (*EXAMPLES, *(bad for bad, _ in BAD)) for word in line.split()}
    | {
        "a",
        "b",
        "c",
        "p",
        "t",
        "v",
        "none",
        "null",
        "true",
        "=",
        "+",
        "x2",
        "+5%",
        "fewest",
        "most",
    }
    | {"pue", "fixed-price", "priority", "context-tokens", "tpot", "over-mix", "budget", "rtt"}
)


@settings(max_examples=400, deadline=None)
@given(st.lists(st.one_of(st.sampled_from(WORDS), st.text(max_size=8)), max_size=6))
def test_whatever_is_written_is_applied_or_refused(words: list[str]) -> None:
    try:
        changed = what_if(PROBLEM, [" ".join(words)])
    except RefusedError as refused:
        assert str(refused).startswith("what-if not understood:")
    else:
        assert isinstance(changed, Problem)
