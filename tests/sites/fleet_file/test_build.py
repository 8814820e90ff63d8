"""What documents become: facts in SI-like units, sorted, and the plan policy as plain values."""

from __future__ import annotations

import pytest

from optimizer.policy import GroupBound, PlanPolicy
from sites.fleet import Ownership, SupplyKind
from sites.fleet_file import FleetFileError, load_bytes
from sites.plain import from_plain

TEXT = """\
apiVersion: hinterland/v1
kind: Site
metadata: {name: waw-1}
spec:
  country: PL
  residencyTags: [b, a, a]
  power:
    budget: 1.2 MW
    pue: 1
    supplies: [{name: grid, kind: grid, limit: 1 GW, price: $80/MWh, carbon: 0.8 t/MWh}]
  pools: []
---
apiVersion: hinterland/v1
kind: Site
metadata: {name: osl-1}
spec:
  country: NO
  power:
    budget: 2 MW
    pue: 1.1
    supplies:
      - name: hydro
        kind: ppa
        limit: [1 kW, 2 kW, 3 kW, 4 kW, 5 kW, 6 kW, 7 kW, 8 kW, 9 kW, 10 kW, 11 kW, 12 kW,
                1 kW, 2 kW, 3 kW, 4 kW, 5 kW, 6 kW, 7 kW, 8 kW, 9 kW, 10 kW, 11 kW, 12 kW]
        price: -$0.01/kWh
  pools:
    - {name: h, accelerator: h100, count: 4, memory: 80 GiB, price: $2.50/h, ownership: spot}
---
apiVersion: hinterland/v1
kind: PlanPolicy
metadata: {name: tight}
spec:
  utilisationCeiling: 75 %
  maxShed: 1 %
  timeLimit: 1 min
  migrationHorizon: 2 d
  replicaBounds: [{site: osl-1, variant: v, fewest: 1}]
---
apiVersion: hinterland/v1
kind: Model
metadata: {name: m}
spec:
  parametersB: 8
  contextTokens: 8192
  variants: [{name: v, precision: fp8, weights: 8 GiB, cachePerToken: 64 KiB/tok, quality: 90 %}]
"""


def test_facts_hold_their_units_and_are_sorted() -> None:
    made = load_bytes(TEXT.encode())
    osl, waw = made.fleet.sites
    assert (osl.site_id, waw.site_id) == ("osl-1", "waw-1")
    assert osl.country == "NO"
    assert osl.supplies[0].kind is SupplyKind.PPA
    assert osl.supplies[0].limit_w[11] == 12_000.0
    assert len(osl.supplies[0].limit_w) == 24
    assert osl.supplies[0].price_usd_per_kwh == (-0.01,)
    assert osl.pools[0].memory_mib_per_accelerator == 81_920.0
    assert osl.pools[0].ownership is Ownership.SPOT
    assert waw.power_budget_w == (1.2e6,)
    assert waw.supplies[0].price_usd_per_kwh == (0.08,)
    assert waw.supplies[0].carbon_g_per_kwh == (800.0,)
    assert waw.residency_tags == ("a", "b")
    (variant,) = made.catalog.variants
    assert (variant.kv_bytes_per_token, variant.quality) == (65_536.0, 0.9)


def test_the_plan_policy_is_the_optimizers_field_for_field() -> None:
    made = load_bytes(TEXT.encode())
    assert from_plain(PlanPolicy, made.plan_policy) == PlanPolicy(
        policy_id="tight",
        utilisation_ceiling=0.75,
        max_shed_basis_points=100,
        time_limit_s=60.0,
        migration_horizon_h=48.0,
        replica_bounds=(GroupBound(site_id="osl-1", variant_id="v", fewest=1),),
    )


def test_an_empty_plan_policy_has_the_optimizers_defaults() -> None:
    text = TEXT.split("---\n", maxsplit=1)[0] + (
        "---\napiVersion: hinterland/v1\nkind: PlanPolicy\nmetadata: {name: default}\nspec: {}\n"
    )
    assert from_plain(PlanPolicy, load_bytes(text.encode()).plan_policy) == PlanPolicy()
    without = load_bytes(TEXT.split("---\n", maxsplit=1)[0].encode())
    assert from_plain(PlanPolicy, without.plan_policy) == PlanPolicy()


@pytest.mark.parametrize("ceiling", ["0 %", "101 %", "-1", ".nan", "much"])
def test_a_ceiling_out_of_range_is_refused(ceiling: str) -> None:
    with pytest.raises(FleetFileError):
        load_bytes(TEXT.replace("75 %", ceiling).encode())
