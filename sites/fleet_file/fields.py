"""The types of a fleet file's fields: quantities, parts of a whole, names, and the base mappings.

Decides how a field of each type is read and how it stands in the JSON Schema. Which documents have
which fields is `documents`'s.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, GetCoreSchemaHandler
from pydantic.alias_generators import to_camel
from pydantic_core import CoreSchema, core_schema

from sites.fleet_file import quantities as q
from sites.units import HOURS_PER_DAY

_PATTERN = r"^\s*[-+]?\$?\s*[0-9.]+([eE][-+]?[0-9]+)?\s*\S*\s*$"


@dataclass(frozen=True, kw_only=True)
class Measure:
    """Field type of a quantity: one value, or (`hourly`) one value or one per hour of the day."""

    dimension: q.Dimension
    hourly: bool = False

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        read = q.series(self.dimension) if self.hourly else q.one(self.dimension)
        return core_schema.no_info_plain_validator_function(read)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: Any) -> dict[str, Any]:
        single = {"type": "string", "pattern": _PATTERN, "examples": [self.dimension.example]}
        if not self.hourly:
            return single
        day = {
            "type": "array",
            "items": single,
            "minItems": HOURS_PER_DAY,
            "maxItems": HOURS_PER_DAY,
        }
        return {"anyOf": [single, day]}


@dataclass(frozen=True, kw_only=True)
class PartOfWhole:
    """Field type of a part of a whole: 0 to 1 (`positive`: not 0), or a percentage."""

    positive: bool = False

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(q.part(positive=self.positive))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: Any) -> dict[str, Any]:
        percent = {"type": "string", "pattern": r"^\s*[0-9.]+\s*%\s*$", "examples": ["80 %"]}
        return {"anyOf": [{"type": "number", "minimum": 0, "maximum": 1}, percent]}


Hourly = tuple[float, ...]
PowerByHour = Annotated[Hourly, Measure(dimension=q.POWER, hourly=True)]
BudgetByHour = Annotated[Hourly, Measure(dimension=q.POWER_BUDGET, hourly=True)]
EnergyPriceByHour = Annotated[Hourly, Measure(dimension=q.ENERGY_PRICE, hourly=True)]
CarbonByHour = Annotated[Hourly, Measure(dimension=q.CARBON, hourly=True)]
RequestsByHour = Annotated[Hourly, Measure(dimension=q.REQUEST_RATE, hourly=True)]
Power = Annotated[float, Measure(dimension=q.POWER)]
Duration = Annotated[float, Measure(dimension=q.DURATION)]
SloDuration = Annotated[float, Measure(dimension=q.SLO_DURATION)]
Hours = Annotated[float, Measure(dimension=q.LONG_DURATION)]
Seconds = Annotated[float, Measure(dimension=q.SECONDS)]
Bandwidth = Annotated[float, Measure(dimension=q.BANDWIDTH)]
Memory = Annotated[float, Measure(dimension=q.MEMORY)]
CachePerToken = Annotated[float, Measure(dimension=q.CACHE)]
Data = Annotated[float, Measure(dimension=q.DATA)]
HourlyPrice = Annotated[float, Measure(dimension=q.HOURLY_PRICE)]
DataPrice = Annotated[float, Measure(dimension=q.DATA_PRICE)]
MemoryPrice = Annotated[float, Measure(dimension=q.MEMORY_PRICE)]
TokenPrice = Annotated[float, Measure(dimension=q.TOKEN_PRICE)]
CarbonPrice = Annotated[float, Measure(dimension=q.CARBON_PRICE)]
CarbonPerHour = Annotated[float, Measure(dimension=q.CARBON_PER_HOUR)]
Interruptions = Annotated[float, Measure(dimension=q.INTERRUPTIONS)]
Wait = Annotated[float, Measure(dimension=q.WAIT)]
TokenRate = Annotated[float, Measure(dimension=q.TOKEN_RATE)]
Fraction = Annotated[float, PartOfWhole()]
PositiveFraction = Annotated[float, PartOfWhole(positive=True)]
Number = Annotated[
    float, BeforeValidator(lambda v: float(v) if type(v) is int else v), Field(allow_inf_nan=False)
]
Name = Annotated[
    str, Field(pattern=r"^[a-z0-9]([a-z0-9._/:@+-]{0,198}[a-z0-9])?$", examples=["osl-1"])
]
Country = Annotated[str, Field(pattern=r"^[A-Z]{2}$", examples=["NO"])]
Address = Annotated[str, Field(pattern=r"^[^\s/]{1,255}:[0-9]{1,5}$", examples=["10.0.0.5:8443"])]
Countries = list[Country] | Literal["any"]


def about(text: str, default: Any = ..., **limits: Any) -> Any:
    """A field with its description."""
    return Field(default, description=text, **limits)


SOURCE = "Where the figures come from; estimates say so."


class Part(BaseModel):
    """Base of every mapping in a fleet file: camelCase, strict types, unknown fields refused."""

    model_config = ConfigDict(
        alias_generator=to_camel, extra="forbid", strict=True, frozen=True, allow_inf_nan=False
    )


class Sourced(Part):
    """A part whose figures come from somewhere."""

    source: str = about(SOURCE, "", max_length=2000)
