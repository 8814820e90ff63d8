"""Quantities: units convert, wrong dimensions and values are refused with a remedy."""

from __future__ import annotations

import dataclasses
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sites.fleet_file import quantities as q

DIMENSIONS = [value for value in vars(q).values() if isinstance(value, q.Dimension)]


@pytest.mark.parametrize(
    ("text", "dimension", "expected"),
    [
        ("2 MW", q.POWER, 2e6),
        ("2MW", q.POWER, 2e6),
        ("2.5e3 kW", q.POWER, 2.5e6),
        ("$0.08/kWh", q.ENERGY_PRICE, 0.08),
        ("80 USD/MWh", q.ENERGY_PRICE, 0.08),
        ("-$0.01/kWh", q.ENERGY_PRICE, -0.01),
        ("320 g/kWh", q.CARBON, 320.0),
        ("320 gCO2e/kWh", q.CARBON, 320.0),
        ("0.32 t/MWh", q.CARBON, 320.0),
        ("150 ms", q.DURATION, 150.0),
        ("1.5 s", q.DURATION, 1500.0),
        ("2 min", q.SECONDS, 120.0),
        ("1 d", q.LONG_DURATION, 24.0),
        ("40 Gbit/s", q.BANDWIDTH, 4e10),
        ("1 GB/s", q.BANDWIDTH, 8e9),
        ("80 GiB", q.MEMORY, 81920.0),
        ("80 GB", q.MEMORY, 76293.9453125),
        ("22.5 KiB/tok", q.CACHE, 23040.0),
        ("12 kB", q.DATA, 12_000.0),
        ("$60/d", q.HOURLY_PRICE, 2.5),
        ("$20/TB", q.DATA_PRICE, 0.02),
        ("$50/Mtok", q.TOKEN_PRICE, 50.0),
        ("$0.00005/tok", q.TOKEN_PRICE, 50.0),
        ("$80/t", q.CARBON_PRICE, 80.0),
        ("1.2 ktok/s", q.TOKEN_RATE, 1200.0),
        ("60 req/min", q.REQUEST_RATE, 1.0),
    ],
)
def test_units_convert(text: str, dimension: q.Dimension, expected: float) -> None:
    assert q.parse(text, dimension) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("dimension", DIMENSIONS, ids=lambda d: d.unit)
def test_every_example_is_one_of_its_dimension(dimension: q.Dimension) -> None:
    assert q.parse(dimension.example, dimension) > 0


@pytest.mark.parametrize(
    ("text", "dimension", "reason"),
    [
        ("2 MV", q.POWER, '"MV" is no unit of power'),
        ("2 kWh", q.POWER, '"kWh" is no unit of power'),
        ("2", q.POWER, "has no unit"),
        ("2 mw", q.POWER, '"mw" is not a unit known here'),
        ("0,08 $/kWh", q.ENERGY_PRICE, "is not a number with a unit"),
        ("0.08 EUR/kWh", q.ENERGY_PRICE, "currencies are not converted"),
        ("£1/h", q.HOURLY_PRICE, "currencies are not converted"),
        ("$1 USD/h", q.HOURLY_PRICE, "is not a unit"),
        ("nan ms", q.DURATION, "is not a number with a unit"),
        ("inf ms", q.DURATION, "is not a number with a unit"),
        ("-1 ms", q.DURATION, "is negative"),
        ("0 GiB", q.MEMORY, "is zero"),
        ("1e99 W", q.POWER_BUDGET, None),
        ("9**9 W", q.POWER, "is not a number with a unit"),
        ("1 W*W", q.POWER, "is not a unit"),
        ("1 __import__", q.POWER, "is not a unit"),
    ],
)
def test_what_is_no_quantity_says_why(
    text: str, dimension: q.Dimension, reason: str | None
) -> None:
    if reason is None:
        assert math.isfinite(q.parse(text, dimension))
        return
    with pytest.raises(ValueError, match=r"\S") as refused:
        q.parse(text, dimension)
    assert reason in str(refused.value)


@settings(deadline=None)
@given(st.text(max_size=40), st.sampled_from(DIMENSIONS))
def test_any_text_is_a_number_in_range_or_refused(text: str, dimension: q.Dimension) -> None:
    try:
        number = q.parse(text, dimension)
    except ValueError:
        return
    assert math.isfinite(number)
    assert dimension.signed or number >= 0
    assert number > 0 or not dimension.positive


@settings(deadline=None)
@given(st.floats(min_value=1e-3, max_value=1e9), st.sampled_from(["W", "kW", "MW", "GW"]))
def test_scaling_the_number_scales_the_quantity(number: float, unit: str) -> None:
    digits = f"{number:.6f}"
    once = q.parse(f"{digits} {unit}", q.POWER)
    signed = dataclasses.replace(q.POWER, signed=True)
    assert q.parse(f"-{digits} {unit}", signed) == -once


@pytest.mark.parametrize(("given", "part"), [("80 %", 0.8), (0.8, 0.8), (1, 1.0), ("12.5%", 0.125)])
def test_parts_of_a_whole(given: object, part: float) -> None:
    assert q.fraction(given) == part
