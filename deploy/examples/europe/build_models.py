"""Model and Service documents: sizes from published architectures, serving points measured or
scaled from measured ones.

A point is measured where ML.ENERGY ran that model and precision on that accelerator; its decode
rate, token latency and draw are theirs. Otherwise it is the model's measured H100 point times the
measured ratio of the two accelerators on Llama-3-8B, and says so. Time to first token and start are
always estimates.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from campuses import ACCELERATORS, HOST_W
from tables import Row, Tables, best

Document = tuple[str, str, dict[str, Any]]

ITL_P99_LIMIT_MS = 100.0
TOKENS_PER_REQUEST = 2_000
MEMORY_USABLE = 0.9
RUNTIME_MIB = 1_500
CONCURRENCY_MIN = 8
PROMPT_TOKENS = 1_155
COMPUTE_USED = 0.4
PREFILL_WAITS = 3
IDLE_FRACTION = 0.15
LOAD_MIB_S = 2_000
START_S = 40
MIB = 2**20

BYTES_PER_PARAMETER = {"bf16": 2.0, "fp8": 1.0, "w4a16": 0.55, "mxfp4": 0.55}
QUALITY_LOSS = {"bf16": 0.0, "fp8": 0.005, "w4a16": 0.02, "mxfp4": 0.0}


@dataclass(frozen=True, kw_only=True)
class Published:
    """One model: its row of the architecture table, its name at ML.ENERGY, its variants."""

    model: str
    row: str
    measured: str
    task: str = "lm-arena-chat"
    precisions: tuple[str, ...] = ("bf16", "fp8")
    quality: float
    license: str = "Apache-2.0"


MODELS = (
    Published(model="gemma-3-12b", row="Gemma-3-12B", measured="google/gemma-3-12b-it",
              precisions=("bf16", "w4a16"), quality=0.78, license="Gemma"),
    Published(model="gemma-3-27b", row="Gemma-3-27B", measured="google/gemma-3-27b-it",
              precisions=("bf16", "w4a16"), quality=0.86, license="Gemma"),
    Published(model="gpt-oss-120b", row="gpt-oss-120b", measured="openai/gpt-oss-120b",
              task="gpqa", precisions=("mxfp4",), quality=0.96),
    Published(model="gpt-oss-20b", row="gpt-oss-20b", measured="openai/gpt-oss-20b",
              task="gpqa", precisions=("mxfp4",), quality=0.84),
    Published(model="llama-3.1-8b", row="Llama-3.1-8B", measured="meta-llama/Llama-3.1-8B-Instruct",
              precisions=("bf16", "fp8", "w4a16"), quality=0.62, license="Llama 3.1 Community"),
    Published(model="llama-3.3-70b", row="Llama-3.1-70B",
              measured="meta-llama/Llama-3.3-70B-Instruct", quality=0.88,
              license="Llama 3.3 Community"),
    Published(model="qwen3-14b", row="Qwen3-14B", measured="Qwen/Qwen3-14B", quality=0.86),
    Published(model="qwen3-235b-a22b", row="Qwen3-235B-A22B",
              measured="Qwen/Qwen3-235B-A22B-Instruct-2507", quality=1.0),
    Published(model="qwen3-30b-a3b", row="Qwen3-30B-A3B",
              measured="Qwen/Qwen3-30B-A3B-Instruct-2507", quality=0.88),
    Published(model="qwen3-32b", row="Qwen3-32B", measured="Qwen/Qwen3-32B", quality=0.92),
    Published(model="qwen3-8b", row="Qwen3-8B", measured="Qwen/Qwen3-8B", quality=0.78),
    Published(model="qwen3-coder-30b-a3b", row="Qwen3-30B-A3B",
              measured="Qwen/Qwen3-Coder-30B-A3B-Instruct", task="sourcegraph-fim", quality=0.85),
)  # fmt: skip

SERVICES = {
    "agent": ("gpt-oss-120b",),
    "assistant": ("qwen3-32b",),
    "chat": ("llama-3.3-70b",),
    "code": ("qwen3-coder-30b-a3b",),
    "draft": ("qwen3-8b", "gpt-oss-20b"),
    "extract": ("llama-3.1-8b",),
    "quick": ("qwen3-30b-a3b",),
    "reason": ("qwen3-235b-a22b",),
    "review": ("qwen3-14b",),
    "summarise": ("gemma-3-27b",),
    "translate": ("gemma-3-12b",),
}
"""Service -> models any of whose variants may answer."""

_ML_ENERGY = {"bf16": "bfloat16", "fp8": "fp8", "mxfp4": "mxfp4"}
_ACCELMARK = {
    "a100-80gb": "NVIDIA A100-SXM4-80GB",
    "h100": "NVIDIA H100 80GB HBM3",
    "h200": "NVIDIA H200",
    "l4": "NVIDIA L4",
    "rtx-6000-ada": "NVIDIA RTX 6000 Ada Generation",
}
_ACCELMARK_PRECISION = {"bf16": "BF16", "fp8": "FP8", "w4a16": "W4A16", "mxfp4": "W4A16"}
_PRECISION_LIKE = {"l4": "rtx-6000-ada", "l40s": "rtx-6000-ada", "mi300x": "h100", "b200": "h100"}
_REPLICA_SIZES = (1, 2, 4, 8)
_MOST = {"l4": 1, "l40s": 2, "rtx-6000-ada": 2}


@dataclass(frozen=True, kw_only=True)
class Load:
    """What one replica does at its chosen concurrency; draw of its accelerators alone."""

    accelerators: int
    decode_tok_s: float
    tpot_ms: float
    concurrency: int
    draw_w: float
    source: str
    estimated: bool


def variant_id(model: str, precision: str) -> str:
    """Name of a variant here."""
    return f"{model}-{precision}"


def services() -> Iterator[Document]:
    """One Service document per service."""
    for name, wanted in SERVICES.items():
        answering = [
            variant_id(one.model, precision)
            for one in MODELS
            if one.model in wanted
            for precision in one.precisions
        ]
        yield "Service", name, {"variants": answering}


def models(tables: Tables) -> Iterator[Document]:
    """One Model document per published model."""
    for one in MODELS:
        row = tables.one("specs/llm_architectures.csv", model=one.row)
        yield (
            "Model",
            one.model,
            {
                "parametersB": float(row["params_b_computed"]),
                "contextTokens": int(row["context"]),
                "license": one.license,
                "source": row["source"],
                "variants": [_variant(one, row, p) for p in one.precisions],
                "servingPoints": list(_points(tables, one, row)),
            },
        )


def _variant(one: Published, row: Row, precision: str) -> dict[str, Any]:
    size = BYTES_PER_PARAMETER[precision]
    return {
        "name": variant_id(one.model, precision),
        "precision": precision,
        "weights": f"{_weights_mib(row, precision):.0f} MiB",
        "cachePerToken": f"{float(row['kv_bytes_per_token_fp16']) / 1024:g} KiB/tok",
        "quality": round(one.quality - QUALITY_LOSS[precision], 3),
        "source": f"weights: parameters x {size:g} bytes; cache: layers and heads at 16 bit; "
        "quality: an estimate by public benchmarks",
    }


def _weights_mib(row: Row, precision: str) -> float:
    return float(row["params_b_computed"]) * 1e9 * BYTES_PER_PARAMETER[precision] / MIB


def _points(tables: Tables, one: Published, row: Row) -> Iterator[dict[str, Any]]:
    """Every measured point; beside them, per accelerator, the estimate of most output.

    A variant nobody measured that is nowhere best keeps its best estimate.
    """
    measured = [
        (precision, accelerator, load)
        for precision in one.precisions
        for accelerator, gpu in (("b200", "B200"), ("h100", "H100"))
        for load in _measured(tables, one, precision, gpu)
    ]
    estimates = [
        (precision, accelerator, load)
        for precision in one.precisions
        for accelerator in sorted(ACCELERATORS)
        for load in _scaled(tables, one, row, precision, accelerator)
        if (precision, accelerator) not in {known[:2] for known in measured}
    ]
    kept = measured + _most_productive(estimates)
    for precision in one.precisions:
        if all(precision != known[0] for known in kept):
            kept.append(max((e for e in estimates if e[0] == precision), key=_productivity))
    for precision, accelerator, load in sorted(kept, key=lambda k: (*k[:2], k[2].accelerators)):
        yield _point(
            tables,
            row,
            load,
            variant=variant_id(one.model, precision),
            precision=precision,
            accelerator=accelerator,
        )


def _productivity(estimate: tuple[str, str, Load]) -> float:
    return estimate[2].decode_tok_s / estimate[2].accelerators


def _most_productive(estimates: list[tuple[str, str, Load]]) -> list[tuple[str, str, Load]]:
    accelerators = sorted({accelerator for _, accelerator, _ in estimates})
    return [
        max((e for e in estimates if e[1] == accelerator), key=_productivity)
        for accelerator in accelerators
    ]


def _measured(tables: Tables, one: Published, precision: str, gpu: str) -> list[Load]:
    """Per replica size, the most output within the token latency limit."""
    suffix = "-FP8" if precision == "fp8" else ""
    rows = [
        row
        for row in tables.rows("perf/mlenergy_h100_b200.csv")
        if row["model"] == one.measured + suffix
        and row["task"] == one.task
        and row["gpu"] == gpu
        and row["precision"] == _ML_ENERGY.get(precision)
        and float(row["itl_p99_ms"]) <= ITL_P99_LIMIT_MS
    ]
    sizes = sorted({int(row["num_gpus"]) for row in rows})
    return [
        _load(
            best([r for r in rows if int(r["num_gpus"]) == n], lambda r: float(r["output_tok_s"]))
        )
        for n in sizes
    ]


def _load(row: Row) -> Load:
    return Load(
        accelerators=int(row["num_gpus"]),
        decode_tok_s=float(row["output_tok_s"]),
        tpot_ms=float(row["itl_p99_ms"]),
        concurrency=max(1, round(float(row["avg_batch"]))),
        draw_w=float(row["avg_power_w"]),
        source=f"measured: ML.ENERGY {row['task']} {row['model']} on {row['num_gpus']} "
        f"{row['gpu']}, batch {row['max_num_seqs']}",
        estimated=False,
    )


def _scaled(
    tables: Tables, one: Published, row: Row, precision: str, accelerator: str
) -> Iterator[Load]:
    """The model's H100 point, per accelerator, on another accelerator or at another precision."""
    bases = [
        (load, p)
        for p in (precision, "bf16", "fp8")
        if p in one.precisions
        for load in _measured(tables, one, p, "H100")
    ]
    if not bases:
        return
    base, base_precision = bases[0]
    speed, speed_source = _speed(tables, accelerator)
    gain = _gain(tables, accelerator, precision) / _gain(tables, accelerator, base_precision)
    for n in _REPLICA_SIZES:
        room = _room(tables, row, precision, accelerator, n)
        ideal = base.concurrency / base.accelerators * n * speed
        concurrency = int(min(ideal, room))
        if concurrency < CONCURRENCY_MIN or n > _MOST.get(accelerator, 8):
            continue
        watts = float(_spec(tables, accelerator)["tdp_w"]) / float(_spec(tables, "h100")["tdp_w"])
        full = base.decode_tok_s / base.accelerators * n * speed * gain
        yield Load(
            accelerators=n,
            decode_tok_s=full * min(1.0, concurrency / ideal),
            tpot_ms=base.tpot_ms / gain,
            concurrency=concurrency,
            draw_w=base.draw_w / base.accelerators * n * watts,
            source=f"estimate: {base.source.removeprefix('measured: ')}, x {speed:.2f} "
            f"({speed_source}), x {gain:.2f} for {precision} over {base_precision} (AccelMark C)",
            estimated=True,
        )
        return  # the smallest replica that fits; larger ones only add ways to place the same work


def _room(tables: Tables, row: Row, precision: str, accelerator: str, n: int) -> float:
    """Requests whose key-value cache fits beside the weights."""
    memory_mib = float(_spec(tables, accelerator)["mem_gb"]) * 1e9 / MIB
    left_mib = n * (memory_mib * MEMORY_USABLE - RUNTIME_MIB) - _weights_mib(row, precision)
    return left_mib / _cache_mib(row)


def _cache_mib(row: Row) -> float:
    return float(row["kv_bytes_per_token_fp16"]) * TOKENS_PER_REQUEST / MIB


def _spec(tables: Tables, accelerator: str) -> Row:
    return tables.one("specs/accelerators.csv", accelerator=ACCELERATORS[accelerator])


def _accelmark(tables: Tables, accelerator: str, precision: str, suite: str) -> float | None:
    found = [
        float(row["output_tok_s"])
        for row in tables.rows("perf/accelmark_offline.csv")
        if row["accelerator"] == _ACCELMARK.get(accelerator)
        and row["count"] == "1"
        and row["suite"] == suite
        and row["precision"] == precision
    ]
    return sum(found) / len(found) if found else None


def _speed(tables: Tables, accelerator: str) -> tuple[float, str]:
    """Throughput of an accelerator over an H100's on an 8B model, and where the ratio is from."""
    here = _accelmark(tables, accelerator, "BF16", "A")
    reference = _accelmark(tables, "h100", "BF16", "A")
    if here and reference:
        return here / reference, "AccelMark A over H100"
    if accelerator == "l40s":
        table = "perf/edge_small_tables.csv"
        mine = tables.one(table, accelerator="L40S", concurrency="32")
        theirs = tables.one(table, accelerator="H100", concurrency="32")
        return float(mine["output_tok_s"]) / float(theirs["output_tok_s"]), "Koyeb over H100"
    if accelerator == "mi300x":
        wanted = {"model": "meta-llama/Meta-Llama-3-8B", "count": "1", "framework": "vLLM"}
        wanted |= {"in_out_tokens": "1024", "batch": "16"}
        table = "perf/argonne_llm_inference_bench.csv"
        mine = tables.one(table, accelerator="AMD MI300X GPU", **wanted)
        theirs = tables.one(table, accelerator="Nvidia H100 GPU", **wanted)
        return float(mine["output_tok_s"]) / float(theirs["output_tok_s"]), "Argonne over H100"
    ratio = float(_spec(tables, accelerator)["mem_bw_gb_s"]) / float(
        _spec(tables, "h100")["mem_bw_gb_s"]
    )
    return ratio, "memory bandwidth over H100"


def _gain(tables: Tables, accelerator: str, precision: str) -> float:
    """Throughput at a precision over 16 bit, measured on an 8B model on the like accelerator."""
    like = _PRECISION_LIKE.get(accelerator, accelerator)
    plain = _accelmark(tables, like, "BF16", "C")
    other = _accelmark(tables, like, _ACCELMARK_PRECISION[precision], "C")
    return other / plain if plain and other else 1.0


def _point(
    tables: Tables, row: Row, load: Load, *, variant: str, precision: str, accelerator: str
) -> dict[str, Any]:
    spec = _spec(tables, accelerator)
    n = load.accelerators
    work_flop = 2 * float(row["active_params_b_computed"]) * 1e9 * PROMPT_TOKENS
    prefill_ms = work_flop / (n * float(spec["bf16_tflops"]) * 1e12 * COMPUTE_USED) * 1_000
    weights_mib = _weights_mib(row, precision)
    cache_mib = min(load.concurrency, _room(tables, row, precision, accelerator, n)) * _cache_mib(
        row
    )
    return {
        "variant": variant,
        "accelerator": accelerator,
        "acceleratorsPerReplica": n,
        "decode": f"{load.decode_tok_s:.0f} tok/s",
        "ttft": f"{40 + PREFILL_WAITS * prefill_ms:.0f} ms",
        "tpot": f"{load.tpot_ms:.1f} ms",
        "concurrency": load.concurrency,
        "idlePower": f"{n * (IDLE_FRACTION * float(spec['tdp_w']) + HOST_W):.0f} W",
        "fullPower": f"{load.draw_w + n * HOST_W:.0f} W",
        "memory": f"{(weights_mib + max(0.0, cache_mib)) / n + RUNTIME_MIB:.0f} MiB",
        "startTime": f"{START_S + weights_mib / LOAD_MIB_S:.0f} s",
        "estimated": True if load.estimated else None,
        "source": load.source,
    }
