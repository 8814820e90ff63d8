"""Any OpenAI-compatible server by its command line: vLLM, SGLang, trtllm-serve, a script.

Decides how a template becomes an argument list; no shell is involved.
"""

from __future__ import annotations

import shlex
import string

from agents.collectors import any_server
from agents.collectors.prometheus import ServerMetrics
from agents.runtimes.artifacts import locate
from agents.runtimes.base import Launch
from sites.assignment import GroupTarget
from sites.errors import FatalError

PLACEHOLDERS = frozenset(
    {"host", "port", "model", "variant", "accelerator", "accelerators", "concurrency"}
)


class CommandRuntime:
    """A server command with ``{placeholders}``.

    ``{model}`` is the located file for ``package:`` and ``file:`` artifacts, else the artifact with
    its scheme cut off (``hf:org/name`` -> ``org/name``). Raises FatalError for a template that does
    not parse, names an unknown placeholder or lacks ``{port}``.
    """

    def __init__(
        self, template: str, *, health_path: str = "/health", metrics_path: str = "/metrics"
    ) -> None:
        try:
            self._words = tuple(shlex.split(template))
            names = {n for w in self._words for _, n, _, _ in string.Formatter().parse(w) if n}
        except ValueError as fault:
            raise FatalError(f"--command {template!r}: {fault}") from fault
        unknown = sorted(names - PLACEHOLDERS)
        if unknown or "port" not in names:
            wrong = f"unknown {{{unknown[0]}}}" if unknown else "no {port}"
            raise FatalError(
                f"--command {template!r}: {wrong}; placeholders are "
                + " ".join(f"{{{p}}}" for p in sorted(PLACEHOLDERS))
            )
        self._health_path = health_path
        self._metrics_path = metrics_path

    @property
    def name(self) -> str:
        return "command"

    def launch(self, target: GroupTarget, *, host: str, port: int) -> Launch:
        """See `Runtime`."""
        values = {
            "host": host,
            "port": str(port),
            "model": _model(target),
            "variant": target.variant.variant_id,
            "accelerator": target.point.accelerator,
            "accelerators": str(target.group.accelerators_per_replica),
            "concurrency": str(target.point.concurrency),
        }
        return Launch(
            argv=tuple(word.format_map(values) for word in self._words),
            health_path=self._health_path,
            metrics_path=self._metrics_path,
        )

    def read_metrics(self, text: str) -> ServerMetrics | None:
        """Any known family's names."""
        return any_server.read(text)

    def read_busy_slots(self, text: str) -> int | None:
        """No such page is known of servers in general."""
        del text
        return None


def _model(target: GroupTarget) -> str:
    scheme, _, rest = target.variant.artifact.partition(":")
    return str(locate(target.variant)) if scheme in ("package", "file") else rest
