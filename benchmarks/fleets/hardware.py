"""Accelerators, models and serving points of the tiers: public specifications, own roofline.

Decides what one replica of a variant does on n accelerators of a type, by memory bandwidth and
arithmetic alone. Coarse on purpose: tiers exercise the search, not the estimate of a point.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.fleets.tables import one, rows
from sites.catalog import Catalog, Model, ServingPoint, Variant

MIB = 2.0**20
HOST_W = 60.0
"""Host, fans and network per accelerator (assumed)."""
FULL_PART, IDLE_PART = 0.85, 0.2
"""Parts of the TDP drawn at full use and idle (assumed)."""
BANDWIDTH_USED, ARITHMETIC_USED = 0.7, 0.4
STEP_OVERHEAD_MS, FIRST_TOKEN_OVERHEAD_MS = 1.5, 8.0
PROMPT_TOKENS = 512
"""Prompt of the first-token time: about the median of the Azure and ServeGen chat traces."""
TOKENS_PER_REQUEST = 1_500
TPOT_AIM_MS = 40.0
CONCURRENCY_MIN, CONCURRENCY_MAX = 8, 256
MEMORY_USED = 0.9
LOAD_MIB_S, START_S = 2_000.0, 40.0
BYTES_PER_PARAMETER = {"bf16": 2.0, "fp8": 1.0, "int4": 0.55}
QUALITY_LOST = {"bf16": 0.0, "fp8": 0.005, "int4": 0.02}

# Name here, row of specs/accelerators.csv, row of a price table, most accelerators of one replica.
_ACCELERATORS = (
    ("a100-80gb", "A100 SXM 80GB", "A100-80GB", 8),
    ("a10g", "A10G", "A10G", 4),
    ("b200", "B200", "B200", 8),
    ("h100", "H100 SXM", "H100", 8),
    ("h200", "H200 SXM", "H200", 8),
    ("l4", "L4", "L4", 4),
    ("l40s", "L40S", "L40S", 4),
    ("rtx-pro-6000", "RTX PRO 6000 Blackwell SE", "RTX PRO 6000", 4),
)
# Rows of specs/llm_architectures.csv in the order in which larger tiers take them up, and a quality
# between 0 and 1 (own estimate by size and age; only its order matters here).
_MODELS = (
    ("Llama-3.1-8B", 0.62),
    ("Qwen3-4B", 0.68),
    ("Qwen3-14B", 0.82),
    ("Llama-3.2-3B", 0.52),
    ("Qwen3-30B-A3B", 0.85),
    ("Qwen3-32B", 0.9),
    ("Llama-3.1-70B", 0.87),
    ("gpt-oss-20b", 0.84),
    ("Qwen3-8B", 0.76),
    ("Gemma-3-12B", 0.78),
    ("gpt-oss-120b", 0.96),
    ("Gemma-3-27B", 0.86),
    ("Qwen3-1.7B", 0.5),
    ("Mixtral-8x7B", 0.66),
    ("Qwen2.5-7B", 0.66),
    ("Qwen2.5-72B", 0.86),
    ("Phi-4-14B", 0.75),
    ("Qwen3-0.6B", 0.4),
    ("Qwen2.5-32B", 0.82),
    ("Qwen3-235B-A22B", 1.0),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Accelerator:
    """One accelerator type. Memory in MiB, bandwidth in bytes/s, arithmetic in FLOP/s."""

    name: str
    memory_mib: float
    bytes_per_s: float
    bf16_flops: float
    fp8_flops: float | None
    full_w: float
    idle_w: float
    rent_usd_per_h: float
    most_per_replica: int
    source: str


def accelerators(data: Path) -> tuple[Accelerator, ...]:
    """Eight types from L4 to B200; rent is the lowest listed on-demand price."""
    return tuple(
        _accelerator(data, name=name, spec=spec, priced_as=priced_as, most=most)
        for name, spec, priced_as, most in _ACCELERATORS
    )


def _accelerator(data: Path, *, name: str, spec: str, priced_as: str, most: int) -> Accelerator:
    row = one(data, "specs/accelerators.csv", column="accelerator", value=spec)
    tdp_w = float(row["tdp_w"])
    prices = [
        float(price["usd_per_accel_h"])
        for table in ("aws_accelerator_instances.csv", "other_clouds_accelerators.csv")
        for price in rows(data, f"prices/{table}")
        if price["accelerator"] == priced_as and price["usd_per_accel_h"]
    ]
    return Accelerator(
        name=name,
        memory_mib=float(row["mem_gb"]) * 1e9 / MIB,
        bytes_per_s=float(row["mem_bw_gb_s"]) * 1e9,
        bf16_flops=float(row["bf16_tflops"]) * 1e12,
        fp8_flops=float(row["fp8_tflops"]) * 1e12 if row["fp8_tflops"] else None,
        full_w=tdp_w * FULL_PART + HOST_W,
        idle_w=tdp_w * IDLE_PART + HOST_W,
        rent_usd_per_h=min(prices),
        most_per_replica=most,
        source=f"{row['source']}; lowest listed rent of {priced_as}",
    )


def catalog(data: Path, *, models: int, types: tuple[Accelerator, ...]) -> Catalog:
    """`models` models, each bf16 and int4, and fp8 for two of three; points wherever they fit.

    Beyond the architectures listed, fine-tunes of them are taken: the same shape, other weights.
    """
    made: list[Model] = []
    variants: list[Variant] = []
    points: list[ServingPoint] = []
    for at in range(models):
        name, quality = _MODELS[at % len(_MODELS)]
        row = one(data, "specs/llm_architectures.csv", column="model", value=name)
        tune = at // len(_MODELS)
        model = Model(
            model_id=name.lower() + (f".tune{tune}" if tune else ""),
            parameters_b=float(row["params_b_computed"]),
            context_tokens=int(row["context"]),
            source=row["source"],
        )
        made.append(model)
        for precision in BYTES_PER_PARAMETER:
            if precision == "fp8" and at % 3 == 2:
                continue
            variant = _variant(model, row, precision=precision, quality=quality)
            variants.append(variant)
            share = float(row["active_params_b_computed"]) / model.parameters_b
            for accelerator in types:
                points += _points(variant, model, accelerator, active_part=share)
    return Catalog(models=tuple(made), variants=tuple(variants), serving_points=tuple(points))


def _variant(model: Model, row: dict[str, str], *, precision: str, quality: float) -> Variant:
    size = BYTES_PER_PARAMETER[precision]
    return Variant(
        variant_id=f"{model.model_id}-{precision}",
        model_id=model.model_id,
        precision=precision,
        weights_mib=model.parameters_b * 1e9 * size / MIB,
        kv_bytes_per_token=float(row["kv_bytes_per_token_fp16"]),
        quality=round(quality - QUALITY_LOST[precision], 4),
        source=f"weights: parameters x {size:g} bytes; cache: layers and heads at 16 bit",
    )


def _points(
    variant: Variant, model: Model, accelerator: Accelerator, *, active_part: float
) -> Iterator[ServingPoint]:
    """The smallest replica that fits, and one twice as large where the first token is slow."""
    if variant.precision == "fp8" and accelerator.fp8_flops is None:
        return
    found = 0
    for n in (1, 2, 4, 8):
        if n > accelerator.most_per_replica:
            return
        point = _point(variant, model, accelerator, n=n, active_part=active_part)
        if point is None:
            continue
        yield point
        found += 1
        if found == 2 or point.ttft_ms < 100:
            return


def _point(
    variant: Variant, model: Model, accelerator: Accelerator, *, n: int, active_part: float
) -> ServingPoint | None:
    """Roofline: a decode step reads weights once and every request's cache, or computes; a prefill
    computes. None where fewer than the least number of requests fit or a step is too slow.
    """
    room_mib = n * accelerator.memory_mib * MEMORY_USED - variant.weights_mib
    cache_mib = variant.kv_bytes_per_token * TOKENS_PER_REQUEST / MIB
    together = 0.92 ** (n.bit_length() - 1)
    bytes_per_s = n * accelerator.bytes_per_s * BANDWIDTH_USED * together
    native = accelerator.fp8_flops if variant.precision == "fp8" else None
    flops = n * (native or accelerator.bf16_flops) * ARITHMETIC_USED * together
    token_flop = 2e9 * model.parameters_b * active_part

    def step_ms(requests: int) -> float:
        touched = 1 - (1 - active_part) ** requests if active_part < 1 else 1.0
        read = (variant.weights_mib * touched + requests * cache_mib) * MIB / bytes_per_s
        return STEP_OVERHEAD_MS + 1_000 * max(read, requests * token_flop / flops)

    sizes = [
        c
        for c in (CONCURRENCY_MIN << k for k in range(6))
        if c * cache_mib <= room_mib and c <= CONCURRENCY_MAX and step_ms(c) <= TPOT_AIM_MS
    ]
    if not sizes:
        return None
    prefill_tok_s = flops / token_flop
    step = step_ms(sizes[-1])
    return ServingPoint(
        variant_id=variant.variant_id,
        accelerator=accelerator.name,
        accelerators_per_replica=n,
        decode_tok_s=sizes[-1] / step * 1_000,
        prefill_tok_s=prefill_tok_s,
        ttft_ms=FIRST_TOKEN_OVERHEAD_MS + step / 2 + PROMPT_TOKENS / prefill_tok_s * 1_000,
        tpot_ms=step,
        concurrency=sizes[-1],
        idle_w=n * accelerator.idle_w,
        full_w=n * accelerator.full_w,
        memory_mib=(variant.weights_mib + sizes[-1] * cache_mib) / n,
        start_ms=1_000 * (START_S + variant.weights_mib / LOAD_MIB_S),
        estimated=True,
        source="roofline of the benchmark tiers",
    )
