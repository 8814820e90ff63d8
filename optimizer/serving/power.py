"""What a replica draws: an idle part, and parts that grow with bytes and operations per second.

Decides the draw from how busy memory and arithmetic are; the three parts are fitted to the tables
that name watts. Accelerators alone: hosts, cooling and network are not in any of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from optimizer.serving.measurement import Measurement
from optimizer.serving.roofline import Array, Case, Shape, shape_of, weights_read_b

IDLE_PART = 0.15
"""Idle draw over rated draw. Assumed: no table measures an idle replica."""

MOST_PART = 1.0
SPREAD = (0.3, 0.3, 0.3)
NOISE = 0.08
ACCELERATOR_SPREAD = 0.1
PRIOR = (0.3, 0.5, 0.5)


@dataclass(frozen=True, kw_only=True, slots=True)
class PowerModel:
    """Part of rated draw: base + memory x bandwidth used + arithmetic x rate used + accelerator."""

    base: float
    memory: float
    arithmetic: float
    accelerators: Mapping[str, float]

    def draw_w(self, case: Case, *, output_tok_s: float) -> float:
        """Mean draw of the replica at a throughput (W), from idle to rated."""
        use = _use(shape_of([case]), np.array([output_tok_s]))[0]
        part = float(use @ np.array([self.base, self.memory, self.arithmetic]))
        part += self.accelerators.get(case.accelerator.accelerator, 0.0)
        part = min(MOST_PART, max(IDLE_PART, part))
        return part * case.accelerators * case.accelerator.tdp_w


def _use(shape: Shape, output_tok_s: Array) -> Array:
    """1, bandwidth used over peak, operations over peak; one row per configuration."""
    steps = output_tok_s / shape.batch
    context = shape.input_tokens + shape.output_tokens / 2
    read_b = weights_read_b(shape, shape.batch) + shape.batch * context * shape.kv_b
    memory = steps * read_b / shape.bandwidth_b_s
    per_output = 1 + shape.input_tokens / shape.output_tokens
    arithmetic = 2 * shape.active * output_tok_s * per_output / shape.peak_flop_s
    return np.column_stack([np.ones(len(steps)), memory, arithmetic])


def fit_power(
    measured: Sequence[Measurement], cases: Sequence[Case], *, without: str = ""
) -> PowerModel:
    """Ridge least squares over the measurements with watts, an accelerator's left out if named."""
    kept = [
        (one, case)
        for one, case in zip(measured, cases, strict=True)
        if one.power_w and one.output_tok_s and one.accelerator != without
    ]
    shape = shape_of([case for _, case in kept])
    part = np.array([one.power_w or 0.0 for one, _ in kept]) / shape.watts
    names = sorted({one.accelerator for one, _ in kept})
    own = np.array([[float(one.accelerator == name) for name in names] for one, _ in kept])
    design = np.hstack([_use(shape, np.array([m.output_tok_s or 0.0 for m, _ in kept])), own])
    prior = np.array([*PRIOR, *[0.0] * len(names)])
    spread = np.array([*SPREAD, *[ACCELERATOR_SPREAD] * len(names)])
    normal = design.T @ design / NOISE**2 + np.diag(spread**-2)
    right = design.T @ (part - design @ prior) / NOISE**2
    found = prior + np.linalg.solve(normal, right)
    rounded = [round(float(max(0.0, v)), 4) for v in found[:3]]
    own_parts = {name: round(float(v), 4) for name, v in zip(names, found[3:], strict=True)}
    return PowerModel(
        base=rounded[0], memory=rounded[1], arithmetic=rounded[2], accelerators=own_parts
    )


def power_from(data: Mapping[str, Any]) -> PowerModel:
    """The model a library holds."""
    return PowerModel(
        base=float(data["base"]),
        memory=float(data["memory"]),
        arithmetic=float(data["arithmetic"]),
        accelerators={str(k): float(v) for k, v in data["accelerators"].items()},
    )
