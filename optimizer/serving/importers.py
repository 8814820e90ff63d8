"""Each published table's columns in the words of a `Measurement`.

Decides what a column means: units, what runs together, what was measured and what only offered.
Assumed figures stand here as constants, each with its reason. Reading cells is `table`'s, names
are `names`'.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from optimizer.serving.measurement import Measurement
from optimizer.serving.names import accelerator_name, framework_name, model_name, precision_name
from optimizer.serving.table import Row
from sites.units import MS_PER_S


class Suite(NamedTuple):
    """What an AccelMark suite sends: mean tokens of a request, and requests in a run."""

    input_tokens: float
    output_tokens: float
    queued: float
    sent: float


_USUAL = Suite(265.0, 350.0, queued=100.0, sent=300.0)
ACCELMARK_SUITES = {
    "B": _USUAL._replace(sent=200.0),
    "D": Suite(28_640.0, 256.0, queued=50.0, sent=200.0),
    "E": _USUAL._replace(queued=150.0),
    "F": Suite(103.0, 210.0, queued=200.0, sent=300.0),
}
"""Suites that differ from the usual (A, C, G). Requests after the suites' suite.json (AccelMark at
commit 5797fc4): offline runs queue `queued` at once whatever their concurrency column says, online
runs send `sent`. Mean output: rate x elapsed / requests of the offline runs; input: that times
total over output rate less 1."""

ML_ENERGY_INPUT_TOKENS = {"lm-arena-chat": 150.0, "gpqa": 250.0, "sourcegraph-fim": 2_500.0}
"""ML.ENERGY's tables leave input lengths out; assumed from the kind of task."""

HELIX_LAYERS = {"llama1_30b": 60, "llama2_70b": 80}
HELIX_CONTEXT_TOKENS = 763.0
"""Mean input tokens of the requests Helix simulates; its table leaves the context out."""

EDGE_TOKENS = (128.0, 128.0)
"""Assumed where the small tables leave lengths blank."""

_PERCENTILES = (50.0, 90.0, 99.0)


def _suite(row: Row) -> Suite:
    return ACCELMARK_SUITES.get(row.cells.get("suite", "").strip(), _USUAL)


def _accelmark(row: Row) -> dict[str, object]:
    chips = row.count("tp") * row.count("pp")
    suite = _suite(row)
    year = row.text("date")[:4]
    return {
        "source": f"AccelMark {row.text('run')}",
        "accelerator": accelerator_name(row.text("accelerator")),
        "accelerators": chips,
        "model": model_name(row.text("model")),
        "precision": precision_name(row.text("precision")),
        "framework": framework_name(
            row.text("framework"), year=year, version=row.cells.get("framework_version", "")
        ),
        "input_tokens": suite.input_tokens,
        "output_tokens": suite.output_tokens,
    }


def accelmark_offline(row: Row) -> Iterator[Measurement]:
    """Saturated throughput of queued requests. `count` is chips in the box, tp x pp used.

    Concurrency repeats of a run differ only by noise; each is a measurement. Runs of W4A16 name
    vLLM's plain GPTQ kernel, where served ones leave vLLM its faster choice (AccelMark's runners
    and suite C): another engine, so that neither speaks for the other.
    """
    common = _accelmark(row)
    if common["precision"] == "w4a16":
        common["framework"] = f"gptq-{common['framework']}"
    yield Measurement(
        table="accelmark-offline",
        concurrency=_suite(row).queued,
        output_tok_s=row.number("output_tok_s"),
        power_w=row.maybe("power_w_avg"),
        **common,  # type: ignore[arg-type]
    )


def accelmark_online(row: Row) -> Iterator[Measurement]:
    """Times at an offered rate that the server kept up with; overload rows are left out.

    Requests at once follow from rate, times and the requests of the run (`_met`). They hold the
    measured TPOT: an error of such a row is that of a time at a known batch, not at a known rate.
    """
    common = _accelmark(row)
    rate_rps = row.number("achieved_qps")
    median_tpot_ms, median_ttft_ms = row.number("tpot_ms_p50"), row.number("ttft_ms_p50")
    kept = row.cells.get("sla_met", "").strip().lower()
    if kept not in ("true", "false"):
        row.fault("sla_met", f"{kept[:40]!r} is neither True nor False")
    if kept != "true":
        return
    suite = _suite(row)
    life_s = (median_ttft_ms + suite.output_tokens * median_tpot_ms) / MS_PER_S
    busy = _met(rate_rps=rate_rps, life_s=life_s, requests=suite.sent)
    for percentile in _PERCENTILES:
        yield Measurement(
            table="accelmark-online",
            concurrency=max(1.0, busy),
            ttft_ms=row.number(f"ttft_ms_p{percentile:g}"),
            tpot_ms=row.number(f"tpot_ms_p{percentile:g}"),
            percentile=percentile,
            **common,  # type: ignore[arg-type]
        )


def _met(*, rate_rps: float, life_s: float, requests: float) -> float:
    """Requests at once that a request of a finite run meets, averaged over its life and the run.

    Little's law, rate x life, holds for a run without end. One of `requests` arrivals within
    ``span = requests / rate`` fills for the shorter of span and life, stays full, and empties as
    long: the mean of n(t) weighed by n(t) over that trapezium is
    ``rate x shorter x (1 - shorter / (3 x longer))``.
    """
    span_s = requests / rate_rps
    shorter_s, longer_s = sorted((span_s, life_s))
    return rate_rps * shorter_s * (1 - shorter_s / (3 * longer_s))


def accelmark_interactive(row: Row) -> Iterator[Measurement]:
    """Times of one request at a time."""
    common = _accelmark(row)
    for percentile in _PERCENTILES:
        yield Measurement(
            table="accelmark-interactive",
            concurrency=1.0,
            ttft_ms=row.number(f"ttft_ms_p{percentile:g}"),
            tpot_ms=row.number(f"tpot_ms_p{percentile:g}"),
            percentile=percentile,
            **common,  # type: ignore[arg-type]
        )


def accelmark_sustained(row: Row) -> Iterator[Measurement]:
    """Throughput held for 15 to 30 minutes with `concurrency` requests at once."""
    yield Measurement(
        table="accelmark-sustained",
        concurrency=row.number("concurrency"),
        output_tok_s=row.number("output_tok_s"),
        **_accelmark(row),  # type: ignore[arg-type]
    )


def ml_energy(row: Row) -> Iterator[Measurement]:
    """Steady state at a mean batch. Its token latencies are per token, so the mean time per output
    token of a request is taken as batch over throughput."""
    task = row.text("task")
    yield Measurement(
        table="ml-energy",
        source=f"ML.ENERGY {task} {row.text('model')}, batch limit {row.count('max_num_seqs')}",
        accelerator=accelerator_name(row.text("gpu")),
        accelerators=row.count("num_gpus"),
        model=model_name(row.text("model")),
        precision=precision_name(row.text("precision")),
        framework=framework_name("vllm", year="2025"),
        input_tokens=ML_ENERGY_INPUT_TOKENS.get(task, 500.0),
        output_tokens=row.number("avg_output_tokens"),
        concurrency=row.number("avg_batch"),
        output_tok_s=row.number("output_tok_s"),
        power_w=row.maybe("avg_power_w"),
        energy_j_per_token=row.maybe("energy_j_per_output_token"),
    )


def _argonne(row: Row, table: str) -> dict[str, object]:
    return {
        "table": table,
        "source": f"Argonne LLM-Inference-Bench {row.text('framework')} {row.text('model')}",
        "accelerator": accelerator_name(row.text("accelerator")),
        "accelerators": row.count("count"),
        "model": model_name(row.text("model")),
        "precision": "bf16",
        "framework": framework_name(row.text("framework"), year="2024"),
        "concurrency": row.number("batch"),
    }


def argonne(row: Row) -> Iterator[Measurement]:
    """One batch run to its end: throughput over prefill and decode; input and output equal."""
    tokens = row.number("in_out_tokens")
    yield Measurement(
        input_tokens=tokens,
        output_tokens=tokens,
        output_tok_s=row.number("output_tok_s"),
        **_argonne(row, "argonne"),  # type: ignore[arg-type]
    )


def argonne_power(row: Row) -> Iterator[Measurement]:
    """Mean draw over such a batch; its rate counts input and output, so half is output."""
    tokens = row.number("in_out_tokens")
    output_tok_s = row.number("total_tok_s") / 2
    power_w = row.number("avg_power_w")
    yield Measurement(
        input_tokens=tokens,
        output_tokens=tokens,
        output_tok_s=output_tok_s,
        power_w=power_w,
        energy_j_per_token=power_w / output_tok_s,
        **_argonne(row, "argonne-power"),  # type: ignore[arg-type]
    )


def argonne_ttft(row: Row) -> Iterator[Measurement]:
    """Time to first token of a whole batch started at once."""
    yield Measurement(
        input_tokens=row.number("input_tokens"),
        output_tokens=row.number("output_tokens"),
        ttft_ms=row.number("ttft_s") * MS_PER_S,
        prefill_batch=row.number("batch"),
        **_argonne(row, "argonne-ttft"),  # type: ignore[arg-type]
    )


def splitwise(row: Row) -> Iterator[Measurement]:
    """Prompt time of a batch started together, and its time per later token; 16-bit weights."""
    where = row.text("source")
    year = "2024" if where == "SageServe" else "2023"
    batch = row.number("batch_size")
    yield Measurement(
        table="splitwise",
        source=f"{where} {row.text('model')} tp {row.count('tensor_parallel')}",
        accelerator=accelerator_name(row.text("hardware")),
        accelerators=row.count("tensor_parallel"),
        model=model_name(row.text("model")),
        precision="bf16",
        framework=framework_name(where, year=year),
        input_tokens=row.number("prompt_size"),
        output_tokens=row.number("token_size"),
        concurrency=batch,
        ttft_ms=row.number("prompt_ms"),
        tpot_ms=row.number("token_ms"),
        decode_only=True,
        prefill_batch=batch,
    )


def helix(row: Row) -> Iterator[Measurement]:
    """Time per layer x layers: of a prompt of so many tokens, or of a step of so many sequences."""
    model, phase = row.text("model"), row.text("phase")
    name, _, count = row.text("accelerator").partition("x")
    if model not in HELIX_LAYERS:
        row.fault("model", f"{model[:40]!r} has no known number of layers; name llama1_30b, ...")
    if phase not in ("prompt", "decode"):
        row.fault("phase", f"{phase[:40]!r} is neither prompt nor decode")
    if count and not count.isdigit():
        row.fault("accelerator", f"{name[:40]}x{count[:40]} names no number of accelerators")
    whole_ms = row.number("ms_per_layer") * HELIX_LAYERS.get(model, 1)
    tokens = row.number("tokens")
    prompt = phase == "prompt"
    yield Measurement(
        table="helix",
        source=f"Helix {model} {phase}",
        accelerator="a100-40gb" if name == "a100" else accelerator_name(name),
        accelerators=max(1, int(count)) if count.isdigit() else 1,
        model=model_name(model),
        precision="bf16",
        framework=framework_name("helix", year="2024"),
        input_tokens=tokens if prompt else HELIX_CONTEXT_TOKENS,
        output_tokens=1.0,
        concurrency=1.0 if prompt else tokens,
        ttft_ms=whole_ms if prompt else None,
        tpot_ms=None if prompt else whole_ms,
        decode_only=True,
    )


def trtllm_throughput(row: Row) -> Iterator[Measurement]:
    """NVIDIA's own most output without a latency bound, per accelerator; the batch is blank.

    The A100 table of 2023 does not say whether it counts the whole replica: rows of more than one
    A100 are left out.
    """
    count = row.count("num_gpus")
    accelerator, source = row.text("accelerator"), row.text("source")
    year = "2023" if "performance.md" in source else "2025"
    per_accelerator = row.number("output_tok_s_per_gpu")
    model, precision = row.text("model"), row.text("precision")
    lengths = row.number("input_tokens"), row.number("output_tokens")
    batch = row.maybe("batch")
    if accelerator == "A100" and count > 1:
        return
    yield Measurement(
        table="trtllm-throughput",
        source=f"TensorRT-LLM {source.removeprefix('trtllm ')} {model} {row.text('parallelism')}",
        accelerator=accelerator_name(accelerator),
        accelerators=count,
        model=model_name(model),
        precision=precision_name(precision),
        framework=framework_name("tensorrt-llm", year=year),
        input_tokens=lengths[0],
        output_tokens=lengths[1],
        concurrency=batch,
        output_tok_s=per_accelerator * count,
    )


def trtllm_first_token(row: Row) -> Iterator[Measurement]:
    """First-token time of one request alone."""
    model = row.text("model")
    yield Measurement(
        table="trtllm-first-token",
        source=f"TensorRT-LLM performance.md {model}",
        accelerator=accelerator_name(row.text("accelerator")),
        accelerators=row.count("tp"),
        model=model_name(model),
        precision=precision_name(row.text("precision")),
        framework=framework_name("tensorrt-llm", year="2023"),
        input_tokens=row.number("input_tokens"),
        output_tokens=1.0,
        concurrency=1.0,
        ttft_ms=row.number("ttft_ms_batch1"),
    )


def _under_way(row: Row, *, output_tokens: float) -> float:
    """Requests at once: the users, or fewer where rate and times show that some waited.

    Little's law: requests per second x (TTFT + output tokens x token latency).
    """
    users, rate_tok_s = row.number("concurrency"), row.number("output_tok_s")
    token_ms = row.maybe("itl_ms")
    if token_ms is None:
        return users
    life_ms = (row.maybe("ttft_ms") or 0.0) + output_tokens * token_ms
    return min(users, rate_tok_s / output_tokens * life_ms / MS_PER_S)


def edge(row: Row) -> Iterator[Measurement]:
    """Small tables from several places; `output_tok_s` counts all users together."""
    tokens_in, tokens_out = row.maybe("input_tokens"), row.maybe("output_tokens")
    model, _, _ = row.text("model").partition(" (")
    yield Measurement(
        table="edge",
        source=row.text("source").strip('"')[:120],
        accelerator=accelerator_name(row.text("accelerator")),
        accelerators=1,
        model=model_name(model),
        precision=precision_name(row.text("precision")),
        framework=framework_name(row.text("framework"), year="2024"),
        input_tokens=EDGE_TOKENS[0] if tokens_in is None else tokens_in,
        output_tokens=EDGE_TOKENS[1] if tokens_out is None else tokens_out,
        concurrency=_under_way(
            row, output_tokens=EDGE_TOKENS[1] if tokens_out is None else tokens_out
        ),
        output_tok_s=row.number("output_tok_s"),
        ttft_ms=row.maybe("ttft_ms"),
        tpot_ms=row.maybe("itl_ms"),
    )
