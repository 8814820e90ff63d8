"""Quantities with units to plain numbers: the only file that touches the unit library.

Decides, per field, which dimension a quantity must have, which unit the facts hold it in and which
values are in range. There is no exchange rate: money is in US dollars or it is refused.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pint
from pydantic_core import PydanticCustomError

from sites.units import HOURS_PER_DAY

INTERRUPTIONS_PER_H_MAX = 60.0

_DEFINITIONS = """
kilo- = 1e3 = k-
mega- = 1e6 = M-
giga- = 1e9 = G-
tera- = 1e12 = T-
milli- = 1e-3 = m-
micro- = 1e-6 = u- = µ-
kibi- = 1024 = Ki-
mebi- = 1048576 = Mi-
gibi- = 1073741824 = Gi-
tebi- = 1099511627776 = Ti-
second = [time] = s
minute = 60 * second = min
hour = 3600 * second = h
day = 86400 * second = d
watt = [power] = W
watt_hour = 3600 * watt * second = Wh
volt = [electric_tension] = V
ampere = [electric_current] = A
meter = [length] = m
byte = [data] = B
bit = byte / 8
dollar = [money] = USD
gram = [mass] = g
tonne = 1e6 * gram = t
gCO2e = gram
tCO2e = tonne
token = [token] = tok
request = [request] = req
event = [event]
"""
_QUANTITY = re.compile(
    r"\s*(?P<sign>[-+]?)(?P<money>[$€£]?)\s*"
    r"(?P<number>(?:[0-9]{1,15}(?:\.[0-9]{0,15})?|\.[0-9]{1,15})(?:[eE][-+]?[0-9]{1,2})?)"
    r"\s*(?P<unit>\S*)\s*\Z"
)
_FOREIGN = re.compile(r"(?:EUR|GBP|CHF|NOK)\b")
_UNIT = re.compile(r"[A-Za-zµ][A-Za-z0-9µ]{0,15}(?:/[A-Za-zµ][A-Za-z0-9µ]{0,15}){0,2}\Z")


@dataclass(frozen=True, kw_only=True, slots=True)
class Dimension:
    """What a field measures: `unit` of the fact, `example` as people write it, range of values.

    `most` is in `unit`; `whole` allows no parts of it.
    """

    name: str
    unit: str
    example: str
    positive: bool = False
    signed: bool = False
    whole: bool = False
    most: float = math.inf

    def check(self, number: float, text: str) -> float:
        """Refuse what no such quantity can be (ValueError with the reason)."""
        if not math.isfinite(number):
            raise ValueError(f"{text} is not finite")
        if number < 0 and not self.signed:
            raise ValueError(f"{text} is negative; a {self.name} is at least 0")
        if number == 0 and self.positive:
            raise ValueError(f"{text} is zero; a {self.name} is above 0")
        if number > self.most:
            raise ValueError(
                f"{text} is too much; a {self.name} is at most {self.most:g} {self.unit}"
            )
        if self.whole and number != round(number):
            raise ValueError(f"{text} is not a whole number of {self.unit}")
        return number


POWER = Dimension(name="power", unit="W", example="2 MW")
POWER_BUDGET = Dimension(name="power budget", unit="W", example="2 MW", positive=True)
ENERGY_PRICE = Dimension(name="energy price", unit="USD/kWh", example="$0.08/kWh", signed=True)
CARBON = Dimension(name="carbon intensity", unit="g/kWh", example="320 g/kWh")
DURATION = Dimension(name="duration", unit="ms", example="150 ms")
SLO_DURATION = Dimension(name="duration", unit="ms", example="150 ms", positive=True)
LONG_DURATION = Dimension(name="duration", unit="h", example="24 h", positive=True)
SECONDS = Dimension(name="duration", unit="s", example="300 s", positive=True)
BANDWIDTH = Dimension(name="bandwidth", unit="bit/s", example="40 Gbit/s", positive=True)
MEMORY = Dimension(name="memory", unit="MiB", example="80 GiB", positive=True)
CACHE = Dimension(name="cache per token", unit="B/tok", example="22.5 KiB/tok")
DATA = Dimension(name="amount of data", unit="B", example="12 kB")
HOURLY_PRICE = Dimension(name="price per hour", unit="USD/h", example="$2.50/h")
DATA_PRICE = Dimension(name="price of data", unit="USD/GB", example="$0.02/GB")
MEMORY_PRICE = Dimension(name="price of data moved", unit="USD/GiB", example="$0.01/GiB")
TOKEN_PRICE = Dimension(name="price of tokens", unit="USD/Mtok", example="$50/Mtok")
CARBON_PER_HOUR = Dimension(name="emission", unit="g/h", example="120 kg/h")
INTERRUPTIONS = Dimension(
    name="rate of interruptions", unit="event/h", example="0.05/h", most=INTERRUPTIONS_PER_H_MAX
)
WAIT = Dimension(name="wait", unit="h", example="6 h", whole=True, most=HOURS_PER_DAY - 1)
CARBON_PRICE = Dimension(name="carbon price", unit="USD/t", example="$80/t")
TOKEN_RATE = Dimension(name="token rate", unit="tok/s", example="1200 tok/s", positive=True)
REQUEST_RATE = Dimension(name="request rate", unit="req/s", example="12 req/s")


@functools.cache
def _registry() -> pint.UnitRegistry[float]:
    """Only the units a fleet file may use: the library's own list takes half a second to load."""
    registry: pint.UnitRegistry[float] = pint.UnitRegistry(None)
    registry.load_definitions(_DEFINITIONS.strip().splitlines())
    return registry


@functools.lru_cache(maxsize=4096)
def _factor(unit: str, dimension: Dimension) -> float:
    """How many of `dimension.unit` one `unit` is; ValueError with the reason if it is none."""
    if not _UNIT.match(unit):
        raise ValueError(f'"{unit[:40]}" is not a unit')
    registry = _registry()
    try:
        given = registry.Quantity(1.0, registry.parse_units(unit))
    except pint.errors.PintError as error:
        raise ValueError(f'"{unit}" is not a unit known here') from error
    try:
        return float(given.to(registry.parse_units(dimension.unit)).magnitude)
    except pint.DimensionalityError as error:
        raise ValueError(f'"{unit}" is no unit of {dimension.name}') from error


def parse(text: str, dimension: Dimension) -> float:
    """The number of `dimension.unit` that `text` stands for; ValueError with reason and remedy."""
    remedy = f'write e.g. "{dimension.example}"'
    shown = f'"{text[:60]}"'
    match = _QUANTITY.match(text)
    if match is None:
        raise ValueError(f"{shown} is not a number with a unit; {remedy}")
    money, unit = match["money"], match["unit"]
    if money in ("€", "£") or _FOREIGN.match(unit):
        raise ValueError(f"{shown}: currencies are not converted, give US dollars; {remedy}")
    if money:
        unit = f"USD{unit}" if not unit or unit.startswith("/") else f"USD*{unit}"
    if unit.startswith("/") and dimension is INTERRUPTIONS:
        unit = f"event{unit}"
    if not unit:
        raise ValueError(f"{shown} has no unit; {remedy}")
    try:
        factor = _factor(unit, dimension)
    except ValueError as error:
        raise ValueError(f"{shown}: {error}; {remedy}") from error
    number = float(match["sign"] + match["number"]) * factor
    return dimension.check(_tidy(number), shown)


def _tidy(number: float) -> float:
    """Drop the last bits a unit factor leaves, so "0.05 s" and "50 ms" are one value."""
    return float(f"{number:.14g}")


def _parse_any(value: Any, dimension: Dimension) -> float:
    if isinstance(value, str):
        return parse(value, dimension)
    if isinstance(value, bool | int | float):
        raise ValueError(f'{value!r} has no unit; write e.g. "{dimension.example}"')
    raise ValueError(f'is not a quantity; write e.g. "{dimension.example}"')


def refusal(message: str, index: int | None = None) -> PydanticCustomError:
    """What a validator of a field raises: `message` says what is wrong, `index` at which item."""
    context = {"text": message} if index is None else {"text": message, "index": index}
    return PydanticCustomError("quantity", "{text}", context)


def one(dimension: Dimension) -> Callable[[Any], float]:
    """A validator that reads one quantity."""

    def read(value: Any) -> float:
        try:
            return _parse_any(value, dimension)
        except ValueError as error:
            raise refusal(str(error)) from error

    return read


def series(dimension: Dimension) -> Callable[[Any], tuple[float, ...]]:
    """A validator that reads one quantity, or a list with one per hour of the day."""

    def read(value: Any) -> tuple[float, ...]:
        items = value if isinstance(value, list) else [value]
        if len(items) not in (1, HOURS_PER_DAY):
            raise refusal(f"has {len(items)} values; give one, or {HOURS_PER_DAY} (one per hour)")
        found: list[float] = []
        for index, item in enumerate(items):
            try:
                found.append(_parse_any(item, dimension))
            except ValueError as error:
                raise refusal(str(error), index if isinstance(value, list) else None) from error
        return tuple(found)

    return read


def part(*, positive: bool) -> Callable[[Any], float]:
    """A validator that reads a part of a whole, zero refused where it must be `positive`."""

    def read(value: Any) -> float:
        found = fraction(value)
        if positive and found == 0:
            raise refusal("must be above 0")
        return found

    return read


def fraction(value: Any) -> float:
    """Read a part of a whole: "80 %", or a number from 0 to 1."""
    if isinstance(value, str):
        match = re.fullmatch(r"\s*([0-9]{1,3}(?:\.[0-9]{0,12})?)\s*%\s*", value)
        if match is None:
            raise refusal(f'"{value[:60]}" is no part of a whole; write e.g. "80 %" or 0.8')
        value = _tidy(float(match[1]) / 100)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise refusal('is no part of a whole; write e.g. "80 %" or 0.8')
    if not 0 <= value <= 1:  # also refuses NaN
        raise refusal(f"{value:g} must lie between 0 and 1 (0 % and 100 %)")
    return float(value)
