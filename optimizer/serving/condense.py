"""The shipped library from the public tables: ``python -m optimizer.serving.condense DATA``.

Decides what of the tables ships: specifications, fitted effects, and the condensed points of each
group. Raw tables do not ship. The same tables give the same bytes.
"""

from __future__ import annotations

import dataclasses
import json
import math
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from optimizer.serving import condense_specs
from optimizer.serving.curves import Group, thin
from optimizer.serving.fit import Effects, Observation, Problem, keys_of, observations
from optimizer.serving.formats import read_tables
from optimizer.serving.library import DATA_FILE, Library, group_data, groups_of, library_from
from optimizer.serving.measurement import Measurement
from optimizer.serving.points import knot_errors
from optimizer.serving.power import PowerModel, fit_power
from optimizer.serving.roofline import (
    Array,
    Case,
    Efficiency,
    Shape,
    prefill_s,
    shape_of,
    step_s,
    token_s,
)
from optimizer.serving.specs import AcceleratorSpec, Architecture
from optimizer.serving.table import MeasurementFileError, Row, rows
from sites.fleet_file.faults import Fault

SPECS = ("specs/accelerators.csv", "specs/llm_architectures.csv")
HERE = Path(__file__).parent
PERCENTILES = (50.0, 90.0, 99.0)
THIN_WITHIN = 0.05
"""Log error up to which a measured point is left to its neighbours."""

SOURCES = (
    {"name": "AccelMark", "where": "github FreedomIntelligence/AccelMark 5797fc4",
     "licence": "Apache-2.0"},
    {"name": "ML.ENERGY", "where": "github ml-energy/leaderboard 0cd52da",
     "licence": "none stated; figures only; cite Chung et al., NeurIPS D&B 2025"},
    {"name": "Argonne LLM-Inference-Bench",
     "where": "github argonne-lcf/LLM-Inference-Bench 4211f5d", "licence": "BSD-3-Clause"},
    {"name": "splitwise-sim", "where": "github Mutinifni/splitwise-sim 8f99e7d",
     "licence": "MIT; cite Patel et al., ISCA 2024"},
    {"name": "SageServe", "where": "github shashwatj07/SageServe 0b95ca2", "licence": "MIT"},
    {"name": "Helix", "where": "github Thesys-lab/Helix-ASPLOS25 148b733", "licence": "Apache-2.0"},
    {"name": "TensorRT-LLM", "where": "github NVIDIA/TensorRT-LLM 03e27c7 and 138f96d",
     "licence": "Apache-2.0; figures transcribed"},
    {"name": "small tables", "where": "named with each figure",
     "licence": "single published figures, transcribed"},
    {"name": "Epoch AI Machine Learning Hardware", "where": "specifications of accelerators",
     "licence": "CC-BY 4.0"},
    {"name": "AIConfigurator", "where": "PyPI aiconfigurator-core 0.12.0",
     "licence": "Apache-2.0; specifications and published config.json of models"},
)  # fmt: skip


class Fitted(NamedTuple):
    """Everything a library is condensed from, and the fit behind it."""

    accelerators: dict[str, AcceleratorSpec]
    models: dict[str, Architecture]
    measurements: tuple[Measurement, ...]
    problem: Problem
    beta: Array
    effects: Effects
    power: PowerModel


def fit_tables(tables: Mapping[str, bytes]) -> Fitted:
    """Read and fit tables by name (``perf/x.csv``). Raises MeasurementFileError with all faults."""
    faults: list[Fault] = []
    lines: list[list[Row]] = [list(rows(tables[name], file=name, faults=faults)) for name in SPECS]
    accelerators = [AcceleratorSpec(**one) for one in condense_specs.accelerators(lines[0])]
    models = [Architecture(**one) for one in condense_specs.architectures(lines[1])]
    if faults:
        raise MeasurementFileError(faults)
    measured = read_tables((n, tables[n]) for n in sorted(tables) if n.startswith("perf/"))
    specs = {one.accelerator: one for one in accelerators}
    shapes = {one.model: one for one in models}
    problem = Problem(observations(measured, specs, shapes))
    beta = problem.solve()
    return Fitted(
        accelerators=specs,
        models=shapes,
        measurements=measured,
        problem=problem,
        beta=beta,
        effects=problem.effects(beta),
        power=fit_power(*with_watts(problem.observed)),
    )


def with_watts(observed: Sequence[Observation]) -> tuple[list[Measurement], list[Case]]:
    """The measurements that name watts and a rate, with what ran."""
    kept = [one for one in observed if one.kind == "rate" and one.measurement.power_w]
    return [one.measurement for one in kept], [one.case for one in kept]


def condensed(fitted: Fitted) -> dict[str, Any]:
    """The library's plain data."""
    data = fitted_part(fitted)
    library = library_from(data)
    full = groups_of(fitted.measurements, fitted.accelerators, fitted.models)
    data["groups"] = [group_data(_thinned(library, one)) for one in full]
    return data


def fitted_part(fitted: Fitted) -> dict[str, Any]:
    """The library's plain data without any measured group."""
    effects: dict[str, dict[str, dict[str, float]]] = {}
    for term, values in sorted(fitted.effects.values.items()):
        for (level, key), value in sorted(values.items()):
            effects.setdefault(term, {}).setdefault(level, {})[key] = value
    return {
        "about": "Condensed from public measurements; see docs/serving-points.md. Do not edit: "
        "python -m optimizer.serving.condense writes this file.",
        "sources": list(SOURCES),
        "accelerators": _plain(fitted.accelerators),
        "models": _plain(fitted.models),
        "effects": effects,
        "power": {
            "base": fitted.power.base,
            "memory": fitted.power.memory,
            "arithmetic": fitted.power.arithmetic,
            "accelerators": dict(sorted(fitted.power.accelerators.items())),
        },
        "spreads": spreads(fitted),
        "groups": [],
    }


def _thinned(library: Library, group: Group) -> Group:
    """The fewest points, roughly, between which the others are met within THIN_WITHIN."""
    spec, model = library.accelerators[group.accelerator], library.models[group.model]
    errors = knot_errors(library, model, spec, group)
    return dataclasses.replace(group, knots=thin(group.knots, errors, within=THIN_WITHIN))


def _plain(facts: Mapping[str, AcceleratorSpec | Architecture]) -> list[Any]:
    return [dataclasses.asdict(one) for _, one in sorted(facts.items())]


def spreads(fitted: Fitted) -> dict[str, list[list[float]]]:
    """Factor from the roofline's mean to a percentile, from servers that kept up with their rate.

    The median over AccelMark's online rows of measured over said: a first token waits for its own
    prompt and one step; a later one for the mean of steps and other prompts.
    """
    found = {
        name: [
            [p, _rounded(statistics.median(online_ratios(fitted, name=name, percentile=p)))]
            for p in PERCENTILES
        ]
        for name in ("ttft", "tpot")
    }
    middle = found["tpot"][0][1]
    found["tpot"] = [[p, _rounded(v / middle)] for p, v in found["tpot"]]
    return found


def _rounded(value: float) -> float:
    return round(value, 4)


def online_ratios(fitted: Fitted, *, name: str, percentile: float) -> list[float]:
    """Measured over said time (`ttft`, `tpot`) at a percentile, per online measurement."""
    chosen = [
        one
        for one in fitted.measurements
        if one.table == "accelmark-online"
        and one.percentile == percentile
        and one.accelerator in fitted.accelerators
        and one.model in fitted.models
    ]
    said = mean_times(fitted, chosen, _TTFT if name == "ttft" else token_s)
    values = [(m.ttft_ms if name == "ttft" else m.tpot_ms) or 1.0 for m in chosen]
    return [value / 1e3 / float(mean) for value, mean in zip(values, said, strict=True)]


def _TTFT(shape: Shape, eff: Efficiency) -> Array:  # noqa: N802 - a formula, named as its time
    alone = shape._replace(batch=np.ones_like(shape.batch))
    first: Array = prefill_s(alone, eff, batch=alone.batch) + np.exp(eff.start_s)
    return first + step_s(shape, eff)


def mean_times(
    fitted: Fitted,
    measured: Sequence[Measurement],
    formula: Callable[[Shape, Efficiency], Array],
) -> Array:
    """A formula's value for each measurement by the fitted efficiencies."""
    cases = [
        Case(
            accelerator=fitted.accelerators[one.accelerator],
            architecture=fitted.models[one.model],
            precision=one.precision,
            accelerators=one.accelerators,
            input_tokens=one.input_tokens,
            output_tokens=one.output_tokens,
            concurrency=one.concurrency,
        )
        for one in measured
    ]
    felt = [keys_of(one, case) for one, case in zip(measured, cases, strict=True)]
    terms = (
        np.array([fitted.effects.term(term, one) for one in felt]) for term in Efficiency._fields
    )
    return formula(shape_of(cases), Efficiency(*terms))


def text_of(data: Mapping[str, Any]) -> str:
    """The file's text: one line per entry, sorted, so that a change shows where it is."""
    parts = []
    for name, value in data.items():
        if isinstance(value, list):
            lines = ",\n".join(_line(one) for one in value)
            parts.append(f"{json.dumps(name)}: [\n{lines}\n]")
        else:
            parts.append(f"{json.dumps(name)}: {_line(value)}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


def _line(value: object) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def tables_in(folder: Path) -> dict[str, bytes]:
    """The tables of a reference data folder, by name."""
    names = [*SPECS, *(f"perf/{one.name}" for one in sorted((folder / "perf").glob("*.csv")))]
    return {name: (folder / name).read_bytes() for name in names}


def main(arguments: Sequence[str]) -> int:
    """Write the library from a reference data folder."""
    if len(arguments) != 1:
        sys.stderr.write("usage: python -m optimizer.serving.condense DATA_FOLDER\n")
        return 64
    data = condensed(fit_tables(tables_in(Path(arguments[0]))))
    target = HERE / "data" / DATA_FILE
    target.write_text(text_of(data), encoding="utf-8")
    size = math.ceil(target.stat().st_size / 1024)
    sys.stdout.write(f"{target.name}: {len(data['groups'])} groups, {size} KiB\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
