"""trtllm-serve: names of its metrics. Pure."""

from __future__ import annotations

from agents.collectors.prometheus import ServerMetrics, metrics_of


def read(text: str) -> ServerMetrics | None:
    """The server's numbers from its ``/metrics`` page; None if the page is another server's.

    It publishes no counter of output tokens that we know of, so that number stays 0.
    """
    return metrics_of(
        text,
        running="trtllm_num_requests_running",
        queued="trtllm_num_requests_waiting",
        tokens_out_total="",
    )
