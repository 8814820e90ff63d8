"""Fields of spot pools, mixes, waiting, budgets and caps: read, and refused at their place."""

from __future__ import annotations

import pytest

from optimizer.policy import PlanPolicy
from sites.fleet import SupplyKind
from sites.fleet_file import FleetFileError, load_bytes
from sites.plain import from_plain

TEXT = """\
apiVersion: hinterland/v1
kind: Site
metadata: {name: osl-1}
spec:
  country: NO
  region: nordics
  power:
    budget: 2 MW
    pue: 1.1
    supplies:
      - {name: grid, kind: grid, limit: 1 MW, price: $0.05/kWh}
      - {name: beyond, kind: peak, limit: 1 MW, price: $0.30/kWh}
  pools:
    - name: spare
      accelerator: h100
      count: 4
      memory: 80 GiB
      price: $1.10/h
      ownership: spot
      interruption: 0.05/h
---
apiVersion: hinterland/v1
kind: Market
metadata: {name: oslo}
spec: {country: NO, accesses: [{site: osl-1, rtt: 2 ms}]}
---
apiVersion: hinterland/v1
kind: Model
metadata: {name: m}
spec:
  parametersB: 8
  contextTokens: 8192
  variants: [{name: v, precision: fp8, weights: 8 GiB, cachePerToken: 64 KiB/tok, quality: 90 %}]
---
apiVersion: hinterland/v1
kind: Service
metadata: {name: chat}
spec: {variants: [v]}
---
apiVersion: hinterland/v1
kind: ResidencyPolicy
metadata: {name: any}
spec: {processingCountries: any}
---
apiVersion: hinterland/v1
kind: Tenant
metadata: {name: shop}
spec: {residencyPolicy: any, budget: $1200/d}
---
apiVersion: hinterland/v1
kind: TrafficClass
metadata: {name: chat/oslo}
spec:
  market: oslo
  service: chat
  tenant: shop
  slo: {ttft: 500 ms, tpot: 50 ms, overMix: true}
  rate: 2 req/s
  inputTokens: 600
  outputTokens: 200
  spreadZones: 2
  meanQualityFloor: 85 %
  deferrable: 6 h
  contextTokens: 4000
---
apiVersion: hinterland/v1
kind: PlanPolicy
metadata: {name: capped}
spec: {carbonCap: 120 kg/h, exposurePart: 25 %}
"""


def test_each_field_reaches_its_fact_in_its_unit() -> None:
    made = load_bytes(TEXT.encode())
    (site,), (tenant,), (one,) = made.fleet.sites, made.tenants, made.classes
    assert [s.kind for s in site.supplies] == [SupplyKind.GRID, SupplyKind.PEAK]
    assert site.pools[0].interruption_per_h == 0.05
    assert tenant.budget_usd_per_h == 50.0
    assert one.slo.over_mix
    assert (one.spread_zones, one.mean_quality_floor) == (2, 0.85)
    assert (one.deferrable_h, one.context_tokens) == (6, 4000.0)
    policy = from_plain(PlanPolicy, made.plan_policy)
    assert (policy.carbon_cap_g_per_h, policy.exposure_part) == (120_000.0, 0.25)


def test_left_out_they_ask_for_nothing() -> None:
    text = TEXT
    for given in (
        "      interruption: 0.05/h\n",
        ", budget: $1200/d",
        ", overMix: true",
        "  spreadZones: 2\n  meanQualityFloor: 85 %\n  deferrable: 6 h\n  contextTokens: 4000\n",
        "carbonCap: 120 kg/h, exposurePart: 25 %",
    ):
        assert text.count(given) == 1
        text = text.replace(given, "")
    made = load_bytes(text.encode())
    (site,), (tenant,), (one,) = made.fleet.sites, made.tenants, made.classes
    assert site.pools[0].interruption_per_h == 0.0
    assert tenant.budget_usd_per_h is None
    assert not one.slo.over_mix
    assert (one.spread_zones, one.mean_quality_floor, one.deferrable_h) == (1, 0.0, 0)
    assert one.context_tokens == 0.0
    assert from_plain(PlanPolicy, made.plan_policy).carbon_cap_g_per_h is None


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (
            "ownership: spot",
            "ownership: rented",
            "f.yaml:20:21: error: spec.pools[0].interruption: a pool that is rented is not "
            "interrupted; leave it out",
        ),
        (
            "interruption: 0.05/h",
            "interruption: 0.05",
            "f.yaml:20:21: error: spec.pools[0].interruption: 0.05 has no unit; write e.g. "
            '"0.05/h"',
        ),
        (
            "interruption: 0.05/h",
            "interruption: 2/s",
            'f.yaml:20:21: error: spec.pools[0].interruption: "2/s" is too much; a rate of '
            "interruptions is at most 60 event/h",
        ),
        (
            "interruption: 0.05/h",
            "interruption: -1/h",
            'f.yaml:20:21: error: spec.pools[0].interruption: "-1/h" is negative; a rate of '
            "interruptions is at least 0",
        ),
        (
            "budget: $1200/d",
            "budget: $1200",
            'f.yaml:48:38: error: spec.budget: "$1200": "USD" is no unit of price per hour; write '
            'e.g. "$2.50/h"',
        ),
        (
            "overMix: true",
            "overMix: yes",
            'f.yaml:57:45: error: spec.slo.overMix: "yes" must be a valid boolean',
        ),
        (
            "spreadZones: 2",
            "spreadZones: 0",
            "f.yaml:61:16: error: spec.spreadZones: 0 must be greater than or equal to 1",
        ),
        (
            "meanQualityFloor: 85 %",
            "meanQualityFloor: 101 %",
            "f.yaml:62:21: error: spec.meanQualityFloor: 1.01 must lie between 0 and 1 (0 % and "
            "100 %)",
        ),
        (
            "deferrable: 6 h",
            "deferrable: 90 min",
            'f.yaml:63:15: error: spec.deferrable: "90 min" is not a whole number of h',
        ),
        (
            "deferrable: 6 h",
            "deferrable: 1 d",
            'f.yaml:63:15: error: spec.deferrable: "1 d" is too much; a wait is at most 23 h',
        ),
        (
            "contextTokens: 4000",
            "contextTokens: -1",
            "f.yaml:64:18: error: spec.contextTokens: -1.0 must be greater than or equal to 0",
        ),
        (
            "carbonCap: 120 kg/h",
            "carbonCap: 120 kg",
            'f.yaml:69:19: error: spec.carbonCap: "120 kg": "kg" is no unit of emission; write '
            'e.g. "120 kg/h"',
        ),
        (
            "exposurePart: 25 %",
            "exposurePart: 2",
            "f.yaml:69:43: error: spec.exposurePart: 2 must lie between 0 and 1 (0 % and 100 %)",
        ),
    ],
)
def test_a_bad_value_is_refused_at_its_place(old: str, new: str, expected: str) -> None:
    assert TEXT.count(old) == 1
    with pytest.raises(FleetFileError) as refused:
        load_bytes(TEXT.replace(old, new).encode(), file="f.yaml")
    assert str(refused.value).splitlines() == [expected]
