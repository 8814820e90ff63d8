"""What a replica would do by physics: bytes over bandwidth, operations over rate, fixed costs.

Decides the time of one decode step and of one prefill from a shape, a batch and nine
efficiencies; which efficiencies hold where is `fit`'s. Works on arrays, one entry per
configuration. After Williams et al., "Roofline" (CACM 2009), with the terms of Pope et al.,
"Efficiently Scaling Transformer Inference" (MLSys 2023).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from optimizer.serving.specs import KV_BYTES, PRECISIONS, AcceleratorSpec, Architecture

Array = NDArray[np.float64]

MEMORY_USABLE = 0.9
"""Part of the memory engines hand to weights and cache (vLLM's default)."""

SHARPNESS = 2.0
"""Norm that joins memory and arithmetic time: 1 adds them, infinity takes the longer."""


class Efficiency(NamedTuple):
    """Parts of peak, and fixed times, as logarithms; each a number per configuration."""

    bandwidth: Array
    cache: Array
    decode_flops: Array
    prefill_flops: Array
    layer_s: Array
    request_s: Array
    stream_s: Array
    link: Array
    start_s: Array


PRIOR = Efficiency(
    *(np.array(np.log(v)) for v in (0.65, 0.5, 0.45, 0.45, 6e-5, 2e-5, 5e-5, 0.4, 0.015)),
)
"""Where a fit starts and shrinks to."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """One configuration to time. `concurrency` None: as many requests as the memory holds.

    `together`: that many did run at once, whatever our reading of the memory says. `served`: every
    token goes to its client as it is made; else a batch is run to its end in one call.
    """

    accelerator: AcceleratorSpec
    architecture: Architecture
    precision: str
    accelerators: int
    input_tokens: float
    output_tokens: float
    concurrency: float | None
    together: bool = False
    served: bool = True


class Shape(NamedTuple):
    """The figures of many cases as arrays; bytes, operations and seconds, per replica."""

    bandwidth_b_s: Array
    peak_flop_s: Array
    link_b_s: Array
    fixed_b: Array
    expert_b: Array
    expert_part: Array
    active: Array
    layers: Array
    hidden: Array
    kv_b: Array
    several: Array
    input_tokens: Array
    output_tokens: Array
    batch: Array
    watts: Array
    served: Array


def slots(case: Case) -> float:
    """Requests whose cache fits beside the weights, at the end of their output; at least 1."""
    size = PRECISIONS[case.precision].weight_bytes * case.architecture.parameters_b * 1e9
    room = case.accelerators * case.accelerator.memory_gb * 1e9 * MEMORY_USABLE - size
    tokens = case.input_tokens + case.output_tokens
    return max(1.0, room / (tokens * case.architecture.kv_elements_per_token * KV_BYTES))


def shape_of(cases: Sequence[Case]) -> Shape:
    """Cases as arrays; a batch beyond what the memory holds is cut to it (the rest waits)."""
    columns: list[tuple[float, ...]] = []
    for one in cases:
        spec, arch, precision = one.accelerator, one.architecture, PRECISIONS[one.precision]
        expert = arch.expert_b * 1e9
        columns.append(
            (
                one.accelerators * spec.bandwidth_gb_s * 1e9,
                one.accelerators * precision.peak_tflops(spec) * 1e12,
                spec.link_gb_s * 1e9,
                (arch.parameters_b * 1e9 - expert) * precision.weight_bytes,
                expert * precision.weight_bytes,
                arch.experts_per_token / arch.experts,
                arch.active_b * 1e9,
                arch.layers,
                arch.hidden,
                arch.kv_elements_per_token * KV_BYTES,
                float(one.accelerators > 1),
                one.input_tokens,
                one.output_tokens,
                _batch(one),
                one.accelerators * spec.tdp_w,
                float(one.served),
            )
        )
    table = np.array(columns, dtype=np.float64).reshape(len(columns), len(Shape._fields))
    return Shape(*table.T)


def _batch(case: Case) -> float:
    if case.concurrency is None:
        return slots(case)
    return case.concurrency if case.together else min(case.concurrency, slots(case))


def _join(memory_s: Array, flop_s: Array) -> Array:
    joined: Array = (memory_s**SHARPNESS + flop_s**SHARPNESS) ** (1 / SHARPNESS)
    return joined


def weights_read_b(shape: Shape, batch: Array) -> Array:
    """Bytes of weights a step of `batch` tokens reads: every expert some token chose, once.

    An expert is left alone by all with chance (1 - k/E)^batch, if choices are even.
    """
    left: Array = shape.fixed_b + shape.expert_b * (1 - (1 - shape.expert_part) ** batch)
    return np.where(shape.expert_part >= 1, shape.fixed_b, left)


def step_s(shape: Shape, eff: Efficiency) -> Array:
    """Seconds of one decode step: weights and cache read, sums done, layers begun, parts joined.

    ``(memory^p + flops^p)^(1/p) + layers x fixed x (1 or 2) + two all-reduces per layer
    + batch x request``: the last is the host's (scheduling and sampling of each request).
    """
    context = shape.input_tokens + shape.output_tokens / 2
    memory = weights_read_b(shape, shape.batch) / (shape.bandwidth_b_s * np.exp(eff.bandwidth))
    memory = memory + shape.batch * context * shape.kv_b / (shape.bandwidth_b_s * np.exp(eff.cache))
    flops = 2 * shape.active * shape.batch / (shape.peak_flop_s * np.exp(eff.decode_flops))
    host = shape.batch * np.exp(eff.request_s)
    return _join(memory, flops) + _fixed_s(shape, eff) + host + _link_s(shape, eff, shape.batch)


def _fixed_s(shape: Shape, eff: Efficiency) -> Array:
    """Launching a layer's kernels; the two all-reduces of a split layer cost about as much."""
    return shape.layers * np.exp(eff.layer_s) * (1 + shape.several)


def _link_s(shape: Shape, eff: Efficiency, tokens: Array) -> Array:
    sent = 4 * shape.hidden * tokens * KV_BYTES * shape.layers
    return shape.several * sent / (shape.link_b_s * np.exp(eff.link))


def prefill_s(shape: Shape, eff: Efficiency, *, batch: Array) -> Array:
    """Seconds until `batch` prompts started together are read: attention grows with length^2."""
    tokens = shape.input_tokens * batch
    operations = 2 * shape.active * tokens
    operations = operations + 2 * shape.layers * shape.hidden * shape.input_tokens * tokens
    flops = operations / (shape.peak_flop_s * np.exp(eff.prefill_flops))
    read = weights_read_b(shape, tokens) / (shape.bandwidth_b_s * np.exp(eff.bandwidth))
    return _join(read, flops) + _fixed_s(shape, eff) + _link_s(shape, eff, tokens)


def prompt_s(shape: Shape, eff: Efficiency) -> Array:
    """Seconds a prompt takes from the other requests while a full batch is served.

    The weights are read for the decode step anyway, so arithmetic and links alone count.
    """
    operations = 2 * shape.active + 2 * shape.layers * shape.hidden * shape.input_tokens
    flops = shape.input_tokens * operations / (shape.peak_flop_s * np.exp(eff.prefill_flops))
    return flops + _link_s(shape, eff, shape.input_tokens)


def served_step_s(shape: Shape, eff: Efficiency) -> Array:
    """A decode step, and handing its tokens to their clients where the case is served.

    Engines that stream from the process that schedules do so between two steps: the time grows
    with the batch whatever the accelerator (vLLM's V0; the host of a box, not its chip).
    """
    streamed: Array = shape.served * shape.batch * np.exp(eff.stream_s)
    return step_s(shape, eff) + streamed


def token_s(shape: Shape, eff: Efficiency) -> Array:
    """Seconds between two tokens of a request: a step, and the prompts of the others meanwhile."""
    others = shape.batch * prompt_s(shape, eff) / shape.output_tokens
    return served_step_s(shape, eff) + np.where(shape.batch > 1, others, 0.0)


def output_tok_s(shape: Shape, eff: Efficiency) -> Array:
    """Output tokens per second: ``batch x output / (batch x prompt + output x step)``."""
    spent = shape.batch * prompt_s(shape, eff) + shape.output_tokens * served_step_s(shape, eff)
    rate: Array = shape.batch * shape.output_tokens / spent
    return rate
