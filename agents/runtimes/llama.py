"""llama.cpp's own server as a child process; serves GGUF files on this machine's processors.

Decides how a serving point becomes server settings. One thread serves one replica unless told
otherwise; slots follow the serving point's concurrency.
"""

from __future__ import annotations

import sys

from agents.collectors import llama_cpp
from agents.collectors.prometheus import ServerMetrics
from agents.runtimes.artifacts import locate
from agents.runtimes.base import Launch
from sites.assignment import GroupTarget

SLOTS_MAX = 8
CONTEXT_TOKENS_PER_SLOT = 2_048


class LlamaRuntime:
    """Real model serving without an accelerator."""

    def __init__(
        self, *, threads: int = 1, context_tokens_per_slot: int = CONTEXT_TOKENS_PER_SLOT
    ) -> None:
        self._threads = threads
        self._context_tokens_per_slot = context_tokens_per_slot

    @property
    def name(self) -> str:
        return "llama"

    def launch(self, target: GroupTarget, *, host: str, port: int) -> Launch:
        """See `Runtime`. The server's alias is the variant, so answers name what produced them."""
        slots = min(target.point.concurrency, SLOTS_MAX)
        settings = {
            "--model": str(locate(target.variant)),
            "--alias": target.variant.variant_id,
            "--host": host,
            "--port": str(port),
            "--threads": str(self._threads),
            "--slots": str(slots),
            "--context": str(slots * self._context_tokens_per_slot),
        }
        flags = (part for pair in settings.items() for part in pair)
        return Launch(
            argv=(sys.executable, "-m", "agents.runtimes.llama_server", *flags),
            health_path="/health",
            metrics_path="/metrics",
            slots_path="/slots",
        )

    def read_metrics(self, text: str) -> ServerMetrics | None:
        """llama.cpp's names."""
        return llama_cpp.read(text)

    def read_busy_slots(self, text: str) -> int | None:
        """llama.cpp's slots page."""
        return llama_cpp.busy_slots(text)
