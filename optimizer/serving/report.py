"""How wrong the points are: every error left out of what predicts it.

Decides which errors are published and how they read: ``python -m optimizer.serving.report DATA
DOC`` rewrites the tables of the page. A median is over absolute relative errors |said/true - 1|.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Hashable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from optimizer.serving.condense import (
    Fitted,
    fit_tables,
    fitted_part,
    online_ratios,
    spreads,
    tables_in,
    with_watts,
)
from optimizer.serving.curves import left_out_errors
from optimizer.serving.fit import Observation
from optimizer.serving.library import groups_of, library_from
from optimizer.serving.points import knot_errors
from optimizer.serving.power import fit_power
from optimizer.serving.roofline import Array

ALIKE = 1.25
"""Factor up to which two batches count as the same setting."""

BEGIN, END = "<!-- tables: begin -->", "<!-- tables: end -->"


class Line(NamedTuple):
    """One row of a table: what was left out of what, how many figures, median and 90 % error."""

    name: str
    figures: int
    median: float
    ninth: float


class Report(NamedTuple):
    """The published tables."""

    summary: tuple[Line, ...]
    accelerators: tuple[tuple[str, Line, Line], ...]
    models: tuple[Line, ...]


_KINDS = {
    "rate": "throughput",
    "step": "time of a decode step",
    "tpot": "time per output token",
    "ttft": "time to first token",
}


def report(fitted: Fitted) -> Report:
    """Every error of the fit and of the interpolation."""
    pairs = _left_out(fitted, lambda o: (o.measurement.accelerator, o.measurement.model))
    chips = _left_out(fitted, lambda o: o.measurement.accelerator)
    families = _left_out(fitted, lambda o: o.case.accelerator.family)
    models = _left_out(fitted, lambda o: o.measurement.model)
    observed = fitted.problem.observed
    summary = [_line("in: measured point left out, throughput", _points_left_out(fitted))]
    for name, errors in (
        ("in: pair left out", pairs),
        ("model left out", models),
        ("out: accelerator left out", chips),
        ("out: family left out", families),
    ):
        for kind, said in _KINDS.items():
            chosen = [e for o, e in zip(observed, errors, strict=True) if o.kind == kind]
            summary.append(_line(f"{name}, {said}", chosen))
    for name, errors in (("in: pair left out", pairs), ("out: accelerator left out", chips)):
        each = _by(observed, errors, lambda o: o.measurement.accelerator)
        middle = [float(np.log1p(line.median)) for line in each]
        summary.append(_line(f"{name}, everything, each accelerator's median once", middle))
    summary += _floor_lines(fitted)
    summary += _power_lines(fitted)
    summary += _online_lines(fitted)
    return Report(
        summary=tuple(summary),
        accelerators=_by_accelerator(observed, pairs, chips),
        models=_by(observed, models, lambda o: o.measurement.model),
    )


def accelerators_left_out(fitted: Fitted) -> Line:
    """Errors of every throughput on hardware whose measurements were left out."""
    errors = _left_out(fitted, lambda o: o.measurement.accelerator)
    observed = fitted.problem.observed
    return _line("", [e for o, e in zip(observed, errors, strict=True) if o.kind == "rate"])


def _left_out(fitted: Fitted, key: Callable[[Observation], Hashable]) -> Array:
    """Log errors where everything of the same key was left out of the fit."""
    keys = [key(one) for one in fitted.problem.observed]
    groups = [np.array([k == one for k in keys]) for one in dict.fromkeys(keys)]
    return fitted.problem.left_out(fitted.beta, groups)


def _points_left_out(fitted: Fitted) -> list[float]:
    """Log errors of each measured throughput interpolated from the rest of its group."""
    library = library_from(fitted_part(fitted))
    errors: list[float] = []
    for group in groups_of(fitted.measurements, fitted.accelerators, fitted.models):
        spec, model = library.accelerators[group.accelerator], library.models[group.model]
        at = knot_errors(library, model, spec, group)
        errors += left_out_errors(group, at)
    return errors


def _floor_lines(fitted: Fitted) -> list[Line]:
    """What no model could better: a figure said by others of its very setting.

    The others run the same on the same table at lengths alike and a batch within ALIKE; what the
    roofline says of both takes out what is left of the difference in batch.
    """
    problem = fitted.problem
    error = problem.said(fitted.beta) - problem.value
    settings: dict[tuple[Hashable, ...], list[int]] = {}
    for i, (one, case, kind, _) in enumerate(problem.observed):
        lengths = (one.input_tokens, one.output_tokens)
        settings.setdefault((kind, one.table, one.group, lengths, case.together), []).append(i)
    found: dict[str, list[float]] = {}
    batch = np.log(problem.shape.batch)
    for setting, places in settings.items():
        for i in places:
            near = [j for j in places if j != i and abs(batch[j] - batch[i]) <= np.log(ALIKE)]
            if near:
                found.setdefault(str(setting[0]), []).append(float(error[i] - np.mean(error[near])))
    return [
        _line(f"floor: the same measured again, {said}", found[kind])
        for kind, said in _KINDS.items()
        if kind in found
    ]


def _power_lines(fitted: Fitted) -> list[Line]:
    """Draw with each accelerator in the fit, and left out of it."""
    measured, cases = with_watts(fitted.problem.observed)
    lines = []
    for name, without in (("in: fitted", False), ("out: accelerator left out", True)):
        errors = []
        for chip in sorted({one.accelerator for one in measured}):
            model = fit_power(measured, cases, without=chip if without else "")
            for one, case in zip(measured, cases, strict=True):
                if one.accelerator == chip:
                    said = model.draw_w(case, output_tok_s=one.output_tok_s or 1.0)
                    errors.append(float(np.log(said / (one.power_w or 1.0))))
        lines.append(_line(f"{name}, draw", errors))
    return lines


def _online_lines(fitted: Fitted) -> list[Line]:
    """Times of servers under a rate they kept up with: roofline x spread, both from all tables."""
    lines = []
    factors = {name: rows[-1][1] for name, rows in spreads(fitted).items()}
    for name, said in (("ttft", "first token"), ("tpot", "output token")):
        ratios = online_ratios(fitted, name=name, percentile=99.0)
        errors = [float(-np.log(one / factors[name])) for one in ratios]
        lines.append(_line(f"in: fitted, 99th percentile per {said} under way", errors))
    return lines


def _by_accelerator(
    observed: Sequence[Observation], pairs: Array, chips: Array
) -> tuple[tuple[str, Line, Line], ...]:
    inner = _by(observed, pairs, lambda o: o.measurement.accelerator)
    outer = _by(observed, chips, lambda o: o.measurement.accelerator)
    return tuple((i.name, i, o) for i, o in zip(inner, outer, strict=True))


def _by(
    observed: Sequence[Observation], errors: Array, key: Callable[[Observation], str]
) -> tuple[Line, ...]:
    found: dict[str, list[float]] = {}
    for one, error in zip(observed, errors, strict=True):
        found.setdefault(key(one), []).append(float(error))
    return tuple(_line(name, some) for name, some in sorted(found.items()))


def _line(name: str, errors: Iterable[float]) -> Line:
    parts = sorted(abs(float(np.expm1(one))) for one in errors)
    ninth = parts[min(len(parts) - 1, int(0.9 * len(parts)))]
    return Line(name, len(parts), statistics.median(parts), ninth)


def tables_of(found: Report) -> str:
    """The report as Markdown."""
    parts = ["| left out, and what is predicted | figures | median error | 90 % of errors below |"]
    parts.append("|---|---:|---:|---:|")
    parts += [_row(line) for line in found.summary]
    parts += ["", "| accelerator | figures | pair left out | accelerator left out |"]
    parts.append("|---|---:|---:|---:|")
    parts += [
        f"| {name} | {inner.figures} | {_percent(inner.median)} | {_percent(outer.median)} |"
        for name, inner, outer in found.accelerators
    ]
    parts += ["", "| model left out | figures | median error | 90 % of errors below |"]
    parts.append("|---|---:|---:|---:|")
    parts += [_row(line) for line in found.models]
    return "\n".join(parts) + "\n"


def _row(line: Line) -> str:
    return f"| {line.name} | {line.figures} | {_percent(line.median)} | {_percent(line.ninth)} |"


def _percent(part: float) -> str:
    return f"{100 * part:.1f} %"


def main(arguments: Sequence[str]) -> int:
    """Rewrite the tables of a page from a reference data folder."""
    if len(arguments) != 2:
        sys.stderr.write("usage: python -m optimizer.serving.report DATA_FOLDER PAGE\n")
        return 64
    folder, page = Path(arguments[0]), Path(arguments[1])
    text = page.read_text(encoding="utf-8")
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        sys.stderr.write(f"{page}: needs one line {BEGIN} and one line {END}\n")
        return 1
    head, tail = text.split(BEGIN)[0], text.split(END)[1]
    found = tables_of(report(fit_tables(tables_in(folder))))
    page.write_text(f"{head}{BEGIN}\n{found}{END}{tail}", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
