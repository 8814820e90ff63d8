"""A page of unknown origin: asks each server family in turn. Pure."""

from __future__ import annotations

from agents.collectors import llama_cpp, sglang, trtllm, vllm
from agents.collectors.prometheus import ServerMetrics

FAMILIES = (llama_cpp.read, vllm.read, sglang.read, trtllm.read)


def read(text: str) -> ServerMetrics | None:
    """The numbers of whichever family the page belongs to; None if of none."""
    for family in FAMILIES:
        metrics = family(text)
        if metrics is not None:
            return metrics
    return None
