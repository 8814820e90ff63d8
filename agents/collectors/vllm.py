"""vLLM's server: names of its metrics. Pure."""

from __future__ import annotations

from agents.collectors.prometheus import ServerMetrics, metrics_of


def read(text: str) -> ServerMetrics | None:
    """The server's numbers from its ``/metrics`` page; None if the page is another server's."""
    return metrics_of(
        text,
        running="vllm:num_requests_running",
        queued="vllm:num_requests_waiting",
        tokens_out_total="vllm:generation_tokens_total",
    )
