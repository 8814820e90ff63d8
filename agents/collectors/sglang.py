"""SGLang's server: names of its metrics. Pure."""

from __future__ import annotations

from agents.collectors.prometheus import ServerMetrics, metrics_of


def read(text: str) -> ServerMetrics | None:
    """The server's numbers from its ``/metrics`` page; None if the page is another server's."""
    return metrics_of(
        text,
        running="sglang:num_running_reqs",
        queued="sglang:num_queue_reqs",
        tokens_out_total="sglang:generation_tokens_total",
    )
