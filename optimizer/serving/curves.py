"""Measured operating points of one group, and what lies between them.

Decides a throughput between measured batches and lengths: the roofline bends the line, the
measurements hold its ends. Outside what was measured the last deviation is carried on.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from sites.units import require_positive

REACH = 2.0
"""How far beyond its measured lengths and batches a group still counts as measured (factor)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Knot:
    """One measured point: tokens in and out, requests at once, output rate, draw (0: unknown)."""

    input_tokens: float
    output_tokens: float
    concurrency: float
    output_tok_s: float
    power_w: float = 0.0

    def __post_init__(self) -> None:
        for name in ("input_tokens", "output_tokens", "concurrency", "output_tok_s"):
            require_positive(getattr(self, name), field=f"knot: {name}")

    @property
    def tokens(self) -> float:
        """Input and output together."""
        return self.input_tokens + self.output_tokens


@dataclass(frozen=True, kw_only=True, slots=True)
class Group:
    """What was measured of a model and precision on so many accelerators under one engine."""

    accelerator: str
    accelerators: int
    model: str
    precision: str
    framework: str
    source: str
    knots: tuple[Knot, ...]

    def covers(self, *, input_tokens: float, output_tokens: float, concurrency: float) -> bool:
        """Whether a point lies within REACH of what was measured, in lengths and batch."""
        return all(
            min(seen) / REACH <= asked <= max(seen) * REACH
            for asked, seen in (
                (input_tokens, [k.input_tokens for k in self.knots]),
                (output_tokens, [k.output_tokens for k in self.knots]),
                (concurrency, [k.concurrency for k in self.knots]),
            )
        )


def deviation(
    knots: Sequence[Knot],
    errors: Sequence[float],
    *,
    tokens: float,
    concurrency: float,
) -> float:
    """Log of true over roofline throughput at a point, from that at the knots.

    Linear in log batch within a length, then in log length between the two nearest; the nearest
    value beyond either end.
    """
    lines: dict[float, list[tuple[float, float]]] = {}
    for knot, error in zip(knots, errors, strict=True):
        lines.setdefault(knot.tokens, []).append((math.log(knot.concurrency), error))
    along = [
        (math.log(length), interpolate(points, math.log(concurrency)))
        for length, points in sorted(lines.items())
    ]
    return interpolate(along, math.log(tokens))


def interpolate(points: Sequence[tuple[float, float]], at: float) -> float:
    """Piecewise linear, level beyond both ends; equal abscissae count as their mean."""
    merged: dict[float, list[float]] = {}
    for x, y in points:
        merged.setdefault(x, []).append(y)
    line = sorted((x, sum(ys) / len(ys)) for x, ys in merged.items())
    if at <= line[0][0]:
        return line[0][1]
    for (x0, y0), (x1, y1) in itertools.pairwise(line):
        if at <= x1:
            return y0 + (y1 - y0) * (at - x0) / (x1 - x0)
    return line[-1][1]


def left_out_errors(group: Group, errors: Sequence[float]) -> list[float]:
    """How far each knot's log error lies from what the group's others say; none for one knot."""
    if len(group.knots) < 2:
        return []
    everyone = set(range(len(errors)))
    return [
        _without(group.knots, errors, kept=everyone - {i}, at=i) - error
        for i, error in enumerate(errors)
    ]


def thin(knots: Sequence[Knot], errors: Sequence[float], *, within: float) -> tuple[Knot, ...]:
    """Knots without those the rest meets within a log error; the group's corners stay.

    One pass, the best met first; each removal must leave all removed ones met.
    """
    left = dict(enumerate(errors))
    said = {i: abs(_without(knots, errors, kept=set(left) - {i}, at=i) - errors[i]) for i in left}
    gone: set[int] = set()
    for i in sorted(left, key=lambda one: (said[one], one)):
        kept = set(left) - gone - {i}
        if _is_end(knots, i) or not kept:
            continue
        if all(
            abs(_without(knots, errors, kept=kept, at=j) - errors[j]) <= within
            for j in sorted(gone | {i})
        ):
            gone.add(i)
    return tuple(knot for i, knot in enumerate(knots) if i not in gone)


def _is_end(knots: Sequence[Knot], i: int) -> bool:
    """Whether a knot is the first or last of the whole group in batch or length."""
    sizes = [k.concurrency for k in knots]
    tokens = [k.tokens for k in knots]
    corner = tokens[i] in (min(tokens), max(tokens))
    return corner and sizes[i] in (min(sizes), max(sizes))


def _without(knots: Sequence[Knot], errors: Sequence[float], *, kept: set[int], at: int) -> float:
    rest = sorted(kept)
    if not rest:
        return float("inf")
    return deviation(
        [knots[j] for j in rest],
        [errors[j] for j in rest],
        tokens=knots[at].tokens,
        concurrency=knots[at].concurrency,
    )
