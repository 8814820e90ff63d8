"""Serving points in the words of a fleet file: one Model document per model, ready to be loaded.

Decides the form only. What nobody measured is said so: quality is 1 until its owner states it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from optimizer.serving.library import Library
from optimizer.serving.specs import KV_BYTES, weights_mib
from sites.catalog import ServingPoint
from sites.units import MS_PER_S

API_VERSION = "hinterland/v1"
QUALITY_UNKNOWN = "quality is not measured here: state your own score"


def variant_name(model: str, precision: str) -> str:
    """How a variant is named where nobody named it."""
    return f"{model}-{precision}"


def model_documents(
    points: Iterable[tuple[str, str, ServingPoint]], library: Library
) -> tuple[dict[str, Any], ...]:
    """Model documents of (model, precision, point) triples, sorted by model."""
    found: dict[str, list[tuple[str, ServingPoint]]] = {}
    for model, precision, point in points:
        found.setdefault(model, []).append((precision, point))
    return tuple(_document(model, known, library) for model, known in sorted(found.items()))


def _document(
    model: str, points: list[tuple[str, ServingPoint]], library: Library
) -> dict[str, Any]:
    shape = library.models[model]
    variants = {point.variant_id: precision for precision, point in points}
    return {
        "apiVersion": API_VERSION,
        "kind": "Model",
        "metadata": {"name": model},
        "spec": {
            "parametersB": shape.parameters_b,
            "contextTokens": shape.context_tokens,
            "source": shape.source,
            "variants": [
                {
                    "name": name,
                    "precision": precision,
                    "weights": f"{weights_mib(shape, precision):.0f} MiB",
                    "cachePerToken": f"{shape.kv_elements_per_token * KV_BYTES:g} B/tok",
                    "quality": 1.0,
                    "source": QUALITY_UNKNOWN,
                }
                for name, precision in sorted(variants.items())
            ],
            "servingPoints": [
                _point(point) for _, point in sorted(points, key=lambda p: p[1].point_id)
            ],
        },
    }


def _point(point: ServingPoint) -> Mapping[str, Any]:
    prefill = {} if point.prefill_tok_s is None else {"prefill": f"{point.prefill_tok_s:g} tok/s"}
    return {
        "variant": point.variant_id,
        "accelerator": point.accelerator,
        "acceleratorsPerReplica": point.accelerators_per_replica,
        "decode": f"{point.decode_tok_s:g} tok/s",
        **prefill,
        "ttft": f"{point.ttft_ms:g} ms",
        "tpot": f"{point.tpot_ms:g} ms",
        "concurrency": point.concurrency,
        "idlePower": f"{point.idle_w:g} W",
        "fullPower": f"{point.full_w:g} W",
        "memory": f"{point.memory_mib:.0f} MiB",
        "percentile": point.percentile,
        "startTime": f"{point.start_ms / MS_PER_S:g} s",
        "estimated": point.estimated,
        "source": point.source,
    }
