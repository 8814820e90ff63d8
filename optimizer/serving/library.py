"""The shipped library: specifications, fitted effects, spreads, measured groups and their sources.

Decides how the data file reads and which group or engine answers for a pair. Regenerating the file
is `condense`'s.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from importlib import resources
from typing import Any

from optimizer.serving.curves import Group, Knot
from optimizer.serving.fit import Effects
from optimizer.serving.measurement import Measurement
from optimizer.serving.power import PowerModel, power_from
from optimizer.serving.roofline import Case, slots
from optimizer.serving.specs import PRECISIONS, AcceleratorSpec, Architecture

DATA_FILE = "library.json"
CURRENT_YEAR = 2025
"""Engines of this year and later are preferred, however much was measured before."""

ENGINE_USUAL = "vllm-2025"
"""Engine that estimates assume: the one current engine measured over whole ranges of batches."""

USUAL_FAMILIES = frozenset(("ada", "ampere", "blackwell", "blackwell-rtx", "hopper", "volta"))
"""Families that engine runs on without a vendor's fork; others keep the engine they came with."""


@dataclass(frozen=True, kw_only=True)
class Library:
    """Everything a serving point is made of. `spreads`: time -> percentile -> factor over mean."""

    accelerators: Mapping[str, AcceleratorSpec]
    models: Mapping[str, Architecture]
    effects: Effects
    power: PowerModel
    spreads: Mapping[str, tuple[tuple[float, float], ...]]
    groups: tuple[Group, ...]
    sources: tuple[Mapping[str, str], ...]

    def group_of(
        self,
        *,
        accelerator: str,
        accelerators: int,
        model: str,
        precision: str,
        lengths: tuple[float, float],
    ) -> Group | None:
        """The group that answers for a pair and lengths (input, output tokens): of one engine's
        versions in a year the newest, of a current engine, then nearest in length, then of the
        widest range of batches."""
        fitting = [
            one
            for one in self.groups
            if (one.accelerator, one.accelerators) == (accelerator, accelerators)
            and (one.model, one.precision) == (model, precision)
        ]
        newest: dict[tuple[str, int], tuple[int, ...]] = {}
        for one in fitting:
            engine, version = _release(one.framework)
            newest[engine] = max(version, newest.get(engine, ()))
        kept = [one for one in fitting if _release(one.framework) in newest.items()]
        return max(kept, key=lambda one: _standing(one, lengths), default=None)

    def engine_of(self, accelerator: str) -> str:
        """The engine an estimate assumes: the usual one, or what its vendor's parts run most."""
        family = self.accelerators[accelerator].family
        knots: dict[str, int] = {}
        for one in self.groups:
            if one.accelerator == accelerator and family not in USUAL_FAMILIES:
                knots[one.framework] = knots.get(one.framework, 0) + len(one.knots)
        if not knots:
            return ENGINE_USUAL
        return max(sorted(knots), key=lambda name: (_year(name) >= CURRENT_YEAR, knots[name]))

    def with_measurements(self, measurements: Iterable[Measurement]) -> Library:
        """This library and one's own measurements, which answer before the shipped ones."""
        own = groups_of(measurements, self.accelerators, self.models)
        taken = {(o.accelerator, o.accelerators, o.model, o.precision) for o in own}
        kept = tuple(
            one
            for one in self.groups
            if (one.accelerator, one.accelerators, one.model, one.precision) not in taken
        )
        return replace(self, groups=(*own, *kept))


def _year(framework: str) -> int:
    tail = framework.rsplit("-", 1)[-1]
    return int(tail) if tail.isdigit() else 0


def _release(framework: str) -> tuple[tuple[str, int], tuple[int, ...]]:
    """Engine and year, and version (empty where none is named) of ``vllm-0.20-2026``."""
    name = framework.removesuffix(f"-{_year(framework)}")
    engine, _, version = name.rpartition("-")
    numbers = tuple(int(part) for part in version.split(".") if part.isdigit())
    return ((engine, _year(framework)), numbers) if numbers else ((name, _year(framework)), ())


def _standing(group: Group, lengths: tuple[float, float]) -> tuple[bool, float, int, int, int, str]:
    year = _year(group.framework)
    away = min(
        abs(math.log(lengths[0] / k.input_tokens)) + abs(math.log(lengths[1] / k.output_tokens))
        for k in group.knots
    )
    sizes = [knot.concurrency for knot in group.knots]
    doublings = round(math.log2(max(sizes) / min(sizes)))
    nearness = -round(away, 1)
    return year >= CURRENT_YEAR, nearness, doublings, len(sizes), year, group.framework


def groups_of(
    measurements: Iterable[Measurement],
    accelerators: Mapping[str, AcceleratorSpec],
    models: Mapping[str, Architecture],
) -> tuple[Group, ...]:
    """Measured throughputs by group, equal points merged to their mean; sorted.

    Where a table names times without a rate, the rate is batch over the time per token, or batch x
    output over the whole batch's time. A batch beyond what the memory holds counts as what it
    holds (the rest waits).
    """
    found: dict[tuple[str, int, str, str, str], dict[tuple[float, ...], list[Measurement]]] = {}
    for one in measurements:
        known = one.accelerator in accelerators and one.model in models
        usable = _rate(one) is not None and one.percentile in (0.0, 50.0)
        if known and usable and one.precision in PRECISIONS:
            case = _case(one, accelerators, models)
            most = slots(case)
            ran = most if one.concurrency is None else min(one.concurrency, most)
            point = (one.input_tokens, one.output_tokens, round(ran, 2))
            found.setdefault(one.group, {}).setdefault(point, []).append(one)
    return tuple(_group(key, points) for key, points in sorted(found.items()))


def _case(
    one: Measurement,
    accelerators: Mapping[str, AcceleratorSpec],
    models: Mapping[str, Architecture],
) -> Case:
    return Case(
        accelerator=accelerators[one.accelerator],
        architecture=models[one.model],
        precision=one.precision,
        accelerators=one.accelerators,
        input_tokens=one.input_tokens,
        output_tokens=one.output_tokens,
        concurrency=one.concurrency,
    )


def _rate(one: Measurement) -> float | None:
    if one.output_tok_s:
        return one.output_tok_s
    if not one.tpot_ms or not one.concurrency:
        return None
    if not one.decode_only:
        return one.concurrency * 1e3 / one.tpot_ms
    if one.ttft_ms and one.prefill_batch == one.concurrency:
        whole_ms = one.ttft_ms + one.output_tokens * one.tpot_ms
        return one.concurrency * one.output_tokens * 1e3 / whole_ms
    return None


def _group(
    key: tuple[str, int, str, str, str],
    points: Mapping[tuple[float, ...], list[Measurement]],
) -> Group:
    knots = []
    for (tokens_in, tokens_out, ran), ones in sorted(points.items()):
        rates = [rate for rate in map(_rate, ones) if rate is not None]
        watts = [one.power_w for one in ones if one.power_w]
        knots.append(
            Knot(
                input_tokens=tokens_in,
                output_tokens=tokens_out,
                concurrency=ran,
                output_tok_s=_digits(sum(rates) / len(rates)),
                power_w=_digits(sum(watts) / len(watts)) if watts else 0.0,
            )
        )
    sources = sorted({one.source for ones in points.values() for one in ones})
    more = f" and {len(sources) - 1} more" if len(sources) > 1 else ""
    accelerator, count, model, precision, framework = key
    return Group(
        accelerator=accelerator,
        accelerators=count,
        model=model,
        precision=precision,
        framework=framework,
        source=sources[0] + more,
        knots=tuple(knots),
    )


def _digits(value: float) -> float:
    return float(f"{value:.5g}")


@functools.cache
def shipped() -> Library:
    """The library in the package."""
    text = resources.files("optimizer.serving").joinpath("data", DATA_FILE).read_text("utf-8")
    return library_from(json.loads(text))


def library_from(data: Mapping[str, Any]) -> Library:
    """A library of the plain data a file holds."""
    accelerators = [AcceleratorSpec(**one) for one in data["accelerators"]]
    models = [Architecture(**one) for one in data["models"]]
    effects = {
        term: {(level, key): float(v) for level, keys in levels.items() for key, v in keys.items()}
        for term, levels in data["effects"].items()
    }
    return Library(
        accelerators={one.accelerator: one for one in accelerators},
        models={one.model: one for one in models},
        effects=Effects(values=effects),
        power=power_from(data["power"]),
        spreads={
            name: tuple((float(p), float(v)) for p, v in rows)
            for name, rows in data["spreads"].items()
        },
        groups=tuple(_group_from(one) for one in data["groups"]),
        sources=tuple(data["sources"]),
    )


_GROUP = ("accelerator", "accelerators", "model", "precision", "framework", "source")
_KNOT = ("input_tokens", "output_tokens", "concurrency", "output_tok_s", "power_w")


def _group_from(data: Mapping[str, Any]) -> Group:
    knots = tuple(Knot(**dict(zip(_KNOT, map(float, row), strict=True))) for row in data["knots"])
    return Group(**{name: data[name] for name in _GROUP}, knots=knots)


def group_data(group: Group) -> dict[str, Any]:
    """A group as plain data, knots as rows."""
    rows = [[_plain(getattr(knot, name)) for name in _KNOT] for knot in group.knots]
    return {**{name: getattr(group, name) for name in _GROUP}, "knots": rows}


def _plain(value: float) -> float | int:
    return int(value) if value == int(value) else value
