"""The part of the Prometheus text format that model servers' gauges and counters need. Pure."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

SAMPLES_MAX = 20_000
"""Lines of one page read at most; the rest is ignored."""

_SAMPLE = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{.*\})?\s+(\S+)(?:\s+\S+)?\s*\Z")


@dataclass(frozen=True, kw_only=True, slots=True)
class ServerMetrics:
    """One model server now: requests running and waiting, output tokens since it started."""

    running: int = 0
    queued: int = 0
    tokens_out_total: int = 0


def parse(text: str) -> dict[str, float]:
    """Metric name -> sum over its label sets; lines that are no samples, NaN and Inf are left out.

    Summing suits what is read here: counts of requests and tokens.
    """
    totals: dict[str, float] = {}
    for line in text.splitlines()[:SAMPLES_MAX]:
        match = None if line.startswith("#") else _SAMPLE.match(line)
        if match is None:
            continue
        try:
            value = float(match[2])
        except ValueError:
            continue
        if math.isfinite(value):
            totals[match[1]] = totals.get(match[1], 0.0) + value
    return totals


def metrics_of(
    text: str, *, running: str, queued: str, tokens_out_total: str
) -> ServerMetrics | None:
    """The numbers under a server family's three names; None if none of them is on the page."""
    totals = parse(text)
    if not {running, queued, tokens_out_total} & totals.keys():
        return None
    return ServerMetrics(
        running=max(0, round(totals.get(running, 0.0))),
        queued=max(0, round(totals.get(queued, 0.0))),
        tokens_out_total=max(0, round(totals.get(tokens_out_total, 0.0))),
    )
