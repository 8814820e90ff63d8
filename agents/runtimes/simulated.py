"""A stand-in server that keeps a serving point's pace: for fleets whose hardware is not here.

Decides nothing; the pace is the serving point's, the pretending is `simulated_server`'s.
"""

from __future__ import annotations

import sys

from agents.collectors import vllm
from agents.collectors.prometheus import ServerMetrics
from agents.runtimes.base import Launch
from sites.assignment import GroupTarget


class SimulatedRuntime:
    """Serves made-up text at the serving point's TTFT, tok/s and concurrency.

    `speed` divides every time (10 = ten times as fast as the serving point says).
    """

    def __init__(self, *, speed: float = 1.0) -> None:
        assert speed > 0
        self._speed = speed

    @property
    def name(self) -> str:
        return "simulated"

    def launch(self, target: GroupTarget, *, host: str, port: int) -> Launch:
        """See `Runtime`."""
        point = target.point
        settings = {
            "--host": host,
            "--port": str(port),
            "--variant": point.variant_id,
            "--ttft-ms": repr(point.ttft_ms / self._speed),
            "--tpot-ms": repr(point.tpot_ms / self._speed),
            "--decode-tok-s": repr(point.decode_tok_s * self._speed),
            "--concurrency": str(point.concurrency),
            "--start-ms": repr(point.start_ms / self._speed),
        }
        flags = (part for pair in settings.items() for part in pair)
        return Launch(
            argv=(sys.executable, "-m", "agents.runtimes.simulated_server", *flags),
            health_path="/health",
            metrics_path="/metrics",
        )

    def read_metrics(self, text: str) -> ServerMetrics | None:
        """The simulated server speaks vLLM's names."""
        return vllm.read(text)

    def read_busy_slots(self, text: str) -> int | None:
        """It has no slots page."""
        del text
        return None
