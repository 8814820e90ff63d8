"""llama.cpp's server: names of its metrics, and its slots as a second opinion. Pure."""

from __future__ import annotations

import json

from agents.collectors.prometheus import ServerMetrics, metrics_of


def read(text: str) -> ServerMetrics | None:
    """The server's numbers from its ``/metrics`` page; None if the page is another server's."""
    return metrics_of(
        text,
        running="llamacpp:requests_processing",
        queued="llamacpp:requests_deferred",
        tokens_out_total="llamacpp:tokens_predicted_total",
    )


def busy_slots(text: str) -> int | None:
    """Slots at work from the ``/slots`` page; None if it is not such a page.

    The ``requests_processing`` gauge is refreshed between decode calls; slots show a request as
    soon as it is taken, so a drain asks both.
    """
    try:
        slots = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(slots, list) or not all(isinstance(s, dict) for s in slots):
        return None
    return sum(1 for slot in slots if slot.get("is_processing") is True)
